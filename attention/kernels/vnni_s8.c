/* Codes of q, k and v by vpdpbusd. */
#if !defined(FLASH_EMULATE) && !defined(__AVX512VNNI__)
#error "vnni_s8.c needs -mavx512vnni"
#endif
#include "attention/kernels/cpu_vec.h"
#define FLASH_P 1
typedef int8_t packed_v;
#include "attention/kernels/cpu_vnni.h"
#include "attention/kernels/cpu_s8_values.h"

const struct attn_kernel attn_vnni_s8 = {
    .name = "avx512vnni, int8 values",
    .needs = CPU_AVX512_VNNI,
    .can = VNNI_CAN | ATTN_NEED_PV_INT8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
