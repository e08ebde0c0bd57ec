/* Cubes of tokens scored by their means, the best of each row, and the first frame seen by all and
 * seeing all: RainFusion2.0, arXiv 2512.24086; attention-sparse.md 5b.
 *
 * Cubes of 2 x 8 x 8 over all frames but the first, which stands last. Deviations: edge cubes are
 * short rather than leftover rows and columns apart, so blocks may straddle cubes; protected blocks
 * follow from their tokens; the last block weighs as it is long. sink=0 protects nothing. */
#include "attention/axes/axes.h"
#include "attention/policy/order.h"

#include <math.h>

static int cubes(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                 int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at, struct err *e)
{
    const struct attn_shape *s = p->shape;
    int tile[3], frame = s->grid_h * s->grid_w, rest = p->tokens - frame;
    (void)t, (void)plan, (void)k_token, (void)q_at, (void)k_at;
    if (tile_parse(p->knobs->tile, tile, e) < 0) return -1;
    if (rest)
        order_tile(q_token, NULL, (struct grid){s->grid_t - 1, s->grid_h, s->grid_w},
                   (struct grid){tile[0], tile[1], tile[2]});
    for (int i = 0; i < rest; i++)
        q_token[i] += frame;
    for (int i = 0; i < frame; i++)
        q_token[rest + i] = i;
    return 0;
}

static const struct axis_order order_by_cube = {.name = "cube",
                                                .summary = "cubes of tokens, the first frame last",
                                                .fixed = true,
                                                .make = cubes};

static void keep(const struct axis_head *h)
{
    int k = (int)ceil(h->p->knobs->density * h->k.n - 1e-9);
    select_top_k(h->kept, h->scores, h->q.n, h->k.n, k < 1 ? 1 : k, h->scratch);
    axis_force_frames(h, 0, h->p->knobs->sink, true);
    axis_finish(h);
}

static void keep_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, (size_t)attn_limits(p).blocks * sizeof(int));
}

static void keep_density(const struct attn_part *p, double *lo, double *hi)
{
    int n = attn_limits(p).cols;
    double k = fmax(1, ceil(p->knobs->density * n - 1e-9));
    double frames = (double)p->knobs->sink * p->shape->grid_h * p->shape->grid_w;
    double rows = frames > 0 ? frames / attn_limits(p).block + 2 : 0; /* these see all */
    axis_density(p, k, fmin(n, k + rows), lo, hi);
}

static void keep_there(const struct attn_part *p, int cols, struct attn_making *m)
{
    int k = (int)ceil(p->knobs->density * cols - 1e-9);
    m->pick = ATTN_PICK_TOP_K;
    m->k = k < 1 ? 1 : k;
    m->sink = p->knobs->sink;
    m->seeing = true;
}

AXIS_SELECT(keep)

static const struct axis_select keep_protected = {
    .name = "protected",
    .summary = "the best blocks of every row, and the first frames both ways",
    .needs_score = true,
    .select = keep_all,
    .density = keep_density,
    .sizes = keep_sizes,
    .there = keep_there};

static int choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    int tile[3];
    if (axis_choose(p, r, e) < 0 || tile_parse(p->knobs->tile, tile, e) < 0) return -1;
    return tile[0] ? 0
                   : err_set(e, ERR_USAGE,
                             "tile is raster, wanted frames x rows x columns of cubes as 2x8x8");
}

const struct attn_method attn_rainfusion2 = {
    .name = "rainfusion2",
    .summary = "cubes scored by their means, the best of a row, and the first frame both ways",
    .paper = "2512.24086",
    .recipe = {.order = &order_by_cube, .score = &score_by_mean, .select = &keep_protected},
    .options = OPTIONS(KNOB_DENSITY(0.2, "share of blocks that a row keeps"), KNOB_TILE("2x8x8"),
                       KNOB_SINK(1), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(128)),
    .options_size = sizeof(struct attn_knobs),
    .choose = choose,
};
