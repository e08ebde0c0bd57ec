/* UMT5 encoder over a device's operations. On the host it is streamed: each layer's matrices are
 * multiplied where they lie in the mapped file (or converted one at a time), then their pages are let
 * go. On a GPU they stay up if they find room, else they are streamed as well. wan.md 2; text.h is the
 * door. */
#include "model/text/text.h"

#include "model/text/umt5_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const int umt5_shape_of[LINEAR_COUNT] = {SHAPE_QKV,  SHAPE_QKV, SHAPE_QKV, SHAPE_O,
                                         SHAPE_GATE, SHAPE_UP,  SHAPE_DOWN};

static struct rows take(struct arena *a, const struct umt5 *u, enum dtype type, int n, size_t cols)
{
    void *at = arena_take(a, (size_t)n * cols * dtype_size(type));
    return rows_of(u->device, at, type, n, (int64_t)cols);
}

size_t umt5_most_weights(const struct umt5_config *c)
{
    size_t d = (size_t)c->d_model, table = (size_t)c->buckets * (size_t)c->n_heads;
    return d > table ? d : table;
}

void umt5_carve(struct umt5_work *w, struct arena *a, const struct umt5 *u, int n, size_t scratch)
{
    const struct umt5_config *c = &u->c;
    size_t d = (size_t)c->d_model, inner = (size_t)c->n_heads * (size_t)c->d_kv;
    size_t ff = (size_t)c->d_ff, span = 2 * (size_t)n - 1;
    *w = (struct umt5_work){0};
    w->x = take(a, u, u->type, n, d);
    w->norm = take(a, u, u->type, n, d);
    w->q = take(a, u, u->type, n, inner);
    w->k = take(a, u, u->type, n, inner);
    w->v = take(a, u, u->type, n, inner);
    w->gate = take(a, u, u->type, n, ff);
    w->up = take(a, u, u->type, n, ff);
    if (u->away) w->wide = take(a, u, DTYPE_F32, n, d);
    w->weight = arena_take(a, umt5_most_weights(c) * sizeof(float));
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
    struct linear_params l = {
        .in = d, .out = inner, .precision = u->precision, .round_out = true, .borrow = !u->held};
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
    struct arena count = {0};
    for (int n = 0; n < (u->held ? u->c.n_layers : 1); n++)
        for (int i = 0; i < (u->held ? LINEAR_COUNT : SHAPE_COUNT); i++) {
            struct linear_params p = params_of(u, u->held ? umt5_shape_of[i] : i);
            arena_take(&count, u->ops->linear_bytes(&p));
        }
    return count.used;
}

static size_t work_bytes(const struct umt5 *u, int n)
{
    struct arena count = {0};
    struct umt5_work w;
    size_t scratch = 0;
    for (int i = 0; i < SHAPE_COUNT; i++) {
        struct linear_params p = params_of(u, i);
        size_t bytes = u->ops->linear_scratch(&p, n);
        if (bytes > scratch) scratch = bytes;
    }
    umt5_carve(&w, &count, u, n, scratch);
    return count.used;
}

/* Whether matrices stay up: if they find room beside a full prompt. */
static void choose_held(struct umt5 *u, size_t room)
{
    u->held = true;
    u->held = matrix_bytes(u) + work_bytes(u, 512) <= room;
}

/* Where it computes. */
static int place(struct umt5 *u, struct device *device, enum precision precision, size_t room,
                 struct err *e)
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
    choose_held(u, room);
    return 0;
}

size_t umt5_bytes(const struct umt5_config *c, struct device *device, enum precision precision,
                  int n)
{
    return umt5_bytes_within(c, device, precision, n, device_room(device));
}

size_t umt5_bytes_within(const struct umt5_config *c, struct device *device,
                         enum precision precision, int n, size_t room)
{
    struct umt5 u = {.c = *c};
    struct err ignored = {0};
    if (place(&u, device, precision, room, &ignored) < 0) return 0;
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
        "encoder.block.%d.layer." name ".weight", offsetof(struct umt5_layer, field), n,           \
            {__VA_ARGS__}, false                                                                   \
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

static void close_matrices(struct umt5 *u)
{
    for (int i = 0; i < SHAPE_COUNT; i++)
        if (u->shape[i]) u->ops->linear_close(u->shape[i]);
    memset(u->shape, 0, sizeof u->shape);
    arena_close(&u->matrices);
    for (int n = 0; n < u->c.n_layers && u->layers; n++) {
        for (int i = 0; i < LINEAR_COUNT; i++)
            if (u->layers[n].held[i]) u->ops->linear_close(u->layers[n].held[i]);
        memset(u->layers[n].held, 0, sizeof u->layers[n].held);
    }
}

static int open_matrix(struct umt5 *u, struct op_linear **at, int shape, struct tensor *weight,
                       struct linear_stage *stage, struct err *e)
{
    struct linear_params p = params_of(u, shape);
    if (u->away) p.at = arena_take(&u->matrices, u->ops->linear_bytes(&p));
    if (u->ops->linear_open(at, u->device, &p, weight, NULL, stage, e) < 0) return -1;
    if (weight) weights_drop(u->file, weight);
    return 0;
}

int umt5_open_matrices(struct umt5 *u, struct err *e)
{
    struct linear_stage stage = {0};
    if (u->away) { /* there may be more room than when it was opened, or less */
        choose_held(u, device_room(u->device));
        log_line(u->log, 1, "text encoder on %s, %s, %.0f MiB of matrices %s",
                 device_name(u->device), precision_name(u->precision),
                 (double)matrix_bytes(u) / 1048576, u->held ? "stay there" : "at a time, streamed");
    }
    int rc = u->away ? arena_open_on(&u->matrices, u->device, matrix_bytes(u), e) : 0;
    for (int i = 0; i < SHAPE_COUNT && !u->held && rc == 0; i++)
        rc = open_matrix(u, &u->shape[i], i, NULL, NULL, e);
    for (int n = 0; n < u->c.n_layers && u->held && rc == 0; n++)
        for (int i = 0; i < LINEAR_COUNT && rc == 0; i++) {
            struct umt5_layer *l = &u->layers[n];
            rc = open_matrix(u, &l->held[i], umt5_shape_of[i], &l->matrix[i], &stage, e);
        }
    free(stage.data);
    if (rc < 0) close_matrices(u);
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
    if (umt5_config_read(&u->c, path, e) < 0 ||
        place(u, device, precision, device_room(device), e) < 0)
        goto fail;
    if (weights_open(&u->file, dir, "model", e) < 0) goto fail;
    if (bind(u, e) < 0 || (!u->away && umt5_open_matrices(u, e) < 0)) goto fail;
    *out = u;
    return 0;
fail:
    umt5_close(u);
    return -1;
}

void umt5_close(struct umt5 *u)
{
    if (!u) return;
    if (u->ops) close_matrices(u);
    free(u->layers);
    weights_close(u->file);
    free(u);
}
