/* A plan stands until pooled queries or keys have moved: HASTE, arXiv 2605.14513; attention-sparse.md
 * 12.5, without its calibration of a share a head. The selection is its own, or that of any method
 * beside it. */
#include "attention/axes/axes.h"

const struct attn_method attn_haste = {
    .name = "haste",
    .summary = "a selection stands until queries or keys have moved",
    .paper = "2605.14513",
    .recipe = {.score = &score_by_mean,
               .select = &keep_top_p,
               .reuse = &anew_by_drift,
               .mild = true},
    .options = OPTIONS(OPT_DOUBLE(struct attn_knobs, drift, "drift", 0.2, 0, 10,
                                  "largest relative change of a pooled query or key until a plan "
                                  "is made anew"),
                       KNOB_MASS(0.9), KNOB_LEAST(0), KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0),
                       KNOB_BLOCK(64)),
    .options_size = sizeof(struct attn_knobs),
};
