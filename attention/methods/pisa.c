/* The best blocks of a row are computed, the others count by their means, and all by one common
 * slope: PISA, arXiv 2602.01077; attention-sparse.md 12.2.
 *
 * o_i gains scale * (q_i H) * G_i / len: H the sum over all blocks of (k - mean k) v^T, G_i the share
 * of a query's weight that fell on means (here under its final maximum, so that nothing is to be
 * rescaled). order=0 leaves the slope out. On the model that was looked at means lost against
 * dropping (17.2): look at clips, not at a layer's error. Cost: scores, means, and for the slope
 * 1 / block + dim / len of a dense call. */
#include "attention/axes/axes.h"

#include <math.h>
#include <string.h>

struct pisa {
    struct attn_knobs knobs;
    int order;
};

/* Scratch, from before() to after(): means, then the slopes [N, D, D]. */
static float *slopes(struct means *m, const struct attn_part *p)
{
    char *at = attn_scratch(p);
    return (float *)(at + means_carve(m, p, at));
}

static void pisa_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t dim = (size_t)p->shape->head_dim;
    struct means none;
    s->scratch =
        means_carve(&none, p, NULL) + (size_t)p->shape->n_heads * dim * dim * sizeof(float);
}

struct side {
    struct means means;
    float *slope;
};

/* Sum over the blocks of one head of (k - mean k) v^T. */
static void head_slope(const struct axis_head *h)
{
    const struct side *side = h->ctx;
    size_t dim = (size_t)h->k.dim, token = (size_t)h->p->shape->n_heads * dim;
    float *slope = side->slope + (size_t)h->head * dim * dim;
    struct blocks v = h->k;
    v.x = heads_at(&h->t->v, 0, h->head);
    v.stride = h->t->v.token;
    memset(slope, 0, dim * dim * sizeof *slope);
    for (int b = 0; b < h->k.n; b++) {
        const float *km = side->means.k + (size_t)b * token + (size_t)h->head * dim;
        for (int at = blocks_begin(&h->k, b); at < blocks_begin(&h->k, b + 1); at++)
            for (size_t c = 0; c < dim; c++) {
                float d = blocks_row(&h->k, at)[c] - km[c];
                for (size_t x = 0; x < dim; x++)
                    slope[c * dim + x] += d * blocks_row(&v, at)[x];
            }
    }
}

static int before(const struct attn_part *p, const struct attn_turn *t, struct attn_launch *l,
                  struct err *e)
{
    struct side side;
    struct attn_plan each = l->plan;
    if (means_before(p, t, l, e) < 0) return -1;
    if (!((const struct pisa *)p->options)->order) return 0;
    side.slope = slopes(&side.means, p);
    each.per_head = true;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .ctx = &side, .fn = head_slope});
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
    const float *slope = rest->side.slope + (size_t)h->head * dim * dim;
    int words = attn_words(plan->k.n), i = plan->per_head ? h->plan_no : 0;
    for (int r = 0; r < h->q.n; r++)
        for (int at = blocks_begin(&h->q, r); at < blocks_begin(&h->q, r + 1); at++) {
            int query = h->q.order ? h->q.order[at] : at;
            const float *q = blocks_row(&h->q, at);
            float *o = heads_at(&h->t->o, query, h->head);
            double weight = 0,
                   lse = (double)rest->lse[(size_t)h->head * (size_t)h->q.len + (size_t)query];
            for (int c = 0; c < h->k.n; c++) {
                const float *km = rest->side.means.k + (size_t)c * token + (size_t)h->head * dim;
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
    struct attn_plan each = s->calls->at[0].plan;
    (void)e;
    if (!((const struct pisa *)p->options)->order) return 0;
    struct rest rest = {.lse = s->lse, .plan = &s->calls->at[0].plan};
    rest.side.slope = slopes(&rest.side.means, p);
    each.per_head = true;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .ctx = &rest, .fn = add_slope});
    return 0;
}

static unsigned before_looks(const struct attn_part *p, const struct attn_turn *t)
{
    return (void)p, (void)t, ATTN_LOOK_K | ATTN_LOOK_V;
}

static unsigned after_looks(const struct attn_part *p, const struct attn_turn *t)
{
    (void)t;
    if (!((const struct pisa *)p->options)->order) return 0;
    return ATTN_LOOK_Q | ATTN_LOOK_O | ATTN_LOOK_SEEN;
}

static const struct axis_compensate rest_by_slope = {
    .name = "slope",
    .summary = "means of blocks and one slope for all",
    .needs = ATTN_NEED_MEAN,
    .wants = ATTN_NEED_LSE,
    .before = before,
    .after = after,
    .sizes = pisa_sizes,
    .before_looks = before_looks,
    .after_looks = after_looks,
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
};
