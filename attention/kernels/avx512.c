/* fp32 attention for AVX-512: 12 x 32 tiles, 24 of the 32 registers accumulate. 32 columns rather
 * than 64, so that D = 80 wastes nothing. */
#if !defined(FLASH_EMULATE) && (!defined(__AVX512F__) || !defined(__AVX512DQ__))
#error "avx512.c needs -mavx512f -mavx512dq"
#endif
#define FLASH_MR 12
#define FLASH_SUB 24
#define FLASH_DB 96
#define FLASH_QB 128
#define FLASH_KB 256
#include "attention/kernels/cpu_vec.h"
#include "attention/kernels/cpu_f32.h"

const struct attn_kernel attn_avx512 = {
    .name = "avx512",
    .summary = "fp32, AVX-512",
    .needs = CPU_AVX512,
    .can = FLASH_CAN,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
