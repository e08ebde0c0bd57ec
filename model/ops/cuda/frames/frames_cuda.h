/* The VAE's operations on an NVIDIA GPU: the table of frames.h over the launchers of conv_cuda.h. */
#ifndef DITGEN_OPS_CUDA_FRAMES_FRAMES_CUDA_H
#define DITGEN_OPS_CUDA_FRAMES_FRAMES_CUDA_H

#include "model/ops/frames.h"

extern const struct frame_ops frame_ops_cuda;

#endif
