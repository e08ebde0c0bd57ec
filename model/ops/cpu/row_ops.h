/* The arithmetic of one row: a table a processor level, picked once. rows.c cuts rows into tasks. */
#ifndef DITGEN_OPS_ROW_OPS_H
#define DITGEN_OPS_ROW_OPS_H

#include "model/ops/rows.h"

struct row_ops {
    void (*norm_row)(float *y, const float *x, int n, float eps, const float *weight,
                     const float *bias, const float *scale, const float *shift, bool round);
    void (*rms_rope_row)(float *x, int n, const float *weight, float eps, const float *cos_t,
                         const float *sin_t, int head_dim, bool round);
    void (*residual_row)(float *x, const float *y, const float *gate, int n, bool round);
    void (*act_row)(float *x, int n, enum activation act, bool round);
    void (*to_bf16)(uint16_t *y, const float *x, size_t n);
};
extern const struct row_ops row_ops_ref, row_ops_avx2, row_ops_avx512;
const struct row_ops *row_ops_pick(void);

#endif
