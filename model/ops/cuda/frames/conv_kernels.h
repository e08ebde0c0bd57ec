/* Between the files of this folder: which kernels conv_cuda_run() chooses from. */
#ifndef DITGEN_OPS_CUDA_FRAMES_CONV_KERNELS_H
#define DITGEN_OPS_CUDA_FRAMES_CONV_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/ops/cuda/frames/conv_cuda.h"

/* Shapes that no kernel takes: ERR_BUG. */
int conv_cuda_check(const struct conv_cuda *c, struct err *e);
int conv_bf16_sm80(const struct conv_cuda *c, const struct conv_tile *t, struct err *e);
/* wgmma, on sm_90 alone: what conv_takes_sm90() says; 96 columns. */
#define CONV_SM90_COLUMNS 96
bool conv_takes_sm90(const struct conv_cuda *c);
int conv_bf16_sm90(const struct conv_cuda *c, struct err *e);
int conv_f32(const struct conv_cuda *c, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
