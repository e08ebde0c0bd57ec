/* Codes of q, k and v by AMX. */
#if !defined(FLASH_EMULATE) && (!defined(__AVX512VNNI__) || !defined(__AVX512BF16__))
#error "amx8_s8.c needs -mamx-tile -mamx-int8 -mavx512vnni -mavx512bf16"
#endif
#include "attention/kernels/cpu_vec.h"
#define FLASH_P 1
#define FLASH_FETCH_V 16
#define flash_pad_v(d) (((d) + 31) / 32 * 32)
typedef int8_t packed_v; /* 0 .. 255 as its bits */
#include "attention/kernels/cpu_amx_codes.h"
#include "attention/kernels/cpu_amx_code_values.h"

const struct attn_kernel attn_amx8_s8 = {
    .name = "amxcodes, int8 values",
    .needs = CPU_AMX,
    .can = FLASH_CODES_CAN | ATTN_NEED_PV_INT8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
