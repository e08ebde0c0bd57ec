/* Which blocks are kept, by their scores. Every row keeps its best, or the block at its own place
 * when nothing has a score (attention-sparse.md C5). */
#include "attention/axes/axes.h"
#include "attention/policy/score.h"

#include <math.h>
#include <string.h>

static int blocks_kept(double density, int cols)
{
    int k = (int)ceil(density * cols - 1e-9); /* .3 of 10 is 3 */
    return k < 1 ? 1 : k < cols ? k : cols;
}

/* Of every row. */
static void best_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, 2 * (size_t)attn_limits(p).blocks * sizeof(float));
}

static void top_k(const struct axis_head *h)
{
    select_top_k(h->kept, h->scores, h->q.n, h->k.n, blocks_kept(h->p->knobs->density, h->k.n),
                 h->scratch);
    axis_finish(h);
}

static void top_k_density(const struct attn_part *p, double *lo, double *hi)
{
    int k = blocks_kept(p->knobs->density, attn_limits(p).cols);
    axis_density(p, k, k, lo, hi);
}

static void top_k_there(const struct attn_part *p, int cols, struct attn_making *m)
{
    m->pick = ATTN_PICK_TOP_K;
    m->k = blocks_kept(p->knobs->density, cols);
    m->sink = p->knobs->sink;
}

AXIS_SELECT(top_k)
const struct axis_select keep_top_k = {.name = "top-k",
                                       .summary = "as many of the best blocks in every row",
                                       .needs_score = true,
                                       .select = top_k_all,
                                       .density = top_k_density,
                                       .sizes = best_sizes,
                                       .there = top_k_there};

static void top_p(const struct axis_head *h)
{
    const struct attn_knobs *o = h->p->knobs;
    int cols = h->k.n, *index = h->scratch, least = (int)(o->least * cols);
    float *row = (float *)(index + cols);
    for (int r = 0; r < h->q.n; r++) {
        memcpy(row, h->scores + (size_t)r * (size_t)cols, (size_t)cols * sizeof *row);
        score_softmax(row, 1, cols);
        select_top_p(h->kept + (size_t)r * (size_t)attn_words(cols), row, 1, cols, o->mass, least,
                     index);
    }
    axis_finish(h);
}

static void top_p_density(const struct attn_part *p, double *lo, double *hi)
{
    int n = attn_limits(p).cols, least = (int)(p->knobs->least * n);
    axis_density(p, least > 1 ? least : 1, n, lo, hi);
}

static void top_p_there(const struct attn_part *p, int cols, struct attn_making *m)
{
    m->pick = ATTN_PICK_TOP_P;
    m->mass = p->knobs->mass;
    m->least = (int)(p->knobs->least * cols);
    m->sink = p->knobs->sink;
}

AXIS_SELECT(top_p)
const struct axis_select keep_top_p = {
    .name = "top-p",
    .summary = "the best blocks of a row until they hold a share of its weight",
    .needs_score = true,
    .select = top_p_all,
    .density = top_p_density,
    .sizes = best_sizes,
    .there = top_p_there};

/* Of a head, whatever the row: probabilities of rows are compared. */
static void percentile(const struct axis_head *h)
{
    size_t tiles = (size_t)h->q.n * (size_t)h->k.n;
    float *share = h->scratch, *sorted = share + tiles;
    memcpy(share, h->scores, tiles * sizeof *share);
    score_softmax(share, h->q.n, h->k.n);
    select_percentile(h->kept, share, h->q.n, h->k.n, h->p->knobs->density, sorted);
    int words = attn_words(h->k.n), best;
    for (int r = 0; r < h->q.n; r++) { /* a flat row may lie below the cut of the others */
        uint32_t any = 0, *row = h->kept + (size_t)r * (size_t)words;
        for (int w = 0; w < words; w++)
            any |= row[w];
        if (!any && select_best(&best, h->scores + (size_t)r * (size_t)h->k.n, h->k.n, 1) == 1)
            select_add(row, best);
    }
    axis_finish(h);
}

static void percentile_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t blocks = (size_t)attn_limits(p).blocks;
    s->scratch = axis_scratch(p, 2 * blocks * blocks * sizeof(float));
}

/* Not more than a row's best besides, but where scores are equal. */
static void percentile_density(const struct attn_part *p, double *lo, double *hi)
{
    int n = attn_limits(p).cols;
    axis_density(p, fmax(1, p->knobs->density * n - 1), n, lo, hi);
}

static void percentile_there(const struct attn_part *p, int cols, struct attn_making *m)
{
    (void)cols;
    m->pick = ATTN_PICK_PERCENTILE;
    m->share = p->knobs->density;
    m->sink = p->knobs->sink;
}

AXIS_SELECT(percentile)
const struct axis_select keep_percentile = {.name = "percentile",
                                            .summary = "the best pairs of blocks of a head",
                                            .needs_score = true,
                                            .select = percentile_all,
                                            .density = percentile_density,
                                            .sizes = percentile_sizes,
                                            .there = percentile_there};

/* Sol-Attn's rule; neighbours besides (section 12.1). */
static void above(const struct axis_head *h)
{
    int words = attn_words(h->k.n);
    select_threshold(h->kept, h->scores, h->q.n, h->k.n, (float)h->p->knobs->tau);
    for (int r = 0; r < h->q.n; r++)
        for (int c = r - 1; c <= r + 1; c++)
            if (c >= 0 && c < h->k.n) select_add(h->kept + (size_t)r * (size_t)words, c);
    axis_finish(h);
}

static void above_density(const struct attn_part *p, double *lo, double *hi)
{
    int n = attn_limits(p).cols;
    axis_density(p, n < 3 ? n : 2, n, lo, hi); /* neighbours */
}

AXIS_SELECT(above)
const struct axis_select keep_above = {.name = "above",
                                       .summary =
                                           "blocks that stand out of their row, and neighbours",
                                       .needs_score = true,
                                       .select = above_all,
                                       .density = above_density};
