/* Codes of q and k by vpmaddwd, values in fp32: runs in fp32, and those that emulate bf16. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "maddwd_f32.c needs -mavx2 -mfma"
#endif
#include "attention/kernels/cpu_vec8.h"
#define FLASH_MR 6
#define FLASH_SUB 24
#define FLASH_KB 128
#define FLASH_P 0
#define FLASH_NV 2
typedef float packed_v;
#include "attention/kernels/cpu_code_scores.h"
#include "attention/kernels/cpu_f32_values.h"

static bool flash_fits(const struct attn_size *s)
{
    return s->precision != PRECISION_BF16 && s->head_dim <= ATTN_MAX_HEAD_DIM;
}

const struct attn_kernel attn_maddwd_f32 = {
    .name = "avx2codes, fp32 values",
    .needs = CPU_AVX2,
    .can = FLASH_CODES_CAN | ATTN_NEED_PV_FP8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
