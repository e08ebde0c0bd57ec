/* What a run will compute, before it: every call of every step is asked what can be asked without
 * tensors. */
#include "attention/room.h"

#include "model/base/clock.h"
#include "model/base/threads.h"

#include <stdlib.h>

static int carve_plan(struct attn *a, struct arena *arena, struct err *e)
{
    if (parts_carve(a, arena, e) < 0) return -1;
    parts_carve_scratch(a, arena);
    turn_carve(a, arena);
    turn_carve_plans(a, arena);
    return 0;
}

/* A plan that looks at no number is made here as it will be made in the run. */
static int fixed_density(struct attn *a, double *share, struct err *e)
{
    struct arena arena = {0};
    struct attn_plan plan;
    int rc = -1;
    if (a->size.threads < threads_count()) a->size.threads = threads_count(); /* scratch of each */
    if (carve_plan(a, &arena, e) < 0) return -1;
    if (arena_open(&arena, arena.used, e) < 0) return -1;
    if (carve_plan(a, &arena, e) < 0) goto out;
    if (turn_fixed(a, e) < 0 || turn_fixed_plan(a, &plan, e) < 0) goto out;
    *share = attn_plan_density(&plan, a->size.len_k);
    rc = 0;
out:
    arena_close(&arena);
    return rc;
}

/* Least and largest share of pairs of a plan, with nothing made up for. */
static int plan_density(struct attn *a, double *lo, double *hi, struct err *e)
{
    const struct axis_select *select = a->stack.recipe.select;
    *lo = 0, *hi = 1;
    for (int i = 0; i < a->stack.n; i++)
        if (a->stack.part[i].method->plan) return 0; /* a hook may leave out anything */
    if (!select) {
        *lo = 1;
    } else if (a->plan_fixed) {
        if (fixed_density(a, lo, e) < 0) return -1;
        *hi = *lo;
    } else if (select->density) {
        select->density(attn_stack_by(&a->stack, ATTN_AXIS_SELECT), lo, hi);
    }
    return 0;
}

struct tally {
    double lo, hi, copied, refreshed, planned[2];
    long calls;
    const float
        *share[2]; /* of heads that a budget renews in a step, by still clips and lively ones */
};

static void one_call(struct tally *sum, const struct attn *a, const struct cache_sizes *cache,
                     const struct attn_ctx *c, bool *planned, double lo, double hi)
{
    const struct attn_recipe *r = &a->stack.recipe;
    int pair = pair_of(a, c);
    bool residual = r->compensate && r->compensate->residual;
    sum->calls++;
    if (attn_is_exact(&a->stack.part[0], c) || (residual && pair >= cache->residual_slots)) {
        sum->lo++, sum->hi++;
        return;
    }
    if (r->ask) {
        enum attn_ask said = r->ask->ask(attn_stack_by(&a->stack, ATTN_AXIS_ASK), c);
        bool earlier = c->step > 0 && pair < cache->output_slots;
        if ((said == ATTN_ASK_COPY_STEP && earlier) ||
            (said == ATTN_ASK_COPY_BRANCH && c->branch > 0)) {
            sum->copied++;
            return;
        }
    }
    bool anew = !*planned || !r->reuse, known = !r->reuse || r->reuse->scheduled;
    *planned = true;
    if (!anew && known) {
        struct attn_turn t = {.at = *c};
        anew = r->reuse->anew(attn_stack_by(&a->stack, ATTN_AXIS_REUSE), &t);
    }
    if (!a->plan_fixed) sum->planned[0] += anew, sum->planned[1] += anew || !known;
    if (residual && sum->share[0]) {
        double least = (double)sum->share[0][c->step], most = (double)sum->share[1][c->step];
        sum->lo += least + (1 - least) * lo, sum->hi += most + (1 - most) * hi;
        sum->refreshed += (least + most) / 2;
        return;
    }
    if (residual) {
        if (anew) {
            sum->lo++, sum->hi++, sum->refreshed++;
            return;
        }
        sum->lo += lo;
        sum->hi += known ? hi : 1;
        return;
    }
    sum->lo += lo, sum->hi += hi;
    if (r->ask) sum->refreshed++;
}

/* Whether a plan outlives its step. */
static bool stands(const struct attn *a)
{
    const struct axis_reuse *r = a->stack.recipe.reuse;
    const struct attn_part *p = attn_stack_by(&a->stack, ATTN_AXIS_REUSE);
    if (!r || !r->scheduled) return r != NULL;
    for (int step = p->first; step < p->last; step++)
        if (!r->anew(p, &(struct attn_turn){.at = {.step = step}})) return true;
    return false;
}

static bool remembers(const struct attn *a)
{
    const struct attn_recipe *r = &a->stack.recipe;
    if (r->ask || stands(a) || (r->compensate && r->compensate->residual)) return true;
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_method *m = a->stack.part[i].method;
        if (a->memory[i].size.state || a->memory[i].size.shared || m->observe || m->save)
            return true;
    }
    return false;
}

void forecast_remembers(struct attn_forecast *f, const struct attn *a)
{
    f->remembers = remembers(a);
}

#define STILL (1 / 1.4) /* clips move between so much of what is usual and its inverse */

/* Shares of both, [2, n_steps] on the heap; NULL without a budget. */
static float *foresee(struct attn *a, struct tally *sum, struct err *e)
{
    const struct attn_part *p = attn_stack_by(&a->stack, ATTN_AXIS_REUSE);
    const struct axis_reuse *reuse = a->stack.recipe.reuse;
    struct memory *m = p ? &a->memory[p->index] : NULL;
    size_t n = (size_t)a->shape.n_steps;
    if (!reuse || !reuse->foresee || !a->budget->table) return NULL;
    float *share = malloc(2 * n * sizeof *share);
    m->scratch = malloc(m->size.scratch);
    if (!share || !m->scratch) {
        free(share);
        share = NULL;
        err_set(e, ERR_RESOURCE, "no memory to foresee an error budget");
    } else {
        reuse->foresee(p, share, STILL);
        reuse->foresee(p, share + n, 1 / STILL);
        sum->share[0] = share, sum->share[1] = share + n;
    }
    free(m->scratch);
    m->scratch = NULL;
    return share;
}

int forecast_run(struct attn_forecast *f, struct attn *a, const struct attn_params *p,
                 struct err *e)
{
    struct cache_sizes cache = cache_sizes(&a->stack, &a->shape, p);
    struct tally sum = {0};
    double lo, hi;
    e->code = ERR_NONE;
    float *share = foresee(a, &sum, e);
    if (e->code) return -1;
    if (plan_density(a, &lo, &hi, e) < 0) {
        free(share);
        return -1;
    }
    for (int layer = 0; layer < a->shape.n_layers; layer++)
        for (int branch = 0; branch < a->shape.n_branches; branch++) {
            bool planned = false;
            for (int step = 0; step < a->shape.n_steps; step++) {
                struct attn_ctx c = {.step = step,
                                     .n_steps = a->shape.n_steps,
                                     .layer = layer,
                                     .branch = branch,
                                     .n_branches = a->shape.n_branches};
                one_call(&sum, a, &cache, &c, &planned, lo, hi);
            }
        }
    free(share);
    f->exact = a->stack.exact;
    f->remembers = remembers(a);
    f->density[0] = sum.lo / (double)sum.calls;
    f->density[1] = sum.hi / (double)sum.calls;
    f->copied = sum.copied / (double)sum.calls;
    f->refreshed = sum.refreshed / (double)sum.calls;
    f->planned[0] = sum.planned[0];
    f->planned[1] = sum.planned[1];
    f->plans = a->plans;
    f->cache_bytes = cache.bytes;
    f->cache_wanted = cache.wanted;
    f->pairs = a->shape.n_layers * a->shape.n_branches;
    f->pairs_left_out = cache.left_out;
    return 0;
}

/* --- how long planning takes --- */

#define LONG_ENOUGH 0.005 /* seconds: shorter ones are taken thrice, the fastest counts */

/* Plans of the first layer and step that are not exact, without the kernel. */
static int time_plans(double *seconds, struct attn *a, struct attn_turn *t, struct err *e)
{
    struct attn_calls calls = {.at = a->launches, .max = a->shape.n_heads + 1};
    while (t->at.step < t->at.n_steps && attn_is_exact(&a->stack.part[0], &t->at))
        t->at.step++;
    if (t->at.step == t->at.n_steps) return 0;
    for (int i = 0; i < 3 && (i == 0 || *seconds < LONG_ENOUGH); i++) {
        attn_reset(a);
        double begin = clock_seconds(), took;
        if (turn_call(a, t, &calls, e) < 0) return -1;
        took = clock_seconds() - begin;
        if (i == 0 || took < *seconds) *seconds = took;
    }
    return 0;
}

/* Layers that knobs make exact. */
static int exact_layers(const struct attn_params *p, const struct attn_shape *s, struct err *e)
{
    struct attn_stack stack;
    int n = 0, rc;
    if (attn_stack_parse(&stack, p->method, e) < 0) return -1;
    rc = attn_stack_resolve(&stack, s, e);
    for (int i = 0; i < stack.n; i++)
        if (stack.part[i].knobs->layers > n) n = stack.part[i].knobs->layers;
    attn_stack_free(&stack);
    return rc < 0 ? -1 : n < s->n_layers ? n : s->n_layers - 1;
}

/* Seconds of one plan, by a stack opened for n_heads heads. */
static int time_heads(double *seconds, const struct attn_params *p, const struct attn_shape *s,
                      int n_heads, int layer, struct err *e)
{
    struct attn_params quiet = *p;
    struct attn_shape shape = *s;
    struct arena count = {0}, arena = {0};
    struct attn *a = NULL;
    size_t len =
        (size_t)s->grid_t * (size_t)s->grid_h * (size_t)s->grid_w * (size_t)(n_heads * s->head_dim);
    int rc = -1;
    shape.n_heads = n_heads;
    quiet.log = NULL;
    quiet.device = NULL; /* the host plans, wherever the rest is done */
    quiet.kernel = p->device ? NULL : p->kernel;
    quiet.cap_cache = true; /* slots up to this layer: bf16, two kinds */
    quiet.cache_mem = (size_t)(layer * s->n_branches + 1) * 2 * (len * sizeof(uint16_t) + 64);
    float *x = malloc(3 * len * sizeof *x);
    if (!x) {
        err_set(e, ERR_RESOURCE, "no memory to try attention's plans (%zu bytes)",
                3 * len * sizeof *x);
    } else if (attn_open(&a, &quiet, &shape, &count, e) == 0 &&
               arena_open(&arena, count.used, e) == 0 &&
               attn_open(&a, &quiet, &shape, &arena, e) == 0) {
        uint32_t r = 1;
        for (size_t i = 0; i < 3 * len; i++, r = r * 1664525u + 1013904223u)
            x[i] = (float)(r >> 8) * 0x1p-23f - 1;
        struct attn_turn t = {
            .at = {.n_steps = s->n_steps, .layer = layer, .n_branches = s->n_branches}};
        t.q = t.k = t.v = heads_f32(x, a->size.len_q, n_heads, s->head_dim);
        t.k.at = x + len;
        t.v.at = x + 2 * len;
        rc = a->plan_fixed ? 0 : time_plans(seconds, a, &t, e);
        int side_by_side = a->plans < a->size.threads ? a->plans : a->size.threads;
        *seconds *= (double)side_by_side / a->plans;
    }
    attn_close(a);
    arena_close(&arena);
    free(x);
    return rc;
}

int attn_time_planning(double *seconds, const struct attn_params *p, const struct attn_shape *s,
                       struct err *e)
{
    struct err one = {0};
    int layer = exact_layers(p, s, e);
    *seconds = 0;
    if (layer < 0) return -1;
    if (time_heads(seconds, p, s, 1, layer, &one) == 0) return 0;
    /* a part that is of as many heads as there are: a plan file, a checkpoint's own tensors */
    return time_heads(seconds, p, s, s->n_heads, layer, e);
}
