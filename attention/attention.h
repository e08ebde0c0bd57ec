/* q, k, v → o: the door of the attention room.
 *
 * A method, or a stack of them ("tile+resid:every=5,density=.08"), decides what is computed (a
 * plan); a kernel computes it. Both are plug-ins: one file and one line (methods.def, method.h;
 * kernels/select.c). The caller says who is asking (step, layer, branch ...), so that a method may
 * keep state over steps. A call of self-attention is
 *
 *     attn_ask()    before q, k and v exist: ATTN_ASK_COMPUTE, or the module's output is there
 *     attn_run()    q, k, v → o
 *     attn_keep()   what the output layer made of o
 *
 * All tensors are fp32, host memory, row-major [L, N, D] with N * D contiguous floats a row. With
 * the bf16 precisions q, k, v hold bf16 values and o is rounded to bf16 (wan.md 3.2). Owner:
 * attn_open → attn_close. Threads: one call at a time. Errors: ERR_USAGE (names, options, ranges,
 * what cannot be combined), ERR_RESOURCE, ERR_DEVICE. */
#ifndef DITGEN_ATTENTION_ATTENTION_H
#define DITGEN_ATTENTION_ATTENTION_H

#include "model/base/arena.h"
#include "model/base/budget.h"
#include "model/base/cpu.h"
#include "model/base/dtype.h"
#include "model/base/log.h"
#include "model/base/option.h"
#include "model/base/tensor.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct attn; /* one run's attention: stack, options, state, scratch */
struct attn_sums; /* meters, below */

/* --- what can be named ---------------------------------------------------------------------- */

struct attn_method_info { /* for lists and help; the first is the default */
    const char *name, *summary, *paper; /* paper: arXiv id or NULL */
    bool exact; /* equals dense attention up to rounding: needs no warning */
    const struct option *options; /* its own rows, or NULL */
    size_t options_size; /* of the struct that they fill */
};
int attn_methods(void);
struct attn_method_info attn_method_info(int i); /* .name NULL: no such */

/* Whether text is a stack: "NAME", or "NAME:option=value,option+NAME:...". canonical[n] (may be
 * NULL) gets it with every option written out, so that it means the same when defaults change. */
int attn_stack_check(const char *text, char *canonical, size_t n, struct err *e);

/* The same text, asked and changed by whoever keeps it (words.c). */
int attn_words_check(const char *text, struct err *e); /* attn_stack_check() alone */
enum attn_words_has { ATTN_WORDS_NO_METHOD, ATTN_WORDS_METHOD, ATTN_WORDS_OPTION };
/* Whether text names the method, and says that option. */
enum attn_words_has attn_words_has(const char *text, const char *method, const char *option);
/* What text says of an option; heap; NULL: nothing, or no memory. */
char *attn_words_get(const char *text, const char *method, const char *option);
/* text with the option of a method that it names said anew, on the heap in *out. The value is not
 * checked. */
int attn_words_set(char **out, const char *text, const char *method, const char *option,
                   const char *value, struct err *e);

struct attn_kernel_info { /* for lists and help; best first */
    const char *name, *summary;
    enum cpu_level needs;
};
int attn_kernel_count(void);
struct attn_kernel_info attn_kernel_at(int i);

/* --- opening -------------------------------------------------------------------------------- */

struct attn_shape;
struct attn_call;
struct attn_watch { /* who wants q, k, v and o of calls: after each, while they are there */
    void (*ran)(void *ctx, const struct attn_shape *s, const struct attn_call *c);
    void *ctx;
};

struct attn_params {
    const char *method; /* a stack as above; NULL: dense. Read at open */
    const char *kernel; /* NULL: best that runs here */
    struct cpu cpu; /* what kernels may use */
    enum precision precision;
    int threads; /* most that threads_count() will say at a run; 0: what it says now */
    struct device *device; /* whose memory tensors are in, and what computes; NULL: the host */
    const struct log *log; /* one line a run names the stack and the kernel */
    bool cap_cache; /* what is kept over steps (residuals, outputs) may take cache_mem bytes */
    size_t cache_mem;
    /* A checkpoint's own attention tensors: "proj_l.weight" of a layer, fp32, or NULL. May be NULL */
    const struct tensor *(*tensor)(void *ctx, int layer, const char *name);
    void *tensor_ctx;
    const struct attn_watch *watch; /* may be NULL; lives as long as the run */
    /* What stacks with every=budget are steered by, for units layer * n_heads + head; lives as long as the
     * run. NULL: such stacks are refused. */
    const struct budget *budget;
};

struct attn_shape { /* the self-attention of one model at one size */
    int n_heads, head_dim;
    int grid_t, grid_h, grid_w; /* tokens in raster order, t slowest; L = t * h * w */
    int n_layers, n_branches, n_steps;
};

/* Opens; everything comes from *arena (NULL base: only counts, and *out stays NULL). */
int attn_open(struct attn **out, const struct attn_params *p, const struct attn_shape *s,
              struct arena *arena, struct err *e);
/* The same with p->device's memory beside the host's: plans are made in *host, tensors, scratch and
 * prepared plans and what is kept over steps are in *device. What methods look at is brought down for
 * them. Refuses (ERR_DEVICE) what no kernel there can do, by its fields. */
int attn_open_on(struct attn **out, const struct attn_params *p, const struct attn_shape *s,
                 struct arena *host, struct arena *device, struct err *e);
void attn_close(struct attn *a); /* takes NULL */
/* Forgets everything that was kept: between prompts. Done by itself when a step is earlier than the
 * one before it, or the expert changes. */
void attn_reset(struct attn *a);

/* Names of a checkpoint's own tensors that this stack reads if they are there; NULL ends. */
int attn_tensor_names(const char *method, const char **names, int max, struct err *e);

struct attn_forecast { /* of a whole run, before it */
    const char *kernel; /* that self-attention will run on; static storage */
    bool exact;
    bool remembers; /* what a step computes depends on earlier ones: more than the plan that all of
                     * them share is kept */
    double density[2]; /* least and largest share of pairs computed, exact steps counted */
    double copied; /* share of calls answered before q, k and v exist */
    double refreshed; /* share of calls that are exact and keep something for later */
    double planned[2]; /* calls that make a plan, least and most: not those that one stands for */
    int plans; /* that such a call makes: one a head, or one for all */
    size_t cache_bytes, cache_wanted; /* kept over steps: given, and without a cap */
    int pairs, pairs_left_out; /* (layer, branch) pairs; those that the cap makes exact */
};
int attn_forecast(struct attn_forecast *f, const struct attn_params *p, const struct attn_shape *s,
                  struct err *e);

/* About how many seconds a call of this stack spends on making its plan, on one thread and of one head
 * (forecast.plans of them work side by side); 0 when nothing is planned at run time. Plans for random
 * q and k of the shape's length, and so takes as long, and memory of one head; of all where a part of
 * the stack is made for their number. */
int attn_time_planning(double *seconds, const struct attn_params *p, const struct attn_shape *s,
                       struct err *e);

/* --- a call --------------------------------------------------------------------------------- */

struct attn_ctx { /* who is asking */
    int step, n_steps, layer, branch, n_branches;
    int expert; /* of a model that has two */
    float sigma, timestep;
};

enum attn_ask {
    ATTN_ASK_COMPUTE,
    ATTN_ASK_COPY_STEP, /* what this layer and branch gave in an earlier step */
    ATTN_ASK_COPY_BRANCH, /* what branch 0 of this layer gave in this step */
};
/* *answer COMPUTE: make q, k and v and run. Else out [L, N * D] is what attn_keep() was given then,
 * and nothing else is to be done. n_steps and n_branches of c may be 0: those of the shape. */
int attn_ask(struct attn *a, const struct attn_ctx *c, float *out, enum attn_ask *answer,
             struct err *e);
/* The same with out [L, N, D] anywhere: of the device, bf16 or fp32. */
int attn_ask_views(struct attn *a, const struct attn_ctx *c, const struct heads *out,
                   enum attn_ask *answer, struct err *e);
/* Whether a stack may answer with copies: then a branch must be asked after the one before it was kept. */
int attn_may_copy(bool *may, const struct attn_params *p, const struct attn_shape *s,
                  struct err *e);

struct attn_call {
    const float *q, *k, *v; /* [L, N, D] */
    float *o; /* [L, N, D]; may not overlap q, k, v */
    struct attn_ctx at;
};
int attn_run(struct attn *a, const struct attn_call *c, struct err *e);
struct attn_views { /* the same anywhere: of the device, bf16 or fp32, with any strides */
    struct heads q, k, v, o;
    struct attn_ctx at;
};
int attn_run_views(struct attn *a, const struct attn_views *c, struct err *e);
/* Steps of one kind launch the same on a device, and so may be recorded once and replayed, as long as
 * *launched is what it was: a number that changes with the plans they launch. -1: not so, since a plan is
 * made in it, numbers are looked at, or it is the host's. c: of any layer and branch.
 * repeat: what a replay of these branches did from layer c->layer on, as the sums of the run that was
 * recorded tell it. */
int attn_step_kind(struct attn *a, const struct attn_ctx *c, long *launched);
void attn_repeat(struct attn *a, const struct attn_ctx *c, int n_branches,
                 const struct attn_sums *before, const struct attn_sums *after);
/* out [L, N * D]: o behind the output layer. Does nothing unless someone will copy it. */
int attn_keep(struct attn *a, const struct attn_ctx *c, const float *out, struct err *e);
int attn_keep_views(struct attn *a, const struct attn_ctx *c, const struct heads *out,
                    struct err *e);

/* All that the stack remembers of earlier steps, in place: to be read between two steps, or written
 * into another one opened alike, before the first step that it makes. What is written is looked at
 * before it is used (attn_kept_check), but says what it says. bytes 0: there is nothing. */
struct attn_kept {
    void *
        at; /* NULL with bytes: a device has some of it; read and write copy what the host would have */
    size_t bytes;
};
int attn_kept_read(const struct attn *a, void *to, struct err *e); /* waits for the device */
int attn_kept_write(struct attn *a, const void *from, struct err *e);
void attn_kept(const struct attn *a, struct attn_kept *k);
/* After writing: ERR_INPUT when no run can have left this. */
int attn_kept_check(struct attn *a, struct err *e);

/* What was learned, as text: of every part of the stack that learns. load refuses what was saved
 * by another stack. */
int attn_save(struct attn *a, FILE *to, struct err *e);
int attn_load(struct attn *a, const char *text, size_t n, struct err *e);

/* --- cross-attention ------------------------------------------------------------------------ */

/* Plain attention of any shape: q [Lq, N, D], k/v [Lk, N, D], key_bias [Lk] added to the scaled
 * score or NULL (-inf hides a key). scale = 1/sqrt(D). The kernel is the one p->kernel names, or
 * the best that runs here; the method plays no part. scratch: attn_cross_scratch() bytes for the
 * same p, sizes or larger len_k; 0 means that the sizes will be refused. */
struct attn_cross {
    const float *q, *k, *v, *key_bias;
    float *o;
    int len_q, len_k, n_heads, head_dim;
    bool accumulate; /* o += (two key sets, each with its own softmax) */
};
size_t attn_cross_scratch(const struct attn_params *p, int len_q, int len_k, int n_heads,
                          int head_dim);
int attn_cross_run(const struct attn_params *p, const struct attn_cross *c, void *scratch,
                   struct err *e);
struct attn_cross_views { /* the same anywhere */
    struct heads q, k, v, o;
    const float *key_bias;
};
int attn_cross_run_views(const struct attn_params *p, const struct attn_cross_views *c,
                         void *scratch, struct err *e);

/* --- meters --------------------------------------------------------------------------------- */

struct attn_sums { /* what stats are made of: differences of two are those of what lies between */
    long calls, exact, copies, sampled, recalled; /* exact: dense calls */
    double density, low, error, error_of, recall, drift, drift_of, plan_seconds, run_seconds;
};

struct attn_stats { /* so far; of approximate stacks a few rows of each call are sampled */
    struct attn_sums sums;
    const char *kernel; /* name of the kernel that self-attention runs on */
    double density; /* mean computed share of pairs over all calls, copies 0; 1 before the first */
    double low; /* share of products over codes of 8 or 4 bits, of calls that were computed */
    long calls, copies; /* all of them; those answered before q, k and v existed */
    long sampled; /* rows; 0: what follows is not known */
    double error; /* relative L1 of sampled rows of o against exact attention of the same q, k, v */
    double
        recall; /* softmax mass in computed tiles, of the sampled rows; -1: q and k were not seen */
    double drift; /* relative L1 of outputs when they were made anew against those copied before */
    double planning; /* share of attention's seconds spent on planning */
    bool budgeted; /* steered by an error budget */
    struct budget_spent spent; /* which came to this */
};
void attn_stats(const struct attn *a, struct attn_stats *s);
/* Of what was done between two states of the sums; may be *to itself. */
void attn_stats_between(struct attn_stats *to, const struct attn_sums *before,
                        const struct attn_stats *now);

#endif
