/* What a run did: density of what was computed, and, of approximate calls, a few rows against exact
 * attention.
 *
 * Rows are drawn evenly over queries and heads (attn_random), so that the mean over many calls is
 * unbiased; each costs 4 * L * D operations, about 1 / (rows * heads) of a call. */
#include "attention/room.h"

#include <math.h>
#include <time.h>

#define ROWS 2 /* a call: 640 of a run of the embedded model */

double meter_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double meter_density(const struct attn *a, const struct attn_calls *c)
{
    double sum = 0;
    for (int i = 0; i < c->n; i++) {
        const struct attn_plan *p = &c->at[i].plan;
        double d = p->rule == ATTN_ZERO || p->rule == ATTN_COPY ? 0
                   : p->rule == ATTN_MAKE_RESIDUAL || p->all    ? 1
                                                             : attn_plan_density(p, a->size.len_k);
        sum += d * p->n_heads;
    }
    return sum / a->shape.n_heads;
}

void meter_copy(struct attn *a)
{
    a->calls++;
    a->copies++;
}

static float value(const struct heads *h, int token, int head, int channel)
{
    const void *at = heads_at(h, token, head);
    if (h->type == DTYPE_BF16) return bf16_to_f32(((const uint16_t *)at)[channel]);
    return ((const float *)at)[channel];
}

/* Exact attention of one query of one head: o [D] in double; returns maximum and sum of weights. */
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
        const float *k = heads_at(&t->k, j, head), *v = heads_at(&t->v, j, head);
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
        for (int c = 0; c < dim; c++)
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
                a->error_sum += fabs((double)value(&t->o, token, head, d) - o[d]);
                a->error_of += fabs(o[d]);
            }
            a->sampled++;
            if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) continue;
            a->recall_sum += mass_of(t, p, plan, head, position, most, sum);
            a->recalled++;
        }
    }
}

/* Exact calls, and those that make a residual, have no error to be sampled. */
void meter_call(struct attn *a, const struct attn_turn *t, const struct attn_calls *c)
{
    a->calls++;
    a->density_sum += meter_density(a, c);
    if (t->exact || a->stack.exact || c->at[0].plan.rule == ATTN_MAKE_RESIDUAL) return;
    for (int n = 0; n < ROWS; n++)
        sample(a, t, c, n);
}

void meter_drift(struct attn *a, const struct attn_ctx *c, const uint16_t *old, const float *now)
{
    size_t width = (size_t)a->shape.n_heads * (size_t)a->shape.head_dim;
    for (uint64_t n = 0; n < ROWS; n++) {
        size_t row = attn_random(c, 1, n) % (uint64_t)a->size.len_q;
        for (size_t i = row * width; i < (row + 1) * width; i++) {
            a->drift_sum += fabs((double)bf16_to_f32(old[i]) - (double)now[i]);
            a->drift_of += fabs((double)now[i]);
        }
    }
}

void attn_stats(const struct attn *a, struct attn_stats *s)
{
    double seconds = a->plan_seconds + a->run_seconds;
    *s = (struct attn_stats){
        .kernel = a->kernel->name,
        .density = a->calls ? a->density_sum / (double)a->calls : 1,
        .calls = a->calls,
        .copies = a->copies,
        .sampled = a->sampled,
        .error = a->error_of > 0 ? a->error_sum / a->error_of : 0,
        .recall = a->recalled ? a->recall_sum / (double)a->recalled : 1,
        .drift = a->drift_of > 0 ? a->drift_sum / a->drift_of : 0,
        .planning = seconds > 0 ? a->plan_seconds / seconds : 0,
    };
}
