/* What the row kernels of rows_cuda.h make of a call: decided on the host, so that it can be tested
 * without a GPU. The *_takes() refuse with ERR_USAGE and a sentence, or return 0. */
#ifndef DITGEN_OPS_CUDA_SHAPE_CUDA_H
#define DITGEN_OPS_CUDA_SHAPE_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/ops/cuda/rows_cuda.h"

#define CUDA_MOST_FEATURES 8192

/* Warps that share a row, and eights of numbers each of their threads keeps: covers `features`. */
struct cuda_row_shape {
    int warps, vecs;
};
struct cuda_row_shape cuda_row_shape(int features);
/* The same of rows that become codes; warps 0: wider than registers hold, read twice. */
struct cuda_row_shape cuda_code_shape(int cols);

/* Bytes of the codes of rows and of their scales behind them, each from a multiple of 256 on. */
size_t cuda_codes_bytes(int64_t rows, int64_t cols);
#define CUDA_FP8_ARCH 89 /* the first with products of e4m3 */
/* Refuses fp8 layers on a card of this compute capability; and a layer that they cannot be. ERR_DEVICE,
 * ERR_USAGE. */
int cuda_fp8_runs(const char *device, int arch, struct err *e);
int cuda_fp8_takes(int in, int out, enum activation act, struct err *e);

/* Whether wide accesses fit; else number by number (plain_cuda.h). */
bool cuda_norm_by_eights(const struct cuda_norm *p);
bool cuda_rope_by_eights(const struct cuda_rope *p);
int cuda_norm_takes(const struct cuda_norm *p, struct err *e);
int cuda_rope_takes(const struct cuda_rope *p, struct err *e);
int cuda_grid_takes(const struct cuda_grid *g, struct err *e);
int cuda_few_takes(const struct cuda_few *p, struct err *e);
int cuda_map_takes(const struct cuda_map *p, struct err *e);
int cuda_sum_takes(const struct cuda_sum *p, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
