/* For who writes a method: what it may say, when it is asked, and what it is given.
 *
 * A method is a recipe: a member on each axis where it has an opinion, and hooks for what no axis
 * expresses. Methods compose by `+` (recipe.h); the room runs the stack of a call in this order:
 *
 *   ask         before q, k and v exist: is it computed at all?
 *   reuse       may the plan of an earlier step stand?      ─┐
 *   order       in which order do tokens stand, in which      │ skipped while an
 *               blocks?                                       │ earlier plan stands
 *   score       how much does a block matter?                 │
 *   select      which blocks are kept?                       ─┘
 *   compensate  what stands for the rest?
 *   precision   of the two products
 *   hook plan   whatever else the plan can say (plan/plan.h)
 *   the kernel, then hook observe
 *
 * Steps and layers that the knobs first, last and layers make exact run dense; then only `observe`
 * is called.
 * attention/README.md writes one from an empty file. Owner: everything given to a hook is the
 * room's; state lives from attn_open to attn_close, zeroed at open and by reset. Threads: hooks are
 * called from the main thread, and may hand work to the pool (threads.h). Errors: ERR_USAGE for
 * options that cannot be, ERR_BUG for a plan that breaks a rule. No hook allocates. */
#ifndef DITGEN_ATTENTION_METHOD_H
#define DITGEN_ATTENTION_METHOD_H

#include "attention/attention.h"
#include "attention/plan/making.h"
#include "attention/plan/plan.h"

#include <stdio.h>

/* --- what hooks and members are given --- */

/* What shared members read. A method's options begin with it (or are it); its rows give defaults,
 * what has no row is 0. */
struct attn_knobs {
    double first, last; /* exact steps at the start and end: a share below 1, a count from 1 on */
    int layers; /* exact layers at the start */
    int block; /* tokens a block of queries and of keys; 0: 128, as kernels of every device like it */
    int block_q; /* of queries alone; 0: block */
    double density; /* share of the keys that a row of blocks keeps */
    int tiles; /* blocks on each side of the row's own */
    char *tile; /* "4x4x4": frames x rows x columns of a tile of tokens; "raster" or NULL: none */
    char *reach; /* "2x8x8": how far a row sees, in frames x rows x columns of tokens */
    double mass; /* share of a row's weight, by its scores, that kept blocks add up to */
    double least; /* share of blocks that a row keeps whatever they weigh */
    double tau; /* standard deviations above a row's mean score from which on a block is kept */
    double drift; /* largest relative change of pooled q and k under which a plan stands */
    int runs; /* runs that a block is cut into before it is averaged */
    int rank; /* channels that keys are looked at by */
    int stride; /* tokens from one antidiagonal to the next; queries from one sample to the next */
    int sink; /* frames at the start that everyone sees */
    char *every; /* when to plan anew: "5", "early", steps as "6/8/10", or "budget" */
};

struct attn_part { /* one method of a stack, opened */
    const struct attn_method *method;
    const void *options; /* its own struct, filled */
    const struct attn_knobs *knobs; /* the front of it; all zero when the method has no options */
    const struct attn_shape *shape;
    int tokens;
    int first, last; /* exact steps of the whole stack: step < first, step >= last */
    struct attn *room;
    int index; /* in the stack */
};

struct attn_turn { /* one call */
    struct attn_ctx at;
    struct heads q, k, v; /* .at NULL while they do not exist: in ask and at open */
    struct heads o; /* only in after and observe */
    bool anew; /* the plan is made at this call; false: an earlier one stands */
    bool first; /* nothing stood before: the pair's first plan */
    bool exact; /* an exact step or layer, or a pair without place in the cache: dense */
    int plan_layer; /* whose plan stands: at.layer, but where layers share one (axis_reuse.layer) */
};

/* What hooks read of a call. On a device it is brought to the host for them; what is not said is not there
 * (.at NULL). t NULL: the most that any call of the run may want; else this call's, which may follow from
 * state. */
enum attn_look {
    ATTN_LOOK_Q = 1 << 0,
    ATTN_LOOK_K = 1 << 1,
    ATTN_LOOK_V = 1 << 2,
    ATTN_LOOK_O = 1 << 3,
    ATTN_LOOK_SEEN = 1 << 4, /* lse, mass, alive: struct attn_seen */
    ATTN_LOOK_QK = ATTN_LOOK_Q | ATTN_LOOK_K,
    ATTN_LOOK_QKV = ATTN_LOOK_QK | ATTN_LOOK_V,
    ATTN_LOOK_ALL = ATTN_LOOK_QKV | ATTN_LOOK_O | ATTN_LOOK_SEEN,
};
typedef unsigned attn_looks_fn(const struct attn_part *p, const struct attn_turn *t);
attn_looks_fn attn_looks_nowhere, attn_looks_qkv;

/* Memory of a part, all sized before the run. state: of any layer and branch, so that one branch
 * may read what the other left. scratch: of this call, not kept. NULL when sizes() asked for none. */
void *attn_state(const struct attn_part *p, int layer, int branch);
void *attn_shared(const struct attn_part *p);
void *attn_scratch(const struct attn_part *p);
/* A checkpoint's own attention tensor, named in attn_method.tensors; NULL: it has none. */
const struct tensor *attn_tensor(const struct attn_part *p, int layer, const char *name);
/* Random numbers that depend on who asks alone (attention-sparse.md C10): splitmix64 of all of it. */
uint64_t attn_random(const struct attn_ctx *c, int head, uint64_t n);
/* What the memory of a member is sized by; known from attn_open on. */
struct attn_limits {
    int threads; /* most that work on a call */
    int block; /* tokens of equal blocks */
    int blocks; /* most on a side, of any length */
    int cols; /* most of keys */
    enum cpu_level level; /* of the processor, for dots_pick() */
    bool by_head; /* calls that keep a residual may be cut: no other part looks at them whole */
};
struct attn_limits attn_limits(const struct attn_part *p);
/* What the run may lose; NULL: nobody said. */
const struct budget *attn_budget(const struct attn_part *p);
/* Layers at the start that are exact, by all parts of the stack. */
int attn_exact_layers(const struct attn_part *p);
/* Bits of ATTN_NEED_LOW that calls of this run may ask for. */
unsigned attn_granted(const struct attn_part *p);
/* Whether this run's attention is a device's (attention/device.h). */
bool attn_on_device(const struct attn_part *p);
/* A step that is exact whatever the stack: first, last and layers of all its parts. */
bool attn_is_exact(const struct attn_part *p, const struct attn_ctx *c);

/* --- what the hooks plan and observe are given --- */

struct attn_launch { /* one plan of a call, and the tensors that it wants beside q, k, v and o */
    struct attn_plan plan;
    struct heads residual, k_mean, v_mean, v_sum; /* plan/plan.h: attn_job */
    /* instead of the call's: [plan.k.len, N, D], at NULL: the call's; of all launches in one place */
    struct heads k, v;
};

struct attn_calls { /* the plans of a call: their heads cover every head once */
    struct attn_launch *at; /* [max]; comes with one, what the axes made */
    int n, max; /* max: number of heads + 1 */
    float alive_log2; /* for hooks that want ATTN_NEED_ALIVE; 0: -10 */
};

/* What the kernel left; pointers that nobody wanted are NULL, heads that were not computed undefined. */
struct attn_seen {
    const struct attn_calls *calls;
    const float *lse; /* [N, L] */
    const float *mass; /* [N * q.n, k.n] */
    const uint32_t *alive; /* [N * q.n, words] */
};

struct attn_sizes { /* bytes; 0: none */
    size_t state; /* of one (layer, branch) */
    size_t shared; /* of the method */
    size_t scratch; /* of a call */
};

/* --- axes: one member each; NULL hooks mean what stands beside them --- */

/* Memory of a member is that of the part which names it: it asks with attn_scratch(p) and
 * attn_state(p). Members and plan() of one part work one after the other, so scratch is as large as
 * the largest wants, and nothing in it outlives a hook, but for what before() leaves to after().
 * State may be wanted by one of them. NULL: none. *s comes zeroed. */
typedef void attn_sizes_fn(const struct attn_part *p, struct attn_sizes *s);

struct axis_ask {
    const char *name, *summary;
    /* Where the attention module's output comes from, all heads at once. Must depend on *c alone:
     * the forecast asks it too. A source that holds nothing (yet, or because --cache-mem has no
     * place for this pair) is not copied but computed, exactly. */
    enum attn_ask (*ask)(const struct attn_part *p, const struct attn_ctx *c);
    bool over_steps; /* it may say COPY_STEP: outputs are kept, tokens x width bf16 a pair */
    bool over_branches; /* it may say COPY_BRANCH */
};

struct axis_order {
    const char *name, *summary;
    bool fixed; /* made once at open, for all calls; else for each call that plans anew */
    bool per_head; /* one order a head, else one for all */
    bool keys_apart; /* keys stand in another order than queries */
    int (*blocks)(
        const struct attn_part *p); /* most blocks a side, of any length; NULL: equal ones */
    /* Fills tokens [plans, L] and, with blocks, at [plans, most + 1] and plan->q.n, k.n. plan comes
     * with equal blocks in raster order; q_token and k_token are one unless keys_apart. */
    int (*make)(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at, struct err *e);
    attn_sizes_fn *sizes;
    attn_looks_fn *looks; /* make(); NULL: q and k */
};

struct axis_score {
    const char *name, *summary;
    bool per_head;
    /* score [plans, q.n, k.n]: about the logarithm of the mass of a tile, up to a constant a row */
    int (*score)(const struct attn_part *p, const struct attn_turn *t, const struct attn_plan *plan,
                 float *score, struct err *e);
    attn_sizes_fn *sizes;
    /* The same for a device that makes plans itself; NULL: score() alone can. */
    void (*there)(const struct attn_part *p, struct attn_making *m);
};

struct axis_select {
    const char *name, *summary;
    bool needs_score; /* a stack without a scorer is refused; else score is NULL */
    bool fixed; /* looks at no tensor: made once when the order is fixed too */
    bool per_head; /* one set a head, also where neither order nor scores are a head's own */
    /* Sets bits of kept, which comes zeroed; every row must keep something. */
    int (*select)(const struct attn_part *p, const struct attn_turn *t,
                  const struct attn_plan *plan, const float *score, uint32_t *kept, struct err *e);
    /* Least and largest share of pairs kept, for the forecast; NULL: 0 to 1. */
    void (*density)(const struct attn_part *p, double *lo, double *hi);
    attn_sizes_fn *sizes;
    attn_looks_fn *looks; /* select(), beside the scores; NULL: q and k */
    /* The same for a device that makes plans itself, of `cols` blocks; NULL: select() alone can. */
    void (*there)(const struct attn_part *p, int cols, struct attn_making *m);
};

struct axis_reuse {
    const char *name, *summary;
    /* Plan anew? Not asked at a pair's first call that is not exact: there it is so. */
    bool (*anew)(const struct attn_part *p, const struct attn_turn *t);
    bool scheduled; /* looks at t->at alone: then the forecast asks it too; else at q and k */
    /* The layer whose plan this one uses, at most its own: plans are shared over layers. The first
     * of them that is computed in a run makes it. NULL: its own. */
    int (*layer)(const struct attn_part *p, int layer);
    /* A plan was made anew; NULL: nobody needs to know. */
    void (*made)(const struct attn_part *p, const struct attn_turn *t);
    /* Of residuals alone; all may be NULL. heads: which are made anew, [N], after anew() said true; the
     * others are carried on (asked where attn_limits.by_head is). moved: a head's residual was renewed,
     * which had moved by so much, squared, beside what an average head's output measures. */
    const uint8_t *(*heads)(const struct attn_part *p, const struct attn_turn *t);
    void (*moved)(const struct attn_part *p, const struct attn_turn *t, int head, double by);
    /* Steered by attn_params.budget, without which the stack is refused: what it came to; share[steps] of
     * heads renewed, for a clip that moves `scale` times as much as is usual. */
    void (*spent)(const struct attn_part *p, struct budget_spent *to);
    void (*foresee)(const struct attn_part *p, float *share, double scale);
    attn_sizes_fn *sizes;
};

struct axis_compensate {
    const char *name, *summary;
    /* exact - kept is stored when the plan is made anew, and added while it stands; the room does
     * it, dense where --cache-mem leaves no place. Needs an axis reuse. */
    bool residual;
    unsigned needs; /* enum attn_need: fields that before() may set */
    unsigned wants; /* of ATTN_NEED_LSE, MASS, ALIVE: for after() */
    int (*before)(const struct attn_part *p, const struct attn_turn *t, struct attn_launch *l,
                  struct err *e); /* changes the launch; NULL: does nothing */
    int (*after)(const struct attn_part *p, const struct attn_turn *t, const struct attn_seen *s,
                 struct err *e); /* changes t->o; NULL: does nothing */
    attn_sizes_fn *sizes;
    attn_looks_fn *before_looks; /* NULL: q, k and v */
    attn_looks_fn *after_looks; /* NULL: everything; without o it changes nothing */
};

struct attn_needed { /* of ATTN_NEED_LOW */
    unsigned must; /* the run is refused without them */
    unsigned gladly; /* left to the room: granted where its kernel is faster by them */
};

struct axis_precision {
    const char *name, *summary;
    /* What choose() may ask for in some call; asked before the kernel is picked. */
    struct attn_needed (*needs)(const struct attn_part *p);
    /* Sets l->plan.qk, pv and codes, by what attn_granted() allows. */
    int (*choose)(const struct attn_part *p, const struct attn_turn *t, struct attn_launch *l,
                  struct err *e);
};

struct attn_recipe { /* NULL: no opinion */
    const struct axis_ask *ask;
    const struct axis_order *order;
    const struct axis_score *score;
    const struct axis_select *select;
    const struct axis_reuse *reuse;
    const struct axis_compensate *compensate;
    const struct axis_precision *precision;
    bool
        mild; /* order, score and select are a unit that yields when another part has one of them */
    bool mild_reuse; /* reuse is a default that yields to another part's */
};

struct attn_method {
    const char *name, *summary, *paper; /* in --attention; one line of help; arXiv id or NULL */
    bool exact; /* equals dense attention up to rounding: needs no warning */
    bool still; /* remembers blocks by number: refused beside an order that changes with q and k */
    struct attn_recipe recipe;
    const struct option *options; /* its own rows: name=value after `:`; NULL: none */
    size_t options_size;
    const char *(*note)(const struct attn_part *p); /* a line of the log at open, or NULL */
    const char *const *tensors; /* names below "blocks.N.attn1.", NULL ends; may be NULL */
    unsigned needs; /* enum attn_need: fields that plan() may set; a kernel is picked by them */
    unsigned wants; /* of ATTN_NEED_LSE, MASS, ALIVE: for observe() */
    /* Fills options that follow from others, at the end of parsing: what canonical text keeps. */
    int (*complete)(const struct attn_part *p, struct err *e);
    /* Checks options against each other and the shape, and may change the recipe by them. */
    int (*choose)(const struct attn_part *p, struct attn_recipe *r, struct err *e);
    void (*close)(
        const struct attn_part *p); /* frees what choose() keeps in its options, or NULL */
    attn_sizes_fn *sizes; /* beside what its members want */
    /* Changes what the axes made, at each call that is not exact: what else plan.h can say. */
    int (*plan)(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                struct err *e);
    /* plan() cuts the call's plan into several, after all other hooks: refused beside a part that looks
     * at the one plan of a call (plan, observe, after) */
    bool splits;
    attn_looks_fn *plan_looks; /* NULL: q, k and v */
    int (*columns)(const struct attn_part *p); /* most that plan() lists a row; NULL: none */
    bool
        whole; /* plan() makes plans of its own, maybe with keys of its own: refused beside a part that selects */
    bool steady; /* plan() does the same until t->anew: may stand beside a cached residual */
    int (*observe)(const struct attn_part *p, const struct attn_turn *t, const struct attn_seen *s,
                   struct err *e); /* after every call of the kernel, exact ones too */
    attn_looks_fn
        *observe_looks; /* NULL: everything, at every call; 0: it does nothing at this one */
    /* Between prompts and when the expert changes; state and shared are zeroed before. NULL: that is
     * all. */
    void (*reset)(const struct attn_part *p);
    /* What was learned (tables, calibrations), as text; NULL: nothing is. */
    int (*save)(const struct attn_part *p, FILE *to, struct err *e);
    int (*load)(const struct attn_part *p, const char *text, size_t n, struct err *e);
};
int attn_method_count(void);
const struct attn_method *attn_method_at(int i);
const struct attn_method *attn_method_find(const char *name); /* NULL: none */

#endif
