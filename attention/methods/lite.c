/* Tiles that no query of a row gave weight to are left out from then on: LiteAttention, arXiv
 * 2511.11062; attention-sparse.md 2.
 *
 * The kernel tells which tiles came within 2^threshold of the largest score before them; the others
 * are dead, one bit each, for a layer and branch. A row's own block is never left out; the walk
 * changes direction with every step, so that a late maximum is not missed for ever. refresh=R looks at
 * every R-th row's dead tiles again in each step; 0: never, as published. Beside another selection
 * dead tiles are taken from what it keeps. Where all heads share one plan, a tile is dead when it is
 * so for all. No planning.
 *
 * variant=drifting, as published: tiles die in every step, and what is left out once is not seen to come
 * back. variant=exact: they die only in the steps of `every`, which look at all of them, and nothing
 * changes between. every: all dead tiles are forgotten in these steps, in either variant. length: the
 * threshold is meant for so many tokens, and falls with more as weights do (Skip-Softmax, section 12.4).
 * error: thresholds are chosen instead of given, one for each layer and third of the run: the highest
 * under which some rows of o, a block of queries a head, err less than that in relative L1, a little
 * less in the first third and more in the last (3 / rows of blocks of a dense call, three times). */
#include "attention/axes/axes.h"

#include <math.h>
#include <string.h>

enum { DRIFTING, EXACT };
enum { THIRDS = 3 };

struct lite {
    struct attn_knobs knobs;
    double threshold, error;
    int refresh, variant, length;
};

static const struct lite *of(const struct attn_part *p) { return p->options; }

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

/* --- thresholds --- */

static int third_of(const struct attn_part *p, const struct attn_turn *t)
{
    int steps = p->last - p->first, at = (t->at.step - p->first) * THIRDS / (steps > 0 ? steps : 1);
    return at < 0 ? 0 : at < THIRDS ? at : THIRDS - 1;
}

/* [layers, THIRDS]; 0: not chosen yet */
static float threshold_of(const struct attn_part *p, const struct attn_turn *t,
                          const struct attn_plan *plan)
{
    double given = of(p)->threshold;
    if (!(of(p)->error > 0)) {
        if (of(p)->length) given -= log2((double)p->tokens / of(p)->length);
        return (float)(given < -0.01 ? given : -0.01);
    }
    int third = third_of(p, t);
    float *chosen = (float *)attn_shared(p) + t->at.layer * THIRDS + third;
    double bound = of(p)->error * (1 + (third - 1) * 0.133); /* .075 -+ .01 in the paper */
    if (!(*chosen < 0) && !(*chosen > 0)) *chosen = dead_threshold(p, t, plan, bound);
    return *chosen;
}

/* --- tiles --- */

static bool forgets(const struct attn_part *p, const struct attn_turn *t)
{
    const char *every = p->knobs->every;
    if (!every && of(p)->variant == DRIFTING) return false;
    return schedule_at(every ? every : "5", p->first, p->last, t->at.step);
}

/* state: dead bits; scratch: those of this call, and each row's own block */
static int lite_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                     struct err *e)
{
    const struct lite *o = of(p);
    struct attn_plan *plan = &c->at[0].plan;
    plan->walk = t->at.step % 2 ? ATTN_WALK_DOWN : ATTN_WALK_UP;
    float threshold = threshold_of(p, t, plan);
    uint32_t *dead = attn_scratch(p), *own = dead + plane(p);
    int words = attn_words(plan->k.n), rows = attn_plans(plan) * plan->q.n;
    (void)e;
    if (forgets(p, t)) memset(attn_state(p, t->at.layer, t->at.branch), 0, plane(p) * sizeof *dead);
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
    c->alive_log2 = threshold < 0 ? threshold : -1e30f;
    return 0;
}

/* Where thresholds are chosen, what a call would lose is tried. */
static unsigned plan_looks(const struct attn_part *p, const struct attn_turn *t)
{
    if (!(of(p)->error > 0)) return 0;
    if (!t) return ATTN_LOOK_QKV;
    float chosen = ((const float *)attn_shared(p))[t->at.layer * THIRDS + third_of(p, t)];
    return chosen < 0 || chosen > 0 ? 0 : ATTN_LOOK_QKV;
}

static unsigned observe_looks(const struct attn_part *p, const struct attn_turn *t)
{
    if (t && (t->exact || (of(p)->variant == EXACT && !forgets(p, t)))) return 0;
    return ATTN_LOOK_SEEN;
}

static int lite_observe(const struct attn_part *p, const struct attn_turn *t,
                        const struct attn_seen *s, struct err *e)
{
    if (t->exact || (of(p)->variant == EXACT && !forgets(p, t))) return 0;
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
    if (!(of(p)->error > 0)) return;
    s->shared = (size_t)p->shape->n_layers * THIRDS * sizeof(float);
    if (dead_scratch(p) > s->scratch) s->scratch = dead_scratch(p);
}

/* A line a layer, a threshold a third of the run; ? where none was chosen, none where nothing dies. */
static int lite_save(const struct attn_part *p, FILE *to, struct err *e)
{
    const float *chosen = attn_shared(p);
    (void)e;
    for (int i = 0; chosen && i < p->shape->n_layers * THIRDS; i++) {
        if (chosen[i] < 0)
            fprintf(to, "%g", (double)chosen[i]);
        else
            fputs(chosen[i] > 0 ? "none" : "?", to);
        fputc(i % THIRDS == THIRDS - 1 ? '\n' : ' ', to);
    }
    return 0;
}

static int lite_load(const struct attn_part *p, const char *text, size_t n, struct err *e)
{
    float *chosen = attn_shared(p);
    const char *end = text + n;
    for (int i = 0; chosen && i < p->shape->n_layers * THIRDS; i++) {
        char word[16];
        double value = 0;
        size_t len = 0;
        while (text + len < end && text[len] != ' ' && text[len] != '\n')
            len++;
        if (len >= sizeof word || text + len == end)
            return err_set(e, ERR_INPUT, "thresholds: %d of %d", i, p->shape->n_layers * THIRDS);
        memcpy(word, text, len);
        word[len] = 0;
        if (strcmp(word, "none") == 0)
            value = 1;
        else if (strcmp(word, "?") != 0 && parse_double(word, -100, -0.01, &value) < 0)
            return err_set(e, ERR_INPUT, "threshold '%s', wanted -100 to -0.01, none or ?", word);
        chosen[i] = (float)value;
        text += len + 1;
    }
    return text == end
               ? 0
               : err_set(e, ERR_INPUT, "thresholds: %zu bytes too many", (size_t)(end - text));
}

const struct attn_method attn_lite = {
    .name = "lite",
    .summary = "tiles that got no weight are left out from then on",
    .paper = "2511.11062",
    .recipe = {.select = &keep_everything, .mild = true},
    .options =
        OPTIONS(OPT_DOUBLE(struct lite, threshold, "threshold", -10, -100, -0.01,
                           "dead below this of the largest weight before, in powers of two"),
                OPT_DOUBLE(struct lite, error, "error", 0, 0, 1,
                           "relative error of a layer that thresholds are chosen for; 0: the "
                           "given one"),
                OPT_INT(struct lite, length, "length", 0, 0, 10000000,
                        "tokens that the threshold is meant for, from which it is scaled; 0: "
                        "any"),
                OPT_ENUM(struct lite, variant, "variant", 0, "drifting|exact",
                         "tiles die in every step, or only in steps that look at all of them"),
                OPT_STRING(struct attn_knobs, every, "every", NULL,
                           "when dead tiles are forgotten: each so many steps, early (ever "
                           "rarer), or steps as 6/8/10; drifting: never, exact: 5"),
                OPT_INT(struct lite, refresh, "refresh", 0, 0, 1000,
                        "each row's dead tiles are looked at again every so many steps"),
                KNOB_FIRST(0.1), KNOB_LAST(0), KNOB_BLOCK(128)),
    .options_size = sizeof(struct lite),
    .still = true,
    .needs = ATTN_NEED_PLANES | ATTN_NEED_WALK,
    .wants = ATTN_NEED_ALIVE,
    .choose = axis_choose,
    .sizes = lite_sizes,
    .plan = lite_plan,
    .plan_looks = plan_looks,
    .observe = lite_observe,
    .observe_looks = observe_looks,
    .save = lite_save,
    .load = lite_load,
};
