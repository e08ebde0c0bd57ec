/* Plain attention of any shape: cross-attention, which no method touches. */
#include "attention/room.h"
#include "model/base/threads.h"

static struct attn_size cross_size(const struct attn_params *p, int len_q, int len_k, int n_heads,
                                   int head_dim)
{
    return (struct attn_size){
        .len_q = len_q,
        .len_k = len_k,
        .n_heads = n_heads,
        .head_dim = head_dim,
        .threads = p->threads > 0 ? p->threads : threads_count(),
        .precision = p->precision,
        .needs = ATTN_NEED_KEY_BIAS | ATTN_NEED_ACCUMULATE,
    };
}

size_t attn_cross_scratch(const struct attn_params *p, int len_q, int len_k, int n_heads,
                          int head_dim)
{
    struct attn_size s = cross_size(p, len_q, len_k, n_heads, head_dim);
    struct err e = {0};
    const struct attn_kernel *k = attn_kernel_pick(&s, &p->cpu, p->kernel, &e);
    return k ? k->scratch(&s) + 64 : 0; /* 64: the caller's memory may be aligned less than ours */
}

int attn_cross_run(const struct attn_params *p, const struct attn_cross *c, void *scratch,
                   struct err *e)
{
    struct attn_size s = cross_size(p, c->len_q, c->len_k, c->n_heads, c->head_dim);
    struct attn_plan plan;
    const struct attn_kernel *k = attn_kernel_pick(&s, &p->cpu, p->kernel, e);
    if (!k) return -1;
    if (!c->q || !c->k || !c->v || !c->o || !scratch)
        return err_set(e, ERR_BUG, "cross-attention without q, k, v, o or scratch");
    if (attn_plan_dense(&plan, c->len_q, c->len_k, c->n_heads, e) < 0) return -1;
    plan.key_bias = c->key_bias;
    struct attn_job job = {
        .q = heads_f32(c->q, c->len_q, c->n_heads, c->head_dim),
        .k = heads_f32(c->k, c->len_k, c->n_heads, c->head_dim),
        .v = heads_f32(c->v, c->len_k, c->n_heads, c->head_dim),
        .o = heads_f32(c->o, c->len_q, c->n_heads, c->head_dim),
        .plan = &plan,
        .accumulate = c->accumulate,
        .size = &s,
        .scratch = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63),
    };
    return attn_kernel_run(k, &job, e);
}
