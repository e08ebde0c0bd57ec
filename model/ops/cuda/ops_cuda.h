/* The table of an NVIDIA GPU: model/ops/ops.h by the launchers of this folder and cuBLASLt.
 *
 * Activations of bf16 runs are BF16, of fp32 runs F32. Layers hold their weights on the card in the
 * type that the product takes, with the bias behind them. scratch begins with cuBLASLt's room
 * (CUDA_BLAS_ROOM). What a device needs beside (the library's handle, plans of products, a word for
 * what is not finite) is kept with the device from the first layer or check until it is closed. */
#ifndef DITGEN_OPS_CUDA_OPS_CUDA_H
#define DITGEN_OPS_CUDA_OPS_CUDA_H

#include "model/ops/ops.h"

extern const struct ops ops_cuda;

#endif
