/* Means are believed where the tokens of a block are alike, and the rest is always computed:
 * SpargeAttn, arXiv 2502.18137; attention-sparse.md 11, its selection (its 8-bit products and its
 * skipping inside the kernel are other axes').
 *
 * Likeness is that of q and of k without its mean over all tokens. The block that crosses the share
 * is not kept, the best always is. */
#include "attention/axes/axes.h"
#include "attention/policy/pool.h"
#include "attention/policy/score.h"

#include <math.h>
#include <string.h>

struct sparge {
    struct attn_knobs knobs;
    double like;
};

/* k minus its mean, by token, [len, dim] */
static struct blocks smoothed(float *to, const struct blocks *k)
{
    struct blocks b = *k;
    float mean[256];
    pool_all(mean, k);
    for (int i = 0; i < k->len; i++)
        for (int c = 0; c < k->dim; c++)
            to[(size_t)i * (size_t)k->dim + (size_t)c] = k->x[i * k->stride + c] - mean[c];
    b.x = to;
    b.stride = k->dim;
    return b;
}

static void keep(const struct axis_head *h)
{
    const struct sparge *o = h->p->options;
    int cols = h->k.n, rows = h->q.n, words = attn_words(cols);
    float *k_like = h->scratch, *q_like = k_like + cols, *row = q_like + rows;
    int *index = (int *)(row + cols);
    struct blocks k = smoothed((float *)(index + cols), &h->k);
    pool_likeness(k_like, &k);
    pool_likeness(q_like, &h->q);
    for (int r = 0; r < rows; r++) {
        uint32_t *bits = h->kept + (size_t)r * (size_t)words;
        double before = 0;
        memcpy(row, h->scores + (size_t)r * (size_t)cols, (size_t)cols * sizeof *row);
        for (int c = 0; c < cols; c++)
            if (!((double)k_like[c] > o->like)) row[c] = -INFINITY, select_add(bits, c);
        if (!((double)q_like[r] > o->like)) {
            select_row(h->kept, cols, r);
            continue;
        }
        score_softmax(row, 1, cols);
        int n = select_best(index, row, cols, cols);
        for (int i = 0; i < n && row[index[i]] > 0; i++) {
            before += (double)row[index[i]];
            if (i && before > o->knobs.mass) break;
            select_add(bits, index[i]);
        }
    }
    axis_finish(h);
}

static void keep_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(
        p, (4 * (size_t)attn_limits(p).blocks + (size_t)p->tokens * (size_t)p->shape->head_dim) *
               sizeof(float));
}

AXIS_SELECT(keep)

static const struct axis_select keep_alike = {
    .name = "alike",
    .summary = "a share of the weight of blocks that are alike inside, and all others",
    .needs_score = true,
    .per_head = true,
    .select = keep_all,
    .sizes = keep_sizes};

const struct attn_method attn_sparge = {
    .name = "sparge",
    .summary = "blocks scored by their means where tokens are alike, and all other blocks",
    .paper = "2502.18137",
    .recipe = {.score = &score_by_mean, .select = &keep_alike},
    .options = OPTIONS(KNOB_MASS(0.98),
                       OPT_DOUBLE(struct sparge, like, "like", 0.6, -1, 1,
                                  "mean cosine inside a block from which on its mean is believed"),
                       KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct sparge),
};
