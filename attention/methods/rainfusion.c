/* Heads of three kinds: temporal and spatial bands, and textural ones that look at a checkerboard of
 * keys: RainFusion, arXiv 2505.21036; attention-sparse.md 5a.
 *
 * A kind is taken when exact rows, drawn from all frames, find `recall` of their weight in it:
 * temporal first, then spatial, else textural. Unpublished and chosen here: recall .9, the order of
 * kinds, the mean over rows; key frames are left out. Cost: 64 rows, 32 / len of a dense call. */
#include "attention/axes/axes.h"
#include "attention/policy/order.h"
#include "attention/policy/score.h"

#include <math.h>
#include <stdlib.h>

struct rainfusion {
    struct attn_knobs knobs;
    double band, recall;
    int rows, thin;
};

static const struct rainfusion *of(const struct attn_part *p) { return p->options; }

static bool on_board(const struct attn_part *p, int token)
{
    int y = token / p->shape->grid_w % p->shape->grid_h, x = token % p->shape->grid_w;
    return y % of(p)->thin == x % of(p)->thin;
}

/* Shares of the weight of some exact rows in the spatial and the temporal band. */
static void recalls(const struct axis_head *h, double found[2])
{
    const struct attn_shape *s = h->p->shape;
    int frame = s->grid_h * s->grid_w, n = of(h->p)->rows, looked = 0, len = h->k.len;
    double half = of(h->p)->band * len;
    float *p = h->scratch;
    found[0] = found[1] = 0;
    for (int r = 0; r < n; r++) {
        int from = (int)((int64_t)len * r / n), to = (int)((int64_t)len * (r + 1) / n);
        if (to == from) continue;
        int32_t token =
            from + (int32_t)(attn_random(&h->t->at, 0, (uint64_t)r) % (uint64_t)(to - from));
        score_probe(p, &h->q, &token, 1, &h->k, h->scale, h->dots);
        int place = token % frame * s->grid_t + token / frame;
        for (int j = 0; j < len; j++) {
            if (abs(token - j) <= half) found[0] += (double)p[j];
            if (abs(place - (j % frame * s->grid_t + j / frame)) <= half) found[1] += (double)p[j];
        }
        looked++;
    }
    found[0] /= looked, found[1] /= looked;
}

struct orders {
    int32_t *q, *k;
};

/* Queries and keys stand alike but in textural heads, whose thinned keys come first. */
static void place(const struct axis_head *h)
{
    const struct attn_shape *s = h->p->shape;
    const struct orders *o = h->ctx;
    int len = h->q.len, n = 0;
    int32_t *q = o->q + (size_t)h->plan_no * (size_t)len,
            *k = o->k + (size_t)h->plan_no * (size_t)len;
    double found[2];
    recalls(h, found);
    if (found[1] >= of(h->p)->recall) {
        order_token_major(q, (struct grid){s->grid_t, s->grid_h, s->grid_w});
        order_token_major(k, (struct grid){s->grid_t, s->grid_h, s->grid_w});
        return;
    }
    bool spatial = found[0] >= of(h->p)->recall;
    for (int i = 0; i < len; i++) {
        q[i] = i;
        if (spatial || on_board(h->p, i)) k[n++] = i;
    }
    for (int i = 0; !spatial && i < len; i++)
        if (!on_board(h->p, i)) k[n++] = i;
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
    s->scratch = axis_scratch(p, (size_t)p->tokens * sizeof(float));
}

static const struct axis_order order_by_kind = {.name = "kind",
                                                .summary = "space, time, or thinned keys first",
                                                .per_head = true,
                                                .keys_apart = true,
                                                .make = place_all,
                                                .sizes = place_sizes};

static void keep(const struct axis_head *h)
{
    bool textural = false;
    int thinned = 0;
    for (int i = 0; i < h->q.len; i++) {
        textural = textural || h->q.order[i] != h->k.order[i];
        thinned += on_board(h->p, i);
    }
    double half = of(h->p)->band; /* 1 - (1 - half)^2 of the map */
    if (!textural) select_band(h->kept, h->q.n, h->k.n, half < 1 ? half * (2 - half) : 1);
    for (int c = 0; textural && c < h->k.n; c++)
        if (blocks_begin(&h->k, c) < thinned) select_column(h->kept, h->q.n, h->k.n, c);
    axis_finish(h);
}

AXIS_SELECT(keep)

static const struct axis_select keep_by_kind = {
    .name = "kind", .summary = "a band, or the thinned keys", .select = keep_all};

const struct attn_method attn_rainfusion = {
    .name = "rainfusion",
    .summary = "a band in time or in space, or keys thinned like a checkerboard, by head",
    .paper = "2505.21036",
    .recipe = {.order = &order_by_kind, .select = &keep_by_kind},
    .options = OPTIONS(
        OPT_DOUBLE(struct rainfusion, band, "band", 0.25, 0.01, 1,
                   "half width of the bands, as a share of all tokens"),
        OPT_DOUBLE(struct rainfusion, recall, "recall", 0.9, 0, 1,
                   "share of the weight of exact rows that a band must hold"),
        OPT_INT(struct rainfusion, thin, "thin", 2, 2, 8, "one of so many keys of textural heads"),
        OPT_INT(struct rainfusion, rows, "rows", 64, 1, 4096, "exact rows of a probe"),
        KNOB_FIRST(0.1), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct rainfusion),
};
