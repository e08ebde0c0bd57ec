/* AVX-512: 512-bit products (32 registers, 24 of them sums); the rest in 256 bits, since channel
 * counts are multiples of 8. */
#if !defined(__AVX512F__) || !defined(__AVX512VL__)
#error "avx512.c is built with -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma"
#endif
#include <immintrin.h>

#define MAX_VF(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define MIN_VF(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define GEMM_LANES 16
#define LANES 8
#define ROWS_1 12
#define ROWS_2 12
#define ROWS_3 8
#define KERNEL_TABLE vae_kernels_avx512
#define KERNEL_NAME "avx512"
#define KERNEL_NEEDS CPU_AVX512
#include "model/ops/cpu/frames/kernels/lanes.h"
