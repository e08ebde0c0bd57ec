/* Codes of q and k by vpdpbusd, values in bf16: runs in bf16. */
#if !defined(FLASH_EMULATE) && (!defined(__AVX512VNNI__) || !defined(__AVX512BF16__))
#error "vnni_bf16.c needs -mavx512vnni -mavx512bf16"
#endif
#include "attention/kernels/cpu_vec.h"
#define FLASH_P 1
typedef uint16_t packed_v;
#include "attention/kernels/cpu_vnni.h"
#include "attention/kernels/cpu_bf16_probs.h"
#include "attention/kernels/cpu_bf16_values.h"

const struct attn_kernel attn_vnni_bf16 = {
    .name = "avx512vnni, bf16 values",
    .needs = CPU_AVX512_BF16,
    .can = VNNI_CAN | ATTN_NEED_PV_FP8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
