/* How much a block of keys matters to a block of queries, by what stands for both: means, maxima,
 * means of runs; or by looking at tokens: antidiagonals, exact mass of some rows.
 *
 * Sections 1, 3, 4, 8, 12.3 of attention-sparse.md. Blocks weigh as many tokens as they have, also
 * where a paper leaves that out: only the last, shorter one differs. */
#include "attention/policy/score.h"

#include "attention/axes/axes.h"
#include "attention/policy/pool.h"

#include <math.h>

static size_t dim_of(const struct attn_part *p) { return (size_t)p->shape->head_dim; }
static size_t blocks_most(const struct attn_part *p) { return (size_t)attn_limits(p).blocks; }

/* --- pooled --- */

static void pooled(const struct axis_head *h, void (*pool)(float *, const struct blocks *))
{
    size_t dim = (size_t)h->q.dim;
    float *qp = h->scratch, *kp = qp + (size_t)h->q.n * dim;
    int *count = (int *)(kp + (size_t)h->k.n * dim);
    pool(qp, &h->q);
    pool(kp, &h->k);
    axis_counts(count, &h->k);
    score_pooled(h->score, qp, kp, count, h->q.n, h->k.n, h->q.dim, h->scale, h->dots);
}

static void pooled_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, blocks_most(p) * (2 * dim_of(p) + 1) * sizeof(float));
}

static void mean(const struct axis_head *h) { pooled(h, pool_mean); }
static void max(const struct axis_head *h) { pooled(h, pool_max); }
AXIS_SCORE(mean)
AXIS_SCORE(max)

static void mean_there(const struct attn_part *p, struct attn_making *m)
{
    (void)p;
    m->pool = ATTN_POOL_MEAN, m->runs = 1;
}

static void max_there(const struct attn_part *p, struct attn_making *m)
{
    (void)p;
    m->pool = ATTN_POOL_MAX, m->runs = 1;
}

const struct axis_score score_by_mean = {.name = "mean",
                                         .summary = "means of blocks",
                                         .per_head = true,
                                         .score = mean_all,
                                         .sizes = pooled_sizes,
                                         .there = mean_there};
const struct axis_score score_by_max = {.name = "max",
                                        .summary = "largest values of blocks, channel by channel",
                                        .per_head = true,
                                        .score = max_all,
                                        .sizes = pooled_sizes,
                                        .there = max_there};

/* --- runs --- */

static void runs(const struct axis_head *h)
{
    size_t n = (size_t)h->p->knobs->runs, dim = (size_t)h->q.dim;
    size_t rows = (size_t)h->q.n * n, cols = (size_t)h->k.n * n;
    float *qm = h->scratch, *km = qm + rows * dim, *z = km + cols * dim;
    int *q_count = (int *)(z + n * cols), *k_count = q_count + rows;
    pool_runs(qm, q_count, &h->q, (int)n);
    pool_runs(km, k_count, &h->k, (int)n);
    score_runs(h->score, qm, q_count, km, k_count, h->q.n, h->k.n, (int)n, h->q.dim, h->scale, z,
               h->dots);
}

static void runs_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t n = (size_t)p->knobs->runs, all = blocks_most(p) * n;
    s->scratch = axis_scratch(p, all * (2 * dim_of(p) + n + 2) * sizeof(float));
}

static void runs_there(const struct attn_part *p, struct attn_making *m)
{
    m->pool = ATTN_POOL_MEAN, m->runs = p->knobs->runs;
}

AXIS_SCORE(runs)
const struct axis_score score_by_runs = {.name = "runs",
                                         .summary = "means of the runs of blocks, pair by pair",
                                         .per_head = true,
                                         .score = runs_all,
                                         .sizes = runs_sizes,
                                         .there = runs_there};

/* --- tokens --- */

static void to_log(float *mass, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mass[i] = mass[i] > 0 ? logf(mass[i]) : -INFINITY;
}

static void antidiagonal(const struct axis_head *h)
{
    score_antidiagonal(h->score, &h->q, &h->k, h->p->knobs->stride, h->scale, h->scratch, h->dots);
    to_log(h->score, (size_t)h->q.n * (size_t)h->k.n);
}

static void antidiagonal_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    /* as many groups as blocks of any length can have */
    int stride = p->knobs->stride, groups = p->tokens / stride + attn_limits(p).blocks + 1;
    struct blocks b = {
        .len = groups * stride, .dim = p->shape->head_dim, .size = stride, .n = groups};
    s->scratch = axis_scratch(p, score_antidiagonal_scratch(&b, &b, stride));
}

AXIS_SCORE(antidiagonal)
const struct axis_score score_by_antidiagonal = {.name = "antidiagonal",
                                                 .summary = "sums along antidiagonals",
                                                 .per_head = true,
                                                 .score = antidiagonal_all,
                                                 .sizes = antidiagonal_sizes};

static void mass(const struct axis_head *h)
{
    score_mass(h->score, &h->q, &h->k, h->p->knobs->stride, h->scale, NULL, NULL, h->scratch,
               h->dots);
    to_log(h->score, (size_t)h->q.n * (size_t)h->k.n);
}

static void mass_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    struct blocks b = {.len = p->tokens, .dim = p->shape->head_dim};
    s->scratch = axis_scratch(p, score_mass_scratch(&b, &b));
}

AXIS_SCORE(mass)
const struct axis_score score_by_mass = {.name = "mass",
                                         .summary = "exact weight, of some queries of each block",
                                         .per_head = true,
                                         .score = mass_all,
                                         .sizes = mass_sizes};
