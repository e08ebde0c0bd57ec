/* Attention of a picture made small says where the large one looks: DraftAttention, arXiv 2505.14708;
 * attention-sparse.md 4.
 *
 * Patches of 8 x 16 tokens of a frame are blocks; a head keeps its best pairs, whatever their rows,
 * and rows that all lie below the cut keep their best. Its steps above timestep 925 are about the
 * first fifth. Deviation: where patches do not divide a frame, blocks straddle them. */
#include "attention/axes/axes.h"

const struct attn_method attn_draft = {
    .name = "draft",
    .summary = "patches scored by their means, the best pairs of a head",
    .paper = "2505.14708",
    .recipe = {.order = &order_by_tile, .score = &score_by_mean, .select = &keep_percentile},
    .options =
        OPTIONS(KNOB_DENSITY(0.25, "share of a head's pairs of blocks that are kept"),
                KNOB_TILE("1x8x16"), KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(128)),
    .options_size = sizeof(struct attn_knobs),
    .choose = axis_choose,
};
