/* A window of tiles round the query's own tile, in time and space: nothing is looked at.
 *
 * Sliding Tile Attention, arXiv 2502.04507, and Swin's windows (attention-sparse.md 12.7) without
 * training. A block is what 4x4x4 tokens fill; at edges blocks straddle tiles, and their middle says
 * where they are. */
#include "attention/axes/axes.h"

const struct attn_method attn_tile = {
    .name = "tile",
    .summary = "tiles of tokens within a box of frames, rows and columns",
    .paper = "2502.04507",
    .recipe = {.order = &order_by_tile, .select = &keep_box},
    .options = OPTIONS(KNOB_REACH("4x8x8"), KNOB_TILE("4x4x4"), KNOB_SINK(0), KNOB_FIRST(0.2),
                       KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct attn_knobs),
    .choose = axis_choose,
};
