/* Lists of 64 x 64 tiles, two tiles of keys a step (attention-kernels 6.4): what sparse64_sm90 does with one.
 *
 * Memory, threads and errors as attn_cuda.h. No card has run it but where tests/bench/NOTES_kernels.md says so; nothing
 * picks it by itself. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_PAIR_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_PAIR_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Heads of 64 channels; w->lists: 64 x 64 without means; w->alive NULL. sm_90a only. */
int attn_pair_sm90(const struct attn_cuda *w, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
