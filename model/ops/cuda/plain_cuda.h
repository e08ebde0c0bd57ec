/* Rows of any width, number by number: rows.cu hands over what eights do not divide. Arguments were
 * checked. */
#ifndef DITGEN_OPS_CUDA_PLAIN_CUDA_H
#define DITGEN_OPS_CUDA_PLAIN_CUDA_H

#include "model/ops/cuda/rows_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

int cuda_norm_plain(const struct cuda_norm *p, void *stream, struct err *e);
int cuda_rope_plain(const struct cuda_rope *p, void *stream, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
