/* Products of codes for AMX: the row of its parts. What is as the run goes to the kernel that does such
 * runs. */
#include "attention/kernels/low.h"

static const struct attn_kernel *const parts[] = {
    &attn_amx, &attn_avx512, &attn_amx8_bf16, &attn_amx8_f32, &attn_amx8_s8,
};

static bool amx8_fits(const struct attn_size *s) { return low_fits(parts, ARRAY_LEN(parts), s); }

static size_t amx8_scratch(const struct attn_size *s)
{
    return low_scratch(parts, ARRAY_LEN(parts), s);
}

static void amx8_run(const struct attn_job *j) { low_run(parts, ARRAY_LEN(parts), j); }

/* Measured beside avx512 (fp32) and amx (bf16): README, "Speed". In bf16 products are the smaller part of
 * a call: 1.2 x with 128 channels, with 64 nothing that is certain. */
static unsigned amx8_pays(const struct attn_size *s)
{
    if (s->precision == PRECISION_BF16 && s->head_dim < 128) return 0;
    return ATTN_NEED_QK_INT8 | ATTN_NEED_PV_INT8;
}

const struct attn_kernel attn_amx8 = {
    .name = "amxcodes",
    .summary = "products of 8-bit codes, AMX tiles",
    .needs = CPU_AMX,
    .can = ATTN_FLASH_CAN | ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8 |
           ATTN_NEED_PV_FP8 | ATTN_NEED_SMOOTH_Q,
    .panel = 32,
    .chunk = 128,
    .pays = amx8_pays,
    .fits = amx8_fits,
    .scratch = amx8_scratch,
    .run = amx8_run,
};
