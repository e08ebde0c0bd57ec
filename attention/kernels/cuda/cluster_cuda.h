/* k-means on the device, all heads at once, and the order of tokens that follows: attention/policy/cluster.h's rules
 * (equals to the lowest cluster, one that lost all keeps its place, a stable order), distances from centroids in two bf16
 * parts: within 2^-16 of fp32's.
 *
 * Arrays are the device's; the launcher enqueues on the stream, allocates nothing, does not wait. Threads and errors as
 * attn_cuda.h. No card has run it but where tests/bench/NOTES_kernels.md says so; nothing picks it by itself. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_CLUSTER_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_CLUSTER_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CLUSTER_MOST 2048 /* clusters: counters of a warp in shared memory */

struct cluster_call {
    struct attn_tensor
        x; /* bf16 [len, N, D], as attn_cuda.h: 16-byte aligned, strides multiples of 8 */
    int len, n_heads, head_dim /* 64, 128 */, n /* clusters */, iterations;
    float *
        centroid; /* [N, n, D] in: where to begin (of the last step, or cluster_cuda_seed()); out: means of the labels */
    int32_t *label; /* [N, len] */
    int32_t *order, *offset; /* [N, len] tokens by label, rising; [N, n + 1] */
    void *scratch; /* cluster_cuda_scratch() bytes, 256-byte aligned */
    void *stream;
};
size_t cluster_cuda_scratch(const struct cluster_call *c);
int cluster_cuda_seed(const struct cluster_call *c,
                      struct err *e); /* every len/n-th token, as cluster_seed() */
int cluster_cuda(const struct cluster_call *c, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
