/* What UMT5 asks of a device beside linear layers (wan.md 2.2): its norm, the gate's product, attention
 * with a relative bias a head. Views and types as in ops.h; vectors and tables are fp32 of the device.
 * Each call counts as OP_TEXT. */
#ifndef DITGEN_OPS_TEXT_H
#define DITGEN_OPS_TEXT_H

#include "model/base/device.h"
#include "model/base/tensor.h"

#include <stdbool.h>

struct text_attention { /* o = softmax(q kᵀ + bias) v, unscaled */
    struct rows o, q, k, v; /* [n, n_heads * dim]; o may be q */
    int n_heads;
    const float *bias; /* [n_heads, 2n - 1], by key - query + n - 1 */
    bool round; /* bf16 rules: what multiplies the values and the output are rounded */
};

struct text_ops {
    /* y = weight * cast(x / rms(x)): round: the cast lies between the two products, and another behind
     * them. weight [cols]. */
    int (*norm)(struct device *d, const struct rows *y, const struct rows *x, const float *weight,
                double eps, bool round, struct err *e);
    /* y *= x */
    int (*multiply)(struct device *d, const struct rows *y, const struct rows *x, bool round,
                    struct err *e);
    /* table [buckets, n_heads] → bias [n_heads, span], by bucket [span] */
    int (*spread_bias)(struct device *d, float *bias, const float *table, const int *bucket,
                       int n_heads, int span, struct err *e);
    /* Bytes of scratch of attend(); on the host with the threads set now. */
    size_t (*attend_scratch)(int n, int n_heads, int dim);
    int (*attend)(struct device *d, const struct text_attention *a, void *scratch, struct err *e);
};

extern const struct text_ops text_ops_cpu;

#endif
