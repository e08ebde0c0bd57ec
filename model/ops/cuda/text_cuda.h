/* UMT5's own operations on an NVIDIA GPU (wan.md 2.2). Pointers are the device's, rows without gaps;
 * launchers enqueue on the stream, allocate nothing and do not wait. Errors: ERR_BUG, ERR_DEVICE. */
#ifndef DITGEN_OPS_CUDA_TEXT_CUDA_H
#define DITGEN_OPS_CUDA_TEXT_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* y = weight * cast(x * rsqrt(mean(x²) + eps)): bf16 rounds before the product with the weight and
 * after it. x, y [n, features] of the type, weight [features] fp32. y may be x. */
int text_norm_cuda(void *y, const void *x, const float *weight, int n, int features, float eps,
                   bool bf16, void *stream, struct err *e);
/* y *= x, n elements */
int text_multiply_cuda(void *y, const void *x, size_t n, bool bf16, void *stream, struct err *e);
/* table [buckets, heads] → bias [heads, span] by bucket [span] */
int text_spread_bias_cuda(float *bias, const float *table, const int *bucket, int heads, int span,
                          void *stream, struct err *e);
/* o = softmax(q kᵀ + bias) v, each [n, heads * dim]; bias [heads, 2n - 1] by key - query + n - 1.
 * o may be q. bf16: what multiplies the values is rounded. dim at most 256. Heads of 64 in bf16 use
 * mma.sync, others FMA. */
int text_attend_cuda(void *o, const void *q, const void *k, const void *v, const float *bias, int n,
                     int heads, int dim, bool bf16, void *stream, struct err *e);

/* The table of text.h over these (text_table.c). */
extern const struct text_ops text_ops_cuda;

#ifdef __cplusplus
}
#endif

#endif
