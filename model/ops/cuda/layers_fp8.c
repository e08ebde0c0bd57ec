/* fp8 layers on a GPU: weights become codes where they go up, rows become codes on their way to a product, and a
 * few numbers of a watched step are held against products of bf16. */
#include "model/ops/cuda/layers.h"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/cuda/shape_cuda.h"

static size_t sample_bytes(const struct linear_params *p)
{
    return CUDA_ALIGN((size_t)CUDA_SAMPLE_OUTS * (size_t)p->in * 2);
}

size_t cuda_fp8_bytes(const struct linear_params *p)
{
    if (p->precision != PRECISION_FP8) return 0;
    return CUDA_ALIGN((size_t)p->out * sizeof(float)) + sample_bytes(p);
}

/* --- weights --- */

static bool codes_of(enum dtype t) { return t == DTYPE_BF16 || t == DTYPE_F32; }

size_t cuda_fp8_between(const struct cuda_layer *l, const struct tensor *weight)
{
    size_t n = (size_t)l->p.in * (size_t)l->p.out;
    return CUDA_ALIGN(n * dtype_size(weight->dtype)) + (codes_of(weight->dtype) ? 0 : n * 4);
}

int cuda_fp8_fill(struct cuda_layer *l, const struct tensor *weight, void *between, struct err *e)
{
    size_t in = (size_t)l->p.in, n = in * (size_t)l->p.out;
    void *stream = device_stream(l->d);
    struct cuda_row_codes c = {.q = l->weight,
                               .scale = l->scale,
                               .x = between,
                               .type = weight->dtype,
                               .x_row = l->p.in,
                               .rows = l->p.out,
                               .cols = l->p.in};
    if (device_upload(l->d, between, weight->data, n * dtype_size(weight->dtype), e) < 0) return -1;
    if (!codes_of(weight->dtype)) {
        struct cuda_map m = {.x = between,
                             .y = (char *)between + CUDA_ALIGN(n * dtype_size(weight->dtype)),
                             .from = weight->dtype,
                             .to = DTYPE_F32,
                             .n = n,
                             .times = 1};
        if (cuda_map(&m, stream, e) < 0) return -1;
        c.x = m.y;
        c.type = DTYPE_F32;
    }
    for (int i = 0; i < CUDA_SAMPLE_OUTS; i++) {
        size_t at = (size_t)CUDA_SAMPLE_OUT(i, l->p.out) * in;
        struct cuda_map m = {.x = (const char *)c.x + at * dtype_size(c.type),
                             .y = (char *)l->some + (size_t)i * in * 2,
                             .from = c.type,
                             .to = DTYPE_BF16,
                             .n = in,
                             .times = 1};
        if (cuda_map(&m, stream, e) < 0) return -1;
    }
    return cuda_row_codes(&c, stream, e);
}

/* --- products --- */

int cuda_fp8_codes(struct rows *coded, struct device *d, const struct rows *x, enum activation act,
                   void *at, struct err *e)
{
    *coded = *x;
    if (x->type == DTYPE_F8_E4M3) return 0;
    *coded = rows_of(d, at, DTYPE_F8_E4M3, x->n, x->cols);
    coded->scale = (void *)((char *)at + CUDA_ALIGN((size_t)x->n * (size_t)x->cols));
    struct cuda_row_codes c = {.q = at,
                               .scale = coded->scale,
                               .x = x->at,
                               .type = x->type,
                               .x_row = x->stride,
                               .rows = (int)x->n,
                               .cols = (int)x->cols,
                               .act = act};
    return cuda_row_codes(&c, device_stream(d), e);
}

/* fast: the units' own sums of 14 bits are far below what codes of 4 bits cost, and a quarter faster
 * (tests/bench/ops/NOTES.md) */
static struct cuda_product product(const struct cuda_layer *l, int rows, enum dtype y_type,
                                   bool act)
{
    return (struct cuda_product){.rows = rows,
                                 .in = l->p.in,
                                 .out = l->p.out,
                                 .type = DTYPE_F8_E4M3,
                                 .y_type = y_type,
                                 .act = act ? l->p.act : ACT_NONE,
                                 .bias = l->biased,
                                 .scales = CUDA_ROW_SCALES,
                                 .fast = true};
}

int cuda_fp8_prepare(struct cuda_layer *l, int rows, bool act, struct err *e)
{
    struct cuda_table *t;
    struct cuda_matmul *m;
    struct cuda_product p = product(l, rows, DTYPE_BF16, act);
    if (rows < 1) return err_set(e, ERR_BUG, "a linear layer prepared for %d rows", rows);
    return cuda_table_of(&t, l->d, e) < 0 ? -1 : cuda_table_plan(&m, t, &p, e);
}

int cuda_fp8_product(struct cuda_layer *l, const struct rows *y, const struct rows *x, bool act,
                     void *room, struct err *e)
{
    struct cuda_table *t;
    struct cuda_matmul *m;
    struct cuda_product p = product(l, (int)x->n, y->type, act);
    p.y_row = y->stride == y->cols ? 0 : y->stride;
    const void *bias = y->type == DTYPE_BF16 ? l->bias_bf16 : (const void *)l->bias;
    if (x->stride != x->cols || !x->scale)
        return err_set(e, ERR_BUG, "linear: codes with gaps, or without scales");
    if (cuda_table_of(&t, l->d, e) < 0 || cuda_table_plan(&m, t, &p, e) < 0) return -1;
    return cuda_matmul_run(m, y->at, x->at, l->weight, l->biased ? bias : NULL, x->scale, l->scale,
                           room, device_stream(l->d), e);
}

/* --- what they cost in fidelity --- */

int cuda_fp8_look(const struct cuda_layer *l, const struct rows *y, const struct rows *x,
                  enum activation act, struct err *e)
{
    struct cuda_table *t;
    if (cuda_table_of(&t, l->d, e) < 0) return -1;
    if (!t->watching || x->type == DTYPE_F8_E4M3) return 0;
    struct cuda_code_sample s = {.x = x->at,
                                 .y = y->at,
                                 .type = x->type,
                                 .y_type = y->type,
                                 .x_row = x->stride,
                                 .y_row = y->stride,
                                 .rows = (int)x->n,
                                 .in = l->p.in,
                                 .out = l->p.out,
                                 .act = act,
                                 .weight = l->some,
                                 .bias = l->biased ? l->bias : NULL,
                                 .sums = t->sums};
    return cuda_code_sample(&s, device_stream(l->d), e);
}

int cuda_fp8_watch(struct device *d, bool on, struct err *e)
{
    struct cuda_table *t;
    if (cuda_table_of(&t, d, e) < 0) return -1;
    t->watching = on;
    return on ? device_zero(d, t->sums, 2 * sizeof *t->sums, e) : 0;
}

int cuda_fp8_watched(struct device *d, double *error, long *calls, struct err *e)
{
    struct cuda_table *t;
    double sums[2];
    *error = 0;
    *calls = 0;
    if (cuda_table_of(&t, d, e) < 0 || device_download(d, sums, t->sums, sizeof sums, e) < 0)
        return -1;
    *calls = (long)sums[1];
    if (*calls) *error = sums[0] / sums[1];
    return 0;
}
