/* Residual windows on Hopper (DiTFastAttn, arXiv 2406.08552; house.md's MAKE_RESIDUAL and
 * ADD_RESIDUAL).
 *
 * A refresh computes exact attention and, in the same pass, what the plan alone would have given:
 * the plan's tiles first, their outputs set aside, then the rest. Between refreshes the plan's
 * outputs and the difference add up. Memory, threads and errors as attn_cuda.h. resid: bf16,
 * [len_q, N, D] in any strides that o may have.
 *
 * Row sm90 of device_cuda.c runs it for lists that it takes; what has run on a card is in
 * tests/bench/NOTES_kernels.md. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_RESID_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_RESID_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* what: ATTN_MAKE_RESIDUAL (w->o, w->lse: exact attention; resid: that less the plan's output) or
 * ATTN_ADD_RESIDUAL (w->o: the plan's output and resid; w->lse: the plan's).
 * w->lists: tiles of 128 x 128 without means; w->alive NULL. sm_90a only. */
int attn_resid_sm90(const struct attn_cuda *w, const struct attn_tensor *resid, enum attn_out what,
                    struct err *e);

#ifdef __cplusplus
}
#endif

#endif
