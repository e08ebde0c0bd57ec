/* A plan stands until queries or keys have moved: HASTE, arXiv 2605.14513; attention-sparse.md 12.5.
 *
 * What is compared are means of runs of 128 tokens, in bf16, with those of the last plan: the largest
 * |x - x'| / |x'| over runs and heads, of q and of k. State a layer and branch: 4 bytes a channel and
 * run. One thread: a pass over q and k. */
#include "attention/axes/axes.h"
#include "attention/policy/pool.h"
#include "model/base/dtype.h"

#include <math.h>

enum { RUN = 128 };

static int runs_of(const struct attn_part *p) { return (p->tokens + RUN - 1) / RUN; }

static size_t row_of(const struct attn_part *p)
{
    return (size_t)runs_of(p) * (size_t)p->shape->head_dim;
}

static void pooled(float *mean, const struct heads *x, int head, const struct attn_part *p)
{
    pool_mean(mean, &(struct blocks){.x = heads_at(x, 0, head),
                                     .stride = x->token,
                                     .len = p->tokens,
                                     .dim = x->dim,
                                     .size = RUN,
                                     .n = runs_of(p)});
}

static uint16_t *place(const struct attn_part *p, const struct attn_turn *t, int side, int head)
{
    uint16_t *state = attn_state(p, t->at.layer, t->at.branch);
    return state + ((size_t)side * (size_t)p->shape->n_heads + (size_t)head) * row_of(p);
}

static void drift_made(const struct attn_part *p, const struct attn_turn *t)
{
    float *mean = attn_scratch(p);
    for (int side = 0; side < 2; side++)
        for (int head = 0; head < p->shape->n_heads; head++) {
            uint16_t *to = place(p, t, side, head);
            pooled(mean, side ? &t->k : &t->q, head, p);
            for (size_t i = 0; i < row_of(p); i++)
                to[i] = f32_to_bf16(mean[i]);
        }
}

static bool drift_anew(const struct attn_part *p, const struct attn_turn *t)
{
    float *mean = attn_scratch(p);
    int dim = p->shape->head_dim;
    for (int side = 0; side < 2; side++)
        for (int head = 0; head < p->shape->n_heads; head++) {
            const uint16_t *old = place(p, t, side, head);
            pooled(mean, side ? &t->k : &t->q, head, p);
            for (int r = 0; r < runs_of(p); r++) {
                double moved = 0, was = 0;
                for (int c = 0; c < dim; c++) {
                    double before = (double)bf16_to_f32(old[r * dim + c]);
                    double d = (double)mean[r * dim + c] - before;
                    moved += d * d;
                    was += before * before;
                }
                /* NaN plans anew */
                if (!(sqrt(moved) <= p->knobs->drift * sqrt(was))) return true;
            }
        }
    return false;
}

static void drift_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->state = 2 * (size_t)p->shape->n_heads * row_of(p) * sizeof(uint16_t);
    s->scratch = axis_scratch(p, row_of(p) * sizeof(float));
}

const struct axis_reuse anew_by_drift = {
    .name = "drift",
    .summary = "a plan stands until queries or keys have moved",
    .anew = drift_anew,
    .made = drift_made,
    .sizes = drift_sizes,
};
