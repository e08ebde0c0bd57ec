/* One transformer block; wan.md 3.5, in its order and with its names. Rounding to bf16 happens
 * inside the steps, where the reference stores bf16 (wan.md 3.2). */
#include "model/dit/dit_internal.h"

enum { SHIFT_SA, SCALE_SA, GATE_SA, SHIFT_FF, SCALE_FF, GATE_FF, MODS };

/* The six vectors of this block, one set a time row. */
struct mods {
    const float *m; /* [T, 6, D] */
    int D, stride, rows; /* rows: tokens that share a set, 0: all */
};

static const float *mod(const struct mods *s, int which)
{
    return s->m + (size_t)which * (size_t)s->D;
}

/* n = LN(x) * (1 + scale) + shift */
static void norm_modulate(struct dit *d, const struct mods *s, int shift, int scale)
{
    struct dit_run *r = &d->run;
    struct norm_params p = {.eps = (float)d->config.eps,
                            .shift = mod(s, shift),
                            .scale = mod(s, scale),
                            .mod_stride = s->stride,
                            .rows_per_mod = s->rows,
                            .round = r->round};
    layer_norm(r->n, r->x, r->tokens, r->width, &p);
}

/* x = x + y * gate */
static void add_gated(struct dit_run *r, const float *y, const struct mods *s, int gate)
{
    struct gate_params p = {
        .gate = mod(s, gate), .mod_stride = s->stride, .rows_per_mod = s->rows, .round = r->round};
    residual_gate(r->x, y, r->tokens, r->width, &p);
}

/* x = x + y */
static void add(const struct dit_run *r, float *x, const float *y)
{
    residual_gate(x, y, r->tokens, r->width, &(struct gate_params){.round = r->round});
}

static void round_if(const struct dit_run *r, float *x)
{
    if (r->round) round_rows(x, (size_t)r->tokens * (size_t)r->width);
}

/* q, k and v are three layers, not one of 3D features: the kernels want three arrays, and cutting
 * one apart costs what a single product saves (README, "Measured"). */
static int self_attention(struct dit *d, const struct dit_block *b, const struct mods *s, int layer,
                          int branch, const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    int L = r->tokens, D = r->width;
    struct attn_call call = {.q = r->q,
                             .k = r->k,
                             .v = r->v,
                             .o = r->n,
                             .at = {.step = c->step,
                                    .layer = layer,
                                    .branch = branch,
                                    .expert = c->expert,
                                    .sigma = c->sigma,
                                    .timestep = c->timestep}};
    enum attn_ask answer;
    if (attn_ask(r->attn, &call.at, r->q, &answer, e) < 0) return -1;
    if (answer != ATTN_ASK_COMPUTE) { /* q already holds what the output layer would give */
        add_gated(r, r->q, s, GATE_SA);
        return 0;
    }
    norm_modulate(d, s, SHIFT_SA, SCALE_SA);
    struct linear *const layers[] = {b->q, b->k, b->v};
    float *const out[] = {r->q, r->k, r->v};
    if (linear_run_several(layers, out, 3, r->n, L, r->scratch, e) < 0) return -1;
    struct rms_rope_params p = {.eps = (float)d->config.eps,
                                .cos_t = r->cos_t,
                                .sin_t = r->sin_t,
                                .head_dim = d->config.head_dim,
                                .round = r->round};
    p.weight = b->norm_q;
    rms_norm_rope(r->q, L, D, &p);
    p.weight = b->norm_k;
    rms_norm_rope(r->k, L, D, &p);
    if (attn_run(r->attn, &call, e) < 0) return -1;
    if (linear_run(b->o, r->q, r->n, L, r->scratch, e) < 0) return -1;
    if (attn_keep(r->attn, &call.at, r->q, e) < 0) return -1;
    add_gated(r, r->q, s, GATE_SA);
    return 0;
}

/* Keys and values were made by dit_set_context(). Image rows have a softmax of their own; the two
 * results are added before the output layer. */
static int cross_attention(struct dit *d, const struct dit_block *b, int layer, int branch,
                           struct err *e)
{
    struct dit_run *r = &d->run;
    int L = r->tokens, D = r->width, n_layers = d->config.n_layers;
    struct attn_cross text = {.q = r->q,
                              .k = dit_text_kv(r, n_layers, branch, layer, false),
                              .v = dit_text_kv(r, n_layers, branch, layer, true),
                              .key_bias = r->context[branch].biased
                                              ? r->key_bias + (size_t)branch * (size_t)r->text_keys
                                              : NULL,
                              .o = r->n,
                              .len_q = L,
                              .len_k = r->context[branch].keys,
                              .n_heads = d->config.n_heads,
                              .head_dim = d->config.head_dim};
    const float *in = r->x;
    if (b->norm2_w) {
        struct norm_params p = {.eps = (float)d->config.eps,
                                .weight = b->norm2_w,
                                .bias = b->norm2_b,
                                .round = r->round};
        layer_norm(r->n, r->x, L, D, &p);
        in = r->n;
    }
    if (linear_run(b->xq, r->q, in, L, r->scratch, e) < 0) return -1;
    struct rms_rope_params norm = {
        .eps = (float)d->config.eps, .weight = b->xnorm_q, .round = r->round};
    rms_norm_rope(r->q, L, D, &norm);
    if (attn_cross_run(&r->attn_params, &text, r->scratch, e) < 0) return -1;
    if (r->p.image_rows) {
        round_if(r, r->n); /* alone, the layer below would round its input anyway */
        struct attn_cross image = text;
        image.k = dit_image_kv(r, n_layers, branch, layer, false);
        image.v = dit_image_kv(r, n_layers, branch, layer, true);
        image.key_bias = NULL;
        image.len_k = r->p.image_rows;
        image.o = r->k;
        if (attn_cross_run(&r->attn_params, &image, r->scratch, e) < 0) return -1;
        round_if(r, r->k);
        add(r, r->n, r->k);
    }
    if (linear_run(b->xo, r->q, r->n, L, r->scratch, e) < 0) return -1;
    add(r, r->x, r->q);
    return 0;
}

/* In chunks of tokens, so that the wide middle never exists for all of them. */
static int feed_forward(struct dit *d, const struct dit_block *b, const struct mods *s,
                        struct err *e)
{
    struct dit_run *r = &d->run;
    norm_modulate(d, s, SHIFT_FF, SCALE_FF);
    if (linear_run_chain(b->up, b->down, r->q, r->n, r->tokens, r->scratch, e) < 0) return -1;
    add_gated(r, r->q, s, GATE_FF);
    return 0;
}

int dit_block_run(struct dit *d, int layer, const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct dit_block *b = &d->blocks[layer];
    struct mods s = {r->mod, r->width, MODS * r->width, r->time_rows > 1 ? r->tokens_a_frame : 0};
    dit_add_table(r->mod, r->time6, b->table, r->time_rows, MODS * r->width);
    for (int i = 0; i < c->n_branches; i++) {
        int n_layers = d->config.n_layers, branch = c->branch + i;
        dit_stream(r, i);
        if (self_attention(d, b, &s, layer, branch, c, e) < 0) return -1;
        if (cross_attention(d, b, layer, branch, e) < 0) return -1;
        if (feed_forward(d, b, &s, e) < 0) return -1;
        if (c->progress &&
            c->progress(c->progress_ctx, layer * c->n_branches + i + 1, n_layers * c->n_branches))
            return err_set(e, ERR_CANCELLED, "cancelled in block %d of %d", layer + 1, n_layers);
    }
    return 0;
}
