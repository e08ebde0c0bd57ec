/* Kernels over codes are made of parts: those that do runs without codes, then one for each way of the
 * second product. Private to the kernels. */
#ifndef DITGEN_ATTENTION_KERNELS_LOW_H
#define DITGEN_ATTENTION_KERNELS_LOW_H

#include "attention/kernels/kernels.h"

#include <assert.h>

extern const struct attn_kernel attn_avx2, attn_avx512, attn_avx512bf16, attn_amx, attn_vnni_f32,
    attn_vnni_bf16, attn_vnni_s8, attn_maddwd_f32, attn_maddwd_s8, attn_amx8_f32, attn_amx8_bf16,
    attn_amx8_s8;

/* The first part that runs here and does these of ATTN_NEED_LOW; NULL: none. */
static inline const struct attn_kernel *low_part(const struct attn_kernel *const *parts, size_t n,
                                                 const struct attn_size *s, unsigned needs)
{
    for (size_t i = 0; i < n; i++)
        if (parts[i]->needs <= cpu_level() && parts[i]->fits(s) &&
            !(needs & ATTN_NEED_LOW & ~parts[i]->can))
            return parts[i];
    return NULL;
}

/* Layers may differ: each thing that is asked for has a part, as does what is as the run. */
static inline bool low_fits(const struct attn_kernel *const *parts, size_t n,
                            const struct attn_size *s)
{
    if (!low_part(parts, n, s, 0)) return false;
    for (unsigned bit = 1; bit < 1u << ATTN_NEEDS; bit <<= 1)
        if (s->needs & ATTN_NEED_LOW & bit && !low_part(parts, n, s, bit)) return false;
    return true;
}

/* For whichever part a job goes to. */
static inline size_t low_scratch(const struct attn_kernel *const *parts, size_t n,
                                 const struct attn_size *s)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = parts[i]->fits(s) ? parts[i]->scratch(s) : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

static inline void low_run(const struct attn_kernel *const *parts, size_t n,
                           const struct attn_job *j)
{
    const struct attn_kernel *part = low_part(parts, n, j->size, attn_plan_needs(j->plan));
    assert(part); /* low_fits() */
    part->run(j);
}

#endif
