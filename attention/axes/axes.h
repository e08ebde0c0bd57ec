/* The members of the axes that several methods share, and what they are made of. Each is one file;
 * methods name them in their recipes. Private to the room. */
#ifndef DITGEN_ATTENTION_AXES_AXES_H
#define DITGEN_ATTENTION_AXES_AXES_H

#include "attention/method.h"
#include "attention/policy/blocks.h"
#include "attention/policy/dots.h"
#include "attention/policy/select.h"

extern const struct axis_ask ask_copy_step; /* the last output, but at refreshes: knobs every */
extern const struct axis_order order_by_tile; /* tiles of tokens one after another: knobs tile */
extern const struct axis_order order_by_place; /* all frames of one place together */
extern const struct axis_order order_by_morton; /* a Z-shaped curve through time and space */

/* Scores, natural logarithm of the mass of a tile; blocks weigh as many tokens as they have. */
extern const struct axis_score score_by_mean; /* pooled by means */
extern const struct axis_score score_by_max; /* pooled by maxima */
extern const struct axis_score score_by_runs; /* means of runs of a block: knobs runs */
extern const struct axis_score score_by_antidiagonal; /* sums along them: knobs stride */
extern const struct axis_score score_by_mass; /* exact, of every stride-th query: knobs stride */
extern const struct axis_score score_by_rank; /* the same by few channels: knobs stride, rank */
extern const struct axis_score score_by_int4; /* the same by 4-bit codes: knobs stride */
extern const struct axis_score score_by_layer; /* means, one score for all heads */

/* By score. All see the first `sink` frames as well. */
extern const struct axis_select keep_top_k; /* as many blocks a row: knobs density */
extern const struct axis_select keep_top_p; /* until their mass is reached: knobs mass, least */
extern const struct axis_select keep_percentile; /* a head's share of pairs: knobs density */
extern const struct axis_select keep_above; /* mean + tau deviations, and neighbours: knobs tau */
/* By place. */
extern const struct axis_select keep_box; /* not further on any axis: knobs reach */
extern const struct axis_select keep_ball; /* inside an ellipsoid: knobs reach */
extern const struct axis_select keep_band; /* round the row's own block: knobs tiles, density */
extern const struct axis_reuse anew_by_schedule; /* steps known before the run: knobs every */
extern const struct axis_reuse anew_by_budget; /* what the clip may lose: attn_params.budget */
extern const struct axis_reuse anew_by_drift; /* when pooled q or k have moved: knobs drift */
extern const struct axis_select keep_by_error; /* where a mean would err: knobs mass */
extern const struct axis_compensate rest_residual; /* exact - kept, of the last refresh */
extern const struct axis_compensate rest_by_mean; /* what is not kept counts by its mean */

/* What rest_by_mean is made of, for members that go further: means of every block, and the plane of
 * those that count by them; they begin the part's scratch. */
struct means {
    float *k, *v; /* [most blocks, N, D] */
    uint32_t *plane; /* [plans * rows, words] */
};
size_t means_carve(struct means *to, const struct attn_part *p,
                   char *at); /* bytes; at NULL: none */
int means_before(const struct attn_part *p, const struct attn_turn *t, struct attn_launch *l,
                 struct err *e);

/* Blocks on each side of the row's own that keep_band keeps of `cols`. */
int band_tiles(const struct attn_part *p, int cols);

/* Whether step is one of the refreshes that `every` names in a run whose steps first .. last - 1
 * are not exact: "5", "early" (intervals of 2 2 3 3 4 4 ... from first on), "6/8/10" (steps). NULL:
 * each. schedule_check refuses what is none of these. */
bool schedule_at(const char *every, int first, int last, int step);
int schedule_check(const char *every, struct err *e);

/* --- what members that look at numbers are made of: heads.c --- */

struct axis_head { /* one head of a call, on some thread */
    const struct attn_part *p;
    const struct attn_turn *t;
    const struct attn_plan *plan;
    int plan_no, head;
    struct blocks q, k; /* .x NULL while q and k do not exist */
    float scale; /* 1 / sqrt(head_dim) */
    float *score; /* [q.n, k.n] to be made, or NULL */
    const float *scores; /* [q.n, k.n] to be read, or NULL */
    uint32_t *kept; /* [q.n, words] zeroed, or NULL */
    void *ctx; /* the job's */
    void *scratch; /* this worker's, 64-byte aligned: what axis_scratch() was asked for */
    dots_fn *dots;
};

struct axis_job { /* fn for every plan of a call, each on one thread */
    const struct attn_part *p;
    const struct attn_turn *t;
    const struct attn_plan *plan;
    float *score;
    const float *scores;
    uint32_t *kept;
    void *ctx; /* for fn */
    void (*fn)(const struct axis_head *h);
};
void axis_heads(const struct axis_job *j);
/* fn for every head, also where all share one plan, one after the other on this thread; scratch is the
 * part's whole, score, scores and kept are those of the head's plan. */
void axis_each_head(const struct axis_job *j);
/* FUNC_all(), the hook of a scorer or a selection, from FUNC(), which does one head. */
#define AXIS_SCORE(func)                                                                           \
    static int func##_all(const struct attn_part *p, const struct attn_turn *t,                    \
                          const struct attn_plan *plan, float *score, struct err *e)               \
    {                                                                                              \
        (void)e;                                                                                   \
        axis_heads(                                                                                \
            &(struct axis_job){.p = p, .t = t, .plan = plan, .score = score, .fn = (func)});       \
        return 0;                                                                                  \
    }
#define AXIS_SELECT(func)                                                                          \
    static int func##_all(const struct attn_part *p, const struct attn_turn *t,                    \
                          const struct attn_plan *plan, const float *score, uint32_t *kept,        \
                          struct err *e)                                                           \
    {                                                                                              \
        (void)e;                                                                                   \
        axis_heads(&(struct axis_job){                                                             \
            .p = p, .t = t, .plan = plan, .scores = score, .kept = kept, .fn = (func)});           \
        return 0;                                                                                  \
    }
/* attn_sizes.scratch for `bytes` a worker. */
size_t axis_scratch(const struct attn_part *p, size_t bytes);
/* count[b->n] tokens of each block. */
void axis_counts(int *count, const struct blocks *b);
/* Blocks of keys with tokens of the frames from .. to - 1 are kept by all; with rows, blocks of such
 * queries keep all. */
void axis_force_frames(const struct axis_head *h, int from, int to, bool rows);
/* The bits that `how` keeps whatever was picked, of a plan that all heads share: [q.n, words], zeroed. */
void axis_forced(uint32_t *kept, const struct attn_part *p, const struct attn_plan *plan,
                 const struct attn_making *how);
/* Bounds for axis_select.density: every row keeps from `least` to `most` equal blocks, and sinks; 0 to
 * 1 where blocks have any length. */
void axis_density(const struct attn_part *p, double least, double most, double *lo, double *hi);
/* The same of a band of `share` of the map (select_band), of equal blocks. */
void axis_band(const struct attn_part *p, double share, double *lo, double *hi);
/* Sinks, and something for rows that keep nothing. */
void axis_finish(const struct axis_head *h);

/* --- heads that are left out: skip.c --- */

/* For a hook plan of a method that splits: cuts the one plan of a call into plans for the heads that
 * stay, and one for those of which out[N] is set. They become mean [N, D], a row for all tokens, or
 * zero (NULL). lists: skip_lists() bytes that stay until the kernel is done. The method needs
 * ATTN_NEED_HEADS, ZERO and COPY. */
size_t skip_lists(const struct attn_part *p);
int skip_heads(struct attn_calls *c, const struct attn_part *p, const uint8_t *out,
               const float *mean, uint8_t *lists, struct err *e);
/* Mean over tokens of t->o: mean[N, D]. */
void skip_mean(float *mean, const struct attn_part *p, const struct attn_turn *t);

/* --- tiles that die: dead.c --- */

/* The highest threshold, a power of two from -20 to -1, such that without the tiles of plan that stay
 * below it (kept, walk as they stand) sampled rows of o err by at most `bound` of their size; 1: none
 * does. Scratch is the part's, dead_scratch() bytes. */
float dead_threshold(const struct attn_part *p, const struct attn_turn *t,
                     const struct attn_plan *plan, double bound);
size_t dead_scratch(const struct attn_part *p);

/* choose() of methods whose options are knobs alone: texts that cannot be read are refused, and
 * tile=raster takes the order away. */
int axis_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e);

/* Rows of options that many methods have, with their own defaults. */
#define KNOB_TILE(def)                                                                             \
    OPT_STRING(struct attn_knobs, tile, "tile", def,                                               \
               "tokens that stand together: frames x rows x columns, or raster")
#define KNOB_REACH(def)                                                                            \
    OPT_STRING(struct attn_knobs, reach, "reach", def,                                             \
               "how far a block sees, middle to middle: frames x rows x columns")
#define KNOB_BLOCK(def) OPT_INT(struct attn_knobs, block, "block", def, 16, 1024, "tokens a block")
#define KNOB_DENSITY(def, help)                                                                    \
    OPT_DOUBLE(struct attn_knobs, density, "density", def, 0.01, 1, help)
#define KNOB_MASS(def)                                                                             \
    OPT_DOUBLE(struct attn_knobs, mass, "mass", def, 0, 1,                                         \
               "share of a row's weight, by its scores, that kept blocks hold")
#define KNOB_LEAST(def)                                                                            \
    OPT_DOUBLE(struct attn_knobs, least, "least", def, 0, 1,                                       \
               "share of blocks that a row keeps whatever they weigh")
#define KNOB_SINK(def)                                                                             \
    OPT_INT(struct attn_knobs, sink, "sink", def, 0, 16, "frames at the start that all see")
#define KNOB_FIRST(def)                                                                            \
    OPT_DOUBLE(struct attn_knobs, first, "first", def, 0, 1000,                                    \
               "exact steps at the start: a share below 1, a count from 1 on")
#define KNOB_LAST(def)                                                                             \
    OPT_DOUBLE(struct attn_knobs, last, "last", def, 0, 1000, "exact steps at the end")

/* "4x4x4" → t, h, w; "raster" or NULL → 0, 0, 0. */
int tile_parse(const char *text, int tile[3], struct err *e);

#endif
