/* Which table a device has, and views; see ops.h. */
#include "model/ops/ops.h"

#include "model/base/device_table.h"

#ifdef DITGEN_HAVE_CUDA_OPS
#include "model/ops/cuda/ops_cuda.h"
#endif

const struct ops *ops_of(const struct device *d)
{
    if (d && d->ops) return d->ops;
#ifdef DITGEN_HAVE_CUDA_OPS
    if (device_kind(d) == DEVICE_CUDA) return &ops_cuda;
#endif
    return device_kind(d) == DEVICE_CPU ? &ops_cpu : NULL;
}

const char *op_name(int op)
{
    static const char *const names[OP_COUNT] = {
        "linear",   "ffn",   "norm",    "rms+rope", "gate",     "activation", "cast", "patches",
        "sinusoid", "table", "lincomb", "finite",   "distance", "text",       "conv", "frames"};
    if (op == DEVICE_OP_ATTENTION) return "attention";
    return op >= 0 && op < OP_COUNT ? names[op] : NULL;
}

/* --- a solver's sums --- */

static int place_run(void *ctx, float *const *x, const struct lincomb *l, size_t n, bool bf16,
                     struct err *e)
{
    struct device *d = ctx;
    return ops_of(d)->lincomb(d, x, l, n, bf16, e);
}

static int look(struct device *d, const float *x, size_t n, int label, struct err *e)
{
    struct rows r = rows_of(d, (void *)(uintptr_t)x, DTYPE_F32, 1, (int64_t)n);
    return ops_of(d)->finite(d, &r, label, e);
}

static int place_finite(void *ctx, const float *x, size_t n, int label, int *first, struct err *e)
{
    struct device *d = ctx;
    return look(d, x, n, label, e) < 0 ? -1 : ops_of(d)->finite_seen(d, first, e);
}

static int place_note(void *ctx, const float *x, size_t n, int label, struct err *e)
{
    struct device *d = ctx;
    return look(d, x, n, label, e) < 0 ? -1 : ops_of(d)->finite_bring(d, e);
}

static int place_noted(void *ctx)
{
    struct device *d = ctx;
    return ops_of(d)->finite_brought(d);
}

struct lincomb_place ops_place(struct device *d)
{
    return (struct lincomb_place){.ctx = d,
                                  .run = place_run,
                                  .waits = device_place(d) != PLACE_HOST,
                                  .finite = place_finite,
                                  .note = place_note,
                                  .noted = place_noted};
}

/* --- views --- */

struct rows rows_of(const struct device *d, void *at, enum dtype type, int64_t n, int64_t cols)
{
    return (struct rows){
        .at = at, .type = type, .where = device_place(d), .n = n, .cols = cols, .stride = cols};
}

struct rows rows_part(const struct rows *r, int64_t first, int64_t n)
{
    struct rows part = *r;
    part.at = (char *)r->at + first * r->stride * (int64_t)dtype_size(r->type);
    part.n = n;
    if (part.scale) part.scale += first;
    return part;
}

struct rows rows_cols(const struct rows *r, int64_t first, int64_t cols)
{
    struct rows part = *r;
    part.at = (char *)r->at + first * (int64_t)dtype_size(r->type);
    part.cols = cols;
    return part;
}

struct heads rows_heads(const struct rows *r, int n_heads)
{
    return (struct heads){.at = r->at,
                          .type = r->type,
                          .where = r->where,
                          .len = (int)r->n,
                          .n = n_heads,
                          .dim = (int)(r->cols / n_heads),
                          .token = r->stride,
                          .head = r->cols / n_heads};
}
