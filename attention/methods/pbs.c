/* The keys that most queries look at stand first and are seen by all: PBS-Attn, arXiv 2510.21270, in
 * the form for clips of attention-sparse.md 9.
 *
 * Weight of a key: mean of exact rows spread over the clip. Only the hottest keys move, the rest
 * stay in tiles, so that means of blocks keep their meaning. Cost: 128 rows, 64 / len of a dense
 * call, and the scores. */
#include "attention/axes/axes.h"
#include "attention/policy/order.h"
#include "attention/policy/score.h"

#include <math.h>
#include <string.h>

struct pbs {
    struct attn_knobs knobs;
    double hot;
    int rows;
};

static int hot_of(const struct attn_part *p)
{
    return (int)ceil(((const struct pbs *)p->options)->hot * p->tokens);
}

struct orders {
    int32_t *q, *k;
};

static void place(const struct axis_head *h)
{
    const struct attn_shape *s = h->p->shape;
    const struct orders *o = h->ctx;
    struct grid all = {s->grid_t, s->grid_h, s->grid_w};
    int len = h->k.len, n = ((const struct pbs *)h->p->options)->rows, tile[3] = {0};
    int32_t *q = o->q + (size_t)h->plan_no * (size_t)len,
            *k = o->k + (size_t)h->plan_no * (size_t)len;
    float *weight = h->scratch, *row = weight + len;
    int *index = (int *)(row + len);
    struct err none; /* choose() refused what cannot be read */
    tile_parse(h->p->knobs->tile, tile, &none);
    order_tile(q, NULL, all, tile[0] ? (struct grid){tile[0], tile[1], tile[2]} : all);
    memset(weight, 0, (size_t)len * sizeof *weight);
    for (int r = 0; r < n && r < len; r++) {
        int32_t token = (int32_t)((2 * (int64_t)r + 1) * len / (2 * (int64_t)(n < len ? n : len)));
        score_probe(row, &h->q, &token, 1, &h->k, h->scale, h->dots);
        for (int j = 0; j < len; j++)
            weight[j] += row[j];
    }
    order_hot(k, weight, q, hot_of(h->p), len, index);
}

static int place_all(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                     int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at,
                     struct err *e)
{
    (void)q_at, (void)k_at, (void)e;
    axis_heads(&(struct axis_job){
        .p = p, .t = t, .plan = plan, .ctx = &(struct orders){q_token, k_token}, .fn = place});
    return 0;
}

static void place_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, 4 * (size_t)p->tokens * sizeof(float));
}

static const struct axis_order order_by_heat = {.name = "heat",
                                                .summary = "tiles, the hottest keys first",
                                                .per_head = true,
                                                .keys_apart = true,
                                                .make = place_all,
                                                .sizes = place_sizes};

static void keep(const struct axis_head *h)
{
    int cols = h->k.n, *index = h->scratch, hot = hot_of(h->p);
    float *row = (float *)(index + cols);
    for (int r = 0; r < h->q.n; r++) {
        memcpy(row, h->scores + (size_t)r * (size_t)cols, (size_t)cols * sizeof *row);
        score_softmax(row, 1, cols);
        select_top_p(h->kept + (size_t)r * (size_t)attn_words(cols), row, 1, cols,
                     h->p->knobs->mass, 0, index);
    }
    for (int c = 0; c < cols && blocks_begin(&h->k, c) < hot; c++)
        select_column(h->kept, h->q.n, cols, c);
    axis_finish(h);
}

static void keep_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, 2 * (size_t)attn_limits(p).blocks * sizeof(float));
}

AXIS_SELECT(keep)

static const struct axis_select keep_hot = {.name = "hot",
                                            .summary =
                                                "a share of a row's weight, and the hottest keys",
                                            .needs_score = true,
                                            .select = keep_all,
                                            .sizes = keep_sizes};

const struct attn_method attn_pbs = {
    .name = "pbs",
    .summary = "the hottest keys moved to the front for all, and blocks by their means",
    .paper = "2510.21270",
    .recipe = {.order = &order_by_heat, .score = &score_by_mean, .select = &keep_hot},
    .options = OPTIONS(KNOB_MASS(0.9),
                       OPT_DOUBLE(struct pbs, hot, "hot", 0.06, 0, 1, "share of keys that move"),
                       OPT_INT(struct pbs, rows, "rows", 128, 1, 4096, "exact rows of a probe"),
                       KNOB_TILE("4x4x4"), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct pbs),
    .choose = axis_choose,
};
