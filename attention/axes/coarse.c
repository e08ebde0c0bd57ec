/* How much a block of keys matters to a block of queries, by a cheap look at every token: few
 * channels, or 4-bit codes; and one score for all heads of a layer. */
#include "attention/axes/axes.h"
#include "attention/policy/pool.h"
#include "attention/policy/score.h"

#include <math.h>
#include <string.h>

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

static void to_log(float *mass, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mass[i] = mass[i] > 0 ? logf(mass[i]) : -INFINITY;
}

/* --- few channels: Loki's, those in which keys differ most --- */

enum { ITERATIONS = 6 }; /* directions need not be exact: what counts is the space they span */

struct space {
    const float *basis; /* [rank, dim] */
    int rank, dim;
};

static void project(float *to, const float *x, bool key, const void *ctx)
{
    const struct space *s = ctx;
    (void)key;
    for (int r = 0; r < s->rank; r++) {
        const float *row = s->basis + (size_t)r * (size_t)s->dim;
        to[r] = 0;
        for (int i = 0; i < s->dim; i++)
            to[r] += row[i] * x[i];
    }
}

static int rank_of(const struct attn_part *p)
{
    return p->knobs->rank < p->shape->head_dim ? p->knobs->rank : p->shape->head_dim;
}

static void rank(const struct axis_head *h)
{
    int n = rank_of(h->p);
    float *basis = h->scratch;
    char *rest = (char *)basis + round64((size_t)n * (size_t)h->k.dim * sizeof *basis);
    struct space space = {basis, n, h->k.dim};
    score_basis(basis, n, &h->k, ITERATIONS, rest);
    score_mass_seen(h->score, &h->q, &h->k, h->p->knobs->stride, h->scale,
                    &(struct score_view){n, project, &space}, rest, h->dots);
    to_log(h->score, (size_t)h->q.n * (size_t)h->k.n);
}

static void rank_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    int n = rank_of(p);
    struct blocks b = {.len = p->tokens, .dim = n};
    size_t basis = score_basis_scratch(n, p->shape->head_dim), mass = score_mass_scratch(&b, &b);
    s->scratch = axis_scratch(p, round64((size_t)n * (size_t)p->shape->head_dim * sizeof(float)) +
                                     (basis > mass ? basis : mass));
}

AXIS_SCORE(rank)
const struct axis_score score_by_rank = {.name = "rank",
                                         .summary = "weight by the channels in which keys differ",
                                         .per_head = true,
                                         .score = rank_all,
                                         .sizes = rank_sizes};

/* --- few digits --- */

struct codes {
    float mean[256]; /* of keys: attention does not see it */
    int dim;
};

static void code(float *to, const float *x, bool key, const void *ctx)
{
    const struct codes *c = ctx;
    score_codes(to, x, key ? c->mean : NULL, c->dim);
}

static void int4(const struct axis_head *h)
{
    struct codes c = {.dim = h->k.dim};
    pool_all(c.mean, &h->k);
    score_mass_seen(h->score, &h->q, &h->k, h->p->knobs->stride, h->scale,
                    &(struct score_view){h->k.dim, code, &c}, h->scratch, h->dots);
    to_log(h->score, (size_t)h->q.n * (size_t)h->k.n);
}

static void int4_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    struct blocks b = {.len = p->tokens, .dim = p->shape->head_dim};
    s->scratch = axis_scratch(p, score_mass_scratch(&b, &b));
}

AXIS_SCORE(int4)
const struct axis_score score_by_int4 = {.name = "int4",
                                         .summary = "weight by 4-bit codes of queries and keys",
                                         .per_head = true,
                                         .score = int4_all,
                                         .sizes = int4_sizes};

/* --- all heads of a layer --- */

/* Adds a head's shares of each row's weight, by means of blocks. */
static void add_head(const struct axis_head *h)
{
    size_t dim = (size_t)h->q.dim, tiles = (size_t)h->q.n * (size_t)h->k.n;
    float *map = h->scratch, *qp = map + tiles, *kp = qp + (size_t)h->q.n * dim;
    int *count = (int *)(kp + (size_t)h->k.n * dim);
    pool_mean(qp, &h->q);
    pool_mean(kp, &h->k);
    axis_counts(count, &h->k);
    score_pooled(map, qp, kp, count, h->q.n, h->k.n, h->q.dim, h->scale, h->dots);
    score_softmax(map, h->q.n, h->k.n);
    for (size_t i = 0; i < tiles; i++)
        h->score[i] += map[i];
}

static int layer(const struct attn_part *p, const struct attn_turn *t, const struct attn_plan *plan,
                 float *score, struct err *e)
{
    size_t tiles = (size_t)plan->q.n * (size_t)plan->k.n * (size_t)attn_plans(plan);
    (void)e;
    memset(score, 0, tiles * sizeof *score);
    axis_each_head(
        &(struct axis_job){.p = p, .t = t, .plan = plan, .score = score, .fn = add_head});
    to_log(score, tiles);
    return 0;
}

static void layer_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t n = (size_t)attn_limits(p).blocks;
    s->scratch = n * (n + 2 * (size_t)p->shape->head_dim + 1) * sizeof(float);
}

const struct axis_score score_by_layer = {.name = "layer",
                                          .summary = "means of blocks, one score for all heads",
                                          .score = layer,
                                          .sizes = layer_sizes};
