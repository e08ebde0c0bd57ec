/* Axes and hooks → the launches of a call; see method.h for their order. */
#include "attention/room.h"

#include <string.h>

#define DEFAULT_BLOCK 128 /* tokens: as kernels of every device like it */

static const struct attn_part *by(const struct attn *a, enum attn_axis axis)
{
    return attn_stack_by(&a->stack, axis);
}

int turn_dense(struct attn *a, struct attn_calls *c, struct err *e)
{
    c->n = 1;
    c->at[0] = (struct attn_launch){0};
    return attn_plan_dense(&c->at[0].plan, a->size.len_q, a->size.len_k, a->shape.n_heads, e);
}

/* --- sizes and memory --- */

/* Tokens a block: what the stack's parts say, those that select or order first. */
static int block_of(const struct attn *a)
{
    const struct attn_part *first[] = {by(a, ATTN_AXIS_SELECT), by(a, ATTN_AXIS_ORDER)};
    for (size_t i = 0; i < ARRAY_LEN(first); i++)
        if (first[i] && first[i]->knobs->block) return first[i]->knobs->block;
    for (int i = 0; i < a->stack.n; i++)
        if (a->stack.part[i].knobs->block) return a->stack.part[i].knobs->block;
    return DEFAULT_BLOCK;
}

/* Of queries: what the part that selects says, else as keys. */
static int block_q_of(const struct attn *a)
{
    const struct attn_part *p = by(a, ATTN_AXIS_SELECT);
    return p && p->knobs->block_q ? p->knobs->block_q : a->block;
}

void turn_sizes(struct attn *a)
{
    const struct attn_recipe *r = &a->stack.recipe;
    const struct axis_order *order = r->order;
    bool per_head = (order && order->per_head) || (r->score && r->score->per_head) ||
                    (r->select && r->select->per_head);
    a->plans = per_head ? a->shape.n_heads : 1;
    a->block = block_of(a);
    int blocks = (a->size.len_q + a->block - 1) / a->block;
    if (order && order->blocks) blocks = order->blocks(by(a, ATTN_AXIS_ORDER));
    a->most_q = a->most_k = blocks;
    a->block_q = block_q_of(a);
    if (!(order && order->blocks)) a->most_q = (a->size.len_q + a->block_q - 1) / a->block_q;
    a->words = attn_words(a->most_k);
    a->order_fixed = !order || order->fixed;
    a->plan_fixed = a->order_fixed && (!r->select || r->select->fixed);
    a->wants = r->compensate ? r->compensate->wants : 0;
    a->sparse = r->order || r->select || r->compensate || r->precision;
    a->by_head = r->compensate && r->compensate->residual && r->reuse->heads && renew_by_head(a);
    for (int i = 0; i < a->stack.n; i++) {
        a->wants |= a->stack.part[i].method->wants;
        a->sparse = a->sparse || a->stack.part[i].method->plan;
    }
}

static int plan_layer(const struct attn *a, int layer)
{
    const struct axis_reuse *r = a->stack.recipe.reuse;
    return r && r->layer ? r->layer(by(a, ATTN_AXIS_REUSE), layer) : layer;
}

/* order: with tables of its own. */
static void carve_geometry(const struct attn *a, struct geometry *g, bool own_order,
                           struct arena *arena)
{
    const struct axis_order *order = own_order ? a->stack.recipe.order : NULL;
    size_t plans = (size_t)a->plans, tokens = plans * (size_t)a->size.len_q * sizeof(int32_t);
    size_t offsets = plans * ((size_t)a->most_q + 1) * sizeof(int32_t);
    struct geometry to = {0};
    if (order) {
        to.q_token = arena_take(arena, tokens);
        to.k_token = order->keys_apart ? arena_take(arena, tokens) : to.q_token;
    }
    if (order && order->blocks) {
        to.q_at = arena_take(arena, offsets);
        to.k_at = order->keys_apart ? arena_take(arena, offsets) : to.q_at;
        to.count = arena_take(arena, 2 * sizeof(int));
    }
    if (a->stack.recipe.select)
        to.kept =
            arena_take(arena, plans * (size_t)a->most_q * (size_t)a->words * sizeof(uint32_t));
    if (g) *g = to;
}

static int plans_kept(const struct attn *a)
{
    return !a->plan_fixed && a->stack.recipe.reuse ? a->n_pairs : 1;
}

void turn_carve(struct attn *a, struct arena *arena)
{
    const struct attn_recipe *r = &a->stack.recipe;
    size_t heads = (size_t)a->shape.n_heads, tokens = (size_t)a->size.len_q;
    size_t rows = heads * (size_t)a->most_q;
    a->launches = arena_take(arena, (heads + 1) * sizeof *a->launches);
    a->geometry = arena_take(arena, (size_t)plans_kept(a) * sizeof *a->geometry);
    if (r->score && !a->there.made.on)
        a->score = arena_take(arena, (size_t)a->plans * (size_t)a->most_q * (size_t)a->most_k *
                                         sizeof *a->score);
    a->seen = arena_take(arena, attn_seen_size(a->size.len_q, a->size.len_k) * sizeof *a->seen);
    if (a->wants & ATTN_NEED_LSE || a->wants & ATTN_NEED_MASS)
        a->lse = arena_take(arena, heads * tokens * sizeof *a->lse);
    if (a->wants & ATTN_NEED_MASS)
        a->mass = arena_take(arena, rows * (size_t)a->most_k * sizeof *a->mass);
    if (a->wants & ATTN_NEED_ALIVE)
        a->alive = arena_take(arena, rows * (size_t)a->words * sizeof *a->alive);
}

void turn_carve_plans(struct attn *a, struct arena *arena)
{
    int n = plans_kept(a);
    for (int i = 0; i < n; i++) /* a layer that uses another's plan has none */
        if (n == 1 || plan_layer(a, i / a->shape.n_branches) == i / a->shape.n_branches)
            carve_geometry(a, a->geometry ? &a->geometry[i] : NULL, i == 0 || !a->order_fixed,
                           arena);
}

/* Counts say how far offsets are read; all else attn_plan_check() looks at before a plan is used. */
int turn_check_plans(const struct attn *a, struct err *e)
{
    for (int i = 0; i < plans_kept(a); i++) {
        const int *n = a->geometry[i].count;
        if (!n || plans_kept(a) == 1 || !a->pair[i].planned) continue;
        if (n[0] < 1 || n[0] > a->most_q || n[1] < 1 || n[1] > a->most_k)
            return err_set(e, ERR_INPUT,
                           "a plan that attention remembered has %d x %d blocks of %d x %d", n[0],
                           n[1], a->most_q, a->most_k);
    }
    return 0;
}

/* --- making a plan --- */

/* The plan's geometry without an order: equal blocks in raster order. */
static int raster(const struct attn *a, struct attn_plan *p, struct err *e)
{
    *p = (struct attn_plan){.n_heads = a->shape.n_heads, .per_head = a->plans > 1};
    if (attn_blocks_equal(&p->q, a->size.len_q, a->block_q, e) < 0) return -1;
    return attn_blocks_equal(&p->k, a->size.len_k, a->block, e);
}

static int make_order(struct attn *a, const struct attn_turn *t, struct geometry *g,
                      struct attn_plan *p, struct err *e)
{
    const struct axis_order *order = a->stack.recipe.order;
    if (!order) return 0;
    if (order->make(by(a, ATTN_AXIS_ORDER), t, p, g->q_token, g->k_token, g->q_at, g->k_at, e) < 0)
        return err_wrap(e, "order %s", order->name);
    if (g->count) g->count[0] = p->q.n, g->count[1] = p->k.n;
    return 0;
}

/* What make_order() made, now or earlier, into the plan. */
static void use_order(const struct attn *a, const struct geometry *g, struct attn_plan *p)
{
    const struct axis_order *order = a->stack.recipe.order;
    if (!order) return;
    int64_t tokens = order->per_head ? a->size.len_q : 0;
    int64_t offsets = order->per_head ? a->most_q + 1 : 0;
    p->q_order = (struct attn_order){g->q_token, tokens, order->fixed};
    p->k_order = (struct attn_order){g->k_token, tokens, order->fixed};
    if (!order->blocks) return;
    p->q = (struct attn_blocks){
        .len = a->size.len_q, .n = g->count[0], .at = g->q_at, .stride = offsets};
    p->k = (struct attn_blocks){
        .len = a->size.len_k, .n = g->count[1], .at = g->k_at, .stride = offsets};
}

static int make_kept(struct attn *a, const struct attn_turn *t, struct geometry *g,
                     const struct attn_plan *p, struct err *e)
{
    const struct attn_recipe *r = &a->stack.recipe;
    if (!r->select) return 0;
    if (r->score && r->score->score(by(a, ATTN_AXIS_SCORE), t, p, a->score, e) < 0)
        return err_wrap(e, "score %s", r->score->name);
    memset(g->kept, 0, attn_plane_size(p) * sizeof *g->kept);
    if (r->select->select(by(a, ATTN_AXIS_SELECT), t, p, a->score, g->kept, e) < 0)
        return err_wrap(e, "selection %s", r->select->name);
    return 0;
}

int turn_fixed(struct attn *a, struct err *e)
{
    struct attn_plan p;
    struct attn_turn t = {.anew = true};
    if (!a->sparse || !a->order_fixed) return 0;
    if (raster(a, &p, e) < 0 || make_order(a, &t, &a->geometry[0], &p, e) < 0) return -1;
    use_order(a, &a->geometry[0], &p);
    if (attn_plan_check(&(struct attn_plan){.n_heads = p.n_heads,
                                            .q_order = p.q_order,
                                            .k_order = p.k_order,
                                            .q = p.q,
                                            .k = p.k,
                                            .all = true,
                                            .per_head = p.per_head},
                        a->size.len_q, a->size.len_k, a->seen, e) < 0)
        return -1;
    return a->plan_fixed ? make_kept(a, &t, &a->geometry[0], &p, e) : 0;
}

/* The axes' own plan, in l. */
static int make_plan(struct attn *a, const struct attn_turn *t, struct attn_launch *l,
                     struct err *e)
{
    const struct attn_recipe *r = &a->stack.recipe;
    bool one = a->plan_fixed || !r->reuse;
    struct geometry *g = &a->geometry[one ? 0 : t->plan_layer * a->shape.n_branches + t->at.branch];
    /* orders are shared when they are fixed, also where the kept sets are a pair's own */
    struct geometry order = a->order_fixed ? a->geometry[0] : *g;
    *l = (struct attn_launch){0};
    if (raster(a, &l->plan, e) < 0) return -1;
    bool anew = t->anew || (one && !a->plan_fixed);
    if (!a->order_fixed && anew && make_order(a, t, &order, &l->plan, e) < 0) return -1;
    use_order(a, &order, &l->plan);
    if (!a->plan_fixed && anew && !making_now(a, t) && make_kept(a, t, g, &l->plan, e) < 0)
        return -1;
    l->plan.kept = g->kept;
    l->plan.all = !r->select;
    return 0;
}

int turn_ordered_plan(const struct attn *a, struct attn_plan *p, struct err *e)
{
    if (raster(a, p, e) < 0) return -1;
    use_order(a, &a->geometry[0], p);
    p->kept = a->geometry[0].kept;
    return 0;
}

int turn_fixed_plan(struct attn *a, struct attn_plan *p, struct err *e)
{
    struct attn_launch l;
    if (make_plan(a, &(struct attn_turn){.anew = false}, &l, e) < 0) return -1;
    *p = l.plan;
    return 0;
}

static int hooks(struct attn *a, const struct attn_turn *t, struct attn_calls *c, struct err *e)
{
    const struct attn_recipe *r = &a->stack.recipe;
    struct attn_launch *l = &c->at[0];
    if (r->compensate && r->compensate->before &&
        r->compensate->before(by(a, ATTN_AXIS_COMPENSATE), t, l, e) < 0)
        return err_wrap(e, "%s", r->compensate->name);
    if (r->precision && r->precision->choose(by(a, ATTN_AXIS_PRECISION), t, l, e) < 0)
        return err_wrap(e, "precision %s", r->precision->name);
    for (int last = 0; last < 2; last++) /* who cuts the plan in pieces comes last */
        for (int i = 0; i < a->stack.n; i++) {
            const struct attn_part *p = &a->stack.part[i];
            if (p->method->plan && p->method->splits == (last > 0) &&
                p->method->plan(p, t, c, e) < 0)
                return err_wrap(e, "%s", p->method->name);
        }
    return 0;
}

/* Every head exactly once, and every plan by its rules. */
static int check(struct attn *a, const struct attn_calls *c, struct err *e)
{
    uint8_t times[256] = {0};
    if (c->n < 1 || c->n > c->max)
        return err_set(e, ERR_BUG, "%d plans for one call, at most %d", c->n, c->max);
    for (int i = 0; i < c->n; i++) {
        const struct attn_plan *p = &c->at[i].plan;
        int keys = c->at[i].k.at ? c->at[i].k.len : a->size.len_k;
        if (attn_plan_check(p, a->size.len_q, keys, a->seen, e) < 0)
            return err_wrap(e, "plan %d of %d", i + 1, c->n);
        for (int h = 0; h < p->n_heads; h++)
            times[attn_head(p, h)]++;
    }
    for (int h = 0; h < a->shape.n_heads; h++)
        if (times[h] != 1)
            return err_set(e, ERR_BUG, "head %d is in %d plans of a call, wanted one", h, times[h]);
    return 0;
}

/* A refresh that fell into a step which was left out (a step cache's) is made up for at the next one:
 * attention-kernels.md 5.6. */
static bool anew(const struct attn *a, const struct attn_turn *t, int last)
{
    const struct axis_reuse *reuse = a->stack.recipe.reuse;
    struct attn_turn missed = *t;
    if (reuse->anew(by(a, ATTN_AXIS_REUSE), t)) return true;
    for (missed.at.step = last + 1; reuse->scheduled && missed.at.step < t->at.step;
         missed.at.step++)
        if (reuse->anew(by(a, ATTN_AXIS_REUSE), &missed)) return true;
    return false;
}

int turn_static(struct attn *a, struct attn_calls *c, struct err *e)
{
    struct attn_turn t = {.anew = true};
    c->n = 1;
    if (make_plan(a, &t, &c->at[0], e) < 0) return -1;
    return check(a, c, e);
}

static struct pair *planner_of(const struct attn *a, const struct attn_turn *t)
{
    return &a->pair[t->plan_layer * a->shape.n_branches + t->at.branch];
}

static bool has_residual(const struct attn *a)
{
    const struct axis_compensate *rest = a->stack.recipe.compensate;
    return rest && rest->residual;
}

void turn_begins(const struct attn *a, struct attn_turn *t)
{
    const struct axis_reuse *reuse = a->stack.recipe.reuse;
    t->plan_layer = plan_layer(a, t->at.layer);
    const struct pair *pair = planner_of(a, t);
    t->exact = !a->sparse || attn_is_exact(&a->stack.part[0], &t->at) ||
               (has_residual(a) && pair_of(a, &t->at) >= a->residual_slots);
    t->first = !t->exact && !pair->planned;
    t->anew =
        !t->exact && (!pair->planned || !reuse || (reuse->scheduled && anew(a, t, pair->last)));
}

int turn_call(struct attn *a, struct attn_turn *t, struct attn_calls *c, struct err *e)
{
    const struct attn_recipe *r = &a->stack.recipe;
    int at = pair_of(a, &t->at);
    bool residual = has_residual(a);
    turn_begins(a, t);
    struct pair *pair = planner_of(a, t);
    a->there.fresh = false;
    if (t->exact) return turn_dense(a, c, e);
    if (!t->anew && !r->reuse->scheduled) {
        if (bring_down(a, t, looks_reuse(a), e) < 0) return -1;
        t->anew = anew(a, t, pair->last);
    }
    if (t->anew && bring_down(a, t, looks_axes(a, t), e) < 0) return -1;
    c->n = 1;
    if (make_plan(a, t, &c->at[0], e) < 0) return -1;
    if (t->anew && r->reuse && r->reuse->made) r->reuse->made(by(a, ATTN_AXIS_REUSE), t);
    if (residual) {
        c->at[0].residual = cache_residual(a, at);
        c->at[0].plan.rule = t->anew ? ATTN_MAKE_RESIDUAL : ATTN_ADD_RESIDUAL;
    }
    if (bring_down(a, t, looks_plan(a, t), e) < 0 || hooks(a, t, c, e) < 0) return -1;
    if (residual) renew_split(a, t, c);
    a->there.fresh = a->device && room_device_fresh(a, t);
    bool here = !a->device || (a->there.fresh && !making_now(a, t));
    if (here && check(a, c, e) < 0) return -1;
    pair->planned = true;
    return 0;
}
