/* Scores from four runs of each block rather than from its one mean, and as many blocks a row:
 * attention-sparse.md 12.3. Its first steps are exact. */
#include "attention/axes/axes.h"

const struct attn_method attn_subblock = {
    .name = "subblock",
    .summary = "blocks scored by the means of their runs, the best of every row",
    .recipe = {.score = &score_by_runs, .select = &keep_top_k},
    .options = OPTIONS(KNOB_DENSITY(0.25, "share of blocks that a row keeps"),
                       OPT_INT(struct attn_knobs, runs, "runs", 4, 1, 16, "runs of a block"),
                       KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct attn_knobs),
};
