/* What opening and running a linear layer share. */
#ifndef DITGEN_OPS_LINEAR_INTERNAL_H
#define DITGEN_OPS_LINEAR_INTERNAL_H

#include "model/ops/cpu/gemm.h"
#include "model/ops/linear.h"

#define PART 256 /* outputs of a borrowed layer that one thread computes */

struct linear {
    struct linear_params p;
    struct gemm **parts; /* [parts_of(&p)] */
    void *weight; /* own copy of the type, when borrowing cannot use the file's bytes */
    float *bias; /* own fp32 copy, or NULL */
    int workers; /* that the scratch of the last linear_prepare() is for; 0: none was */
};

static inline int parts_of(const struct linear_params *p)
{
    return p->borrow ? (p->out + PART - 1) / PART : 1;
}

static inline struct gemm_kind kind_of(const struct linear_params *p, int part, bool bias)
{
    int out = p->out;
    if (p->borrow) out = p->out - part * PART < PART ? p->out - part * PART : PART;
    return (struct gemm_kind){.type = p->precision == PRECISION_BF16 ? GEMM_BF16 : GEMM_F32,
                              .out = out,
                              .in = p->in,
                              .bias = bias,
                              .borrow = p->borrow};
}

static inline size_t esize(const struct linear_params *p)
{
    return p->precision == PRECISION_BF16 ? 2 : 4;
}

static inline size_t align64(size_t n) { return (n + 63) / 64 * 64; }

#endif
