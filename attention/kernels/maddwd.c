/* Products of codes for AVX2, 16 bits each: the row of its parts. What is as the run goes to the fp32
 * kernel. */
#include "attention/kernels/low.h"

static const struct attn_kernel *const parts[] = {&attn_avx2, &attn_maddwd_f32, &attn_maddwd_s8};

static bool maddwd_fits(const struct attn_size *s)
{
    return s->precision != PRECISION_BF16 && low_fits(parts, ARRAY_LEN(parts), s);
}

static size_t maddwd_scratch(const struct attn_size *s)
{
    return low_scratch(parts, ARRAY_LEN(parts), s);
}

static void maddwd_run(const struct attn_job *j) { low_run(parts, ARRAY_LEN(parts), j); }

/* Both products together, beside avx2: README, "Speed". q and k alone gain nothing. */
static unsigned maddwd_pays(const struct attn_size *s)
{
    bool both = s->needs & ATTN_NEED_PV_INT8;
    return both && cpu_level() == CPU_AVX2 ? ATTN_NEED_QK_INT8 | ATTN_NEED_PV_INT8 : 0;
}

const struct attn_kernel attn_maddwd = {
    .name = "avx2codes",
    .summary = "products of 8-bit codes, AVX2",
    .needs = CPU_AVX2,
    .can = ATTN_FLASH_CAN | ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8 |
           ATTN_NEED_PV_FP8 | ATTN_NEED_SMOOTH_Q,
    .panel = 16,
    .chunk = 128,
    .pays = maddwd_pays,
    .fits = maddwd_fits,
    .scratch = maddwd_scratch,
    .run = maddwd_run,
};
