/* Codes of q, k and v by vpdpbusd. */
#if !defined(FLASH_EMULATE) && !defined(__AVX512VNNI__)
#error "vnni_s8.c needs -mavx512vnni"
#endif
#include "attention/kernels/cpu_vec8.h"
#define FLASH_MR 12
#define FLASH_SUB 24
#define FLASH_KB 128
#define FLASH_P 1
typedef vi_code packed_v;
#include "attention/kernels/cpu_code_scores.h"
#include "attention/kernels/cpu_code_values.h"

const struct attn_kernel attn_vnni_s8 = {
    .name = "avx512vnni, int8 values",
    .needs = CPU_AVX512_VNNI,
    .can = FLASH_CODES_CAN | ATTN_NEED_PV_INT8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
