/* Names, shapes and kinds of every tensor of WanTransformer3DModel (wan.md 3.1), and opening them.
 */
#include "model/dit/dit_internal.h"

#include "model/dit/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK(field) offsetof(struct dit_block, field)
#define TOP(field) offsetof(struct dit_top, field)

int dit_block_layers(const struct dit_config *c, struct layer_row rows[DIT_MAX_ROWS])
{
    int D = c->n_heads * c->head_dim, F = c->ffn_dim, n = 0;
#define L(field, nm, out, in, act, kind)                                                           \
    rows[n++] =                                                                                    \
        (struct layer_row){"blocks.%d." nm, BLOCK(field), out, in, act, kind, false, false, false}
    L(q, "attn1.to_q", D, D, ACT_NONE, ROWS_TOKENS);
    L(k, "attn1.to_k", D, D, ACT_NONE, ROWS_TOKENS);
    L(v, "attn1.to_v", D, D, ACT_NONE, ROWS_TOKENS);
    L(o, "attn1.to_out.0", D, D, ACT_NONE, ROWS_TOKENS);
    L(xq, "attn2.to_q", D, D, ACT_NONE, ROWS_TOKENS);
    L(xk, "attn2.to_k", D, D, ACT_NONE, ROWS_TEXT);
    L(xv, "attn2.to_v", D, D, ACT_NONE, ROWS_TEXT);
    L(xo, "attn2.to_out.0", D, D, ACT_NONE, ROWS_TOKENS);
    L(up, "ffn.net.0.proj", F, D, ACT_GELU_TANH, ROWS_CHAIN);
    L(down, "ffn.net.2", D, F, ACT_NONE, ROWS_CHAIN);
    for (int i = 0; i < n; i++) { /* read by rms_norm_rope() and residual_gate() */
        size_t at = rows[i].offset;
        rows[i].sums = at == BLOCK(q) || at == BLOCK(k) || at == BLOCK(o) || at == BLOCK(xq) ||
                       at == BLOCK(xo) || at == BLOCK(down);
    }
    if (c->added_kv_proj_dim) {
        L(ik, "attn2.add_k_proj", D, c->added_kv_proj_dim, ACT_NONE, ROWS_IMAGE);
        L(iv, "attn2.add_v_proj", D, c->added_kv_proj_dim, ACT_NONE, ROWS_IMAGE);
    }
#undef L
    return n;
}

int dit_top_layers(const struct dit_config *c, struct layer_row rows[DIT_MAX_ROWS])
{
    int D = c->n_heads * c->head_dim, patch = c->patch_t * c->patch_h * c->patch_w, n = 0;
#define C "condition_embedder."
#define L(field, nm, out, in, act, kind)                                                           \
    rows[n++] = (struct layer_row){nm, TOP(field), out, in, act, kind, false, false, false}
    L(patch, "patch_embedding", D, c->in_channels * patch, ACT_NONE, ROWS_TOKENS);
    rows[n - 1].patch = true;
    L(time_1, C "time_embedder.linear_1", D, c->freq_dim, ACT_SILU, ROWS_TIME);
    rows[n - 1].fp32 = true;
    L(time_2, C "time_embedder.linear_2", D, D, ACT_NONE, ROWS_TIME);
    rows[n - 1].fp32 = true;
    L(time_proj, C "time_proj", 6 * D, D, ACT_NONE, ROWS_TIME);
    L(text_1, C "text_embedder.linear_1", D, c->text_dim, ACT_GELU_TANH, ROWS_TEXT);
    L(text_2, C "text_embedder.linear_2", D, D, ACT_NONE, ROWS_TEXT);
    if (c->image_dim) {
        L(image_1, C "image_embedder.ff.net.0.proj", c->image_dim, c->image_dim, ACT_GELU_ERF,
          ROWS_IMAGE);
        L(image_2, C "image_embedder.ff.net.2", D, c->image_dim, ACT_NONE, ROWS_IMAGE);
    }
    L(head, "proj_out", c->out_channels * patch, D, ACT_NONE, ROWS_TOKENS);
#undef L
    return n;
}

int dit_block_vectors(const struct dit_config *c, struct vector_row rows[DIT_MAX_ROWS])
{
    int64_t D = (int64_t)c->n_heads * c->head_dim;
    int n = 0;
#define V(field, nm, narrow)                                                                       \
    rows[n++] = (struct vector_row){"blocks.%d." nm, BLOCK(field), 1, {D}, narrow}
    V(norm_q, "attn1.norm_q.weight", true);
    V(norm_k, "attn1.norm_k.weight", true);
    V(xnorm_q, "attn2.norm_q.weight", true);
    V(xnorm_k, "attn2.norm_k.weight", true);
    if (c->added_kv_proj_dim) V(inorm_k, "attn2.norm_added_k.weight", true);
    if (c->cross_attn_norm) {
        V(norm2_w, "norm2.weight", false);
        V(norm2_b, "norm2.bias", false);
    }
#undef V
    rows[n++] =
        (struct vector_row){"blocks.%d.scale_shift_table", BLOCK(table), 3, {1, 6, D}, false};
    return n;
}

int dit_top_vectors(const struct dit_config *c, struct vector_row rows[DIT_MAX_ROWS])
{
    int64_t D = (int64_t)c->n_heads * c->head_dim;
    int n = 0;
    rows[n++] = (struct vector_row){"scale_shift_table", TOP(table), 3, {1, 2, D}, false};
    if (!c->image_dim) return n;
#define V(field, nm, len)                                                                          \
    rows[n++] = (struct vector_row){C "image_embedder." nm, TOP(field), 1, {len}, false}
    V(image_norm1_w, "norm1.weight", c->image_dim);
    V(image_norm1_b, "norm1.bias", c->image_dim);
    V(image_norm2_w, "norm2.weight", D);
    V(image_norm2_b, "norm2.bias", D);
#undef V
    if (c->pos_embed_seq_len)
        rows[n++] = (struct vector_row){C "image_embedder.pos_embed",
                                        TOP(pos_embed),
                                        3,
                                        {1, c->pos_embed_seq_len, c->image_dim},
                                        true};
    return n;
}
#undef C

struct linear_params dit_linear_params(const struct layer_row *r, enum precision p)
{
    return (struct linear_params){.in = r->in,
                                  .out = r->out,
                                  .precision = r->fp32 ? PRECISION_FP32 : p,
                                  .act = r->act,
                                  .round_out = !r->fp32 && !r->sums && p != PRECISION_FP32};
}

static size_t vector_len(const struct vector_row *r)
{
    size_t n = 1;
    for (int i = 0; i < r->n_dims; i++)
        n *= (size_t)r->shape[i];
    return n;
}

static void carve_vectors(void *target, const struct vector_row *rows, int n, struct arena *a)
{
    for (int i = 0; i < n; i++) {
        float *at = arena_take(a, vector_len(&rows[i]) * sizeof(float));
        if (target) memcpy((char *)target + rows[i].offset, &at, sizeof at);
    }
}

/* top and blocks may be NULL while counting. */
static void carve_all_vectors(struct dit_top *top, struct dit_block *blocks,
                              const struct dit_config *c, struct arena *a)
{
    struct vector_row rows[DIT_MAX_ROWS];
    carve_vectors(top, rows, dit_top_vectors(c, rows), a);
    int n = dit_block_vectors(c, rows);
    for (int i = 0; i < c->n_layers; i++)
        carve_vectors(blocks ? &blocks[i] : NULL, rows, n, a);
}

size_t dit_weight_bytes(const struct dit_config *c, struct device *device, enum precision p)
{
    struct layer_row rows[DIT_MAX_ROWS];
    struct arena count = {0};
    const struct ops *o = ops_of(device);
    size_t block = 0, top = 0;
    carve_all_vectors(NULL, NULL, c, &count);
    for (int i = dit_block_layers(c, rows); i-- > 0;) {
        struct linear_params lp = dit_linear_params(&rows[i], p);
        block += o->linear_bytes(&lp);
    }
    for (int i = dit_top_layers(c, rows); i-- > 0;) {
        struct linear_params lp = dit_linear_params(&rows[i], p);
        top += o->linear_bytes(&lp);
    }
    return count.used + top + block * (size_t)c->n_layers;
}

/* The largest weight of a bf16 file while it is packed: its pages in the map, and it as fp32. */
size_t dit_opening_bytes(const struct dit_config *c, enum precision p)
{
    struct layer_row rows[2 * DIT_MAX_ROWS];
    size_t most = 0, each = p == PRECISION_BF16 ? 2 : 2 + 4;
    int n = dit_block_layers(c, rows);
    n += dit_top_layers(c, rows + n);
    while (n-- > 0) {
        size_t bytes = (size_t)rows[n].out * (size_t)rows[n].in * each;
        if (bytes > most) most = bytes;
    }
    return most;
}

/* --- Opening --- */

struct source {
    struct weights *file;
    struct lora *lora;
    struct device *device;
    const struct ops *ops;
    enum precision precision;
    const struct dit_config *config;
    struct linear_stage *stage;
    const char *attention; /* a stack, whose own tensors are read */
    bool check; /* binds only: target is not used */
};

struct pair {
    struct tensor weight, bias;
};

static int open_layer(const struct source *s, void *target, const struct layer_row *r, int layer,
                      struct err *e)
{
    char weight[128], bias[128], module[128];
    snprintf(weight, sizeof weight, "%s.weight", r->name);
    snprintf(bias, sizeof bias, "%s.bias", r->name);
    const char *d = strstr(r->name, "%d");
    if (d)
        snprintf(module, sizeof module, "%.*s%d%s", (int)(d - r->name), r->name, layer, d + 2);
    else
        snprintf(module, sizeof module, "%s", r->name);
    struct bind_row rows[2] = {
        {weight, offsetof(struct pair, weight), 2, {r->out, r->in}, false},
        {bias, offsetof(struct pair, bias), 1, {r->out}, false},
    };
    const struct dit_config *c = s->config;
    if (r->patch)
        rows[0] = (struct bind_row){weight,
                                    offsetof(struct pair, weight),
                                    5,
                                    {r->out, c->in_channels, c->patch_t, c->patch_h, c->patch_w},
                                    false};
    struct pair p;
    if (weights_bind(s->file, &p, rows, 2, layer, e) < 0) return -1;
    if (r->patch) { /* its columns are already in patchify()'s order */
        p.weight.n_dims = 2;
        p.weight.shape[1] = r->in;
    }
    struct pair plain = p;
    if (lora_merge(s->lora, module, &p.weight, &p.bias, e) < 0) return -1;
    if (s->check) return 0;
    struct linear_params lp = dit_linear_params(r, s->precision);
    struct op_linear **at = (struct op_linear **)(void *)((char *)target + r->offset);
    if (s->ops->linear_open(at, s->device, &lp, &p.weight, &p.bias, s->stage, e) < 0)
        return err_wrap(e, "%s: %s", weights_path(s->file), module);
    weights_drop(s->file, &plain.weight); /* packed: its pages are not needed again */
    return 0;
}

static int open_vector(const struct source *s, void *target, const struct vector_row *r, int layer,
                       struct err *e)
{
    struct tensor t;
    struct bind_row row = {r->name, 0, r->n_dims, {r->shape[0], r->shape[1], r->shape[2]}, false};
    if (weights_bind(s->file, &t, &row, 1, layer, e) < 0) return -1;
    if (s->check) return 0;
    float *dst;
    size_t n = tensor_len(&t);
    bool there = device_place(s->device) != PLACE_HOST;
    memcpy(&dst, (char *)target + r->offset, sizeof dst);
    float *room = there ? malloc((n ? n : 1) * sizeof *room) : dst;
    if (!room) return err_set(e, ERR_RESOURCE, "no memory for a vector of %zu numbers", n);
    dtype_to_f32(room, t.data, t.dtype, n);
    if (r->narrow && s->precision != PRECISION_FP32) round_rows(room, n);
    int rc = there ? device_upload(s->device, dst, room, n * sizeof *room, e) : 0;
    if (there) free(room);
    return rc;
}

/* The reference ignores this weight too: a norm that nothing uses. */
static int skip_stray(const struct source *s, int layer, struct err *e)
{
    struct tensor unused;
    struct bind_row row = {"blocks.%d.attn2.norm_added_q.weight",
                           0,
                           1,
                           {s->config->n_heads * s->config->head_dim},
                           true};
    return weights_bind(s->file, &unused, &row, 1, layer, e);
}

static int open_all(struct dit *d, const struct source *s, struct err *e)
{
    struct layer_row layers[DIT_MAX_ROWS];
    struct vector_row vectors[DIT_MAX_ROWS];
    int n_layers = dit_top_layers(&d->config, layers),
        n_vectors = dit_top_vectors(&d->config, vectors);
    for (int i = 0; i < n_layers; i++)
        if (open_layer(s, &d->top, &layers[i], 0, e) < 0) return -1;
    for (int i = 0; i < n_vectors; i++)
        if (open_vector(s, &d->top, &vectors[i], 0, e) < 0) return -1;
    n_layers = dit_block_layers(&d->config, layers);
    n_vectors = dit_block_vectors(&d->config, vectors);
    for (int b = 0; b < d->config.n_layers; b++) {
        for (int i = 0; i < n_layers; i++)
            if (open_layer(s, d->blocks ? &d->blocks[b] : NULL, &layers[i], b, e) < 0) return -1;
        for (int i = 0; i < n_vectors; i++)
            if (open_vector(s, d->blocks ? &d->blocks[b] : NULL, &vectors[i], b, e) < 0) return -1;
        if (skip_stray(s, b, e) < 0) return -1;
    }
    if (dit_own_open(&d->own, s->file, s->attention, d->config.n_layers, s->check, e) < 0)
        return -1;
    if (weights_all_used(s->file, NULL, e) < 0) return -1;
    return s->lora ? lora_all_used(s->lora, e) : 0;
}

int dit_check(const char *dir, const char *lora_file, const char *attention, struct err *e)
{
    char path[4200];
    struct dit d = {0};
    struct source s = {.config = &d.config, .attention = attention, .check = true};
    int rc = -1;
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (dit_config_read(&d.config, path, e) < 0) return -1;
    if (weights_open(&s.file, dir, "diffusion_pytorch_model", e) < 0) goto done;
    if (lora_file && lora_open(&s.lora, lora_file, 1, e) < 0) goto done;
    if (s.lora) lora_check_only(s.lora);
    rc = open_all(&d, &s, e);
done:
    dit_own_close(d.own);
    lora_close(s.lora);
    weights_close(s.file);
    return rc;
}

int dit_open_lora(struct dit **out, const char *dir, const char *lora_file, double strength,
                  enum precision precision, const struct log *log, struct err *e)
{
    return dit_open_for(out, NULL, dir, lora_file, strength, precision, log, e);
}

int dit_open_for(struct dit **out, const char *attention, const char *dir, const char *lora_file,
                 double strength, enum precision precision, const struct log *log, struct err *e)
{
    return dit_open_on(out, NULL, attention, dir, lora_file, strength, precision, log, e);
}

/* The device to compute on, the host's own where there is none, and its table. */
static int take_device(struct dit *d, struct device *device, struct err *e)
{
    if (!device && device_open(&d->own_device, "cpu", e) < 0) return -1;
    d->device = device ? device : d->own_device;
    d->ops = ops_of(d->device);
    if (d->ops) return 0;
    return err_set(e, ERR_DEVICE, "%s: this build computes nothing there; use --device cpu",
                   device_name(d->device));
}

int dit_open_on(struct dit **out, struct device *device, const char *attention, const char *dir,
                const char *lora_file, double strength, enum precision precision,
                const struct log *log, struct err *e)
{
    struct arena measure = {0};
    struct linear_stage stage = {0};
    struct source s = {.precision = precision, .attention = attention, .stage = &stage};
    char path[4200];
    *out = NULL;
    struct dit *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_RESOURCE, "no memory for the transformer (%zu bytes)", sizeof *d);
    d->precision = precision;
    if (log) d->log = *log;
    if (take_device(d, device, e) < 0) goto fail;
    s.device = d->device;
    s.ops = d->ops;
    s.config = &d->config;
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (dit_config_read(&d->config, path, e) < 0) goto fail;
    if (weights_open(&s.file, dir, "diffusion_pytorch_model", e) < 0) goto fail;
    if (lora_file && lora_open(&s.lora, lora_file, strength, e) < 0) goto fail;
    d->blocks = calloc((size_t)d->config.n_layers, sizeof *d->blocks);
    if (!d->blocks) {
        err_set(e, ERR_RESOURCE, "no memory for %d layers", d->config.n_layers);
        goto fail;
    }
    carve_all_vectors(NULL, NULL, &d->config, &measure);
    if (arena_open_on(&d->vectors, d->device, measure.used, e) < 0) goto fail;
    carve_all_vectors(&d->top, d->blocks, &d->config, &d->vectors);
    if (open_all(d, &s, e) < 0) goto fail;
    if (s.lora)
        log_line(log, 1, "%s merged into %d layers, strength %g", lora_file, lora_modules(s.lora),
                 strength);
    free(stage.data);
    lora_close(s.lora);
    weights_close(s.file);
    *out = d;
    return 0;
fail:
    free(stage.data);
    lora_close(s.lora);
    weights_close(s.file);
    dit_close(d);
    return -1;
}

int dit_open(struct dit **d, const char *dir, enum precision precision, const struct log *log,
             struct err *e)
{
    return dit_open_lora(d, dir, NULL, 1, precision, log, e);
}

static void close_layers(const struct ops *o, void *target, const struct layer_row *rows, int n)
{
    for (int i = 0; i < n; i++) {
        struct op_linear *l;
        memcpy(&l, (char *)target + rows[i].offset, sizeof l);
        if (l) o->linear_close(l);
    }
}

void dit_close(struct dit *d)
{
    struct layer_row rows[DIT_MAX_ROWS];
    if (!d) return;
    if (d->device) dit_run_close(&d->run);
    dit_own_close(d->own);
    close_layers(d->ops, &d->top, rows, dit_top_layers(&d->config, rows));
    int n = dit_block_layers(&d->config, rows);
    for (int b = 0; d->blocks && b < d->config.n_layers; b++)
        close_layers(d->ops, &d->blocks[b], rows, n);
    free(d->blocks);
    arena_close(&d->vectors);
    device_close(d->own_device);
    free(d);
}

const struct dit_config *dit_config_of(const struct dit *d) { return &d->config; }
