/* Every query picks its own best blocks by their mean keys, and a block of queries keeps what any of
 * them picked: MoBA, arXiv 2502.13189, without training; attention-sparse.md 12.7. */
#include "attention/axes/axes.h"
#include "attention/policy/pool.h"
#include "attention/policy/score.h"

#include <math.h>

static int picks_of(const struct attn_part *p, int cols)
{
    int n = (int)ceil(p->knobs->density * cols - 1e-9);
    return n < 1 ? 1 : n;
}

static void pick(const struct axis_head *h)
{
    int cols = h->k.n, dim = h->q.dim, words = attn_words(cols);
    float *mean = h->scratch, *row = mean + (size_t)cols * (size_t)dim;
    int *count = (int *)(row + cols), *index = count + cols;
    pool_mean(mean, &h->k);
    axis_counts(count, &h->k);
    for (int r = 0; r < h->q.n; r++)
        for (int at = blocks_begin(&h->q, r); at < blocks_begin(&h->q, r + 1); at++) {
            score_pooled(row, blocks_row(&h->q, at), mean, count, 1, cols, dim, h->scale, h->dots);
            select_top_k(h->kept + (size_t)r * (size_t)words, row, 1, cols, picks_of(h->p, cols),
                         index);
        }
    axis_finish(h);
}

static void pick_density(const struct attn_part *p, double *lo, double *hi)
{
    int n = attn_limits(p).cols, k = picks_of(p, n);
    axis_density(p, k, fmin(n, (double)k * attn_limits(p).block), lo, hi);
}

AXIS_SELECT(pick)

static void pick_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t blocks = (size_t)attn_limits(p).blocks;
    s->scratch = axis_scratch(p, blocks * ((size_t)p->shape->head_dim + 3) * sizeof(float));
}

static const struct axis_select keep_picked = {.name = "picked",
                                               .summary = "what any query of a block picks",
                                               .per_head = true,
                                               .select = pick_all,
                                               .density = pick_density,
                                               .sizes = pick_sizes};

const struct attn_method attn_moba = {
    .name = "moba",
    .summary = "what any query of a block picks by mean keys",
    .paper = "2502.13189",
    .recipe = {.select = &keep_picked},
    .options = OPTIONS(KNOB_DENSITY(0.1, "share of blocks that one query picks"), KNOB_SINK(0),
                       KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct attn_knobs),
};
