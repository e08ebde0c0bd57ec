/* A band of blocks and a few anchor frames that all look at, and that move on with every step, so
 * that each token is an anchor in turn: LVSA, arXiv 2605.31057; attention-sparse.md 12.6. For clips
 * longer than a model was trained with; nothing is looked at. */
#include "attention/axes/axes.h"

#include <math.h>

struct lvsa {
    struct attn_knobs knobs;
    int anchors, move;
};

static void keep(const struct axis_head *h)
{
    const struct lvsa *o = h->p->options;
    int frames = h->p->shape->grid_t;
    select_band(h->kept, h->q.n, h->k.n, o->knobs.density);
    for (int g = 0; g < o->anchors; g++) {
        int frame =
            (int)(((int64_t)g * frames / o->anchors + (int64_t)h->t->at.step * o->move) % frames);
        axis_force_frames(h, frame, frame + 1, false);
    }
    axis_finish(h);
}

static void keep_density(const struct attn_part *p, double *lo, double *hi)
{
    const struct lvsa *o = p->options;
    double frame = (double)p->shape->grid_h * p->shape->grid_w + 2. * attn_limits(p).block;
    axis_band(p, o->knobs.density, lo, hi);
    *hi = fmin(1, *hi + o->anchors * frame / p->tokens);
}

AXIS_SELECT(keep)

static const struct axis_select keep_anchored = {.name = "anchored",
                                                 .summary =
                                                     "a band, and frames that change with the step",
                                                 .select = keep_all,
                                                 .looks = attn_looks_nowhere,
                                                 .density = keep_density};

const struct attn_method attn_lvsa = {
    .name = "lvsa",
    .summary = "a band of blocks, and anchor frames that move on with every step",
    .paper = "2605.31057",
    .recipe = {.select = &keep_anchored},
    .options = OPTIONS(KNOB_DENSITY(0.2, "share of pairs in the band"),
                       OPT_INT(struct lvsa, anchors, "anchors", 2, 1, 64, "anchor frames"),
                       OPT_INT(struct lvsa, move, "move", 1, 0, 64, "frames they move a step"),
                       KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct lvsa),
};
