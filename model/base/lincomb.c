/* Sums of buffers in host memory; see lincomb.h. */
#include "model/base/lincomb.h"

#include "model/base/dtype.h"

#include <assert.h>

/* One element; inlined with n known, so that each number of terms is one vectorised loop. */
static inline float sum_at(const float *const *x, const float *c, int n, size_t i)
{
    float sum = c[0] * x[0][i];
    for (int k = 1; k < n; k++)
        sum += c[k] * x[k][i];
    return sum;
}

static inline float bf16_sum_at(const float *const *x, const float *c, int n, size_t i)
{
    float sum = bf16_round(c[0] * x[0][i]);
    for (int k = 1; k < n; k++)
        sum = bf16_round(sum + bf16_round(c[k] * x[k][i]));
    return sum;
}

static int host_run(void *ctx, float *const *x, const struct lincomb *l, size_t n, bool bf16,
                    struct err *e)
{
    const float *from[LINCOMB_TERMS] = {0};
    float *to = x[l->to];
    (void)ctx, (void)e;
    assert(l->n >= 1 && l->n <= LINCOMB_TERMS);
    for (int k = 0; k < l->n; k++)
        from[k] = x[l->from[k]];
#define EACH(element, terms)                                                                       \
    for (size_t i = 0; i < n; i++)                                                                 \
        to[i] = element(from, l->c, terms, i);                                                     \
    return 0
    if (bf16) {
        EACH(bf16_sum_at, l->n);
    }
    switch (l->n) {
    case 1:
        EACH(sum_at, 1);
    case 2:
        EACH(sum_at, 2);
    case 3:
        EACH(sum_at, 3);
    default:
        EACH(sum_at, 4);
    }
#undef EACH
}

static int host_finite(void *ctx, const float *x, size_t n, int label, int *first, struct err *e)
{
    float sum = 0; /* 0 * x is 0, or NaN when x is infinite or NaN */
    (void)ctx, (void)e;
    for (size_t i = 0; i < n; i++)
        sum += 0 * x[i];
    *first = sum == 0 ? 0 : label;
    return 0;
}

const struct lincomb_place lincomb_host = {.run = host_run, .finite = host_finite};
