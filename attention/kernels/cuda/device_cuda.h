/* Attention of the room on an NVIDIA GPU: rows of attention/device.h, best first.
 *
 *   sm90   wgmma kernels of Hopper: bf16, heads of 64 or 128, most plans
 *   sage   products over codes, on Hopper; calls that have none as sm90
 *   sm80   mma.sync kernels of every card since Ampere: the same by equal tiles, and key bias
 *   simt   fp32 throughout: fp32 runs, other heads
 *   every  fp32 throughout: whatever the others do not take (every_cuda.h)
 *
 * A prepared plan is what its kernels read: tiles_cuda.h, every_cuda.h. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_DEVICE_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_DEVICE_CUDA_H

#include "attention/device.h"

extern const struct attn_device attn_device_cuda;

/* Which row takes calls of this size on a card of this architecture (90): pick() without a card. */
const struct attn_device_kernel *attn_cuda_pick(int arch, const struct attn_size *s,
                                                const char *only, struct err *e);

#endif
