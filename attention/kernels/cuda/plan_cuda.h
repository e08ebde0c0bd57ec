/* Planning on the device: scores of blocks, and which are kept, without a word to the host.
 *
 * attention/policy/ in CUDA, all heads at once: the same rules (best first, equals to the lower index, -inf never taken),
 * and from the same scores the same sets, to the bit; scores themselves are sums in another order. Pools come from
 * quant_qkv() with one head after another, block_k tokens a block of keys, the last one shorter.
 *
 * Arrays are the device's; launchers enqueue on the stream, allocate nothing, do not wait. Threads and errors as
 * attn_cuda.h. tiles_make.c strings them together. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_PLAN_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_PLAN_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PLAN_MOST_COLS 2048 /* blocks a row: one block of threads sorts them in shared memory */

struct plan_shape {
    int n_heads, rows, cols; /* blocks of queries, of keys */
    int head_dim;
    int runs; /* means a block in the pools: 1, 2 or 4 */
    int len_q, len_k, block_q, block_k; /* tokens; of a block */
    int even; /* runs of a shorter block are shorter (plan_pool()); else the last of them are empty */
    void *stream;
};

/* scores [N, rows, cols] from pools [N, rows * runs, D], [N, cols * runs, D]. One run: scale q·k + ln(tokens of the block
 * of keys), as score_pooled(); more: ln of the sum over pairs of runs, as score_runs(). scale: 1 / sqrt(D). */
int plan_scores(float *scores, const float *q_pool, const float *k_pool, const struct plan_shape *s,
                struct err *e);
/* In place, each row: probabilities; a row of -inf becomes zeros. score_softmax() but for exp's last bit. */
int plan_softmax(float *scores, const struct plan_shape *s, struct err *e);
/* bits [N * rows, (cols + 31) / 32] get the k best of each row: select_top_k(). Bits that are set stay. */
int plan_top_k(uint32_t *bits, const float *scores, int k, const struct plan_shape *s,
               struct err *e);
/* The best until their share reaches p, and `least` whatever they weigh: select_top_p(). */
int plan_top_p(uint32_t *bits, const float *mass, double p, int least, const struct plan_shape *s,
               struct err *e);
/* dead |= computed & ~alive, words of 32 bits: tiles that a run found not worth it (LiteAttention). */
int plan_retire(uint32_t *dead, const uint32_t *computed, const uint32_t *alive, size_t words,
                void *stream, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
