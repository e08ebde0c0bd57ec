/* Orders that are known before the run. Tiles of frames x rows x columns of tokens, one after the
 * other, short at the edges: what is near in the clip is near in the order. attention-sparse.md 4, 7, 17.1: time belongs into a tile. */
#include "attention/axes/axes.h"
#include "attention/policy/order.h"

#include <string.h>

int tile_parse(const char *text, int tile[3], struct err *e)
{
    tile[0] = tile[1] = tile[2] = 0;
    if (!text || strcmp(text, "raster") == 0) return 0;
    const char *at = text;
    for (int i = 0; i < 3; i++) {
        char word[8];
        size_t n = strcspn(at, "x");
        if (n < 1 || n >= sizeof word || (at[n] == 0) != (i == 2)) break;
        memcpy(word, at, n);
        word[n] = 0;
        if (parse_int(word, 1, 9999, &tile[i]) < 0) break;
        if (i == 2) return 0;
        at += n + 1;
    }
    return err_set(e, ERR_USAGE,
                   "tile is '%.60s', wanted frames x rows x columns of tokens as 4x4x4, or raster",
                   text);
}

int axis_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    const struct attn_knobs *o = p->knobs;
    int tile[3], reach[3];
    struct err wrong = {0};
    if (schedule_check(o->every, e) < 0 || tile_parse(o->tile, tile, e) < 0) return -1;
    if (!tile[0] && r->order == &order_by_tile) r->order = NULL;
    if (!o->reach || (tile_parse(o->reach, reach, &wrong) == 0 && reach[0])) return 0;
    return err_set(e, ERR_USAGE,
                   "reach is '%.60s', wanted frames x rows x columns of tokens as 4x8x8", o->reach);
}

static int tile_make(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                     int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at,
                     struct err *e)
{
    const struct grid all = {p->shape->grid_t, p->shape->grid_h, p->shape->grid_w};
    int tile[3];
    (void)t, (void)plan, (void)k_token, (void)q_at, (void)k_at;
    if (tile_parse(p->knobs->tile, tile, e) < 0) return -1;
    order_tile(q_token, NULL, all, tile[0] ? (struct grid){tile[0], tile[1], tile[2]} : all);
    return 0;
}

const struct axis_order order_by_tile = {
    .name = "tile",
    .summary = "tiles of tokens in time and space, one after another",
    .fixed = true,
    .make = tile_make,
};

static int place_make(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                      int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at,
                      struct err *e)
{
    (void)t, (void)plan, (void)k_token, (void)q_at, (void)k_at, (void)e;
    order_token_major(q_token, (struct grid){p->shape->grid_t, p->shape->grid_h, p->shape->grid_w});
    return 0;
}

const struct axis_order order_by_place = {
    .name = "place",
    .summary = "all frames of one place together",
    .fixed = true,
    .make = place_make,
};

static int morton_make(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                       int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at,
                       struct err *e)
{
    (void)t, (void)plan, (void)k_token, (void)q_at, (void)k_at, (void)e;
    order_morton(q_token, (struct grid){p->shape->grid_t, p->shape->grid_h, p->shape->grid_w});
    return 0;
}

const struct axis_order order_by_morton = {
    .name = "morton",
    .summary = "a Z-shaped curve through time and space",
    .fixed = true,
    .make = morton_make,
};
