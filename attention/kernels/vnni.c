/* Products of codes for AVX512-VNNI: the row of its parts. What is as the run goes to the kernel that
 * does such runs. */
#include "attention/kernels/low.h"

static const struct attn_kernel *const parts[] = {
    &attn_avx512bf16, &attn_avx512, &attn_vnni_bf16, &attn_vnni_f32, &attn_vnni_s8,
};

static bool vnni_fits(const struct attn_size *s) { return low_fits(parts, ARRAY_LEN(parts), s); }

static size_t vnni_scratch(const struct attn_size *s)
{
    return low_scratch(parts, ARRAY_LEN(parts), s);
}

static void vnni_run(const struct attn_job *j) { low_run(parts, ARRAY_LEN(parts), j); }

/* Measured beside avx512bf16 and avx512: README, "Speed". int4 and FP8 cost as much or more; AMX does
 * more products of bf16 a cycle than this of bytes. */
static unsigned vnni_pays(const struct attn_size *s)
{
    if (s->precision == PRECISION_BF16 && cpu_level() >= CPU_AMX) return 0; /* .29 to .91 x */
    return ATTN_NEED_QK_INT8 | ATTN_NEED_PV_INT8;
}

const struct attn_kernel attn_vnni = {
    .name = "avx512vnni",
    .summary = "products of 8-bit codes, AVX512-VNNI",
    .needs = CPU_AVX512_VNNI,
    .can = ATTN_FLASH_CAN | ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8 |
           ATTN_NEED_PV_FP8 | ATTN_NEED_SMOOTH_Q,
    .panel = 32,
    .chunk = 128,
    .pays = vnni_pays,
    .fits = vnni_fits,
    .scratch = vnni_scratch,
    .run = vnni_run,
};
