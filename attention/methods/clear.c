/* An ellipsoid round the query's own tile: CLEAR's circle (arXiv 2412.16112), with time as its third
 * axis; attention-sparse.md 12.7. Its down-sampled keys and its distillation are left out. */
#include "attention/axes/axes.h"

const struct attn_method attn_clear = {
    .name = "clear",
    .summary = "tiles of tokens inside an ellipsoid round the query's own",
    .paper = "2412.16112",
    .recipe = {.order = &order_by_tile, .select = &keep_ball},
    .options = OPTIONS(KNOB_REACH("8x10x10"), KNOB_TILE("4x4x4"), KNOB_SINK(0), KNOB_FIRST(0.2),
                       KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct attn_knobs),
    .choose = axis_choose,
};
