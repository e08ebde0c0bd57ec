/* Codes of q and k by AMX, values in fp32: runs in fp32, and those that emulate bf16. */
#if !defined(FLASH_EMULATE) && (!defined(__AVX512VNNI__) || !defined(__AVX512BF16__))
#error "amx8_f32.c needs -mamx-tile -mamx-int8 -mavx512vnni -mavx512bf16"
#endif
#include "attention/kernels/cpu_vec.h"
#define FLASH_P 0
#define FLASH_NV 2
#define FLASH_VR 12 /* rows of a micro-kernel of the second product */
#define FLASH_FETCH_V FLASH_NR
#define flash_pad_v(d) (((d) + VLEN - 1) / VLEN * VLEN)
typedef float packed_v;
#include "attention/kernels/cpu_amx_codes.h"
#include "attention/kernels/cpu_f32_values.h"

static bool flash_fits(const struct attn_size *s)
{
    return s->precision != PRECISION_BF16 && s->head_dim <= ATTN_MAX_HEAD_DIM;
}

const struct attn_kernel attn_amx8_f32 = {
    .name = "amxcodes, fp32 values",
    .needs = CPU_AMX,
    .can = FLASH_CODES_CAN | ATTN_NEED_PV_FP8,
    .panel = FLASH_NR,
    .chunk = FLASH_KB,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
