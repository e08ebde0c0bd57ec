/* Attention in fp32 throughout (attn_simt.cu): odd head sizes and strides, a judge on the card; and what fp32
 * runs take, three products of TF32 for one of fp32 (attn_tf32.cu).
 *
 * struct attn_cuda with tensors of `type`, BF16 or F32, whose strides need not be multiples of
 * anything; heads of 1 to 128 channels, key_bias, lse, lists of tiles of 64 n x 32 m. Not: means, alive.
 * scratch plays no part. Memory, threads and errors as attn_cuda.h. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SIMT_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_SIMT_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

int attn_simt_takes(const struct attn_cuda *w, enum dtype type, struct err *e); /* host: simt.c */
int attn_simt(const struct attn_cuda *w, enum dtype type, struct err *e);

/* The same of F32 whose heads, strides and addresses are of whole 16 bytes. */
int attn_tf32_takes(const struct attn_cuda *w, struct err *e);
int attn_tf32(const struct attn_cuda *w, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
