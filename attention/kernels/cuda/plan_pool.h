/* Planning on the device: before scores (plan_cuda.h) and behind them. What stands for a run of tokens; the best pairs
 * of a head; and what follows from bits that were picked. Memory, threads and errors as plan_cuda.h. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_PLAN_POOL_H
#define DITGEN_ATTENTION_KERNELS_CUDA_PLAN_POOL_H

#include "attention/kernels/cuda/plan_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

struct plan_tokens { /* one side: q or k of all heads, any strides */
    const void *at;
    int64_t token, head; /* strides, in elements */
    int fp32; /* else bf16 */
    const int32_t *order; /* [len] token at each place, of all heads; NULL: place i is token i */
    int len, n_heads, dim;
    int block, n,
        runs; /* n blocks, the last shorter, each cut into runs that are as even as can be */
    int max; /* largest values, channel by channel; else means */
    void *stream;
};
/* to [N, n * runs, D]: the numbers of pool_mean(), pool_max(), pool_runs(), to the bit. A run of no tokens is 0. */
int plan_pool(float *to, const struct plan_tokens *x, struct err *e);
/* bits become the best pairs of each head, by select_percentile(), and the best of a row that has none. shares: not
 * negative, of plan_softmax(); cut [N]: room. */
int plan_percentile(uint32_t *bits, float *cut, const float *shares, double share,
                    const struct plan_shape *s, struct err *e);

int plan_clear(uint32_t *bits, size_t words, uint64_t *pairs, void *stream,
               struct err *e); /* to 0 */
struct plan_finishing {
    uint32_t *bits; /* [N * rows, words]; a row without any gets the block at its own place */
    const uint32_t *forced; /* [rows, words] bits to be added, or NULL */
    uint64_t *pairs; /* += pairs of tokens that are kept */
    int n_heads, rows, cols, len_q, len_k, block_q, block_k;
    void *stream;
};
int plan_finish(const struct plan_finishing *f, struct err *e);
int plan_tally(uint64_t *sum, const uint64_t *pairs, void *stream,
               struct err *e); /* *sum += *pairs */

#ifdef __cplusplus
}
#endif

#endif
