/* Methods that exist only in tests: one uses every hook, the others claim axes to be refused or to
 * yield; and a session of a stack of them. For one test each, which includes this first. */
#define ATTN_METHODS "tests/unit/attention/seam.def"
#include "attention/recipe.c" /* with the methods below instead of those of methods.def */

#include "attention/axes/axes.h"
#include "model/base/threads.h"
#include "tests/check.h"

enum {
    HEADS = 3,
    DIM = 8,
    T = 2,
    H = 4,
    W = 5,
    L = T * H * W,
    LAYERS = 2,
    BRANCHES = 2,
    STEPS = 9
};

enum { OUT = L * HEADS * DIM };

/* --- the probe: every hook --- */

struct probe {
    struct attn_knobs knobs;
    int keep;
    char *word;
};

static struct {
    bool watch; /* all pairs have a place: then what the other branch did is known */
    int asked, scored, selected, planned, anew, observed, exact, resets;
    const struct tensor *gate;
} seen;

struct probe_state {
    int calls, step;
};

/* steps 3k + 1 copy the step before; branch 1 of 3k + 2 copies branch 0 */
static enum attn_ask probe_ask(const struct attn_part *p, const struct attn_ctx *c)
{
    CHECK(p->method == &attn_probe && c->n_steps == STEPS && c->n_branches == BRANCHES);
    seen.asked++;
    if (c->step % 3 == 1) return ATTN_ASK_COPY_STEP;
    return c->step % 3 == 2 && c->branch == 1 ? ATTN_ASK_COPY_BRANCH : ATTN_ASK_COMPUTE;
}
static const struct axis_ask ask_probe = {
    .name = "probe", .ask = probe_ask, .over_steps = true, .over_branches = true};

static int probe_score(const struct attn_part *p, const struct attn_turn *t,
                       const struct attn_plan *plan, float *score, struct err *e)
{
    (void)p, (void)e;
    CHECK(plan->per_head && attn_plans(plan) == HEADS && t->q.at && !t->exact);
    seen.scored++;
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < plan->q.n; i++)
            for (int j = 0; j < plan->k.n; j++) {
                const float *k = heads_at(&t->k, attn_block_at(&plan->k, h, j), h);
                score[(h * plan->q.n + i) * plan->k.n + j] = k[0];
            }
    return 0;
}
static const struct axis_score score_probe = {
    .name = "probe", .per_head = true, .score = probe_score};

/* the row's own block, and those that score above 0 */
static int probe_select(const struct attn_part *p, const struct attn_turn *t,
                        const struct attn_plan *plan, const float *score, uint32_t *kept,
                        struct err *e)
{
    (void)p, (void)t, (void)e;
    int words = attn_words(plan->k.n);
    CHECK(score != NULL);
    seen.selected++;
    for (size_t r = 0; r < (size_t)(attn_plans(plan) * plan->q.n); r++)
        for (int j = 0; j < plan->k.n; j++)
            if (j == (int)r % plan->q.n || score[r * (size_t)plan->k.n + (size_t)j] > 0)
                kept[r * (size_t)words + (size_t)(j / 32)] |= 1u << j % 32;
    return 0;
}
static const struct axis_select select_probe = {
    .name = "probe", .needs_score = true, .select = probe_select};

static void probe_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    CHECK(p->tokens == L && p->shape->n_heads == HEADS);
    *s = (struct attn_sizes){
        .state = sizeof(struct probe_state), .shared = sizeof(int), .scratch = 100};
}

static int probe_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    const struct probe *o = p->options;
    CHECK(r->ask == &ask_probe && p->knobs == &o->knobs);
    if (o->keep == 7) return err_set(e, ERR_USAGE, "keep is 7, wanted anything else");
    return 0;
}

static int probe_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                      struct err *e)
{
    struct probe_state *mine = attn_state(p, t->at.layer, t->at.branch),
                       *other = attn_state(p, t->at.layer, 1 - t->at.branch);
    (void)e;
    CHECK(mine && other && mine != other && !attn_state(p, LAYERS, 0));
    /* the positive branch of this step has been here already, unless it was copied */
    if (t->at.branch == 1 && seen.watch)
        CHECK(other->step == t->at.step && other->calls == 2 * (mine->calls + 1));
    mine->step = t->at.step;
    mine->calls++;
    *(int *)attn_shared(p) += 1;
    memset(attn_scratch(p), t->at.step, 100);
    CHECK(c->n == 1 && c->max == HEADS + 1 && c->at[0].plan.kept && !c->at[0].plan.all);
    seen.planned++;
    seen.anew += t->anew;
    seen.gate = attn_tensor(p, t->at.layer, "gate.weight");
    return 0;
}

static int probe_observe(const struct attn_part *p, const struct attn_turn *t,
                         const struct attn_seen *s, struct err *e)
{
    (void)e;
    CHECK(t->o.at && s->calls->n == 1);
    if (!t->exact) CHECK(((char *)attn_scratch(p))[99] == t->at.step);
    seen.observed++;
    seen.exact += t->exact;
    return 0;
}

static void probe_reset(const struct attn_part *p)
{
    CHECK(*(int *)attn_shared(p) == 0);
    seen.resets++;
}

static int probe_save(const struct attn_part *p, FILE *to, struct err *e)
{
    (void)e;
    fprintf(to, "%d calls\n", *(int *)attn_shared(p));
    return 0;
}

static int probe_load(const struct attn_part *p, const char *text, size_t n, struct err *e)
{
    char copy[32];
    if (n >= sizeof copy) return err_set(e, ERR_INPUT, "too long");
    memcpy(copy, text, n);
    copy[n] = 0;
    return sscanf(copy, "%d calls", (int *)attn_shared(p)) == 1
               ? 0
               : err_set(e, ERR_INPUT, "no number of calls");
}

static const char *const probe_tensors[] = {"gate.weight", NULL};

/* --- rules: what heads become, head by head --- */

static void rules_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    (void)p;
    s->state = (size_t)OUT * sizeof(float); /* o of this pair, before the output layer */
}

/* Head 0 is left out, head 1 of branch 1 is that of branch 0 in this step, the rest is computed: three
 * plans of one call. */
static int rules_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                      struct err *e)
{
    static const uint8_t zero[] = {0}, copy[] = {1}, rest[] = {1, 2};
    (void)e;
    c->at[0].plan.heads = rest;
    c->at[0].plan.n_heads = t->at.branch == 0 ? 2 : 1;
    if (t->at.branch == 1) c->at[0].plan.heads = rest + 1;
    c->at[1] = (struct attn_launch){.plan = c->at[0].plan};
    c->at[1].plan.heads = zero;
    c->at[1].plan.n_heads = 1;
    c->at[1].plan.rule = ATTN_ZERO;
    c->n = 2;
    if (t->at.branch == 0) return 0;
    c->at[2] = c->at[1];
    c->at[2].plan.heads = copy;
    c->at[2].plan.rule = ATTN_COPY;
    c->at[2].residual = heads_f32(attn_state(p, t->at.layer, 0), L, HEADS, DIM);
    c->n = 3;
    return 0;
}

static int rules_observe(const struct attn_part *p, const struct attn_turn *t,
                         const struct attn_seen *s, struct err *e)
{
    (void)e;
    CHECK(s->lse != NULL && isfinite(s->lse[2 * L])); /* of head 2, which is computed */
    memcpy(attn_state(p, t->at.layer, t->at.branch), t->o.at, (size_t)OUT * sizeof(float));
    return 0;
}

const struct attn_method attn_rules = {
    .name = "rules",
    .summary = "heads left out, copied, computed",
    .needs = ATTN_NEED_HEADS | ATTN_NEED_ZERO | ATTN_NEED_COPY,
    .wants = ATTN_NEED_LSE,
    .sizes = rules_sizes,
    .plan = rules_plan,
    .observe = rules_observe,
};
/* head 1 twice: the room must refuse it */
static int twice_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                      struct err *e)
{
    static const uint8_t heads[] = {1, 1, 2};
    (void)p, (void)t, (void)e;
    c->at[0].plan.heads = heads;
    return 0;
}
const struct attn_method attn_twice = {
    .name = "twice", .summary = "a head twice", .needs = ATTN_NEED_HEADS, .plan = twice_plan};
/* a residual beside the probe's scores, in tiles of tokens */
const struct attn_method attn_carried = {
    .name = "carried",
    .summary = "exact minus a band in tiles",
    .recipe = {.order = &order_by_tile,
               .select = &keep_band,
               .reuse = &anew_by_schedule,
               .compensate = &rest_residual,
               .mild = true},
    .options = OPTIONS(OPT_STRING(struct attn_knobs, every, "every", "3", "refreshes"),
                       OPT_STRING(struct attn_knobs, tile, "tile", "2x2x2", "a tile"),
                       OPT_INT(struct attn_knobs, tiles, "tiles", 0, 0, 99, "blocks a side"),
                       OPT_DOUBLE(struct attn_knobs, first, "first", 1, 0, 99, "exact steps"),
                       OPT_INT(struct attn_knobs, block, "block", 8, 1, 64, "tokens a block")),
    .options_size = sizeof(struct attn_knobs),
};

const struct attn_method attn_plain = {.name = "plain", .summary = "dense", .exact = true};
const struct attn_method attn_probe = {
    .name = "probe",
    .summary = "every hook",
    .recipe = {.ask = &ask_probe,
               .score = &score_probe,
               .select = &select_probe,
               .reuse = &anew_by_schedule},
    .options = OPTIONS(OPT_STRING(struct probe, knobs.every, "every", "2", "refreshes"),
                       OPT_DOUBLE(struct probe, knobs.first, "first", 1, 0, 99, "exact steps"),
                       OPT_DOUBLE(struct probe, knobs.last, "last", 0.1, 0, 99, "exact steps"),
                       OPT_INT(struct probe, knobs.block, "block", 8, 1, 64, "tokens a block"),
                       OPT_INT(struct probe, keep, "keep", 2, 0, 9, "read by choose"),
                       OPT_STRING(struct probe, word, "word", NULL, "without a default")),
    .options_size = sizeof(struct probe),
    .tensors = probe_tensors,
    .choose = probe_choose,
    .sizes = probe_sizes,
    .plan = probe_plan,
    .observe = probe_observe,
    .reset = probe_reset,
    .save = probe_save,
    .load = probe_load,
};
/* claims what probe claims, with an option of the same name */
const struct attn_method attn_other = {
    .name = "other",
    .summary = "a band",
    .recipe = {.select = &keep_band},
    .options = OPTIONS(OPT_INT(struct attn_knobs, tiles, "keep", 1, 0, 99, "blocks a side"),
                       OPT_INT(struct attn_knobs, layers, "layers", 0, 0, 99, "exact layers")),
    .options_size = sizeof(struct attn_knobs),
};
const struct attn_method attn_later = {
    .name = "later",
    .summary = "plans stand",
    .recipe = {.reuse = &anew_by_schedule},
    .options = OPTIONS(OPT_STRING(struct attn_knobs, every, "every", "3", "refreshes")),
    .options_size = sizeof(struct attn_knobs),
};
/* a selection of its own that yields to any other */
const struct attn_method attn_mild = {
    .name = "mild",
    .summary = "a band in tiles, if nobody selects",
    .recipe = {.order = &order_by_tile, .select = &keep_band, .mild = true},
    .options = OPTIONS(OPT_STRING(struct attn_knobs, tile, "tile", "1x2x2", "a tile"),
                       OPT_INT(struct attn_knobs, block, "block", 8, 1, 64, "tokens a block")),
    .options_size = sizeof(struct attn_knobs),
};
const struct attn_method attn_sorted = {
    .name = "sorted",
    .summary = "an order alone",
    .recipe = {.order = &order_by_tile},
    .options = OPTIONS(OPT_STRING(struct attn_knobs, tile, "tile", "2x2x2", "a tile")),
    .options_size = sizeof(struct attn_knobs),
};
const struct attn_method attn_learned = {
    .name = "learned", .summary = "scores nobody reads", .recipe = {.score = &score_probe}};

/* --- running one --- */

static const struct attn_shape shape = {.n_heads = HEADS,
                                        .head_dim = DIM,
                                        .grid_t = T,
                                        .grid_h = H,
                                        .grid_w = W,
                                        .n_layers = LAYERS,
                                        .n_branches = BRANCHES,
                                        .n_steps = STEPS};

static struct attn_params params_of(const char *stack)
{
    struct attn_params p = {.method = stack, .threads = 1};
    cpu_detect(&p.cpu);
    return p;
}

struct session {
    struct attn *a;
    struct arena arena;
};

static int session_open(struct session *s, const struct attn_params *p, struct err *e)
{
    struct arena count = {0};
    struct attn *none;
    *s = (struct session){0};
    if (attn_open(&none, p, &shape, &count, e) < 0) return -1;
    CHECK(arena_open(&s->arena, count.used, e) == 0);
    memset(s->arena.base, 0xff, s->arena.size);
    int rc = attn_open(&s->a, p, &shape, &s->arena, e);
    CHECK(rc < 0 || s->arena.used == count.used);
    return rc;
}

static void session_close(struct session *s)
{
    attn_close(s->a);
    arena_close(&s->arena);
}
