/* fp32 attention for AVX2 with FMA: 6 x 16 tiles, 12 of the 16 registers accumulate. Scores of 24
 * rows by 256 keys take 24 KiB, beside them one key panel (4 KiB at D = 64) goes through L1. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "avx2.c needs -mavx2 -mfma"
#endif
#define FLASH_MR 6
#define FLASH_SUB 24
#define FLASH_DB 96
#define FLASH_QB 128
#define FLASH_KB 256
#include "attention/kernels/cpu_vec.h"
#include "attention/kernels/cpu_f32.h"

const struct attn_kernel attn_avx2 = {
    .name = "avx2",
    .summary = "fp32, AVX2 and FMA",
    .needs = CPU_AVX2,
    .can = FLASH_CAN,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
