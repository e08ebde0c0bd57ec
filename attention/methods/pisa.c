/* The best blocks of a row are computed, the others count by their means, and all by one common
 * slope: PISA, arXiv 2602.01077; attention-sparse.md 12.2.
 *
 * o_i gains scale * (q_i H) * G_i / len: H the sum over all blocks of (k - mean k) v^T, G_i the share
 * of a query's weight that fell on means (here under its final maximum, so that nothing is to be
 * rescaled). order=0 leaves the slope out. On the model that was looked at means lost against
 * dropping (17.2): look at clips, not at a layer's error. Cost: scores, means, and for the slope
 * 1 / block + dim / len of a dense call. */
#include "attention/axes/axes.h"
#include "attention/policy/pool.h"

#include <math.h>
#include <string.h>

struct pisa {
    struct attn_knobs knobs;
    int order;
};

struct room { /* of one call, in scratch, from before() to after() */
    float *k_mean, *v_mean; /* [most, N, D] */
    float *slope; /* [N, D, D] */
    uint32_t *mean; /* [plans * rows, words] */
};

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

static size_t carve(struct room *to, const struct attn_part *p, char *at)
{
    struct attn_limits most = attn_limits(p);
    size_t n = (size_t)p->shape->n_heads, dim = (size_t)p->shape->head_dim;
    size_t means = round64((size_t)most.blocks * n * dim * sizeof(float));
    size_t slope = round64(n * dim * dim * sizeof(float));
    size_t plane = round64(n * (size_t)most.blocks * (size_t)attn_words(most.blocks) * 4);
    *to = (struct room){0};
    if (at)
        *to = (struct room){(float *)at, (float *)(at + means), (float *)(at + 2 * means),
                            (uint32_t *)(at + 2 * means + slope)};
    return 2 * means + slope + plane;
}

static void pisa_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    struct room none;
    s->scratch = carve(&none, p, NULL);
}

struct side {
    struct room *room;
    bool slope;
};

/* Means of one head's keys and values, and its slope. */
static void head_means(const struct axis_head *h)
{
    const struct side *side = h->ctx;
    size_t dim = (size_t)h->k.dim, token = (size_t)h->p->shape->n_heads * dim;
    float *slope = side->room->slope + (size_t)h->head * dim * dim;
    struct blocks v = h->k;
    v.x = heads_at(&h->t->v, 0, h->head);
    v.stride = h->t->v.token;
    if (side->slope) memset(slope, 0, dim * dim * sizeof *slope);
    for (int b = 0; b < h->k.n; b++) {
        float *km = side->room->k_mean + (size_t)b * token + (size_t)h->head * dim;
        float *vm = side->room->v_mean + (size_t)b * token + (size_t)h->head * dim;
        int from = blocks_begin(&h->k, b), to = blocks_begin(&h->k, b + 1);
        memset(km, 0, dim * sizeof *km);
        memset(vm, 0, dim * sizeof *vm);
        for (int at = from; at < to; at++)
            for (size_t c = 0; c < dim; c++) {
                km[c] += blocks_row(&h->k, at)[c] / (float)(to - from);
                vm[c] += blocks_row(&v, at)[c] / (float)(to - from);
            }
        for (int at = from; side->slope && at < to; at++)
            for (size_t c = 0; c < dim; c++) {
                float d = blocks_row(&h->k, at)[c] - km[c];
                for (size_t x = 0; x < dim; x++)
                    slope[c * dim + x] += d * blocks_row(&v, at)[x];
            }
    }
}

/* A plan for every head, which may stand for a plan that all share. */
static void every_head(const struct attn_part *p, const struct attn_turn *t,
                       const struct attn_plan *plan, struct side *side,
                       void (*fn)(const struct axis_head *h))
{
    struct attn_plan each = *plan;
    each.per_head = true;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .ctx = side, .fn = fn});
}

static int before(const struct attn_part *p, const struct attn_turn *t, struct attn_launch *l,
                  struct err *e)
{
    struct attn_plan *plan = &l->plan;
    struct room room;
    int words = attn_words(plan->k.n);
    (void)e;
    carve(&room, p, attn_scratch(p));
    every_head(p, t, plan, &(struct side){&room, ((const struct pisa *)p->options)->order > 0},
               head_means);
    memset(room.mean, 0, attn_plane_size(plan) * sizeof *room.mean);
    for (int i = 0; i < attn_plans(plan); i++)
        for (int r = 0; r < plan->q.n; r++)
            for (int c = 0; c < plan->k.n; c++) {
                size_t row = (size_t)i * (size_t)plan->q.n + (size_t)r;
                if (attn_block_at(&plan->k, i, c) < attn_block_at(&plan->k, i, c + 1) &&
                    !attn_bit(plan->kept, row, words, c))
                    select_add(room.mean + row * (size_t)words, c);
            }
    plan->mean = room.mean;
    l->k_mean = heads_f32(room.k_mean, plan->k.n, p->shape->n_heads, p->shape->head_dim);
    l->v_mean = heads_f32(room.v_mean, plan->k.n, p->shape->n_heads, p->shape->head_dim);
    return 0;
}

struct rest {
    struct side side;
    const float *lse; /* [N, L] */
    const struct attn_plan *plan; /* as it was run */
};

static void add_slope(const struct axis_head *h)
{
    const struct rest *rest = h->ctx;
    const struct attn_plan *plan = rest->plan;
    size_t dim = (size_t)h->q.dim, token = (size_t)h->p->shape->n_heads * dim;
    const float *slope = rest->side.room->slope + (size_t)h->head * dim * dim;
    int words = attn_words(plan->k.n), i = plan->per_head ? h->plan_no : 0;
    for (int r = 0; r < h->q.n; r++)
        for (int at = blocks_begin(&h->q, r); at < blocks_begin(&h->q, r + 1); at++) {
            int query = h->q.order ? h->q.order[at] : at;
            const float *q = blocks_row(&h->q, at);
            float *o = heads_at(&h->t->o, query, h->head);
            double weight = 0,
                   lse = (double)rest->lse[(size_t)h->head * (size_t)h->q.len + (size_t)query];
            for (int c = 0; c < h->k.n; c++) {
                const float *km =
                    rest->side.room->k_mean + (size_t)c * token + (size_t)h->head * dim;
                if (!attn_bit(plan->mean, (size_t)i * (size_t)h->q.n + (size_t)r, words, c))
                    continue;
                double s = 0;
                for (size_t x = 0; x < dim; x++)
                    s += (double)(q[x] * km[x]);
                weight += blocks_count(&h->k, c) * exp(s * (double)h->scale - lse);
            }
            float by = (float)(weight * (double)h->scale / h->k.len);
            for (size_t c = 0; c < dim; c++)
                for (size_t x = 0; x < dim; x++)
                    o[x] += by * q[c] * slope[c * dim + x];
        }
}

static int after(const struct attn_part *p, const struct attn_turn *t, const struct attn_seen *s,
                 struct err *e)
{
    struct room room;
    struct attn_plan each = s->calls->at[0].plan;
    (void)e;
    if (!((const struct pisa *)p->options)->order) return 0;
    carve(&room, p, attn_scratch(p));
    struct rest rest = {{&room, true}, s->lse, &s->calls->at[0].plan};
    each.per_head = true;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .ctx = &rest, .fn = add_slope});
    return 0;
}

static const struct axis_compensate rest_by_slope = {
    .name = "slope",
    .summary = "means of blocks and one slope for all",
    .needs = ATTN_NEED_MEAN,
    .wants = ATTN_NEED_LSE,
    .before = before,
    .after = after,
};

const struct attn_method attn_pisa = {
    .name = "pisa",
    .summary = "the best blocks of a row, means and one common slope for the rest",
    .paper = "2602.01077",
    .recipe = {.score = &score_by_mean, .select = &keep_top_k, .compensate = &rest_by_slope},
    .options = OPTIONS(
        KNOB_DENSITY(0.15, "share of blocks that a row keeps"),
        OPT_INT(struct pisa, order, "order", 1, 0, 1, "1: with the common slope; 0: means alone"),
        KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0.1), KNOB_BLOCK(64)),
    .options_size = sizeof(struct pisa),
    .sizes = pisa_sizes,
};
