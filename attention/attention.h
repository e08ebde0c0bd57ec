/* q, k, v → o: the door of the attention room.
 *
 * A method decides which tiles of the score matrix matter (an attn_plan); a kernel computes them.
 * Both are plug-ins: one file and one line (methods.def; kernels/select.c). The caller tells who is
 * asking (step, layer, branch), so that a method may keep state over steps. All tensors are fp32,
 * host memory, row-major [L, N, D] with N * D contiguous floats a row. With the bf16 precisions q,
 * k, v hold bf16 values and o is rounded to bf16 (wan.md 3.2). Owner: attn_open → attn_close.
 * Threads: one attn_run at a time. Plan model: the design's section 13. Errors: ERR_USAGE (names,
 * options, ranges), ERR_RESOURCE, ERR_DEVICE. */
#ifndef DITGEN_ATTENTION_ATTENTION_H
#define DITGEN_ATTENTION_ATTENTION_H

#include "attention/plan/plan.h"
#include "model/base/arena.h"
#include "model/base/cpu.h"
#include "model/base/dtype.h"
#include "model/base/log.h"
#include "model/base/option.h"

#include <stdbool.h>

struct attn; /* one run's attention: method, options, per-layer state, scratch */

struct attn_method { /* NULL hooks mean the default named beside them */
    const char *name, *summary, *paper; /* after --attention; one line of help; arXiv id or NULL */
    bool exact; /* equals dense attention up to rounding: needs no warning */
    const struct option *options; /* its own flags: name, type, range, default, help; NULL: none */
    size_t options_size;
    int block_q, block_k; /* tokens a tile; 0: 128, as the kernels of every device like it */
    bool per_head; /* the plan holds one a head, not one for all */
    /* bytes of state one (layer, branch) keeps between steps, zeroed at open; 0: none */
    size_t (*state_size)(const struct attn *a);
    /* p: dense, its blocks and heads set; kept: its plane, to be filled and named in p. NULL: every
     * tile */
    int (*plan)(struct attn *a, struct attn_plan *p, uint32_t *kept, struct err *e);
    int (*run)(struct attn *a, const struct attn_plan *p, struct err *e); /* attn_run_kernel() */
    void (*fini)(struct attn *a); /* nothing to free */
};
int attn_method_count(void);
const struct attn_method *attn_method_at(int i);
const struct attn_method *attn_method_find(const char *name); /* NULL: none */

/* --- methods as words: NAME[:OPTION=VALUE[,OPTION=VALUE ...]], the value of --attention --- */

/* Every name, option and value is one that can be; ERR_USAGE with those there are. */
int attn_words_check(const char *text, struct err *e);
/* The method and its options for attn_params; attn_words_free() frees them. */
int attn_words_read(const struct attn_method **method, void **options, const char *text,
                    struct err *e);
void attn_words_free(const struct attn_method *method, void *options); /* takes NULL */
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

struct attn_params {
    const struct attn_method *method; /* NULL: dense */
    const void *options; /* options_size bytes, parsed, copied at open; NULL: the defaults */
    const char *kernel; /* NULL: best that runs here */
    struct cpu cpu; /* what kernels may use */
    enum precision precision;
    int threads; /* most that threads_count() will say at a run; 0: what it says now */
    const struct log *log; /* one line a run names the method and the kernel */
};

struct attn_shape { /* the self-attention of one model at one size */
    int n_heads, head_dim;
    int grid_t, grid_h, grid_w; /* tokens in raster order, t slowest; L = t * h * w */
    int n_layers, n_branches, n_steps;
};

/* Opens; scratch and state come from *arena (NULL base: only counts, and *out stays NULL). */
int attn_open(struct attn **out, const struct attn_params *p, const struct attn_shape *s,
              struct arena *arena, struct err *e);
void attn_close(struct attn *a); /* takes NULL */

struct attn_call {
    const float *q, *k, *v; /* [L, N, D] */
    float *o; /* [L, N, D]; may not overlap q, k, v */
    int step, layer, branch;
};
int attn_run(struct attn *a, const struct attn_call *c, struct err *e);

/* Plain attention of any shape, for cross-attention: q [Lq, N, D], k/v [Lk, N, D], key_bias [Lk]
 * added to the scaled score or NULL (-inf hides a key). scale = 1/sqrt(D). The kernel is the one
 * p->kernel names, or the best that runs here; the method plays no part. scratch:
 * attn_cross_scratch() bytes for the same p, sizes or larger len_k; 0 means that the sizes will be
 * refused. */
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

/* What happened so far, for logs and tests. */
struct attn_stats {
    const char *kernel; /* name of the kernel that self-attention runs on */
    double density; /* mean kept share of q-k pairs over all calls; 1 before the first */
    long calls;
};
void attn_stats(const struct attn *a, struct attn_stats *s);

/* For methods: the current call, its options, its state and the shape. */
const struct attn_call *attn_call_of(const struct attn *a);
const struct attn_shape *attn_shape_of(const struct attn *a);
const void *attn_options(const struct attn *a);
void *
attn_state(struct attn *a); /* of the current (layer, branch); NULL when the method keeps none */
/* Computes the plan by the kernel of this run: what run does by default. */
int attn_run_kernel(struct attn *a, const struct attn_plan *p, struct err *e);

#endif
