/* One call of the UMT5 encoder: token ids to embeds, layer by layer. wan.md 2. */
#include "model/text/umt5_internal.h"

#include <stdlib.h>
#include <string.h>

/* A small tensor into w->weight as fp32, rounded as a bf16 model would hold it. */
static int small_weight(const struct umt5 *u, struct umt5_work *w, const struct tensor *t,
                        struct err *e)
{
    float *to = u->away ? w->host : w->weight;
    size_t n = tensor_len(t);
    dtype_to_f32(to, t->data, t->dtype, n);
    if (umt5_rounds(u)) round_rows(to, n);
    return u->away ? device_upload(u->device, w->weight, to, n * sizeof *to, e) : 0;
}

static int linear(struct umt5 *u, struct umt5_layer *l, int which, const struct rows *y,
                  const struct rows *x, void *scratch, struct err *e)
{
    if (u->held) return u->ops->linear(l->held[which], y, x, scratch, e);
    struct op_linear *shape = u->shape[umt5_shape_of[which]];
    if (u->ops->linear_rebind(shape, &l->matrix[which], NULL, e) < 0) return -1;
    if (u->ops->linear(shape, y, x, scratch, e) < 0) return -1;
    weights_drop(u->file, &l->matrix[which]);
    return 0;
}

static int normed(struct umt5 *u, struct umt5_work *w, const struct rows *y,
                  const struct tensor *weight, struct err *e)
{
    if (small_weight(u, w, weight, e) < 0) return -1;
    return u->ops->text->norm(u->device, y, &w->x, w->weight, u->c.eps, umt5_rounds(u), e);
}

static int residual(struct umt5 *u, struct umt5_work *w, struct err *e)
{
    struct gate_params p = {.round = umt5_rounds(u)};
    return u->ops->gate(u->device, &w->x, &w->norm, &p, e);
}

/* One by one also where all three lie there: as one product of a GPU they round otherwise than alone, and a
 * clip is the same whether its text's matrices stay or are streamed. */
static int project(struct umt5 *u, struct umt5_work *w, struct umt5_layer *l, struct err *e)
{
    const struct rows y[] = {w->q, w->k, w->v};
    for (int i = 0; i < 3; i++)
        if (linear(u, l, LINEAR_Q + i, &y[i], &w->norm, w->scratch, e) < 0) return -1;
    return 0;
}

static int attention(struct umt5 *u, struct umt5_work *w, struct umt5_layer *l, struct err *e)
{
    struct text_attention a = {w->q, w->q, w->k, w->v, u->c.n_heads, w->bias, umt5_rounds(u)};
    int span = 2 * (int)w->x.n - 1;
    if (normed(u, w, &w->norm, &l->norm1, e) < 0 || project(u, w, l, e) < 0 ||
        small_weight(u, w, &l->bias, e) < 0)
        return -1;
    if (u->ops->text->spread_bias(u->device, w->bias, w->weight, w->bucket, u->c.n_heads, span, e) <
            0 ||
        u->ops->text->attend(u->device, &a, w->attn, e) < 0)
        return -1;
    if (linear(u, l, LINEAR_O, &w->norm, &w->q, w->scratch, e) < 0) return -1;
    return residual(u, w, e);
}

static int feed_forward(struct umt5 *u, struct umt5_work *w, struct umt5_layer *l, struct err *e)
{
    if (normed(u, w, &w->norm, &l->norm2, e) < 0 ||
        linear(u, l, LINEAR_GATE, &w->gate, &w->norm, w->scratch, e) < 0 ||
        linear(u, l, LINEAR_UP, &w->up, &w->norm, w->scratch, e) < 0 ||
        u->ops->text->multiply(u->device, &w->gate, &w->up, umt5_rounds(u), e) < 0 ||
        linear(u, l, LINEAR_DOWN, &w->norm, &w->gate, w->scratch, e) < 0)
        return -1;
    return residual(u, w, e);
}

/* Only the rows asked for are read: n times d_model numbers of a table that may have gigabytes. */
static int gather(const struct umt5 *u, float *x, const int *ids, int n, struct err *e)
{
    const struct tensor *t = &u->top.shared;
    size_t d = (size_t)u->c.d_model, row = d * dtype_size(t->dtype);
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= u->c.vocab_size)
            return err_set(e, ERR_INPUT,
                           "token id %d is outside the text encoder's vocabulary of %d; do "
                           "tokenizer and text_encoder belong together?",
                           ids[i], u->c.vocab_size);
        dtype_to_f32(x + (size_t)i * d, (const char *)t->data + (size_t)ids[i] * row, t->dtype, d);
    }
    if (umt5_rounds(u)) round_rows(x, (size_t)n * d);
    return 0;
}

/* The tokens' rows into w->x. */
static int enter(const struct umt5 *u, struct umt5_work *w, const int *ids, int n, struct err *e)
{
    if (!u->away) return gather(u, w->x.at, ids, n, e);
    size_t bytes = (size_t)n * (size_t)u->c.d_model * sizeof(float);
    float *x = malloc(bytes);
    if (!x) return err_set(e, ERR_RESOURCE, "no memory for %d tokens", n);
    int rc = gather(u, x, ids, n, e);
    if (rc == 0) rc = device_upload(u->device, w->wide.at, x, bytes, e);
    if (rc == 0) rc = u->ops->cast(u->device, &w->x, &w->wide, umt5_rounds(u), e);
    free(x);
    return rc;
}

/* The norm of w->x → embeds. */
static int leave(struct umt5 *u, struct umt5_work *w, float *embeds, struct err *e)
{
    struct rows y = rows_of(u->device, embeds, DTYPE_F32, w->x.n, w->x.cols);
    if (!u->away) return normed(u, w, &y, &u->top.norm, e);
    if (normed(u, w, &w->norm, &u->top.norm, e) < 0 ||
        u->ops->cast(u->device, &w->wide, &w->norm, false, e) < 0)
        return -1;
    size_t bytes = (size_t)y.n * (size_t)y.cols * sizeof(float);
    return device_download(u->device, embeds, w->wide.at, bytes, e);
}

static int prepare(struct umt5 *u, struct umt5_work *w, struct arena *a, int n, struct err *e)
{
    size_t scratch = 0, bytes, span = 2 * (size_t)n - 1;
    struct arena count = {0};
    for (int k = 0; k < (u->held ? u->c.n_layers : 1); k++)
        for (int i = 0; i < (u->held ? LINEAR_COUNT : SHAPE_COUNT); i++) {
            struct op_linear *l = u->held ? u->layers[k].held[i] : u->shape[i];
            if (u->ops->linear_prepare(l, n, &bytes, e) < 0) return -1;
            if (bytes > scratch) scratch = bytes;
        }
    umt5_carve(w, &count, u, n, scratch);
    if (arena_open_on(a, u->device, count.used, e) < 0) return -1;
    umt5_carve(w, a, u, n, scratch);
    int *bucket = w->bucket;
    if (u->away) {
        w->host = malloc(umt5_most_weights(&u->c) * sizeof(float));
        bucket = malloc(span * sizeof *bucket);
    }
    int rc = 0;
    if (!bucket || (u->away && !w->host))
        rc = err_set(e, ERR_RESOURCE, "no memory for %d tokens", n);
    for (int i = 0; i < 2 * n - 1 && rc == 0; i++)
        bucket[i] = umt5_bucket(i - (n - 1), u->c.buckets, u->c.max_distance);
    if (u->away && rc == 0)
        rc = device_upload(u->device, w->bucket, bucket, span * sizeof *bucket, e);
    if (u->away) free(bucket);
    return rc;
}

int umt5_encode(struct umt5 *u, float *embeds, const int *ids, int n,
                int (*progress)(void *ctx, int layer, int n_layers), void *ctx, struct err *e)
{
    struct arena a = {0};
    struct umt5_work w = {0};
    int status = -1;
    if (n < 1 || n > UMT5_MAX_TOKENS)
        return err_set(e, ERR_BUG, "%d tokens to encode, 1 to %d are possible", n, UMT5_MAX_TOKENS);
    if (u->away && !u->up && umt5_open_matrices(u, e) < 0) return -1;
    u->up = true;
    if (prepare(u, &w, &a, n, e) < 0) goto done;
    if (enter(u, &w, ids, n, e) < 0) goto done;
    for (int i = 0; i < u->c.n_layers; i++) {
        if (progress && progress(ctx, i, u->c.n_layers)) {
            err_set(e, ERR_CANCELLED, "cancelled while reading the prompt");
            goto done;
        }
        if (attention(u, &w, &u->layers[i], e) < 0) goto done;
        if (feed_forward(u, &w, &u->layers[i], e) < 0) goto done;
        log_line(u->log, 3, "text encoder: layer %d of %d", i + 1, u->c.n_layers);
    }
    status = leave(u, &w, embeds, e);
done:
    if (u->away) { /* what was put on the device's line may still use the arena */
        struct err ignored;
        device_wait(u->device, &ignored);
        free(w.host);
    }
    arena_close(&a);
    return status;
}
