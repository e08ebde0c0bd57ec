/* UMT5 encoder, streamed: each layer's matrices are multiplied where they lie in the mapped file
 * (or converted one at a time), then their pages are let go. wan.md 2; text.h is the door. */
#include "model/text/text.h"

#include "model/base/threads.h"
#include "model/ops/linear.h"
#include "model/text/umt5.h"
#include "model/weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS (1 << 16)

struct layer {
    struct tensor norm1, q, k, v, o, bias, norm2, gate, up, down;
};

enum { LINEAR_QKV, LINEAR_O, LINEAR_GATE, LINEAR_UP, LINEAR_DOWN, LINEAR_COUNT };

struct umt5 {
    struct umt5_config c;
    enum precision precision;
    const struct log *log;
    struct weights *file;
    struct {
        struct tensor shared, tokens, norm; /* shared and tokens are the same, or one is absent */
    } top;
    struct layer *layers;
    struct linear *linear[LINEAR_COUNT]; /* one a shape, pointed at each layer's matrix in turn */
};

/* Memory of one call. n tokens, D d_model, I heads * d_kv, F d_ff. */
struct work {
    float *x, *norm; /* [n, D] */
    float *q, *k, *v; /* [n, I]; q takes the attention's output too */
    float *gate, *up; /* [n, F] */
    float *weight; /* [max(D, buckets * heads)]: a norm, or a bias table, as fp32 */
    float *bias; /* [heads, 2n - 1] */
    int *bucket; /* [2n - 1] */
    float *attn; /* of umt5_attend() */
    void *scratch; /* of the linear layers */
};

static void carve(struct work *w, struct arena *a, const struct umt5_config *c, int n, int workers,
                  size_t scratch)
{
    size_t rows = (size_t)n, d = (size_t)c->d_model, inner = (size_t)c->n_heads * (size_t)c->d_kv;
    size_t ff = (size_t)c->d_ff, table = (size_t)c->buckets * (size_t)c->n_heads,
           span = 2 * rows - 1;
    w->x = arena_take(a, rows * d * sizeof(float));
    w->norm = arena_take(a, rows * d * sizeof(float));
    w->q = arena_take(a, rows * inner * sizeof(float));
    w->k = arena_take(a, rows * inner * sizeof(float));
    w->v = arena_take(a, rows * inner * sizeof(float));
    w->gate = arena_take(a, rows * ff * sizeof(float));
    w->up = arena_take(a, rows * ff * sizeof(float));
    w->weight = arena_take(a, (d > table ? d : table) * sizeof(float));
    w->bias = arena_take(a, (size_t)c->n_heads * span * sizeof(float));
    w->bucket = arena_take(a, span * sizeof(int));
    w->attn = arena_take(a, (size_t)workers * umt5_attn_scratch(n, c->d_kv) * sizeof(float));
    w->scratch = arena_take(a, scratch);
}

/* in, out and activation of each shape of linear layer */
static struct linear_params params_of(const struct umt5_config *c, enum precision p, int which)
{
    int d = c->d_model, inner = c->n_heads * c->d_kv, ff = c->d_ff;
    struct linear_params l = {d, inner, p, ACT_NONE, true, true};
    switch (which) {
    case LINEAR_O:
        l.in = inner, l.out = d;
        break;
    case LINEAR_GATE:
        l.out = ff, l.act = ACT_GELU_TANH;
        break;
    case LINEAR_UP:
        l.out = ff;
        break;
    case LINEAR_DOWN:
        l.in = ff, l.out = d;
        break;
    default:
        break;
    }
    return l;
}

size_t umt5_bytes(const struct umt5_config *c, enum precision precision, int n)
{
    struct arena count = {0};
    struct work w;
    size_t converted = 0, scratch = 0;
    for (int i = 0; i < LINEAR_COUNT; i++) {
        struct linear_params p = params_of(c, precision, i);
        /* files hold bf16: fp32 arithmetic keeps one converted matrix a shape, native bf16 none */
        if (precision != PRECISION_BF16) converted += linear_bytes(&p);
        size_t bytes = linear_scratch(&p, n);
        if (bytes > scratch) scratch = bytes;
    }
    carve(&w, &count, c, n, threads_count(), scratch);
    return count.used + converted;
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
        LAYER(q, "0.SelfAttention.q", 2, inner, d),
        LAYER(k, "0.SelfAttention.k", 2, inner, d),
        LAYER(v, "0.SelfAttention.v", 2, inner, d),
        LAYER(o, "0.SelfAttention.o", 2, d, inner),
        LAYER(bias, "0.SelfAttention.relative_attention_bias", 2, c->buckets, c->n_heads),
        LAYER(norm2, "1.layer_norm", 1, d),
        LAYER(gate, "1.DenseReluDense.wi_0", 2, ff, d),
        LAYER(up, "1.DenseReluDense.wi_1", 2, ff, d),
        LAYER(down, "1.DenseReluDense.wo", 2, d, ff),
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

int umt5_open(struct umt5 **out, const char *dir, enum precision precision, const struct log *log,
              struct err *e)
{
    char path[4096];
    *out = NULL;
    struct umt5 *u = calloc(1, sizeof *u);
    if (!u) return err_set(e, ERR_RESOURCE, "no memory for the text encoder");
    u->precision = precision;
    u->log = log;
    if ((size_t)snprintf(path, sizeof path, "%s/config.json", dir) >= sizeof path) {
        err_set(e, ERR_INPUT, "%.200s...: the path is too long", dir);
        goto fail;
    }
    if (umt5_config_read(&u->c, path, e) < 0) goto fail;
    if (weights_open(&u->file, dir, "model", e) < 0) goto fail;
    if (bind(u, e) < 0) goto fail;
    for (int i = 0; i < LINEAR_COUNT; i++) {
        struct linear_params p = params_of(&u->c, precision, i);
        if (linear_open(&u->linear[i], &p, NULL, NULL, e) < 0) goto fail;
    }
    *out = u;
    return 0;
fail:
    umt5_close(u);
    return -1;
}

void umt5_close(struct umt5 *u)
{
    if (!u) return;
    for (int i = 0; i < LINEAR_COUNT; i++)
        linear_close(u->linear[i]);
    free(u->layers);
    weights_close(u->file);
    free(u);
}

/* A small tensor as fp32, rounded as a bf16 model would hold it. */
static void small_weight(const struct umt5 *u, float *to, const struct tensor *t)
{
    dtype_to_f32(to, t->data, t->dtype, tensor_len(t));
    if (u->precision != PRECISION_FP32) round_rows(to, tensor_len(t));
}

struct rows_job {
    float *y;
    const float *x, *weight;
    size_t n, chunk; /* row length; rows or elements a task */
    size_t total;
    double eps;
    bool round;
};

#define ROW_CHUNK 8
#define ELEMENT_CHUNK 65536

/* y = weight * cast(x / rms(x)): the cast lies between the two products. wan.md 2.2 */
static void rms_task(void *ctx, int task, int worker)
{
    const struct rows_job *j = ctx;
    (void)worker;
    size_t first = (size_t)task * ROW_CHUNK,
           end = first + ROW_CHUNK < j->total ? first + ROW_CHUNK : j->total;
    for (size_t r = first; r < end; r++) {
        const float *x = j->x + r * j->n;
        float *y = j->y + r * j->n;
        double sum = 0;
        for (size_t i = 0; i < j->n; i++)
            sum += (double)x[i] * (double)x[i];
        float scale = (float)(1 / sqrt(sum / (double)j->n + j->eps));
        for (size_t i = 0; i < j->n; i++)
            y[i] = j->round ? bf16_round(bf16_round(x[i] * scale) * j->weight[i])
                            : x[i] * scale * j->weight[i];
    }
}

static void rms(const struct umt5 *u, float *y, const float *x, const float *weight, int n)
{
    struct rows_job j = {.y = y,
                         .x = x,
                         .weight = weight,
                         .n = (size_t)u->c.d_model,
                         .total = (size_t)n,
                         .eps = u->c.eps,
                         .round = u->precision != PRECISION_FP32};
    threads_run((n + ROW_CHUNK - 1) / ROW_CHUNK, rms_task, &j);
}

static void multiply_task(void *ctx, int task, int worker)
{
    const struct rows_job *j = ctx;
    (void)worker;
    size_t first = (size_t)task * ELEMENT_CHUNK;
    size_t end = first + ELEMENT_CHUNK < j->total ? first + ELEMENT_CHUNK : j->total;
    for (size_t i = first; i < end; i++)
        j->y[i] *= j->x[i];
    if (j->round)
        for (size_t i = first; i < end; i++)
            j->y[i] = bf16_round(j->y[i]);
}

static void multiply(const struct umt5 *u, float *y, const float *x, size_t total)
{
    struct rows_job j = {.y = y, .x = x, .total = total, .round = u->precision != PRECISION_FP32};
    threads_run((int)((total + ELEMENT_CHUNK - 1) / ELEMENT_CHUNK), multiply_task, &j);
}

static int linear(struct umt5 *u, int which, const struct tensor *weight, float *y, const float *x,
                  int n, void *scratch, struct err *e)
{
    if (linear_rebind(u->linear[which], weight, NULL, e) < 0) return -1;
    if (linear_run(u->linear[which], y, x, n, scratch, e) < 0) return -1;
    weights_drop(u->file, weight);
    return 0;
}

/* [buckets, heads] → [heads, 2n - 1], by key - query */
static void spread_bias(const struct umt5 *u, struct work *w, const struct tensor *table, int n)
{
    size_t heads = (size_t)u->c.n_heads, span = 2 * (size_t)n - 1;
    small_weight(u, w->weight, table);
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < span; i++)
            w->bias[h * span + i] = w->weight[(size_t)w->bucket[i] * heads + h];
}

static void residual(const struct umt5 *u, struct work *w, int n)
{
    struct gate_params p = {.round = u->precision != PRECISION_FP32};
    residual_gate(w->x, w->norm, n, u->c.d_model, &p);
}

static int attention(struct umt5 *u, struct work *w, const struct layer *l, int n, struct err *e)
{
    small_weight(u, w->weight, &l->norm1);
    rms(u, w->norm, w->x, w->weight, n);
    if (linear(u, LINEAR_QKV, &l->q, w->q, w->norm, n, w->scratch, e) < 0) return -1;
    if (linear(u, LINEAR_QKV, &l->k, w->k, w->norm, n, w->scratch, e) < 0) return -1;
    if (linear(u, LINEAR_QKV, &l->v, w->v, w->norm, n, w->scratch, e) < 0) return -1;
    spread_bias(u, w, &l->bias, n);
    umt5_attend(&(struct umt5_attn){.n = n,
                                    .n_heads = u->c.n_heads,
                                    .d_kv = u->c.d_kv,
                                    .q = w->q,
                                    .k = w->k,
                                    .v = w->v,
                                    .o = w->q,
                                    .bias = w->bias,
                                    .round = u->precision != PRECISION_FP32,
                                    .scratch = w->attn});
    if (linear(u, LINEAR_O, &l->o, w->norm, w->q, n, w->scratch, e) < 0) return -1;
    residual(u, w, n);
    return 0;
}

static int feed_forward(struct umt5 *u, struct work *w, const struct layer *l, int n, struct err *e)
{
    small_weight(u, w->weight, &l->norm2);
    rms(u, w->norm, w->x, w->weight, n);
    if (linear(u, LINEAR_GATE, &l->gate, w->gate, w->norm, n, w->scratch, e) < 0) return -1;
    if (linear(u, LINEAR_UP, &l->up, w->up, w->norm, n, w->scratch, e) < 0) return -1;
    multiply(u, w->gate, w->up, (size_t)n * (size_t)u->c.d_ff);
    if (linear(u, LINEAR_DOWN, &l->down, w->norm, w->gate, n, w->scratch, e) < 0) return -1;
    residual(u, w, n);
    return 0;
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
    if (u->precision != PRECISION_FP32) round_rows(x, (size_t)n * d);
    return 0;
}

static int prepare(struct umt5 *u, struct work *w, struct arena *a, int n, struct err *e)
{
    size_t scratch = 0, bytes;
    struct arena count = {0};
    for (int i = 0; i < LINEAR_COUNT; i++) {
        if (linear_prepare(u->linear[i], n, &bytes, e) < 0) return -1;
        if (bytes > scratch) scratch = bytes;
    }
    carve(w, &count, &u->c, n, threads_count(), scratch);
    if (arena_open(a, count.used, e) < 0) return -1;
    carve(w, a, &u->c, n, threads_count(), scratch);
    for (int i = 0; i < 2 * n - 1; i++)
        w->bucket[i] = umt5_bucket(i - (n - 1), u->c.buckets, u->c.max_distance);
    return 0;
}

int umt5_encode(struct umt5 *u, float *embeds, const int *ids, int n,
                int (*progress)(void *ctx, int layer, int n_layers), void *ctx, struct err *e)
{
    struct arena a = {0};
    struct work w;
    int status = -1;
    if (n < 1 || n > MAX_TOKENS)
        return err_set(e, ERR_BUG, "%d tokens to encode, 1 to %d are possible", n, MAX_TOKENS);
    if (prepare(u, &w, &a, n, e) < 0) return -1;
    if (gather(u, w.x, ids, n, e) < 0) goto done;
    for (int i = 0; i < u->c.n_layers; i++) {
        if (progress && progress(ctx, i, u->c.n_layers)) {
            err_set(e, ERR_CANCELLED, "cancelled while reading the prompt");
            goto done;
        }
        if (attention(u, &w, &u->layers[i], n, e) < 0) goto done;
        if (feed_forward(u, &w, &u->layers[i], n, e) < 0) goto done;
        log_line(u->log, 3, "text encoder: layer %d of %d", i + 1, u->c.n_layers);
    }
    small_weight(u, w.weight, &u->top.norm);
    rms(u, embeds, w.x, w.weight, n);
    status = 0;
done:
    arena_close(&a);
    return status;
}
