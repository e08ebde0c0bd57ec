/* A band of key tiles round the query's own: in raster order, the frames nearest in time. Keeps no
 * state and looks at no numbers: the simplest sparse method, and the yardstick of the others. */
#include "attention/attention.h"

struct window {
    int tiles;
};

static int window_plan(struct attn *a, struct attn_plan *p, uint32_t *kept, struct err *e)
{
    const struct window *w = attn_options(a);
    (void)e;
    attn_plane_band(kept, p, w->tiles);
    p->kept = kept;
    p->all = false;
    return 0;
}

const struct attn_method attn_window = {
    .name = "window",
    .summary = "a band of key tiles round the query's own",
    .options =
        OPTIONS(OPT_INT(struct window, tiles, "tiles", 8, 1, 999, "tiles of 128 tokens a side")),
    .options_size = sizeof(struct window),
    .plan = window_plan,
};
