/* Attention on NVIDIA GPUs: what a launch is told, and one launcher a kernel.
 *
 * o = softmax(q·kᵀ / sqrt(head_dim) + key_bias) · v over the kept tiles of a plan, bf16 in and out,
 * fp32 sums. The planes of a plan (attention/plan/plan.h) are turned into one list a row
 * (attn_lists_*), blocks of any length into runs of keys (attn_ragged_*): forms that are these
 * kernels' own, which each executes in an order of its own. A row that keeps nothing gives o = 0
 * and lse = -inf. What a form cannot hold is refused with the field's name.
 *
 * Memory: every pointer of attn_cuda and of the lists in it is the device's; launchers enqueue on
 * the stream, allocate nothing and do not wait. The judge is attn_judge() (kernels/kernels.h), over
 * the plan and host memory. Threads: launchers may be called from any; the current
 * device is used. Errors: ERR_USAGE (sizes a kernel does not take), ERR_DEVICE (the runtime's). */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_ATTN_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_ATTN_CUDA_H

#ifdef __cplusplus
extern "C" { /* the headers below are plain C as well */
#endif

#include "attention/plan/plan.h"
#include "model/base/err.h"

/* What a row of tiles does, one word a step: tile number in bits 0-15, kind above. */
#define ATTN_STEP_TILE(step) ((step)&0xffffu)
#define ATTN_STEP_MEAN 0x10000u /* group g of mean keys: tiles [g * block_k, (g + 1) * block_k) */

struct attn_lists { /* the one form that kernels execute */
    int rows, cols, block_q, block_k;
    int n_plans; /* 1: shared by all heads, else n_heads */
    const uint32_t *row_ptr; /* [n_plans * rows + 1] into steps */
    const uint32_t *steps; /* tiles ascending, then mean groups ascending */
    const uint32_t *order; /* [n_heads * rows] head * rows + row, in the order of starting */
    const uint32_t *mean; /* [n_plans * rows, words] tiles that count by their mean, or NULL */
    int words; /* uint32s a row of tile bits: (cols + 31) / 32 */
};

struct attn_tensor { /* bf16 [L, N, D], channels contiguous, strides in elements */
    void *at; /* 16-byte aligned, strides multiples of 8 */
    int64_t token, head;
};

struct attn_cuda {
    struct attn_tensor q, k, v, o;
    int len_q, len_k, n_heads, head_dim;
    const struct attn_lists *lists; /* the struct in host memory; NULL: every tile */
    struct attn_tensor k_mean, v_mean; /* [cols, N, D], when lists->mean */
    const float *key_bias; /* [len_k] or NULL */
    float *lse; /* [N, len_q] natural logarithm of the row's sum, or NULL */
    /* [N * rows, words]: bits of the tiles of which some query's largest score came within
     * alive_log2 (< 0) of the largest before it, in powers of two; or NULL. Kept tiles without a
     * bit may be left out next time (LiteAttention). */
    uint32_t *alive;
    float alive_log2;
    void *scratch; /* attn_cuda_scratch() bytes, 16-byte aligned */
    void *stream; /* cudaStream_t; NULL: the default stream */
};

size_t attn_cuda_scratch(void); /* bytes any launch needs */

/* --- plans (plan.c, host) --- */

struct attn_lists_size {
    size_t row_ptr, steps, order, mean; /* uint32s */
};
/* Exact needs of a plan of equal blocks in host memory, then the lists themselves into arrays of
 * these sizes. Its heads are those of the launch, from 0 on. order starts long rows early, but keeps the rows of one head together, whose keys then stay in the cache. */
int attn_lists_size(struct attn_lists_size *s, const struct attn_plan *p, struct err *e);
int attn_lists_fill(struct attn_lists *l, uint32_t *row_ptr, uint32_t *steps, uint32_t *order,
                    uint32_t *mean, const struct attn_plan *p, struct err *e);

/* The same on the device (expand.cu): the plan's planes are the device's, steps holds
 * attn_expand_steps() words (the count is not known to the host), scratch attn_expand_scratch()
 * bytes, 16-byte aligned; row_ptr, order and mean as attn_lists_size(). The same words as
 * attn_lists_fill(). Enqueues only. */
size_t attn_expand_steps(const struct attn_plan *p);
size_t attn_expand_scratch(const struct attn_plan *p);
int attn_expand(struct attn_lists *l, uint32_t *row_ptr, uint32_t *step_words, uint32_t *order,
                uint32_t *mean, const struct attn_plan *p, void *scratch, void *stream,
                struct err *e);

/* --- shapes (shape.c, host): what a kernel makes of a call, without a GPU --- */

struct attn_tile { /* one kernel instance */
    const char *kernel; /* flash_sm90 ... */
    int head_dim, block_q, block_k, stages, threads, blocks_per_sm;
    size_t shared; /* dynamic shared memory, bytes */
};
enum attn_cuda_row { ATTN_SM80, ATTN_SM90, ATTN_CUDNN, ATTN_CUDA_ROWS };
/* The instance that takes the call, or ERR_USAGE with a sentence. */
int attn_tile_pick(struct attn_tile *t, enum attn_cuda_row row, const struct attn_cuda *w,
                   struct err *e);

/* --- launchers --- */

/* mma.sync and cp.async: sm_80 and all later; key_bias, tiles of 64 or 128 keys. */
int attn_sm80(const struct attn_cuda *w, struct err *e);
/* wgmma and the bulk copy engine: sm_90a only. */
int attn_sm90(const struct attn_cuda *w, struct err *e);
/* For measurements: all instances, by number, with their tile unless t is NULL. The name is NULL
 * past the last; the first that takes a call is what attn_sm90() runs. */
const char *attn_sm90_variant(int variant, struct attn_tile *t);
bool attn_sm90_takes(const struct attn_cuda *w, int variant);
int attn_sm90_as(const struct attn_cuda *w, int variant, struct err *e);

/* Blocks of any length (clusters of a permuted sequence): the keys that a row keeps, one after
 * another without a gap, in stages of 128; 64 queries of which none is the row's cost nothing.
 * Lists play no part: w->lists and w->alive are NULL. sm_90a only. */
#define ATTN_RAGGED_KEYS 128
#define ATTN_RAGGED_QUERIES(head_dim) ((head_dim) == 64 ? 192 : 128) /* of a row, at most */
struct attn_ragged_run { /* tokens from here on, until the next run's position; 8-byte aligned */
    int32_t token, at; /* at: 128 * stage + key */
};
struct attn_ragged_row { /* up to block_q queries of one block */
    int head, q0, queries, stages;
    /* Its runs begin here. The first says in `token` how many keys count in the first stage (all
     * 128 in the others); the last has `at` INT32_MAX. */
    uint32_t first;
    int late, eighths; /* the order of starting, as attn_lists.order: smaller late first */
};
struct attn_ragged {
    int rows, block_q; /* block_q: ATTN_RAGGED_QUERIES(head_dim) */
    const struct attn_ragged_row *row; /* [rows], in the order of starting */
    const struct attn_ragged_run *run;
};
/* Exact needs of a plan in host memory, then both arrays (ragged.c). */
int attn_ragged_size(size_t *rows, size_t *runs, const struct attn_plan *p, int block_q,
                     struct err *e);
int attn_ragged_fill(struct attn_ragged *r, struct attn_ragged_row *row,
                     struct attn_ragged_run *run, const struct attn_plan *p, int block_q,
                     struct err *e);
int attn_ragged_sm90(const struct attn_cuda *w, const struct attn_ragged *r, struct err *e);

/* mass[N * rows, cols]: mean over the queries of a row of tiles of the weight that its softmax
 * gives to each tile, from lse of an earlier run (any plan's). Every tile is visited. sm_80 on. */
int attn_mass_sm80(float *mass, const struct attn_cuda *w, const float *lse, int block_q,
                   int block_k, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
