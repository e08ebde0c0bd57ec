/* Each head is spatial (a band in raster order) or temporal (a band where all frames of one place
 * stand together), found by a few exact rows: SVG, arXiv 2502.01776; attention-sparse.md 1b.
 *
 * Rows are drawn from all frames, not from the first. All see the keys that stand first, as many as
 * a frame has: the first frame in raster order, the first places of all frames in the other. Cost: 64 rows with both their products, 64 / len of a dense call. */
#include "attention/axes/axes.h"
#include "attention/policy/order.h"
#include "attention/policy/score.h"

#include <math.h>
#include <stdlib.h>

enum { PROBE_BLOCK = 128 }; /* of the masks that kinds are tried with */

struct svg1 {
    struct attn_knobs knobs;
    int rows, front;
};

/* Squared error of one row's output when only the keys of a mask are looked at; o[dim] is exact. */
static double masked(const struct axis_head *h, const float *p, const double *o, int token,
                     bool temporal)
{
    const struct attn_shape *s = h->p->shape;
    int frame = s->grid_h * s->grid_w, band = 2 * frame / PROBE_BLOCK, dim = h->q.dim;
    double got[256] = {0}, sum = 0, error = 0;
    if (band < 1) band = 1;
    int at = temporal ? token % frame * s->grid_t + token / frame : token;
    for (int j = 0; j < h->k.len; j++) {
        int key = temporal ? j % frame * s->grid_t + j / frame : j;
        if (abs(at / PROBE_BLOCK - key / PROBE_BLOCK) >= band && j >= frame) continue;
        const float *v = heads_at(&h->t->v, j, h->head);
        sum += (double)p[j];
        for (int c = 0; c < dim; c++)
            got[c] += (double)p[j] * (double)v[c];
    }
    for (int c = 0; c < dim; c++) {
        double d = got[c] / (sum > 0 ? sum : 1) - o[c];
        error += d * d;
    }
    return error;
}

static bool is_temporal(const struct axis_head *h)
{
    int n = ((const struct svg1 *)h->p->options)->rows;
    float *p = h->scratch;
    double error[2] = {0};
    for (int r = 0; r < n; r++) {
        int from = (int)((int64_t)h->q.len * r / n), to = (int)((int64_t)h->q.len * (r + 1) / n);
        double o[256] = {0};
        if (to == from) continue; /* fewer tokens than rows */
        int32_t token =
            from + (int32_t)(attn_random(&h->t->at, 0, (uint64_t)r) % (uint64_t)(to - from));
        score_probe(p, &h->q, &token, 1, &h->k, h->scale, h->dots);
        for (int j = 0; j < h->k.len; j++) {
            const float *v = heads_at(&h->t->v, j, h->head);
            for (int c = 0; c < h->q.dim; c++)
                o[c] += (double)p[j] * (double)v[c];
        }
        for (int kind = 0; kind < 2; kind++)
            error[kind] += masked(h, p, o, token, kind == 1);
    }
    return error[1] < error[0];
}

static void place(const struct axis_head *h)
{
    const struct attn_shape *s = h->p->shape;
    int32_t *order = (int32_t *)h->ctx + (size_t)h->plan_no * (size_t)h->q.len;
    if (is_temporal(h))
        order_token_major(order, (struct grid){s->grid_t, s->grid_h, s->grid_w});
    else
        for (int i = 0; i < h->q.len; i++)
            order[i] = i;
}

static int place_all(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                     int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at,
                     struct err *e)
{
    (void)k_token, (void)q_at, (void)k_at, (void)e;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = plan, .ctx = q_token, .fn = place});
    return 0;
}

static void place_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, (size_t)p->tokens * sizeof(float));
}

static const struct axis_order order_by_kind = {.name = "kind",
                                                .summary = "raster, or frames of a place together",
                                                .per_head = true,
                                                .make = place_all,
                                                .looks = attn_looks_qkv,
                                                .sizes = place_sizes};

static void band(const struct axis_head *h)
{
    const struct svg1 *o = h->p->options;
    int64_t front = (int64_t)o->front * h->p->shape->grid_h * h->p->shape->grid_w;
    select_band(h->kept, h->q.n, h->k.n, o->knobs.density);
    for (int c = 0; c < h->k.n && blocks_begin(&h->k, c) < front; c++)
        select_column(h->kept, h->q.n, h->k.n, c);
    axis_finish(h);
}

static void band_density(const struct attn_part *p, double *lo, double *hi)
{
    const struct svg1 *o = p->options;
    double front = (double)o->front * p->shape->grid_h * p->shape->grid_w;
    axis_band(p, o->knobs.density, lo, hi);
    if (o->front) *hi = fmin(1, *hi + (front + attn_limits(p).block) / p->tokens);
}

AXIS_SELECT(band)

static const struct axis_select keep_half_width = {.name = "band",
                                                   .summary = "a band of a given share",
                                                   .select = band_all,
                                                   .looks = attn_looks_nowhere,
                                                   .density = band_density};

const struct attn_method attn_svg1 = {
    .name = "svg1",
    .summary = "a band in time or in space, whichever a few exact rows prefer for a head",
    .paper = "2502.01776",
    .recipe = {.order = &order_by_kind, .select = &keep_half_width},
    .options = OPTIONS(
        KNOB_DENSITY(0.3, "share of pairs in the band"),
        OPT_INT(struct svg1, rows, "rows", 64, 1, 4096, "exact rows of a probe"),
        OPT_INT(struct svg1, front, "front", 1, 0, 16, "first keys that all see, in frames' worth"),
        KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct svg1),
};
