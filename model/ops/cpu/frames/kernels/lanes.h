/* The inner loops of kernels.h over vectors of floats (gcc vector types, so that one text serves every
 * instruction set). Included once by each of ref.c, avx2.c, avx512.c, which set
 *   GEMM_LANES             floats a vector in gemm
 *   LANES                  in everything else (at most CONV_LANES)
 *   ROWS_1 ROWS_2 ROWS_3   rows a register tile, for panels of 1, 2, 3 vectors
 *   KERNEL_TABLE, KERNEL_NAME, KERNEL_NEEDS
 * The loops: lanes_gemm.h (products), lanes_winograd.h (transforms), lanes_finish.h (what follows). */
#include "model/base/dtype.h"
#include "model/ops/cpu/frames/kernels/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vg __attribute__((vector_size(GEMM_LANES * 4)));
typedef float vg_mem __attribute__((vector_size(GEMM_LANES * 4), aligned(4), may_alias));
typedef float vf __attribute__((vector_size(LANES * 4)));
typedef float vf_mem __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));

#define INLINE static inline __attribute__((always_inline))
#define LOAD(p) (*(const vf_mem *)(const void *)(p))
#define STORE(p, v) (*(vf_mem *)(void *)(p) = (v))
#define ZERO ((vf){0})

#include "model/ops/cpu/frames/kernels/lanes_gemm.h"
#include "model/ops/cpu/frames/kernels/lanes_winograd.h"
#include "model/ops/cpu/frames/kernels/lanes_finish.h"

const struct vae_kernels KERNEL_TABLE = {
    .name = KERNEL_NAME,
    .needs = KERNEL_NEEDS,
    .lanes = GEMM_LANES,
    .max_vectors = 3,
    .gemm = gemm,
    .wino_in = wino_in,
    .wino_in_up = wino_in_up,
    .wino_out = wino_out,
    .wino_out_up = wino_out_up,
    .finish = finish,
    .narrow = narrow,
    .softmax = softmax,
};
