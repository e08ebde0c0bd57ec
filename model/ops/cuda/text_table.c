/* UMT5's operations on a GPU: views to launches. */
#include "model/ops/text.h"

#include "model/base/device_table.h"
#include "model/ops/cuda/text_cuda.h"
#include "model/ops/ops.h"

/* The numbers of a view of the card that lies together, of this type. NULL with e: it is another view. */
static void *whole(const struct rows *r, enum dtype type, struct err *e)
{
    if (r->at && r->type == type && (type == DTYPE_BF16 || type == DTYPE_F32) &&
        r->where == PLACE_DEVICE && r->stride == r->cols)
        return r->at;
    err_set(e, ERR_BUG, "text: rows that are not whole %s rows of the GPU", dtype_name(type));
    return NULL;
}

static int norm(struct device *d, const struct rows *y, const struct rows *x, const float *weight,
                double eps, bool round, struct err *e)
{
    void *to = whole(y, x->type, e), *from = whole(x, x->type, e);
    (void)round; /* storing does it */
    if (!to || !from) return -1;
    device_did(d, OP_TEXT);
    return text_norm_cuda(to, from, weight, (int)x->n, (int)x->cols, (float)eps,
                          x->type == DTYPE_BF16, device_stream(d), e);
}

static int multiply(struct device *d, const struct rows *y, const struct rows *x, bool round,
                    struct err *e)
{
    void *to = whole(y, x->type, e), *from = whole(x, x->type, e);
    (void)round;
    if (!to || !from) return -1;
    device_did(d, OP_TEXT);
    return text_multiply_cuda(to, from, (size_t)x->n * (size_t)x->cols, x->type == DTYPE_BF16,
                              device_stream(d), e);
}

static int spread_bias(struct device *d, float *bias, const float *table, const int *bucket,
                       int n_heads, int span, struct err *e)
{
    device_did(d, OP_TEXT);
    return text_spread_bias_cuda(bias, table, bucket, n_heads, span, device_stream(d), e);
}

static size_t attend_scratch(int n, int n_heads, int dim)
{
    (void)n, (void)n_heads, (void)dim;
    return 0;
}

static int attend(struct device *d, const struct text_attention *a, void *scratch, struct err *e)
{
    enum dtype type = a->q.type;
    void *o = whole(&a->o, type, e), *q = whole(&a->q, type, e), *k = whole(&a->k, type, e),
         *v = whole(&a->v, type, e);
    (void)scratch;
    if (!o || !q || !k || !v) return -1;
    device_did(d, OP_TEXT);
    return text_attend_cuda(o, q, k, v, a->bias, (int)a->q.n, a->n_heads,
                            (int)(a->q.cols / a->n_heads), type == DTYPE_BF16, device_stream(d), e);
}

const struct text_ops text_ops_cuda = {
    .norm = norm,
    .multiply = multiply,
    .spread_bias = spread_bias,
    .attend_scratch = attend_scratch,
    .attend = attend,
};
