/* Tiles that no query of a row gave weight to are left out from then on: LiteAttention, arXiv
 * 2511.11062; attention-sparse.md 2.
 *
 * The kernel tells which tiles came within 2^threshold of the largest score before them; the others
 * are dead, one bit each, for a layer and branch. A row's own block is never left out; the walk
 * changes direction with every step, so that a late maximum is not missed for ever. refresh=R looks at
 * every R-th row's dead tiles again in each step; 0: never, as published. Beside another selection
 * dead tiles are taken from what it keeps. Where all heads share one plan, a tile is dead when it is
 * so for all. No planning. */
#include "attention/axes/axes.h"

#include <string.h>

struct lite {
    struct attn_knobs knobs;
    double threshold;
    int refresh;
};

static size_t plane(const struct attn_part *p)
{
    struct attn_limits most = attn_limits(p);
    return (size_t)p->shape->n_heads * (size_t)most.blocks * (size_t)attn_words(most.blocks);
}

static void everything(const struct axis_head *h)
{
    for (int r = 0; r < h->q.n; r++)
        select_row(h->kept, h->k.n, r);
}

AXIS_SELECT(everything)

static const struct axis_select keep_everything = {.name = "everything",
                                                   .summary = "all blocks, head by head",
                                                   .fixed = true,
                                                   .per_head = true,
                                                   .select = everything_all};

/* state: dead bits; scratch: those of this call, and each row's own block */
static int lite_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                     struct err *e)
{
    const struct lite *o = p->options;
    struct attn_plan *plan = &c->at[0].plan;
    uint32_t *dead = attn_scratch(p), *own = dead + plane(p);
    int words = attn_words(plan->k.n), rows = attn_plans(plan) * plan->q.n;
    (void)e;
    memcpy(dead, attn_state(p, t->at.layer, t->at.branch), plane(p) * sizeof *dead);
    memset(own, 0, plane(p) * sizeof *own);
    for (int r = 0; r < rows; r++) {
        int row = r % plan->q.n, col = (int)((int64_t)row * plan->k.n / plan->q.n);
        select_add(own + (size_t)r * (size_t)words, col);
        if (o->refresh && (row + t->at.step) % o->refresh == 0)
            memset(dead + (size_t)r * (size_t)words, 0, (size_t)words * sizeof *dead);
    }
    plan->dead = dead;
    plan->forced = own;
    plan->walk = t->at.step % 2 ? ATTN_WALK_DOWN : ATTN_WALK_UP;
    c->alive_log2 = (float)o->threshold;
    return 0;
}

static int lite_observe(const struct attn_part *p, const struct attn_turn *t,
                        const struct attn_seen *s, struct err *e)
{
    if (t->exact) return 0;
    const struct attn_plan *plan = &s->calls->at[0].plan;
    uint32_t *dead = attn_state(p, t->at.layer, t->at.branch);
    int words = attn_words(plan->k.n), n = plan->q.n;
    (void)e;
    for (int r = 0; r < attn_plans(plan) * n; r++)
        for (int w = 0; w < words; w++) {
            size_t at = (size_t)r * (size_t)words + (size_t)w;
            uint32_t alive = s->alive[at], looked = plan->kept[at] & ~plan->dead[at];
            for (int h = 1; !plan->per_head && h < plan->n_heads; h++)
                alive |= s->alive[at + (size_t)h * (size_t)n * (size_t)words];
            dead[at] = (dead[at] & ~looked) | (looked & ~alive);
        }
    return 0;
}

static void lite_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->state = plane(p) * sizeof(uint32_t);
    s->scratch = 2 * plane(p) * sizeof(uint32_t);
}

const struct attn_method attn_lite = {
    .name = "lite",
    .summary = "tiles that got no weight are left out from then on",
    .paper = "2511.11062",
    .recipe = {.select = &keep_everything, .mild = true},
    .options = OPTIONS(OPT_DOUBLE(struct lite, threshold, "threshold", -10, -100, -0.01,
                                  "dead below this of the largest weight before, in powers of two"),
                       OPT_INT(struct lite, refresh, "refresh", 0, 0, 1000,
                               "each row's dead tiles are looked at again every so many steps"),
                       KNOB_FIRST(0.1), KNOB_LAST(0), KNOB_BLOCK(128)),
    .options_size = sizeof(struct lite),
    .still = true,
    .needs = ATTN_NEED_PLANES | ATTN_NEED_WALK,
    .wants = ATTN_NEED_ALIVE,
    .sizes = lite_sizes,
    .plan = lite_plan,
    .observe = lite_observe,
};
