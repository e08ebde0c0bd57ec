/* Blocks whose mean stands out of its row: Sol-Attn's rule as a selection, arXiv 2607.24027;
 * attention-sparse.md 12.1. What it does not keep it drops (its means in their place: 17.2).
 *
 * tau sets how much is kept, nearly whatever the content: 1 keeps about 16 %, 1.5 7 %. Deviations:
 * the variance of a row's scores is taken exactly, and the last block weighs as it is long. */
#include "attention/axes/axes.h"

const struct attn_method attn_sol = {
    .name = "sol",
    .summary = "blocks whose score stands out of its row, and neighbours",
    .paper = "2607.24027",
    .recipe = {.order = &order_by_morton, .score = &score_by_mean, .select = &keep_above},
    .options = OPTIONS(OPT_DOUBLE(struct attn_knobs, tau, "tau", 1, -10, 10,
                                  "standard deviations above the mean score of a row"),
                       KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0.1), KNOB_BLOCK(64)),
    .options_size = sizeof(struct attn_knobs),
};
