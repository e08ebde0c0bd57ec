/* A band of blocks round the row's own; looks at no number. */
#include "attention/axes/axes.h"

/* Blocks on each side that come nearest to a density without falling below it: a row of n blocks
 * keeps 2 * tiles + 1 of them, but at the ends. */
int band_tiles(const struct attn_part *p, int cols)
{
    if (p->knobs->density <= 0) return p->knobs->tiles;
    double blocks = p->knobs->density * cols;
    int tiles = 0;
    while (2 * tiles + 1 < blocks && tiles < cols)
        tiles++;
    return tiles;
}

static int band_select(const struct attn_part *p, const struct attn_turn *t,
                       const struct attn_plan *plan, const float *score, uint32_t *kept,
                       struct err *e)
{
    (void)t, (void)score, (void)e;
    attn_plane_band(kept, plan, band_tiles(p, plan->k.n));
    return 0;
}

static void band_density(const struct attn_part *p, double *lo, double *hi)
{
    int block = p->knobs->block ? p->knobs->block : 128, n = (p->tokens + block - 1) / block;
    int tiles = band_tiles(p, n), len = p->tokens;
    double kept = 0; /* pairs: the ends have fewer blocks, the last is shorter */
    for (int i = 0; i < n; i++) {
        int from = i - tiles > 0 ? i - tiles : 0, to = i + tiles < n - 1 ? i + tiles : n - 1;
        int keys = (to == n - 1 ? len : (to + 1) * block) - from * block;
        kept += (double)keys * (i == n - 1 ? len - i * block : block);
    }
    *lo = *hi = kept / ((double)len * len);
}

const struct axis_select keep_band = {
    .name = "band",
    .summary = "blocks near the row's own",
    .fixed = true,
    .select = band_select,
    .density = band_density,
};
