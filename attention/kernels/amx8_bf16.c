/* Codes of q and k by AMX, values in bf16: runs in bf16. */
#if !defined(FLASH_EMULATE) && (!defined(__AVX512VNNI__) || !defined(__AVX512BF16__))
#error "amx8_bf16.c needs -mamx-tile -mamx-int8 -mamx-bf16 -mavx512vnni -mavx512bf16"
#endif
#include "attention/kernels/cpu_vec.h"
#define FLASH_P 1
#define FLASH_FETCH_V 0
#define flash_pad_v(d) (((d) + 31) / 32 * 32)
typedef uint16_t packed_v;
#include "attention/kernels/cpu_amx_codes.h"
#include "attention/kernels/cpu_bf16_probs.h"
#include "attention/kernels/cpu_amx_values.h"

const struct attn_kernel attn_amx8_bf16 = {
    .name = "amxcodes, bf16 values",
    .needs = CPU_AMX,
    .can = FLASH_CODES_CAN | ATTN_NEED_PV_FP8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
