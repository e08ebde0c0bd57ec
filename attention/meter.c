/* What a run did: density of what was computed, and, of approximate calls, a few rows against exact
 * attention.
 *
 * Rows are drawn evenly over queries and heads (attn_random), so that the mean over many calls is
 * unbiased; each costs 4 * L * D operations, about 1 / (rows * heads) of a call.
 *
 * On a device its kernel computes the exact row, of one query and all heads, and two rows come down: in calls
 * that were waited for anyway, and in every fourth layer of others, but of recorded steps none. Recall is
 * looked at where q and k are here. */
#include "attention/room.h"

#include <math.h>

#define ROWS 2 /* a call: 640 of a run of the embedded model */
#define EVERY                                                                                      \
    4 /* layers, on a device, of calls that nobody waits for: a row holds the next ones up */

double meter_density(const struct attn *a, const struct attn_calls *c)
{
    double sum = 0;
    for (int i = 0; i < c->n; i++) {
        const struct attn_plan *p = &c->at[i].plan;
        double d = p->rule == ATTN_ZERO || p->rule == ATTN_COPY ? 0
                   : p->all                                     ? (double)p->k.len / a->size.len_k
                   : p->rule == ATTN_MAKE_RESIDUAL              ? 1
                                                   : attn_plan_density(p, a->size.len_k);
        sum += d * p->n_heads;
    }
    return sum / a->shape.n_heads;
}

/* Of what a plan computes of its pairs; all plans of a call that a device makes are one. */
static double work_of(const struct attn *a, const struct attn_plan *p)
{
    if (p->rule == ATTN_MAKE_RESIDUAL || p->all || a->there.made.on) return 1;
    return attn_plan_density(p, a->size.len_k);
}

/* Share of the two products that went over codes, of what was computed. */
static double low_share(const struct attn *a, const struct attn_calls *c)
{
    double sum = 0, all = 0;
    for (int i = 0; i < c->n; i++) {
        const struct attn_plan *p = &c->at[i].plan;
        if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) continue;
        double work = p->n_heads * work_of(a, p);
        sum += work * ((p->qk != ATTN_PREC_RUN) + (p->pv != ATTN_PREC_RUN)) / 2;
        all += work;
    }
    return all > 0 ? sum / all : 0;
}

void meter_copy(struct attn *a, const struct attn_ctx *c)
{
    a->sums.calls++;
    a->sums.copies++;
    log_line(a->log, 3, "attention: step %d, layer %d, branch %d: a copy", c->step + 1, c->layer,
             c->branch);
}

static float value(const struct heads *h, int token, int head, int channel)
{
    const void *at = heads_at(h, token, head);
    if (h->type == DTYPE_BF16) return bf16_to_f32(((const uint16_t *)at)[channel]);
    return ((const float *)at)[channel];
}

/* Exact attention of one query of one head: o [D] in double, if v is there; maximum and sum of weights. */
static void exact_row(const struct attn_turn *t, int token, int head, double *o, double *most,
                      double *sum)
{
    int dim = t->q.dim, len = t->k.len;
    double scale = 1 / sqrt((double)dim);
    const float *q = heads_at(&t->q, token, head);
    *most = -HUGE_VAL, *sum = 0;
    for (int c = 0; c < dim; c++)
        o[c] = 0;
    for (int j = 0; j < len; j++) {
        const float *k = heads_at(&t->k, j, head), *v = t->v.at ? heads_at(&t->v, j, head) : NULL;
        float dot = 0;
        for (int c = 0; c < dim; c++)
            dot += q[c] * k[c];
        double s = (double)dot * scale;
        if (s > *most) { /* rescale what was summed */
            double shrink = exp(*most - s);
            *sum *= shrink;
            for (int c = 0; c < dim; c++)
                o[c] *= shrink;
            *most = s;
        }
        double w = exp(s - *most);
        *sum += w;
        for (int c = 0; v && c < dim; c++)
            o[c] += w * (double)v[c];
    }
    for (int c = 0; c < dim; c++)
        o[c] /= *sum;
}

/* Mass of the keys that the plan computes for a position, of all: its recall. */
static double mass_of(const struct attn_turn *t, const struct attn_plan *p, int plan, int head,
                      int position, double most, double sum)
{
    int row = 0, dim = t->q.dim;
    while (row + 1 < p->q.n && attn_block_at(&p->q, plan, row + 1) <= position)
        row++;
    const float *q = heads_at(&t->q, attn_token(&p->q_order, plan, position), head);
    double mass = 0, scale = 1 / sqrt((double)dim);
    for (struct attn_run r = attn_run_begin(p, plan, row); attn_run_next(&r);)
        for (int j = r.k0; j < r.k1; j++) {
            const float *k = heads_at(&t->k, attn_token(&p->k_order, plan, j), head);
            float dot = 0;
            for (int c = 0; c < dim; c++)
                dot += q[c] * k[c];
            mass += exp((double)dot * scale - most);
        }
    return mass / sum;
}

static void sample(struct attn *a, const struct attn_turn *t, const struct attn_calls *c, int n)
{
    double o[ATTN_MAX_HEAD_DIM], most, sum;
    int head = (int)(attn_random(&t->at, 0, 2 * (uint64_t)n) % (uint64_t)a->shape.n_heads);
    int position = (int)(attn_random(&t->at, 0, 2 * (uint64_t)n + 1) % (uint64_t)a->size.len_q);
    for (int i = 0; i < c->n; i++) {
        const struct attn_plan *p = &c->at[i].plan;
        for (int h = 0; h < p->n_heads; h++) {
            if (attn_head(p, h) != head) continue;
            int plan = p->per_head ? h : 0, token = attn_token(&p->q_order, plan, position);
            exact_row(t, token, head, o, &most, &sum);
            for (int d = 0; d < t->q.dim; d++) {
                a->sums.error += fabs((double)value(&t->o, token, head, d) - o[d]);
                a->sums.error_of += fabs(o[d]);
            }
            a->sums.sampled++;
            if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY || c->at[i].k.at)
                continue; /* no keys of the call are looked at */
            a->sums.recall += p->rule == ATTN_MAKE_RESIDUAL /* all keys */
                                  ? 1
                                  : mass_of(t, p, plan, head, position, most, sum);
            a->sums.recalled++;
        }
    }
}

/* The same on a device: errors of all heads of one query, recall of one. */
static int sample_there(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
                        int n, struct err *e)
{
    float *exact = a->there.rows, *got = exact + (size_t)a->shape.n_heads * (size_t)t->q.dim;
    double o[ATTN_MAX_HEAD_DIM], most, sum;
    int head = (int)(attn_random(&t->at, 0, 2 * (uint64_t)n) % (uint64_t)a->shape.n_heads);
    int position = (int)(attn_random(&t->at, 0, 2 * (uint64_t)n + 1) % (uint64_t)a->size.len_q);
    for (int i = 0; i < c->n; i++) {
        const struct attn_plan *p = &c->at[i].plan;
        for (int h = 0; h < p->n_heads; h++) {
            if (attn_head(p, h) != head) continue;
            int plan = p->per_head ? h : 0, token = attn_token(&p->q_order, plan, position);
            if (room_device_row(a, token, exact, got, e) < 0) return -1;
            for (int x = 0; x < a->shape.n_heads * t->q.dim; x++) {
                a->sums.error += fabs((double)got[x] - (double)exact[x]);
                a->sums.error_of += fabs((double)exact[x]);
            }
            a->sums.sampled += a->shape.n_heads;
            if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY || c->at[i].k.at || !t->q.at ||
                !t->k.at)
                continue;
            exact_row(t, token, head, o, &most, &sum);
            a->sums.recall += mass_of(t, p, plan, head, position, most, sum);
            a->sums.recalled++;
        }
    }
    return 0;
}

/* A line a layer. error and of: sums before the call. */
static void say_call(const struct attn *a, const struct attn_turn *t,
                     const struct attn_sums *before, bool made, double seconds)
{
    struct attn_stats s;
    char error[64] = "";
    if (!a->log || a->log->level < 3) return;
    attn_stats(a, &s);
    attn_stats_between(&s, before, &s);
    if (s.sampled)
        snprintf(error, sizeof error, ", relative L1 %.2g of %ld sampled rows", s.error, s.sampled);
    log_line(a->log, 3,
             "attention: step %d, layer %d, branch %d: computed %.3f of its pairs%s%s, %.2g s",
             t->at.step + 1, t->at.layer, t->at.branch, s.density,
             made       ? ", keeps a residual"
             : t->exact ? ", exact"
             : t->anew  ? ", planned anew"
                        : "",
             error, seconds);
}

/* Exact calls, and those that make a residual, have no error to be sampled. */
static int samples(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
                   struct err *e)
{
    bool due = !a->device || a->there.brought || t->at.layer % EVERY == t->at.step % EVERY;
    if (a->device && (!due || device_is_recording(a->device))) return 0;
    for (int n = 0; n < ROWS; n++) {
        if (!a->device)
            sample(a, t, c, n);
        else if (sample_there(a, t, c, n, e) < 0)
            return -1;
    }
    return 0;
}

/* A plan that stands keeps what it keeps: counted once. */
static double density_of(struct attn *a, const struct attn_turn *t, const struct attn_calls *c)
{
    bool residual = c->at[0].plan.rule == ATTN_MAKE_RESIDUAL;
    double *known = a->device ? room_device_density(a, t) : NULL;
    if (a->there.made.on && !t->exact && !residual) return 0; /* counted there */
    if (residual) known = NULL; /* computes all of it */
    if (known && *known >= 0) return *known;
    double density = meter_density(a, c);
    if (known) *known = density;
    return density;
}

int meter_call(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
               double plan_seconds, double run_seconds, struct err *e)
{
    struct attn_sums before = a->sums;
    bool exact = t->exact || a->stack.exact,
         made = c->at[c->n - 1].plan.rule == ATTN_MAKE_RESIDUAL, /* by all heads */
        low = c->at[0].plan.qk != ATTN_PREC_RUN;
    a->sums.calls++;
    a->sums.exact += exact;
    a->sums.density += density_of(a, t, c);
    a->sums.low += low_share(a, c);
    a->sums.plan_seconds += plan_seconds;
    a->sums.run_seconds += run_seconds;
    if (!exact && (!made || low) && samples(a, t, c, e) < 0) return -1;
    say_call(a, t, &before, made, plan_seconds + run_seconds);
    return 0;
}

/* A row of one head, of a host or a device. */
static int row_of(struct attn *a, float *to, const struct heads *h, int token, int head,
                  struct err *e)
{
    if (h->where == PLACE_DEVICE)
        return bring_row(a, to, heads_at(h, token, head), h->type, h->dim, e);
    for (int c = 0; c < h->dim; c++)
        to[c] = value(h, token, head, c);
    return 0;
}

int meter_drift(struct attn *a, const struct attn_ctx *c, const uint16_t *old,
                const struct heads *now, struct err *e)
{
    struct heads before = cache_heads(a, old);
    float was[ATTN_MAX_HEAD_DIM], is[ATTN_MAX_HEAD_DIM];
    for (uint64_t n = 0; n < ROWS; n++) {
        int row = (int)(attn_random(c, 1, n) % (uint64_t)a->size.len_q);
        for (int head = 0; head < a->shape.n_heads; head++) {
            if (row_of(a, was, &before, row, head, e) < 0 || row_of(a, is, now, row, head, e) < 0)
                return -1;
            for (int i = 0; i < before.dim; i++) {
                a->sums.drift += fabs((double)was[i] - (double)is[i]);
                a->sums.drift_of += fabs((double)is[i]);
            }
        }
    }
    return 0;
}

static void stats_of(struct attn_stats *s, const struct attn_sums *sums)
{
    double seconds = sums->plan_seconds + sums->run_seconds;
    *s = (struct attn_stats){
        .sums = s->sums,
        .kernel = s->kernel,
        .budgeted = s->budgeted,
        .spent = s->spent,
        .density = sums->calls ? sums->density / (double)sums->calls : 1,
        .low = sums->calls > sums->copies ? sums->low / (double)(sums->calls - sums->copies) : 0,
        .calls = sums->calls,
        .copies = sums->copies,
        .sampled = sums->sampled,
        .error = sums->error_of > 0 ? sums->error / sums->error_of : 0,
        .recall = sums->recalled  ? sums->recall / (double)sums->recalled
                  : sums->sampled ? -1
                                  : 1,
        .drift = sums->drift_of > 0 ? sums->drift / sums->drift_of : 0,
        .planning = seconds > 0 ? sums->plan_seconds / seconds : 0,
    };
}

void attn_stats(const struct attn *a, struct attn_stats *s)
{
    const struct axis_reuse *reuse = a->stack.recipe.reuse;
    *s = (struct attn_stats){.sums = a->sums, .kernel = room_kernel_name(a)};
    s->sums.density += making_density(a);
    stats_of(s, &s->sums);
    s->budgeted = reuse && reuse->spent;
    if (s->budgeted) reuse->spent(attn_stack_by(&a->stack, ATTN_AXIS_REUSE), &s->spent);
}

void attn_repeat(struct attn *a, const struct attn_ctx *c, int n_branches,
                 const struct attn_sums *before, const struct attn_sums *after)
{
    int layers = (int)(after->calls - before->calls) / n_branches;
    for (int layer = c->layer; layer < c->layer + layers && layer < a->shape.n_layers; layer++)
        for (int branch = c->branch; branch < c->branch + n_branches; branch++)
            a->pair[layer * a->shape.n_branches + branch].last = c->step;
    a->sums.calls += after->calls - before->calls;
    a->sums.exact += after->exact - before->exact;
    a->sums.density += after->density - before->density;
    a->sums.low += after->low - before->low;
}

void attn_stats_between(struct attn_stats *to, const struct attn_sums *before,
                        const struct attn_stats *now)
{
    struct attn_sums d = now->sums;
    d.calls -= before->calls, d.exact -= before->exact, d.copies -= before->copies;
    d.sampled -= before->sampled, d.recalled -= before->recalled;
    d.density -= before->density, d.low -= before->low, d.error -= before->error,
        d.error_of -= before->error_of;
    d.recall -= before->recall, d.drift -= before->drift, d.drift_of -= before->drift_of;
    d.plan_seconds -= before->plan_seconds, d.run_seconds -= before->run_seconds;
    *to = (struct attn_stats){
        .sums = d, .kernel = now->kernel, .budgeted = now->budgeted, .spent = now->spent};
    stats_of(to, &d);
}
