/* One transformer block; wan.md 3.5, in its order and with its names. Rounding to bf16 happens
 * inside the steps, where the reference stores bf16 (wan.md 3.2). */
#include "model/dit/dit_internal.h"

enum { SHIFT_SA, SCALE_SA, GATE_SA, SHIFT_FF, SCALE_FF, GATE_FF, MODS };

/* What a block is run with: its weights, its six vectors (one set a time row), and the branches whose
 * rows are the view x. */
struct turn {
    const struct dit_block *b;
    const struct dit_call *c;
    const float *m; /* [T, 6, D] */
    int layer, first, n; /* branches c->branch + first ... */
    int stride, rows, period; /* of the vectors: norm_params */
};

static const float *mod(const struct dit_run *r, const struct turn *t, int which)
{
    return t->m + (size_t)which * (size_t)r->width;
}

/* LN(x) * (1 + scale) + shift */
static struct norm_params modulated(const struct dit *d, const struct turn *t, int shift, int scale)
{
    return (struct norm_params){.eps = (float)d->config.eps,
                                .shift = mod(&d->run, t, shift),
                                .scale = mod(&d->run, t, scale),
                                .mod_stride = t->stride,
                                .rows_per_mod = t->rows,
                                .period = t->period,
                                .round = d->run.round};
}

/* x = x + y * gate (-1: 1); then, where the next part begins with a norm, n = that of the new x. */
static int add(struct dit_run *r, const struct turn *t, const struct rows *y, int gate,
               const struct norm_params *next, struct err *e)
{
    struct gate_params p = {.round = r->round};
    if (gate >= 0) {
        p.gate = mod(r, t, gate);
        p.mod_stride = t->stride;
        p.rows_per_mod = t->rows;
        p.period = t->period;
    }
    if (!next) return r->ops->gate(r->device, &r->x, y, &p, e);
    return r->ops->gate_norm(r->device, &r->x, y, &p, dit_normed(r), next, e);
}

static int round_if(struct dit_run *r, const struct rows *x, struct err *e)
{
    return r->round ? r->ops->cast(r->device, x, x, true, e) : 0;
}

/* Heads of one branch's rows in a view of several. */
static struct heads heads_of(const struct dit *d, const struct rows *rows, int i)
{
    struct rows part = rows_part(rows, (int64_t)i * d->run.tokens, d->run.tokens);
    return rows_heads(&part, d->config.n_heads);
}

static struct attn_ctx asking(const struct turn *t, int i)
{
    return (struct attn_ctx){.step = t->c->step,
                             .layer = t->layer,
                             .branch = t->c->branch + t->first + i,
                             .expert = t->c->expert,
                             .sigma = t->c->sigma,
                             .timestep = t->c->timestep};
}

/* *copied: q already holds what the output layer would give. Where attention copies, branches come one at
 * a time: run.c. */
static int ask(struct dit *d, const struct turn *t, bool *copied, struct err *e)
{
    struct dit_run *r = &d->run;
    *copied = false;
    for (int i = 0; i < t->n; i++) {
        struct attn_ctx at = asking(t, i);
        struct heads out = heads_of(d, &r->q, i);
        enum attn_ask answer;
        if (attn_ask_views(r->attn, &at, &out, &answer, e) < 0) return -1;
        if (answer != ATTN_ASK_COMPUTE && t->n > 1)
            return err_set(e, ERR_BUG, "attention copies in one of %d branches", t->n);
        *copied = answer != ATTN_ASK_COMPUTE;
    }
    return 0;
}

/* q, k and v are three layers, not one of 3D features: the kernels want three arrays, and cutting
 * one apart costs what a single product saves (README, "Measured"). next: the norm behind. */
static int self_attention(struct dit *d, const struct turn *t, const struct norm_params *next,
                          struct err *e)
{
    struct dit_run *r = &d->run;
    const struct ops *o = r->ops;
    const struct dit_block *b = t->b;
    struct norm_params norm = modulated(d, t, SHIFT_SA, SCALE_SA);
    bool copied;
    if (ask(d, t, &copied, e) < 0) return -1;
    if (copied) return add(r, t, &r->q, GATE_SA, next, e);
    if (o->norm(r->device, dit_normed(r), &r->x, &norm, e) < 0) return -1;
    struct op_linear *const layers[] = {b->q, b->k, b->v};
    const struct rows qkv[] = {r->q, r->k, r->v};
    if (o->linear_several(layers, qkv, 3, dit_normed(r), r->scratch, e) < 0) return -1;
    struct rms_rope_params p[2];
    p[0] = (struct rms_rope_params){.eps = (float)d->config.eps,
                                    .weight = b->norm_q,
                                    .cos_t = r->cos_t,
                                    .sin_t = r->sin_t,
                                    .head_dim = d->config.head_dim,
                                    .period = t->period,
                                    .round = r->round};
    p[1] = p[0];
    p[1].weight = b->norm_k;
    if (o->rms_rope(r->device, qkv, p, 2, e) < 0) return -1;
    for (int i = 0; i < t->n; i++) {
        struct attn_views call = {.q = heads_of(d, &r->q, i),
                                  .k = heads_of(d, &r->k, i),
                                  .v = heads_of(d, &r->v, i),
                                  .o = heads_of(d, &r->n, i),
                                  .at = asking(t, i)};
        if (attn_run_views(r->attn, &call, e) < 0) return -1;
    }
    if (o->linear(b->o, &r->q, &r->n, r->scratch, e) < 0) return -1;
    for (int i = 0; i < t->n; i++) {
        struct attn_ctx at = asking(t, i);
        struct heads out = heads_of(d, &r->q, i);
        if (attn_keep_views(r->attn, &at, &out, e) < 0) return -1;
    }
    return add(r, t, &r->q, GATE_SA, next, e);
}

/* Text, and image rows, whose softmax is their own: the two results are added before the output layer. */
static int attend(struct dit *d, const struct turn *t, int i, struct err *e)
{
    struct dit_run *r = &d->run;
    int n_layers = d->config.n_layers, branch = t->c->branch + t->first + i;
    int heads = d->config.n_heads, keys = r->context[branch].keys;
    struct rows k = dit_text_kv(r, n_layers, branch, t->layer, false);
    struct rows v = dit_text_kv(r, n_layers, branch, t->layer, true);
    k.n = v.n = keys;
    struct attn_cross_views text = {
        .q = heads_of(d, &r->q, i),
        .k = rows_heads(&k, heads),
        .v = rows_heads(&v, heads),
        .o = heads_of(d, &r->n, i),
        .key_bias =
            r->context[branch].biased ? r->key_bias + (size_t)branch * (size_t)r->text_keys : NULL};
    if (attn_cross_run_views(&r->attn_params, &text, r->scratch, e) < 0) return -1;
    if (!r->p.image_rows) return 0;
    struct rows n = rows_part(&r->n, (int64_t)i * r->tokens, r->tokens);
    struct rows o = rows_part(&r->k, (int64_t)i * r->tokens, r->tokens);
    struct gate_params plain = {.round = r->round};
    k = dit_image_kv(r, n_layers, branch, t->layer, false);
    v = dit_image_kv(r, n_layers, branch, t->layer, true);
    struct attn_cross_views image = {.q = text.q,
                                     .k = rows_heads(&k, heads),
                                     .v = rows_heads(&v, heads),
                                     .o = rows_heads(&o, heads)};
    if (round_if(r, &n, e) < 0) return -1; /* alone, the layer below would round its input anyway */
    if (attn_cross_run_views(&r->attn_params, &image, r->scratch, e) < 0) return -1;
    if (round_if(r, &o, e) < 0) return -1;
    return r->ops->gate(r->device, &n, &o, &plain, e);
}

/* Keys and values were made by dit_set_context(). n holds the norm of x, where there is one. */
static int cross_attention(struct dit *d, const struct turn *t, const struct norm_params *next,
                           struct err *e)
{
    struct dit_run *r = &d->run;
    const struct ops *o = r->ops;
    const struct rows *in = t->b->norm2_w ? dit_normed(r) : &r->x;
    struct rms_rope_params norm = {
        .eps = (float)d->config.eps, .weight = t->b->xnorm_q, .round = r->round};
    if (o->linear(t->b->xq, &r->q, in, r->scratch, e) < 0 ||
        o->rms_rope(r->device, &r->q, &norm, 1, e) < 0)
        return -1;
    for (int i = 0; i < t->n; i++)
        if (attend(d, t, i, e) < 0) return -1;
    if (o->linear(t->b->xo, &r->q, &r->n, r->scratch, e) < 0) return -1;
    return add(r, t, &r->q, -1, next, e);
}

/* One operation, so that the wide middle never has to exist for all tokens. */
static int feed_forward(struct dit *d, const struct turn *t, struct err *e)
{
    struct dit_run *r = &d->run;
    if (r->ops->ffn(t->b->up, t->b->down, &r->q, dit_normed(r), r->scratch, e) < 0) return -1;
    return add(r, t, &r->q, GATE_FF, NULL, e);
}

int dit_block_run(struct dit *d, int layer, const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct dit_block *b = &d->blocks[layer];
    int T = r->time_rows, n_layers = d->config.n_layers;
    struct rows mods = rows_part(&r->mod, 0, T), time6 = rows_part(&r->time6, 0, T);
    if (r->ops->add_table(r->device, &mods, &time6, b->table, e) < 0) return -1;
    struct turn t = {.b = b,
                     .c = c,
                     .m = r->mod.at,
                     .layer = layer,
                     .stride = MODS * r->width,
                     .rows = T > 1 ? r->tokens_a_frame : 0};
    for (t.first = 0; t.first < c->n_branches; t.first += t.n) {
        t.n = c->n_branches - t.first < r->together ? c->n_branches - t.first : r->together;
        t.period = t.n > 1 ? r->tokens : 0;
        dit_stream(r, t.first, t.n);
        struct norm_params norm2 = {.eps = (float)d->config.eps,
                                    .weight = b->norm2_w,
                                    .bias = b->norm2_b,
                                    .round = r->round};
        struct norm_params norm3 = modulated(d, &t, SHIFT_FF, SCALE_FF);
        int part = PART_BLOCKS + PARTS * layer;
        if (self_attention(d, &t, b->norm2_w ? &norm2 : NULL, e) < 0 ||
            dit_look(r, &r->x, part + PART_SELF, e) < 0)
            return -1;
        if (cross_attention(d, &t, &norm3, e) < 0 || dit_look(r, &r->x, part + PART_CROSS, e) < 0)
            return -1;
        if (feed_forward(d, &t, e) < 0 || dit_look(r, &r->x, part + PART_FFN, e) < 0) return -1;
        if (c->progress && c->progress(c->progress_ctx, layer * c->n_branches + t.first + t.n,
                                       n_layers * c->n_branches))
            return err_set(e, ERR_CANCELLED, "cancelled in block %d of %d", layer + 1, n_layers);
    }
    return 0;
}
