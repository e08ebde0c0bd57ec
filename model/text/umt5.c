/* UMT5 encoder over a device's operations. On the host it is streamed: each layer's matrices are
 * multiplied where they lie in the mapped file (or converted one at a time), then their pages are let
 * go. On a GPU they stay up if they find room, else they are streamed as well. wan.md 2; text.h is the
 * door. */
#include "model/text/text.h"

#include "model/ops/ops.h"
#include "model/ops/text.h"
#include "model/text/umt5.h"
#include "model/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS (1 << 16)

enum { LINEAR_Q, LINEAR_K, LINEAR_V, LINEAR_O, LINEAR_GATE, LINEAR_UP, LINEAR_DOWN, LINEAR_COUNT };
enum { SHAPE_QKV, SHAPE_O, SHAPE_GATE, SHAPE_UP, SHAPE_DOWN, SHAPE_COUNT };
static const int shape_of[LINEAR_COUNT] = {SHAPE_QKV,  SHAPE_QKV, SHAPE_QKV, SHAPE_O,
                                           SHAPE_GATE, SHAPE_UP,  SHAPE_DOWN};

struct layer {
    struct tensor norm1, bias, norm2, matrix[LINEAR_COUNT];
    /* where memory is away and has the room: up there for as long as the encoder is open */
    struct op_linear *held[LINEAR_COUNT];
};

struct umt5 {
    struct umt5_config c;
    struct device *device; /* NULL: the host */
    const struct ops *ops;
    enum precision precision;
    enum dtype type; /* of activations */
    bool away; /* memory is not the host's */
    bool held, up; /* all matrices stay there; they went up, at the first encode() */
    const struct log *log;
    struct weights *file;
    struct {
        struct tensor shared, tokens, norm; /* shared and tokens are the same, or one is absent */
    } top;
    struct layer *layers;
    struct op_linear *shape[SHAPE_COUNT]; /* one a shape, pointed at each layer's matrix in turn */
};

/* Memory of one call. n tokens, D d_model, I heads * d_kv, F d_ff. */
struct work {
    struct rows x, norm; /* [n, D] */
    struct rows q, k, v; /* [n, I]; q takes the attention's output too */
    struct rows gate, up; /* [n, F] */
    struct rows wide; /* away: [n, D] fp32, for what comes and goes */
    float *weight; /* [max(D, buckets * heads)]: a norm, or a bias table */
    float *bias; /* [heads, 2n - 1] */
    int *bucket; /* [2n - 1] */
    void *attn; /* of attend() */
    void *scratch; /* of the linear layers */
    float *host; /* as `weight`, where that is away */
};

static bool rounds(const struct umt5 *u) { return u->precision != PRECISION_FP32; }

static struct rows take(struct arena *a, const struct umt5 *u, enum dtype type, int n, size_t cols)
{
    void *at = arena_take(a, (size_t)n * cols * dtype_size(type));
    return rows_of(u->device, at, type, n, (int64_t)cols);
}

static size_t most_weights(const struct umt5_config *c)
{
    size_t d = (size_t)c->d_model, table = (size_t)c->buckets * (size_t)c->n_heads;
    return d > table ? d : table;
}

static void carve(struct work *w, struct arena *a, const struct umt5 *u, int n, size_t scratch)
{
    const struct umt5_config *c = &u->c;
    size_t d = (size_t)c->d_model, inner = (size_t)c->n_heads * (size_t)c->d_kv;
    size_t ff = (size_t)c->d_ff, span = 2 * (size_t)n - 1;
    *w = (struct work){0};
    w->x = take(a, u, u->type, n, d);
    w->norm = take(a, u, u->type, n, d);
    w->q = take(a, u, u->type, n, inner);
    w->k = take(a, u, u->type, n, inner);
    w->v = take(a, u, u->type, n, inner);
    w->gate = take(a, u, u->type, n, ff);
    w->up = take(a, u, u->type, n, ff);
    if (u->away) w->wide = take(a, u, DTYPE_F32, n, d);
    w->weight = arena_take(a, most_weights(c) * sizeof(float));
    w->bias = arena_take(a, (size_t)c->n_heads * span * sizeof(float));
    w->bucket = arena_take(a, span * sizeof(int));
    w->attn = arena_take(a, u->ops->text->attend_scratch(n, c->n_heads, c->d_kv));
    w->scratch = arena_take(a, (scratch + 255) / 256 * 256);
}

/* in, out and activation of each shape of linear layer */
static struct linear_params params_of(const struct umt5 *u, int shape)
{
    const struct umt5_config *c = &u->c;
    int d = c->d_model, inner = c->n_heads * c->d_kv, ff = c->d_ff;
    struct linear_params l = {d, inner, u->precision, ACT_NONE, true, !u->held};
    switch (shape) {
    case SHAPE_O:
        l.in = inner, l.out = d;
        break;
    case SHAPE_GATE:
        l.out = ff, l.act = ACT_GELU_TANH;
        break;
    case SHAPE_UP:
        l.out = ff;
        break;
    case SHAPE_DOWN:
        l.in = ff, l.out = d;
        break;
    default:
        break;
    }
    return l;
}

/* Of matrices, in the device's memory. */
static size_t matrix_bytes(const struct umt5 *u)
{
    size_t bytes = 0;
    for (int i = 0; i < (u->held ? LINEAR_COUNT : SHAPE_COUNT); i++) {
        struct linear_params p = params_of(u, u->held ? shape_of[i] : i);
        bytes += u->ops->linear_bytes(&p) * (size_t)(u->held ? u->c.n_layers : 1);
    }
    return bytes;
}

static size_t work_bytes(const struct umt5 *u, int n)
{
    struct arena count = {0};
    struct work w;
    size_t scratch = 0;
    for (int i = 0; i < SHAPE_COUNT; i++) {
        struct linear_params p = params_of(u, i);
        size_t bytes = u->ops->linear_scratch(&p, n);
        if (bytes > scratch) scratch = bytes;
    }
    carve(&w, &count, u, n, scratch);
    return count.used;
}

/* Where it computes, and whether its matrices stay up: if they find room beside a full prompt. */
static int place(struct umt5 *u, struct device *device, enum precision precision, struct err *e)
{
    u->device = device;
    u->precision = precision;
    u->away = device_place(device) != PLACE_HOST;
    u->ops = ops_of(device);
    if (!u->ops || !u->ops->text)
        return err_set(e, ERR_DEVICE, "%s: this build has no text encoder for it; try --device cpu",
                       device_name(device));
    u->type = DTYPE_F32;
    if (!u->away) return 0;
    if (u->ops->type(device, precision, &u->type, e) < 0) return -1;
    u->held = true;
    u->held = matrix_bytes(u) + work_bytes(u, 512) <= device_room(device);
    return 0;
}

size_t umt5_bytes(const struct umt5_config *c, struct device *device, enum precision precision,
                  int n)
{
    struct umt5 u = {.c = *c};
    struct err ignored = {0};
    if (place(&u, device, precision, &ignored) < 0) return 0;
    /* files hold bf16: on the host fp32 arithmetic keeps one converted matrix a shape, bf16 none */
    bool keeps = u.away || precision != PRECISION_BF16;
    return work_bytes(&u, n) + (keeps ? matrix_bytes(&u) : 0);
}

static int bind(struct umt5 *u, struct err *e)
{
    const struct umt5_config *c = &u->c;
    int64_t d = c->d_model, inner = (int64_t)c->n_heads * c->d_kv, ff = c->d_ff,
            vocab = c->vocab_size;
    const struct bind_row top[] = {
        {"shared.weight", offsetof(struct umt5, top.shared), 2, {vocab, d}, true},
        {"encoder.embed_tokens.weight", offsetof(struct umt5, top.tokens), 2, {vocab, d}, true},
        {"encoder.final_layer_norm.weight", offsetof(struct umt5, top.norm), 1, {d}, false},
    };
#define LAYER(field, name, n, ...)                                                                 \
    {                                                                                              \
        "encoder.block.%d.layer." name ".weight", offsetof(struct layer, field), n, {__VA_ARGS__}, \
            false                                                                                  \
    }
    const struct bind_row rows[] = {
        LAYER(norm1, "0.layer_norm", 1, d),
        LAYER(matrix[LINEAR_Q], "0.SelfAttention.q", 2, inner, d),
        LAYER(matrix[LINEAR_K], "0.SelfAttention.k", 2, inner, d),
        LAYER(matrix[LINEAR_V], "0.SelfAttention.v", 2, inner, d),
        LAYER(matrix[LINEAR_O], "0.SelfAttention.o", 2, d, inner),
        LAYER(bias, "0.SelfAttention.relative_attention_bias", 2, c->buckets, c->n_heads),
        LAYER(norm2, "1.layer_norm", 1, d),
        LAYER(matrix[LINEAR_GATE], "1.DenseReluDense.wi_0", 2, ff, d),
        LAYER(matrix[LINEAR_UP], "1.DenseReluDense.wi_1", 2, ff, d),
        LAYER(matrix[LINEAR_DOWN], "1.DenseReluDense.wo", 2, d, ff),
    };
#undef LAYER
    /* the rest of a whole UMT5; a tokenizer that lies inside; a mark that says nothing of these */
    static const char *const ignore[] = {"decoder.", "lm_head.", "spiece_model", "scaled_fp8",
                                         NULL};
    if (weights_bind(u->file, u, top, ARRAY_LEN(top), 0, e) < 0) return -1;
    if (!u->top.shared.data) u->top.shared = u->top.tokens;
    if (!u->top.shared.data)
        return err_set(e, ERR_INPUT,
                       "%s: neither shared.weight nor encoder.embed_tokens.weight [%d, %d] is "
                       "there",
                       weights_path(u->file), c->vocab_size, c->d_model);
    u->layers = calloc((size_t)c->n_layers, sizeof *u->layers);
    if (!u->layers) return err_set(e, ERR_RESOURCE, "no memory for %d layers", c->n_layers);
    for (int i = 0; i < c->n_layers; i++)
        if (weights_bind(u->file, &u->layers[i], rows, ARRAY_LEN(rows), i, e) < 0) return -1;
    return weights_all_used(u->file, ignore, e);
}

static int open_matrices(struct umt5 *u, struct err *e)
{
    struct linear_stage stage = {0};
    int rc = 0;
    for (int i = 0; i < SHAPE_COUNT && !u->held; i++) {
        struct linear_params p = params_of(u, i);
        if (u->ops->linear_open(&u->shape[i], u->device, &p, NULL, NULL, NULL, e) < 0) return -1;
    }
    for (int n = 0; n < u->c.n_layers && u->held && rc == 0; n++)
        for (int i = 0; i < LINEAR_COUNT && rc == 0; i++) {
            struct layer *l = &u->layers[n];
            struct linear_params p = params_of(u, shape_of[i]);
            rc = u->ops->linear_open(&l->held[i], u->device, &p, &l->matrix[i], NULL, &stage, e);
            if (rc == 0) weights_drop(u->file, &l->matrix[i]);
        }
    free(stage.data);
    return rc;
}

int umt5_open(struct umt5 **out, struct device *device, const char *dir, enum precision precision,
              const struct log *log, struct err *e)
{
    char path[4096];
    *out = NULL;
    struct umt5 *u = calloc(1, sizeof *u);
    if (!u) return err_set(e, ERR_RESOURCE, "no memory for the text encoder");
    u->log = log;
    if ((size_t)snprintf(path, sizeof path, "%s/config.json", dir) >= sizeof path) {
        err_set(e, ERR_INPUT, "%.200s...: the path is too long", dir);
        goto fail;
    }
    if (umt5_config_read(&u->c, path, e) < 0 || place(u, device, precision, e) < 0) goto fail;
    if (weights_open(&u->file, dir, "model", e) < 0) goto fail;
    if (bind(u, e) < 0 || (!u->away && open_matrices(u, e) < 0)) goto fail;
    if (u->away)
        log_line(log, 1, "text encoder on %s, %s, %.0f MiB of matrices %s", device_name(device),
                 precision_name(precision), (double)matrix_bytes(u) / 1048576,
                 u->held ? "stay there" : "at a time, streamed");
    *out = u;
    return 0;
fail:
    umt5_close(u);
    return -1;
}

void umt5_close(struct umt5 *u)
{
    if (!u) return;
    for (int i = 0; i < SHAPE_COUNT; i++)
        if (u->shape[i]) u->ops->linear_close(u->shape[i]);
    for (int n = 0; n < u->c.n_layers && u->layers; n++)
        for (int i = 0; i < LINEAR_COUNT; i++)
            if (u->layers[n].held[i]) u->ops->linear_close(u->layers[n].held[i]);
    free(u->layers);
    weights_close(u->file);
    free(u);
}

/* A small tensor into w->weight as fp32, rounded as a bf16 model would hold it. */
static int small_weight(const struct umt5 *u, struct work *w, const struct tensor *t, struct err *e)
{
    float *to = u->away ? w->host : w->weight;
    size_t n = tensor_len(t);
    dtype_to_f32(to, t->data, t->dtype, n);
    if (rounds(u)) round_rows(to, n);
    return u->away ? device_upload(u->device, w->weight, to, n * sizeof *to, e) : 0;
}

static int linear(struct umt5 *u, struct layer *l, int which, const struct rows *y,
                  const struct rows *x, void *scratch, struct err *e)
{
    if (u->held) return u->ops->linear(l->held[which], y, x, scratch, e);
    struct op_linear *shape = u->shape[shape_of[which]];
    if (u->ops->linear_rebind(shape, &l->matrix[which], NULL, e) < 0) return -1;
    if (u->ops->linear(shape, y, x, scratch, e) < 0) return -1;
    weights_drop(u->file, &l->matrix[which]);
    return 0;
}

static int normed(struct umt5 *u, struct work *w, const struct rows *y, const struct tensor *weight,
                  struct err *e)
{
    if (small_weight(u, w, weight, e) < 0) return -1;
    return u->ops->text->norm(u->device, y, &w->x, w->weight, u->c.eps, rounds(u), e);
}

static int residual(struct umt5 *u, struct work *w, struct err *e)
{
    struct gate_params p = {.round = rounds(u)};
    return u->ops->gate(u->device, &w->x, &w->norm, &p, e);
}

static int project(struct umt5 *u, struct work *w, struct layer *l, struct err *e)
{
    const struct rows y[] = {w->q, w->k, w->v};
    if (u->held) return u->ops->linear_several(&l->held[LINEAR_Q], y, 3, &w->norm, w->scratch, e);
    for (int i = 0; i < 3; i++)
        if (linear(u, l, LINEAR_Q + i, &y[i], &w->norm, w->scratch, e) < 0) return -1;
    return 0;
}

static int attention(struct umt5 *u, struct work *w, struct layer *l, struct err *e)
{
    struct text_attention a = {w->q, w->q, w->k, w->v, u->c.n_heads, w->bias, rounds(u)};
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

static int feed_forward(struct umt5 *u, struct work *w, struct layer *l, struct err *e)
{
    if (normed(u, w, &w->norm, &l->norm2, e) < 0 ||
        linear(u, l, LINEAR_GATE, &w->gate, &w->norm, w->scratch, e) < 0 ||
        linear(u, l, LINEAR_UP, &w->up, &w->norm, w->scratch, e) < 0 ||
        u->ops->text->multiply(u->device, &w->gate, &w->up, rounds(u), e) < 0 ||
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
    if (rounds(u)) round_rows(x, (size_t)n * d);
    return 0;
}

/* The tokens' rows into w->x. */
static int enter(const struct umt5 *u, struct work *w, const int *ids, int n, struct err *e)
{
    if (!u->away) return gather(u, w->x.at, ids, n, e);
    size_t bytes = (size_t)n * (size_t)u->c.d_model * sizeof(float);
    float *x = malloc(bytes);
    if (!x) return err_set(e, ERR_RESOURCE, "no memory for %d tokens", n);
    int rc = gather(u, x, ids, n, e);
    if (rc == 0) rc = device_upload(u->device, w->wide.at, x, bytes, e);
    if (rc == 0) rc = u->ops->cast(u->device, &w->x, &w->wide, rounds(u), e);
    free(x);
    return rc;
}

/* The norm of w->x → embeds. */
static int leave(struct umt5 *u, struct work *w, float *embeds, struct err *e)
{
    struct rows y = rows_of(u->device, embeds, DTYPE_F32, w->x.n, w->x.cols);
    if (!u->away) return normed(u, w, &y, &u->top.norm, e);
    if (normed(u, w, &w->norm, &u->top.norm, e) < 0 ||
        u->ops->cast(u->device, &w->wide, &w->norm, false, e) < 0)
        return -1;
    size_t bytes = (size_t)y.n * (size_t)y.cols * sizeof(float);
    return device_download(u->device, embeds, w->wide.at, bytes, e);
}

static int prepare(struct umt5 *u, struct work *w, struct arena *a, int n, struct err *e)
{
    size_t scratch = 0, bytes, span = 2 * (size_t)n - 1;
    struct arena count = {0};
    for (int k = 0; k < (u->held ? u->c.n_layers : 1); k++)
        for (int i = 0; i < (u->held ? LINEAR_COUNT : SHAPE_COUNT); i++) {
            struct op_linear *l = u->held ? u->layers[k].held[i] : u->shape[i];
            if (u->ops->linear_prepare(l, n, &bytes, e) < 0) return -1;
            if (bytes > scratch) scratch = bytes;
        }
    carve(w, &count, u, n, scratch);
    if (arena_open_on(a, u->device, count.used, e) < 0) return -1;
    carve(w, a, u, n, scratch);
    int *bucket = w->bucket;
    if (u->away) {
        w->host = malloc(most_weights(&u->c) * sizeof(float));
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
    struct work w = {0};
    int status = -1;
    if (n < 1 || n > MAX_TOKENS)
        return err_set(e, ERR_BUG, "%d tokens to encode, 1 to %d are possible", n, MAX_TOKENS);
    if (u->away && !u->up && open_matrices(u, e) < 0) return -1;
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
