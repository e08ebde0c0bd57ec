/* Attention of an earlier step carried forward: as the difference between exact attention and a
 * cheap selection, added to that selection until the next refresh; or whole, as the output of the
 * layer, which skips q, k, v and the output layer as well (density=0).
 *
 * DiTFastAttn, arXiv 2406.08552, without its search: attention-kernels.md 4, attention-sparse.md
 * 17.3. The selection is a band of its own in tiles of tokens, or that of any method beside it. The
 * first steps decide which clip it becomes and are exact; so are the last, which draw its details. */
#include "attention/axes/axes.h"

#include <string.h>

/* density=0 keeps outputs, not what a selection lacked: how far they move is not looked at. */
static int choose_budget(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    int tile[3];
    if (!(p->knobs->density > 0))
        return err_set(
            e, ERR_USAGE,
            "every=budget renews residuals, and density=0 copies outputs: name one of them");
    if (tile_parse(p->knobs->tile, tile, e) < 0) return -1;
    if (!tile[0]) r->order = NULL;
    r->reuse = &anew_by_budget;
    return 0;
}

static int resid_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    int tile[3];
    if (p->knobs->every && strcmp(p->knobs->every, "budget") == 0) return choose_budget(p, r, e);
    if (schedule_check(p->knobs->every, e) < 0 || tile_parse(p->knobs->tile, tile, e) < 0)
        return -1;
    if (!tile[0]) r->order = NULL;
    if (p->knobs->density > 0) return 0;
    *r = (struct attn_recipe){.ask = &ask_copy_step};
    return 0;
}

const struct attn_method attn_resid = {
    .name = "resid",
    .summary = "an earlier step's attention, or what a cheap selection lacked of it, carried on",
    .paper = "2406.08552",
    .recipe = {.order = &order_by_tile,
               .select = &keep_band,
               .reuse = &anew_by_schedule,
               .compensate = &rest_residual,
               .mild = true},
    .options = OPTIONS(
        OPT_STRING(struct attn_knobs, every, "every", "early",
                   "refreshes: each so many steps, early (ever rarer), steps as 6/8/10, or budget "
                   "(--error-budget)"),
        OPT_DOUBLE(struct attn_knobs, density, "density", 0.03, 0, 1,
                   "share of keys in its own band; 0: the layer's output is copied whole"),
        OPT_DOUBLE(struct attn_knobs, first, "first", 0.2, 0, 1000,
                   "exact steps at the start: a share below 1, a count from 1 on"),
        OPT_DOUBLE(struct attn_knobs, last, "last", 0.1, 0, 1000, "exact steps at the end"),
        OPT_STRING(struct attn_knobs, tile, "tile", "4x4x4",
                   "tokens that stand together: frames x rows x columns, or raster"),
        OPT_INT(struct attn_knobs, block, "block", 64, 16, 1024, "tokens a block of the band")),
    .options_size = sizeof(struct attn_knobs),
    .choose = resid_choose,
};
