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
        .needs = device_place(p->device) == PLACE_DEVICE
                     ? ATTN_NEED_KEY_BIAS
                     : ATTN_NEED_KEY_BIAS | ATTN_NEED_ACCUMULATE,
    };
}

size_t attn_cross_scratch(const struct attn_params *p, int len_q, int len_k, int n_heads,
                          int head_dim)
{
    struct attn_size s = cross_size(p, len_q, len_k, n_heads, head_dim);
    struct err e = {0};
    if (device_place(p->device) == PLACE_DEVICE) {
        const struct attn_device_kernel *there = room_device_pick(p->device, &s, NULL, &e);
        return there ? there->scratch(&s) : 0;
    }
    const struct attn_kernel *k = attn_kernel_pick(&s, &p->cpu, p->kernel, &e);
    return k ? k->scratch(&s) + 64 : 0; /* 64: the caller's memory may be aligned less than ours */
}

static int run(const struct attn_params *p, const struct attn_cross_views *c, bool accumulate,
               void *scratch, struct err *e)
{
    struct attn_size s = cross_size(p, c->q.len, c->k.len, c->q.n, c->q.dim);
    struct attn_plan plan;
    bool there = device_place(p->device) == PLACE_DEVICE;
    const struct attn_kernel *k = NULL;
    const struct attn_device_kernel *dk = NULL;
    if (there)
        dk = room_device_pick(p->device, &s, NULL, e);
    else
        k = attn_kernel_pick(&s, &p->cpu, p->kernel, e);
    if (!k && !dk) return -1;
    if (!c->q.at || !c->k.at || !c->v.at || !c->o.at || (!scratch && !(dk && !dk->scratch(&s))))
        return err_set(e, ERR_BUG, "cross-attention without q, k, v, o or scratch");
    if (attn_plan_dense(&plan, c->q.len, c->k.len, c->q.n, e) < 0) return -1;
    plan.key_bias = c->key_bias;
    struct attn_job job = {
        .q = c->q,
        .k = c->k,
        .v = c->v,
        .o = c->o,
        .plan = &plan,
        .accumulate = accumulate,
        .size = &s,
        .scratch = there ? scratch : (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63),
    };
    device_did(p->device, DEVICE_OP_ATTENTION);
    if (!there) return attn_kernel_run(k, &job, e);
    plan.where = PLACE_DEVICE;
    if (attn_job_check(&job, e) < 0) return -1;
    return dk->run(p->device, &job, NULL, e);
}

int attn_cross_run(const struct attn_params *p, const struct attn_cross *c, void *scratch,
                   struct err *e)
{
    struct attn_cross_views v = {.q = heads_f32(c->q, c->len_q, c->n_heads, c->head_dim),
                                 .k = heads_f32(c->k, c->len_k, c->n_heads, c->head_dim),
                                 .v = heads_f32(c->v, c->len_k, c->n_heads, c->head_dim),
                                 .o = heads_f32(c->o, c->len_q, c->n_heads, c->head_dim),
                                 .key_bias = c->key_bias};
    return run(p, &v, c->accumulate, scratch, e);
}

int attn_cross_run_views(const struct attn_params *p, const struct attn_cross_views *c,
                         void *scratch, struct err *e)
{
    return run(p, c, false, scratch, e);
}
