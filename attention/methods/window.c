/* A band of key tiles round the query's own: in raster order, the frames nearest in time. Keeps no
 * state and looks at no numbers: the simplest sparse method, and the yardstick of the others. */
#include "attention/attention.h"

struct window {
    int tiles;
};

static int window_plan(struct attn *a, struct block_mask *m, struct err *e)
{
    const struct window *w = attn_options(a);
    return block_mask_band(m, w->tiles, e);
}

const struct attn_method attn_window = {
    .name = "window",
    .summary = "a band of key tiles round the query's own",
    .options = OPTIONS(
        OPT_INT(struct window, tiles, "window-tiles", 8, 1, 999, "tiles of 128 tokens a side")),
    .options_size = sizeof(struct window),
    .plan = window_plan,
};
