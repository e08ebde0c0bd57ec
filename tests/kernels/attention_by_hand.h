/* What a problem's outputs are, by the definition in plan/plan.h: one query at a time, in double,
 * every key asked for its fate. Shares nothing with ref.c, which is judged by it as well. */
#ifndef DITGEN_TESTS_KERNELS_ATTENTION_BY_HAND_H
#define DITGEN_TESTS_KERNELS_ATTENTION_BY_HAND_H

#include "tests/kernels/attention_problems.h"

struct answer { /* [q.len, N, D] by token, NaN for heads that are not the plan's */
    double *o, *residual; /* not rounded; residual: of MAKE_RESIDUAL */
    double *lse; /* [N, q.len] */
    double *mass, *margin; /* [N * rows, cols] */
    double most_abs, most_v; /* largest sum of |q||k| * scale of a pair, largest |v| */
};

static double *nans(size_t n)
{
    double *x = must(malloc(n * sizeof *x));
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

static double hand_score(struct answer *a, const struct problem *x, const struct heads *k, int i,
                         int j, int head)
{
    const float *q = heads_at(&x->q, i, head), *y = heads_at(k, j, head);
    int d = x->size.head_dim;
    double dot = 0, all = 0;
    for (int c = 0; c < d; c++) {
        dot += (double)q[c] * (double)y[c];
        all += fabs((double)q[c] * (double)y[c]);
    }
    if (all / sqrt((double)d) > a->most_abs) a->most_abs = all / sqrt((double)d);
    return dot / sqrt((double)d);
}

static bool hand_column(const struct attn_plan *p, size_t row, int key)
{
    for (uint32_t i = p->column_ptr ? p->column_ptr[row] : 0;
         p->column_ptr && !p->all && i < p->column_ptr[row + 1]; i++)
        if (p->columns[i] == key) return true;
    return false;
}

/* Softmax over scores [n] that are not NaN, values by index; returns lse. */
static double hand_softmax(double *o, int d, int n, const double *score, const float *const *value)
{
    double top = -HUGE_VAL, sum = 0;
    for (int i = 0; i < n; i++)
        if (score[i] > top) top = score[i];
    for (int c = 0; c < d; c++)
        o[c] = 0;
    for (int i = 0; i < n; i++) {
        double w = score[i] > -HUGE_VAL ? exp(score[i] - top) : 0; /* NaN is not above */
        sum += w;
        for (int c = 0; c < d && w > 0; c++)
            o[c] += w * (double)value[i][c];
    }
    for (int c = 0; c < d && sum > 0; c++)
        o[c] /= sum;
    return sum > 0 ? top + log(sum) : -HUGE_VAL;
}

static void hand_query(struct answer *a, const struct problem *x, int index, int row, int position)
{
    enum { MAX = 2 * MAX_LEN };
    const struct attn_plan *p = &x->plan;
    int plan = p->per_head ? index : 0, head = attn_head(p, index), d = x->size.head_dim;
    int token = attn_token(&p->q_order, plan, position), n = 0;
    size_t at = (size_t)plan * (size_t)p->q.n + (size_t)row;
    size_t head_row = (size_t)head * (size_t)p->q.n + (size_t)row, cols = (size_t)p->k.n;
    double score[MAX], all[MAX], part[256], before = -HUGE_VAL;
    const float *value[MAX], *values[MAX];
    for (int visit = 0; visit < p->k.n; visit++) {
        int t = p->walk == ATTN_WALK_DOWN ? p->k.n - 1 - visit : visit;
        enum attn_fate fate = attn_plan_fate(p, plan, row, t);
        int k0 = attn_block_at(&p->k, plan, t), k1 = attn_block_at(&p->k, plan, t + 1);
        double most = -HUGE_VAL;
        for (int i = k0; i < k1; i++) {
            int key = attn_token(&p->k_order, plan, i);
            values[i] = heads_at(&x->v, key, head);
            all[i] = hand_score(a, x, &x->k, token, key, head) +
                     (p->key_bias ? (double)p->key_bias[i] : 0);
            for (int c = 0; c < d; c++)
                if (fabs((double)values[i][c]) > a->most_v) a->most_v = fabs((double)values[i][c]);
            if (fate == ATTN_COMPUTED && all[i] > most) most = all[i];
            if (fate != ATTN_COMPUTED && !hand_column(p, at, i)) continue;
            value[n] = values[i];
            score[n++] = all[i];
        }
        if (fate == ATTN_BY_MEAN && k1 > k0) {
            value[n] = heads_at(&x->v_mean, t, head);
            score[n++] = hand_score(a, x, &x->k_mean, token, t, head) + log((double)(k1 - k0));
        }
        if (fate != ATTN_COMPUTED || k0 == k1) continue;
        double rise = before == -HUGE_VAL ? HUGE_VAL : (most - before) / log(2);
        double *m = &a->margin[head_row * cols + (size_t)t];
        if (rise > *m) *m = rise;
        if (most > before) before = most;
    }
    double *o = a->o + ((size_t)token * (size_t)x->size.n_heads + (size_t)head) * (size_t)d;
    double lse = hand_softmax(o, d, n, score, value);
    if (p->rule == ATTN_MAKE_RESIDUAL) {
        memcpy(part, o, (size_t)d * sizeof *part);
        lse = hand_softmax(o, d, p->k.len, all, values);
        for (int c = 0; c < d; c++)
            a->residual[o + c - a->o] = o[c] - part[c];
    }
    a->lse[(size_t)head * (size_t)x->size.len_q + (size_t)token] = lse;
    int queries = attn_block_at(&p->q, plan, row + 1) - attn_block_at(&p->q, plan, row);
    for (int t = 0; t < p->k.n && lse > -HUGE_VAL; t++)
        for (int i = attn_block_at(&p->k, plan, t); i < attn_block_at(&p->k, plan, t + 1); i++)
            a->mass[head_row * cols + (size_t)t] += exp(all[i] - lse) / queries;
}

static struct answer by_hand(const struct problem *x)
{
    const struct attn_plan *p = &x->plan;
    size_t n = (size_t)x->size.len_q * (size_t)x->size.n_heads;
    size_t tiles = (size_t)x->size.n_heads * (size_t)p->q.n * (size_t)p->k.n;
    struct answer a = {.o = nans(n * (size_t)x->size.head_dim),
                       .residual = nans(n * (size_t)x->size.head_dim),
                       .lse = nans(n),
                       .mass = must(calloc(tiles, sizeof(double))),
                       .margin = nans(tiles)};
    for (size_t i = 0; i < tiles; i++)
        a.margin[i] = -HUGE_VAL;
    for (int i = 0; i < p->n_heads; i++)
        for (int row = 0; row < p->q.n; row++)
            for (int q = attn_block_at(&p->q, p->per_head ? i : 0, row);
                 q < attn_block_at(&p->q, p->per_head ? i : 0, row + 1); q++)
                hand_query(&a, x, i, row, q);
    return a;
}

static void answer_free(struct answer *a)
{
    free(a->o);
    free(a->residual);
    free(a->lse);
    free(a->mass);
    free(a->margin);
}

#endif
