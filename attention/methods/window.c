/* A band of key tiles round the query's own: in raster order, the frames nearest in time. Keeps no
 * state and looks at no numbers: the simplest sparse method, and the yardstick of the others. */
#include "attention/axes/axes.h"

const struct attn_method attn_window = {
    .name = "window",
    .summary = "a band of key tiles round the query's own",
    .recipe = {.select = &keep_band},
    .options = OPTIONS(
        OPT_INT(struct attn_knobs, tiles, "tiles", 8, 1, 999, "tiles of 128 tokens a side")),
    .options_size = sizeof(struct attn_knobs),
};
