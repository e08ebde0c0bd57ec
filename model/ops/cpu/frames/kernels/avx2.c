/* AVX2 and FMA: 256-bit vectors, 16 registers, 12 of them sums. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "avx2.c is built with -mavx2 -mfma"
#endif
#include <immintrin.h>

#define MAX_VF(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define MIN_VF(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define GEMM_LANES 8
#define LANES 8
#define ROWS_1 8
#define ROWS_2 6
#define ROWS_3 4
#define KERNEL_TABLE vae_kernels_avx2
#define KERNEL_NAME "avx2"
#define KERNEL_NEEDS CPU_AVX2
#include "model/ops/cpu/frames/kernels/lanes.h"
