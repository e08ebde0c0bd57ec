/* Lists of 64 x 64 tiles, two tiles of keys a step (attention-kernels 6.4): what attn_sm90() does at 64 channels where
 * nothing counts by its mean and nothing is recorded. Memory, threads and errors as attn_cuda.h. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_PAIR_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_PAIR_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_PAIR_SHARED (1024 + 64 * 128 + 6 * 128 * 128) /* bytes a block */

/* Heads of 64 channels; w->lists: 64 x 64 without means; w->alive NULL. sm_90a only. */
int attn_pair_sm90(const struct attn_cuda *w, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
