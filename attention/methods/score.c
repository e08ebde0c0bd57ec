/* A scorer and a selection by choice, for whoever wants one part of a method with one of another.
 *
 * mean, max: what stands for a block (attention-sparse.md 4, 9); runs: 12.3; antidiagonal: XAttention,
 * 8; rank: few channels, Loki, arXiv 2406.02542; int4: 4-bit codes, SALE, arXiv 2505.24179; mass: all
 * of it (AdaSpa, 3). Deviations: papers of LLMs score keys of one query, here each stride-th query of a
 * block stands for it and weights are summed over blocks; directions of rank are made from the keys of
 * the call, not from a calibration; products of 4-bit codes are made in fp32, and so cost as much as
 * mass. Cost beside a dense call: mean, max 1 / block^2, runs runs^2 / block^2, antidiagonal
 * 1 / (2 stride), rank rank / (2 stride dim), int4 and mass 1 / (2 stride), by products; exponentials
 * come on top (tests/bench/NOTES.md has seconds). */
#include "attention/axes/axes.h"

struct score {
    struct attn_knobs knobs;
    int by, keep;
};

static int score_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    static const struct axis_score *const by[] = {
        &score_by_mean, &score_by_max,  &score_by_runs, &score_by_antidiagonal,
        &score_by_rank, &score_by_int4, &score_by_mass,
    };
    static const struct axis_select *const keep[] = {&keep_top_k, &keep_top_p, &keep_above,
                                                     &keep_percentile};
    const struct score *o = p->options;
    r->score = by[o->by];
    r->select = keep[o->keep];
    return axis_choose(p, r, e);
}

const struct attn_method attn_score = {
    .name = "score",
    .summary = "a scorer and a selection of your choice",
    .recipe = {.order = &order_by_tile, .score = &score_by_mean, .select = &keep_top_k},
    .options = OPTIONS(
        OPT_ENUM(struct score, by, "by", 0, "mean|max|runs|antidiagonal|rank|int4|mass",
                 "what a block is judged by"),
        OPT_ENUM(struct score, keep, "keep", 0, "top-k|top-p|above|percentile",
                 "which are kept: density of them, mass of a row's weight, tau above its mean, "
                 "density of a head"),
        KNOB_DENSITY(0.25, "share of blocks kept, of top-k and percentile"), KNOB_MASS(0.9),
        KNOB_LEAST(0),
        OPT_DOUBLE(struct attn_knobs, tau, "tau", 1, -10, 10,
                   "standard deviations above a row's mean score"),
        OPT_INT(struct attn_knobs, runs, "runs", 4, 1, 16, "runs of a block"),
        OPT_INT(struct attn_knobs, rank, "rank", 16, 1, 256, "channels that keys are looked at by"),
        OPT_INT(struct attn_knobs, stride, "stride", 8, 1, 64,
                "tokens from one antidiagonal, or one query looked at, to the next"),
        KNOB_TILE("raster"), KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct score),
    .choose = score_choose,
};
