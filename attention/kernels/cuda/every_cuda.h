/* Any plan on any card (every.cu, every_extras.cu, every_plan.c): each field of attn_plan and attn_job that
 * the judge does (kernels/ref.c), products over codes apart. fp32 arithmetic, tensors of bf16 or fp32 in any
 * strides, heads of 1 to 256 channels.
 *
 * A prepared plan is one piece of memory: struct every_plan, and behind it the arrays that its words name.
 * What is computed follows from that memory alone, so a recorded run does the plan that was put there last;
 * of the plan that run() is given it reads sizes, rule, walk and heads. Memory, threads and errors as
 * attn_cuda.h. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_EVERY_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_EVERY_CUDA_H

#include "attention/plan/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct device;

#define EVERY_MOST_DIM 256

struct every_plan { /* arrays: words from the beginning of this struct; 0: none */
    int32_t q_n, k_n, q_size, k_size; /* size 0: by offsets */
    int32_t q_len, k_len;
    int32_t per_head, all, words; /* words: of a row of bits */
    uint32_t kept,
        mean; /* [plans * q_n, words]; kept: what is computed; mean: not computed, counts by its mean */
    uint32_t column_ptr, columns; /* [plans * q_n + 1], as the plan's */
    uint32_t q_token, k_token; /* [plans, len] */
    int32_t q_token_stride, k_token_stride; /* 0: shared */
    uint32_t q_at, k_at; /* [plans, n + 1] */
    int32_t q_at_stride, k_at_stride;
    uint32_t
        pieces; /* of queries by offsets: [plans, most_pieces] of {row or -1, first position} */
    int32_t most_pieces;
};

/* Queries of one row of blocks that a block of threads owns. */
static inline int every_piece(int head_dim) { return head_dim <= 128 ? 64 : 16; }

/* As attn_device_kernel's members; every_plan.c, host. */
size_t every_scratch(const struct attn_size *s);
size_t every_plan_bytes(const struct attn_size *s, int heads, int plans);
int every_put(struct device *d, void *at, const struct attn_plan *plan, const struct attn_size *s,
              struct err *e);
int every_run(struct device *d, const struct attn_job *j, const void *at, struct err *e);
/* The words that put() sends: into host memory of every_plan_bytes(). Returns their number; 0 with e. */
size_t every_words(uint32_t *to, const struct attn_plan *plan, const struct attn_size *s,
                   struct err *e);

/* Pieces of a plan at most, the grid of a launch. */
static inline int every_pieces(const struct attn_plan *p, int rows, int head_dim)
{
    int piece = every_piece(head_dim);
    if (!p->q.size) return rows + p->q.len / piece + 1;
    int block = p->q.size < p->q.len ? p->q.size : p->q.len;
    return p->q.n * ((block - 1) / piece + 1);
}

#ifdef __cplusplus
}
#endif

#endif
