/* What the files of the room share: an opened stack, its memory, and who does which part.
 *
 * A "pair" is a (layer, branch): what state, plans and caches are kept for. Private to the room. */
#ifndef DITGEN_ATTENTION_ROOM_H
#define DITGEN_ATTENTION_ROOM_H

#include "attention/device.h"
#include "attention/recipe.h"

struct pair {
    bool planned; /* its plan stands, and its residual if the stack has one */
    bool kept; /* its output of an earlier step is there */
    int last; /* step of its last call, computed or copied: others may have left out steps since */
};

struct recent { /* of the calls before; -1: none */
    int branch_step, branch_layer; /* that branch_output is of */
    int last_step, last_expert;
};

struct memory { /* of one part */
    struct attn_sizes size;
    char *state, *shared, *scratch;
};

struct geometry { /* orders and offsets of one plan, or of all when they are fixed */
    int32_t *q_token, *k_token; /* [plans, L], or NULL */
    int32_t *q_at, *k_at; /* [plans, most + 1], or NULL */
    int *count; /* [2]: q.n, k.n of the orders with blocks of any length */
    uint32_t *kept; /* [plans * most rows, words] */
};

/* Tensors of a call that methods make beside q, k, v and o, each with a place on a device. */
enum attn_up { UP_K, UP_V, UP_K_MEAN, UP_V_MEAN, UP_V_SUM, UP_FILL, UP_BIAS, UPS };

struct made_there { /* plans that the device makes itself: making.c */
    bool on;
    struct attn_making how;
    size_t scratch_bytes;
    void *scratch;
    uint64_t *pairs; /* [1 + places] of all calls so far; of the plan of each place */
    uint32_t *forced;
};

struct there { /* of a run on a device: device.c, bring.c, making.c */
    /* beside attn.device_kernel: of launches that keep every tile, and of those that fill and move */
    const struct attn_device_kernel *exact, *moves;
    struct heads q, k, v, o; /* of this call, there */
    /* prepared plans: one place for all calls, or one for each plan that stands */
    char *plans;
    size_t place;
    bool *put; /* [places] what lies there is the plan that stands; host */
    double *density; /* [places] of it; host */
    long puts; /* so far: a recorded step launches the plans of one such count */
    bool fresh; /* this call's plan was not there yet */
    struct made_there made;
    float *lse, *mass;
    uint32_t *alive;
    struct {
        char *at;
        const void *from; /* what lies there, of this call */
    } up[UPS];
    char *row; /* of a sampled query: o of every head, then lse */
    /* of the host */
    float *down[4]; /* q, k, v, o as hooks read them, [L, N, D]; NULL: nobody does */
    float *rows; /* two sampled ones, of all heads */
    uint16_t *narrow; /* one of them as a bf16 device has it */
    bool brought; /* something, in this call: the device was waited for */
    double waited; /* seconds of this call that it took */
};

struct attn {
    struct attn_stack stack;
    struct attn_shape shape;
    struct attn_size size;
    const struct attn_kernel *kernel; /* on the host */
    unsigned granted, declined; /* of ATTN_NEED_LOW: what was asked for gladly as well; what not */
    struct device *device; /* NULL: the host */
    struct device *counts; /* who is told of calls: that, or the host as a device; or NULL */
    const struct attn_device_kernel *device_kernel; /* there */
    struct there there;
    const struct tensor *(*tensor)(void *ctx, int layer, const char *name);
    void *tensor_ctx;
    enum cpu_level level; /* what planning may use */
    int n_pairs;
    struct recent *recent; /* from here to kept_bytes later: what is remembered */
    size_t kept_bytes;
    struct pair *pair; /* [n_pairs] */
    struct memory memory[ATTN_MAX_PARTS];
    bool sparse; /* some axis, or a hook, says more than dense */
    const struct budget *budget; /* or NULL */
    bool by_head; /* some heads of a residual may be renewed without the others */
    uint16_t *renew_old; /* sampled rows of a residual before it is renewed [rows, N, D], or NULL */
    uint8_t *renew_heads; /* [2 N] of a call that is cut */

    /* plans: turn.c */
    int plans, most_q, most_k, words; /* plans of a call, blocks a side at most */
    int block, block_q; /* tokens of equal blocks of keys, of queries */
    bool order_fixed, plan_fixed; /* order, and kept too, are made once */
    struct geometry *geometry; /* [1] when fixed or made at each call, [n_pairs] when reused */
    float *score; /* [plans, most_q, most_k] */
    struct attn_launch *launches; /* [n_heads + 1] */
    uint32_t *seen; /* of attn_plan_check() */
    unsigned wants;
    float *lse, *mass;
    uint32_t *alive;

    /* what is kept over steps: cache.c. Slots are bf16 [L, N, D] */
    int residual_slots, output_slots; /* pairs that have one: the first ones */
    uint16_t *residual, *output;
    uint16_t *branch_output; /* of branch 0 in this step and layer */

    void *scratch; /* of the kernel */

    /* meters: meter.c */
    struct attn_sums sums;
    const struct log *log;
    const struct attn_watch *watch;
};

static inline const char *room_kernel_name(const struct attn *a)
{
    return a->device_kernel ? a->device_kernel->name : a->kernel->name;
}

static inline int pair_of(const struct attn *a, const struct attn_ctx *c)
{
    return c->layer * a->shape.n_branches + c->branch;
}
/* Whether calls only look up a plan that was made once, or at the last refresh: nothing else than exact
 * steps and refreshes make one. */
bool room_stands(const struct attn *a);
/* A step before the last one is another prompt's; another expert is another model: all is forgotten. */
void room_notice(struct attn *a, const struct attn_ctx *c);
/* n_steps and n_branches filled in; ERR_BUG for what the stack was not opened for. */
int room_ctx(struct attn_ctx *to, const struct attn *a, const struct attn_ctx *c, struct err *e);

/* --- turn.c: axes and hooks → launches --- */

void turn_sizes(struct attn *a); /* plans, blocks, what is fixed: from the stack */
void turn_carve(struct attn *a, struct arena *arena); /* before turn_carve_plans() */
void turn_carve_plans(struct attn *a, struct arena *arena); /* what may stand over steps */
/* Whether plans that were read back can be looked at. */
int turn_check_plans(const struct attn *a, struct err *e);
int turn_fixed(struct attn *a, struct err *e); /* makes what is made once; memory is there */
/* The plan of all calls, of a stack whose plans are fixed. */
int turn_fixed_plan(struct attn *a, struct attn_plan *p, struct err *e);
/* All but the kept set, whose place it names, of a stack whose order is fixed. */
int turn_ordered_plan(const struct attn *a, struct attn_plan *p, struct err *e);
/* State and scratch of every part (attention.c). */
int parts_carve(struct attn *a, struct arena *arena, struct err *e);
void parts_carve_scratch(struct attn *a, struct arena *arena);
/* Exact or not, and whether a plan is made, as far as it follows from where the call stands alone. */
void turn_begins(const struct attn *a, struct attn_turn *t);
/* Fills *c for this call. */
int turn_call(struct attn *a, struct attn_turn *t, struct attn_calls *c, struct err *e);
/* The plan of every call that is not exact, of a stack whose plan is fixed; checked. */
int turn_static(struct attn *a, struct attn_calls *c, struct err *e);
/* Plain dense attention as the one plan of a call. */
int turn_dense(struct attn *a, struct attn_calls *c, struct err *e);

/* --- launch.c: launches → the kernel --- */

/* Picks the kernel for what the stack will ask of it, named in errors. */
int launch_open(struct attn *a, const struct attn_params *p, struct err *e);
void launch_carve(struct attn *a, struct arena *arena);
/* What launch i asks of a kernel of the host. seen: lse, mass and alive are looked at. */
void launch_job(struct attn_job *job, struct attn *a, const struct attn_turn *t,
                const struct attn_calls *c, int i, bool seen);
int launch_run(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
               struct err *e);

/* --- looks.c: what the hooks of a call read (enum attn_look); t NULL: of any call --- */

unsigned looks_reuse(const struct attn *a); /* to say whether a plan stands */
unsigned looks_axes(const struct attn *a, const struct attn_turn *t); /* to make one */
unsigned looks_plan(const struct attn *a,
                    const struct attn_turn *t); /* hooks, at calls not exact */
unsigned looks_after(const struct attn *a, const struct attn_turn *t);
unsigned looks_rest(const struct attn *a, const struct attn_turn *t); /* of it, axis_compensate */

/* --- device.c: the same on a device --- */

const struct attn_device_kernel *room_device_pick(struct device *d, const struct attn_size *s,
                                                  const char *only, struct err *e);
/* gladly: of ATTN_NEED_LOW, granted where its kernel is faster by them. */
int room_device_open(struct attn *a, const struct attn_params *p, unsigned gladly, struct err *e);
void room_device_carve(struct attn *a, struct arena *there, struct arena *here);
int room_device_fixed(struct attn *a, struct err *e); /* what is made once goes there */
void room_device_forget(struct attn *a); /* plans that were put */
/* Before a call's plan is made, and its launches. */
void room_device_begin(struct attn *a, const struct attn_views *c, struct attn_turn *t);
int room_device_run(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
                    struct err *e);
/* Whether what lies there is not this call's plan; set before room_device_run(). */
bool room_device_fresh(const struct attn *a, const struct attn_turn *t);
/* Density of the call's plan, where it was counted before; < 0: not known. */
double *room_device_density(struct attn *a, const struct attn_turn *t);
/* o = what lies in `from`, of either type; of all heads. */
int room_device_move(struct attn *a, const struct heads *to, const struct heads *from,
                     struct err *e);
/* Exact attention of one query, and o as it was left: [N, D] each, of the host. */
int room_device_row(struct attn *a, int token, float *exact, float *got, struct err *e);

/* Places of prepared plans; that of this turn's. */
int room_places(const struct attn *a);
int room_place_of(const struct attn *a, const struct attn_turn *t);

/* --- making.c: plans that a device makes itself --- */

void making_open(struct attn *a); /* whether; the kernel was picked */
void making_carve(struct attn *a, struct arena *there);
int making_start(struct attn *a, struct err *e);
/* Whether this turn's plan is made there, not by the axes here. */
bool making_now(const struct attn *a, const struct attn_turn *t);
int making_make(struct attn *a, const struct attn_plan *p, void *at, int place, struct err *e);
/* A plan of the host was put where one made there would be. */
int making_put(struct attn *a, const struct attn_plan *p, int place, struct err *e);
int making_tally(struct attn *a, int place, struct err *e); /* a call used that plan */
/* Sum over calls so far of the densities of plans made there; 0 while a step is recorded. */
double making_density(const struct attn *a);
/* Kept sets that stand come to where the host's would be. */
int making_remember(const struct attn *a, struct err *e);

/* --- bring.c: between a device and the host --- */

void bring_carve(struct attn *a, struct arena *there, struct arena *here);
/* What `looks` says of this call, if it is not here yet. Does nothing on the host. */
int bring_down(struct attn *a, struct attn_turn *t, unsigned looks, struct err *e);
int bring_seen(struct attn *a, struct err *e); /* lse, mass, alive of this call */
int bring_back(struct attn *a, const struct attn_turn *t,
               struct err *e); /* o, after it was changed */
/* h, of the host, becomes what of it lies there. tokens: rows to bring. */
int bring_up(struct attn *a, enum attn_up which, struct heads *h, int tokens, struct err *e);
int bring_bias(struct attn *a, int launch, const float **bias, int n, struct err *e);
/* n elements of a type there → fp32 here, few at a time. */
int bring_row(struct attn *a, float *to, const void *from, enum dtype type, int n, struct err *e);

/* --- forecast.c --- */

/* a: a stack and its shape, without memory; a fixed plan is made in memory that is given back. */
void forecast_remembers(struct attn_forecast *f, const struct attn *a); /* that field alone */
int forecast_run(struct attn_forecast *f, struct attn *a, const struct attn_params *p,
                 struct err *e);

/* --- renew.c: residuals renewed by heads, and how far they had moved --- */

bool renew_by_head(const struct attn *a);
int renew_check(const struct attn *a, struct err *e);
void renew_carve(struct attn *a, struct arena *arena);
void renew_split(struct attn *a, const struct attn_turn *t, struct attn_calls *c);
/* Round the kernel: rows of what it replaces, beside those that it leaves. */
void renew_before(struct attn *a, const struct attn_turn *t, const struct attn_calls *c);
void renew_after(struct attn *a, const struct attn_turn *t, const struct attn_calls *c);

/* --- cache.c --- */

/* How many slots of each kind there are under the cap; wanted: bytes without it. */
struct cache_sizes {
    int residual_slots, output_slots;
    size_t bytes, wanted;
    int left_out; /* pairs */
};
struct cache_sizes cache_sizes(const struct attn_stack *s, const struct attn_shape *shape,
                               const struct attn_params *p);
void cache_carve(struct attn *a, const struct cache_sizes *c, struct arena *arena);
struct heads cache_residual(const struct attn *a, int pair); /* .at NULL: no place */
/* The slot of an output, or NULL; of the device's memory on a device. */
uint16_t *cache_output(const struct attn *a, int pair);
struct heads cache_heads(const struct attn *a, const uint16_t *slot); /* as tensors */
/* A slot, or branch_output, into out and back: host or device. */
int cache_get(struct attn *a, const struct heads *out, const uint16_t *slot, struct err *e);
int cache_put(struct attn *a, uint16_t *slot, const struct heads *out, struct err *e);
int cache_copy(struct attn *a, uint16_t *to, const uint16_t *from, struct err *e);
int cache_clear(struct attn *a,
                struct err *e); /* of a device: nobody else's bytes are in a state */
/* Bytes of all slots, and of branch_output behind them: three areas. */
struct cache_area {
    uint16_t *at;
    size_t bytes;
};
void cache_areas(const struct attn *a, struct cache_area areas[3]);
void cache_narrow(uint16_t *to, const float *from, size_t n);
void cache_widen(float *to, const uint16_t *from, size_t n);
void cache_round(float *x, size_t n); /* to bf16, in place */

/* --- meter.c --- */

/* After a call; seconds of its plan and of its kernel. */
int meter_call(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
               double plan_seconds, double run_seconds, struct err *e);
void meter_copy(struct attn *a, const struct attn_ctx *c);
int meter_drift(struct attn *a, const struct attn_ctx *c, const uint16_t *old,
                const struct heads *now, struct err *e);
double meter_density(const struct attn *a, const struct attn_calls *c);

#endif
