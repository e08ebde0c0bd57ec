/* Launches → the kernel; see room.h. */
#include "attention/room.h"

#define ALIVE_LOG2 -10.0f /* LiteAttention's own: attention-sparse.md 2 */

/* Every field that some call of this stack may set: what a kernel is picked by, before the run. */
static unsigned needs_of(const struct attn *a)
{
    const struct attn_recipe *r = &a->stack.recipe;
    unsigned needs = a->wants;
    if (r->select) needs |= ATTN_NEED_PLANES;
    if (r->order) needs |= ATTN_NEED_Q_ORDER | ATTN_NEED_K_ORDER;
    if (r->order && r->order->blocks) needs |= ATTN_NEED_BLOCKS;
    if (r->compensate) needs |= r->compensate->needs;
    if (r->compensate && r->compensate->residual)
        needs |= ATTN_NEED_MAKE_RESIDUAL | ATTN_NEED_ADD_RESIDUAL;
    if (a->by_head) needs |= ATTN_NEED_HEADS;
    for (int i = 0; i < a->stack.n; i++)
        needs |= a->stack.part[i].method->needs;
    return needs;
}

int launch_open(struct attn *a, const struct attn_params *p, struct err *e)
{
    const struct axis_precision *precision = a->stack.recipe.precision;
    struct attn_needed low = {0};
    if (precision) low = precision->needs(attn_stack_by(&a->stack, ATTN_AXIS_PRECISION));
    a->size.needs = needs_of(a) | low.must;
    if (a->sparse || a->wants) {
        a->size.rows = a->most_q;
        a->size.cols = a->most_k;
        if (!(a->stack.recipe.order && a->stack.recipe.order->blocks))
            a->size.block_q = a->block_q, a->size.block_k = a->block;
    }
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *part = &a->stack.part[i];
        int columns = part->method->columns ? part->method->columns(part) : 0;
        if (columns > a->size.columns) a->size.columns = columns;
    }
    a->granted = low.must;
    if (a->device) return room_device_open(a, p, low.gladly, e);
    if (low.gladly) {
        struct attn_size more = a->size;
        struct err none;
        more.needs |= low.gladly;
        a->kernel = attn_kernel_pick(&more, &p->cpu, p->kernel, &none);
        if (a->kernel && a->kernel->pays && !(low.gladly & ~a->kernel->pays(&more))) {
            a->size = more;
            a->granted |= low.gladly;
            return 0;
        }
        a->declined = low.gladly;
    }
    a->kernel = attn_kernel_pick(&a->size, &p->cpu, p->kernel, e);
    return a->kernel ? 0 : -1;
}

void launch_carve(struct attn *a, struct arena *arena)
{
    a->scratch = arena_take(arena, a->kernel->scratch(&a->size));
}

void launch_job(struct attn_job *job, struct attn *a, const struct attn_turn *t,
                const struct attn_calls *c, int i, bool seen)
{
    const struct attn_launch *l = &c->at[i];
    bool computed = l->plan.rule != ATTN_ZERO && l->plan.rule != ATTN_COPY;
    unsigned wants = computed && seen ? a->wants : 0; /* heads that are not have none */
    *job = (struct attn_job){
        .q = t->q,
        .k = l->k.at ? l->k : t->k,
        .v = l->v.at ? l->v : t->v,
        .o = t->o,
        .residual = l->residual,
        .k_mean = l->k_mean,
        .v_mean = l->v_mean,
        .v_sum = l->v_sum,
        .plan = &l->plan,
        .lse = wants & (ATTN_NEED_LSE | ATTN_NEED_MASS) ? a->lse : NULL,
        .mass = wants & ATTN_NEED_MASS ? a->mass : NULL,
        .alive = wants & ATTN_NEED_ALIVE ? a->alive : NULL,
        .alive_log2 = c->alive_log2 < 0 ? c->alive_log2 : ALIVE_LOG2,
        .size = &a->size,
        .scratch = a->scratch,
    };
}

int launch_run(struct attn *a, const struct attn_turn *t, const struct attn_calls *c, struct err *e)
{
    for (int i = 0; i < c->n; i++) {
        struct attn_job job;
        launch_job(&job, a, t, c, i, true);
        device_did(a->counts, DEVICE_OP_ATTENTION);
        if (attn_kernel_run(a->kernel, &job, e) < 0) return -1;
    }
    return 0;
}
