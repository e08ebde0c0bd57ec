/* Codes of q, k and v by vpmaddwd. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "maddwd_s8.c needs -mavx2 -mfma"
#endif
#include "attention/kernels/cpu_vec8.h"
#define FLASH_MR 6
#define FLASH_SUB 24
#define FLASH_KB 128
#define FLASH_P 1
typedef vi_code packed_v;
#include "attention/kernels/cpu_code_scores.h"
#include "attention/kernels/cpu_code_values.h"

const struct attn_kernel attn_maddwd_s8 = {
    .name = "avx2codes, int8 values",
    .needs = CPU_AVX2,
    .can = FLASH_CODES_CAN | ATTN_NEED_PV_INT8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
