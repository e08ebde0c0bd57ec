/* Sums along antidiagonals say how much a block weighs: XAttention, arXiv 2503.16428;
 * attention-sparse.md 8. Planning costs 1 / (2 * stride) of the products of a dense call. */
#include "attention/axes/axes.h"

const struct attn_method attn_xattn = {
    .name = "xattn",
    .summary = "blocks scored along antidiagonals, the best of a row up to a share of its weight",
    .paper = "2503.16428",
    .recipe = {.score = &score_by_antidiagonal, .select = &keep_top_p},
    .options = OPTIONS(KNOB_MASS(0.9),
                       OPT_INT(struct attn_knobs, stride, "stride", 8, 1, 64,
                               "tokens from one antidiagonal to the next"),
                       KNOB_LEAST(0), KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(128)),
    .options_size = sizeof(struct attn_knobs),
};
