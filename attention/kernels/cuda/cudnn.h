/* cuDNN's fused attention by its backend interface: a row of the line-up, and the yardstick.
 *
 * One object a shape: the graph, its plan and the library, which is loaded at run time, so that the
 * program runs without it. Dense only: block masks are refused by cuDNN 9.19 on all cards before
 * sm_100. Owner: attn_cudnn_open -> attn_cudnn_close. Threads: one at a time. Errors: ERR_DEVICE
 * (library missing, too old, no engine), ERR_USAGE as attn_tile_pick(). */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_CUDNN_H
#define DITGEN_ATTENTION_KERNELS_CUDA_CUDNN_H

#include "attention/kernels/cuda/attn_cuda.h"

struct attn_cudnn;

/* Plans for the sizes, strides and outputs (lse or not) of w; its pointers are not kept. device:
 * NULL for the current one, or cuDNN's JSON description of another, for which plans can be built
 * but not run (tests without a GPU). */
int attn_cudnn_open(struct attn_cudnn **out, const struct attn_cuda *w, const char *device,
                    struct err *e);
void attn_cudnn_close(struct attn_cudnn *c); /* takes NULL */
size_t
attn_cudnn_workspace(const struct attn_cudnn *c); /* bytes of device memory, 16-byte aligned */
int attn_cudnn_version(const struct attn_cudnn *c); /* 91900 */
/* w: of the sizes and strides of open. */
int attn_cudnn_run(struct attn_cudnn *c, const struct attn_cuda *w, void *workspace, struct err *e);

#endif
