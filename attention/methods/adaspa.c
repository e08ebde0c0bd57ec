/* Exact weight of blocks, searched at a few steps and kept between: AdaSpa, arXiv 2502.21079;
 * attention-sparse.md 3.
 *
 * Rows keep as many blocks; of a layer's heads those whose kept weight is above .8 keep fewer, at
 * most half of them, and as many of the poorest keep more, so that the mean stays. Searches stand
 * evenly over the steps that are not exact (10 and 30 of 50). Deviation: each search takes its own
 * sums of rows rather than those of the first, and `stride` may look at every so many queries.
 * Beside what says itself when a plan stands (resid, haste) that is when it searches.
 * Cost: 1 / (2 stride) of a dense call for each search. */
#include "attention/axes/axes.h"

#include <math.h>

struct adaspa {
    struct attn_knobs knobs;
    int searches;
};

/* --- when --- */

static bool search_anew(const struct attn_part *p, const struct attn_turn *t)
{
    int n = ((const struct adaspa *)p->options)->searches, steps = p->last - p->first;
    for (int i = 0; i < n; i++)
        if (t->at.step == p->first + (int)((int64_t)steps * i / n)) return true;
    return false;
}

static const struct axis_reuse anew_by_searches = {
    .name = "searches",
    .summary = "a plan stands until the next of a few searches",
    .anew = search_anew,
    .scheduled = true,
};

/* --- what --- */

static int blocks_of(double density, int cols)
{
    int k = (int)ceil(density * cols - 1e-9);
    return k < 1 ? 1 : k < cols ? k : cols;
}

struct tiers { /* of one layer */
    double density[256]; /* of each head */
    double recall[256];
};

/* Share of a head's weight in the best blocks of its rows. */
static void weigh(const struct axis_head *h)
{
    struct tiers *tier = h->ctx;
    int cols = h->k.n, *index = h->scratch, k = blocks_of(h->p->knobs->density, cols);
    double kept = 0, all = 0;
    for (int r = 0; r < h->q.n; r++) {
        const float *s = h->scores + (size_t)r * (size_t)cols;
        int n = select_best(index, s, cols, k);
        for (int i = 0; i < n; i++)
            kept += exp((double)s[index[i]]);
        for (int c = 0; c < cols; c++)
            all += exp((double)s[c]);
    }
    tier->recall[h->plan_no] = all > 0 ? kept / all : 0;
}

static void keep(const struct axis_head *h)
{
    const struct tiers *tier = h->ctx;
    select_top_k(h->kept, h->scores, h->q.n, h->k.n, blocks_of(tier->density[h->plan_no], h->k.n),
                 h->scratch);
    axis_finish(h);
}

/* How many heads have more recall than head i, equals by number. */
static int rank(const struct tiers *tier, int n, int i)
{
    int before = 0;
    for (int j = 0; j < n; j++)
        before +=
            tier->recall[j] > tier->recall[i] || (!(tier->recall[j] < tier->recall[i]) && j < i);
    return before;
}

static int keep_all(const struct attn_part *p, const struct attn_turn *t,
                    const struct attn_plan *plan, const float *score, uint32_t *kept, struct err *e)
{
    struct tiers tier;
    double s = 1 - p->knobs->density, most = fmin(1, 1 - (3 * s - 1) / 2);
    int n = attn_plans(plan), rich = 0;
    struct axis_job job = {
        .p = p, .t = t, .plan = plan, .scores = score, .kept = kept, .ctx = &tier, .fn = weigh};
    (void)e;
    axis_heads(&job);
    for (int i = 0; i < n; i++)
        rich += tier.recall[i] > 0.8;
    if (rich > n / 2) rich = n / 2;
    if (s < 1. / 3) rich = 0; /* the poor could not keep as much more */
    for (int i = 0; i < n; i++) {
        int at = rank(&tier, n, i);
        tier.density[i] = at < rich ? (1 - s) / 2 : at >= n - rich ? most : 1 - s;
    }
    job.fn = keep;
    axis_heads(&job);
    return 0;
}

/* Tiers leave the mean where it is, but for whole blocks. */
static void keep_density(const struct attn_part *p, double *lo, double *hi)
{
    int n = attn_limits(p).cols;
    axis_density(p, p->knobs->density * n, p->knobs->density * n + 1, lo, hi);
}

static void keep_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, (size_t)attn_limits(p).blocks * sizeof(int));
}

static const struct axis_select keep_by_tier = {
    .name = "tiers",
    .summary = "the best blocks of every row, fewer where they hold nearly all",
    .needs_score = true,
    .select = keep_all,
    .density = keep_density,
    .sizes = keep_sizes};

const struct attn_method attn_adaspa = {
    .name = "adaspa",
    .summary = "exact weight of blocks, searched at a few steps and kept between",
    .paper = "2502.21079",
    .recipe = {.score = &score_by_mass,
               .select = &keep_by_tier,
               .reuse = &anew_by_searches,
               .mild_reuse = true},
    .options = OPTIONS(
        KNOB_DENSITY(0.2, "share of blocks that a row keeps, in the mean of heads"),
        OPT_INT(struct adaspa, searches, "searches", 2, 1, 1000, "how often it searches in a run"),
        OPT_INT(struct attn_knobs, stride, "stride", 1, 1, 64,
                "queries from one that is looked at to the next"),
        KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct adaspa),
};
