/* Codes of q and k by vpdpbusd, values in bf16: runs in bf16. */
#if !defined(FLASH_EMULATE) && (!defined(__AVX512VNNI__) || !defined(__AVX512BF16__))
#error "vnni_bf16.c needs -mavx512vnni -mavx512bf16"
#endif
#include "attention/kernels/cpu_vec8.h"
#define FLASH_MR 12
#define FLASH_SUB 24
#define FLASH_KB 128
#define FLASH_P 1
typedef uint16_t packed_v;
#include "attention/kernels/cpu_code_scores.h"
#include "attention/kernels/cpu_bf16_probs.h"
#include "attention/kernels/cpu_bf16_values.h"

const struct attn_kernel attn_vnni_bf16 = {
    .name = "avx512vnni, bf16 values",
    .needs = CPU_AVX512_BF16,
    .can = FLASH_CODES_CAN | ATTN_NEED_PV_FP8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
