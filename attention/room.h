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

struct attn {
    struct attn_stack stack;
    struct attn_shape shape;
    struct attn_size size;
    const struct attn_kernel *kernel; /* on the host */
    unsigned granted, declined; /* of ATTN_NEED_LOW: what was asked for gladly as well; what not */
    struct device *device; /* NULL: the host */
    struct device *counts; /* who is told of calls: that, or the host as a device; or NULL */
    const struct attn_device_kernel *device_kernel; /* there */
    void *plan_at; /* the one plan, prepared there */
    const struct tensor *(*tensor)(void *ctx, int layer, const char *name);
    void *tensor_ctx;
    enum cpu_level level; /* what planning may use */
    int n_pairs;
    struct recent *recent; /* from here to kept_bytes later: what is remembered */
    size_t kept_bytes;
    struct pair *pair; /* [n_pairs] */
    struct memory memory[ATTN_MAX_PARTS];
    bool sparse; /* some axis, or a hook, says more than dense */

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
/* State and scratch of every part (attention.c). */
int parts_carve(struct attn *a, struct arena *arena, struct err *e);
void parts_carve_scratch(struct attn *a, struct arena *arena);
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
int launch_run(struct attn *a, const struct attn_turn *t, const struct attn_calls *c, int i,
               struct err *e);

/* --- device.c: the same on a device --- */

const struct attn_device_kernel *room_device_pick(struct device *d, const struct attn_size *s,
                                                  const char *only, struct err *e);
/* gladly: of ATTN_NEED_LOW, granted where its kernel is faster by them. */
int room_device_open(struct attn *a, const struct attn_params *p, unsigned gladly, struct err *e);
void room_device_carve(struct attn *a, struct arena *arena);
int room_device_fixed(struct attn *a, struct err *e); /* the plan goes there */
int room_device_run(struct attn *a, const struct attn_job *j, bool dense, struct err *e);

/* --- forecast.c --- */

/* a: a stack and its shape, without memory; a fixed plan is made in memory that is given back. */
void forecast_remembers(struct attn_forecast *f, const struct attn *a); /* that field alone */
int forecast_run(struct attn_forecast *f, struct attn *a, const struct attn_params *p,
                 struct err *e);

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
/* The slot of an output, or NULL. */
uint16_t *cache_output(const struct attn *a, int pair);
void cache_narrow(uint16_t *to, const float *from, size_t n);
void cache_widen(float *to, const uint16_t *from, size_t n);
void cache_round(float *x, size_t n); /* to bf16, in place */

/* --- meter.c --- */

/* After a call; seconds of its plan and of its kernel. */
void meter_call(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
                double plan_seconds, double run_seconds);
void meter_copy(struct attn *a, const struct attn_ctx *c);
void meter_drift(struct attn *a, const struct attn_ctx *c, const uint16_t *old, const float *now);
double meter_density(const struct attn *a, const struct attn_calls *c);

#endif
