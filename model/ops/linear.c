/* Linear layers: weights to the precision's type, packed once; inputs rounded, products by the
 * backend, activation and rounding by rows.c. See ops.h. */
#include "model/ops/backend.h"

#include "model/base/threads.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

struct linear {
    struct linear_params p;
    struct gemm *gemm;
    void *weight; /* own copy of the type, when borrowing cannot use the file's bytes */
    float *bias; /* own fp32 copy, or NULL */
    enum gemm_type type;
};

static size_t esize(const struct linear_params *p)
{
    return p->precision == PRECISION_BF16 ? 2 : 4;
}

static size_t align64(size_t n) { return (n + 63) / 64 * 64; }

/* The stage's room, grown to `bytes`; NULL: no memory. */
static void *stage_room(struct linear_stage *s, size_t bytes)
{
    if (bytes <= s->bytes) return s->data;
    free(s->data);
    s->data = aligned_alloc(64, align64(bytes));
    s->bytes = s->data ? bytes : 0;
    return s->data;
}

struct convert {
    char *dst;
    const char *src;
    enum dtype type;
    size_t n, chunk;
    enum precision precision;
};

#define CONVERT_BLOCK 4096

static void convert_chunk(void *ctx, int task, int worker)
{
    const struct convert *c = ctx;
    (void)worker;
    size_t first = (size_t)task * c->chunk, end = first + c->chunk;
    if (end > c->n) end = c->n;
    float f[CONVERT_BLOCK];
    for (size_t i = first; i < end; i += CONVERT_BLOCK) {
        size_t m = end - i < CONVERT_BLOCK ? end - i : CONVERT_BLOCK;
        const char *src = c->src + i * dtype_size(c->type);
        if (c->precision == PRECISION_FP32) {
            dtype_to_f32((float *)(void *)c->dst + i, src, c->type, m);
            continue;
        }
        dtype_to_f32(f, src, c->type, m);
        if (c->precision == PRECISION_BF16) {
            row_ops_pick()->to_bf16((uint16_t *)(void *)c->dst + i, f, m);
        } else {
            for (size_t j = 0; j < m; j++)
                f[j] = bf16_round(f[j]);
            memcpy(c->dst + i * 4, f, m * 4);
        }
    }
}

/* The file's numbers in the type the products take. */
static void convert(void *dst, const struct tensor *w, enum precision precision)
{
    struct convert c = {dst, w->data, w->dtype, tensor_len(w), (size_t)1 << 20, precision};
    threads_run((int)((c.n + c.chunk - 1) / c.chunk), convert_chunk, &c);
}

static bool usable_in_place(const struct tensor *w, enum precision p)
{
    bool aligned = ((uintptr_t)w->data & 3) == 0;
    return aligned && ((p == PRECISION_FP32 && w->dtype == DTYPE_F32) ||
                       (p == PRECISION_BF16 && w->dtype == DTYPE_BF16));
}

static int check_float(const struct tensor *t, struct err *e)
{
    if (t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16 || t->dtype == DTYPE_F16 ||
        t->dtype == DTYPE_F64)
        return 0;
    return err_set(e, ERR_INPUT, "a weight has type %s, wanted F32, BF16, F16 or F64",
                   dtype_name(t->dtype));
}

static int set_bias(struct linear *l, const struct tensor *bias, struct err *e)
{
    if (!bias || !bias->data) return 0;
    if (check_float(bias, e) < 0) return -1;
    if (!l->bias) l->bias = aligned_alloc(64, align64((size_t)l->p.out * 4));
    if (!l->bias) return err_set(e, ERR_RESOURCE, "no memory for a bias of %d", l->p.out);
    dtype_to_f32(l->bias, bias->data, bias->dtype, (size_t)l->p.out);
    if (l->p.precision != PRECISION_FP32) round_rows(l->bias, (size_t)l->p.out);
    return 0;
}

int linear_open(struct linear **out, const struct linear_params *p, const struct tensor *weight,
                const struct tensor *bias, struct err *e)
{
    struct linear_stage own = {0};
    int r = linear_open_staged(out, p, weight, bias, &own, e);
    free(own.data);
    return r;
}

int linear_open_staged(struct linear **out, const struct linear_params *p,
                       const struct tensor *weight, const struct tensor *bias,
                       struct linear_stage *stage, struct err *e)
{
    *out = NULL;
    struct linear *l = calloc(1, sizeof *l);
    if (!l) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    l->p = *p;
    l->type = p->precision == PRECISION_BF16 ? GEMM_BF16 : GEMM_F32;
    size_t bytes = align64((size_t)p->out * (size_t)p->in * esize(p));
    if (p->precision == PRECISION_BF16 && !gemm_has_bf16()) {
        err_set(e, ERR_DEVICE,
                "this processor or build has no bf16 products; use --precision fp32");
        goto fail;
    }
    if (set_bias(l, bias, e) < 0) goto fail;
    if (p->borrow) {
        if (gemm_open(&l->gemm, l->type, p->out, p->in, NULL, l->bias, true, e) < 0) goto fail;
        if (weight && linear_rebind(l, weight, NULL, e) < 0) goto fail;
    } else {
        if (check_float(weight, e) < 0) goto fail;
        const void *plain = weight->data;
        if (!usable_in_place(weight, p->precision)) {
            void *room = stage_room(stage, bytes);
            if (!room) {
                err_set(e, ERR_RESOURCE, "no memory to pack a weight of %zu bytes", bytes);
                goto fail;
            }
            convert(room, weight, p->precision);
            plain = room;
        }
        if (gemm_open(&l->gemm, l->type, p->out, p->in, plain, l->bias, false, e) < 0) goto fail;
    }
    *out = l;
    return 0;
fail:
    linear_close(l);
    return -1;
}

void linear_close(struct linear *l)
{
    if (!l) return;
    gemm_close(l->gemm);
    free(l->weight);
    free(l->bias);
    free(l);
}

int linear_rebind(struct linear *l, const struct tensor *weight, const struct tensor *bias,
                  struct err *e)
{
    if (check_float(weight, e) < 0 || set_bias(l, bias, e) < 0) return -1;
    if (usable_in_place(weight, l->p.precision)) {
        gemm_rebind(l->gemm, weight->data, l->bias);
        return 0;
    }
    size_t bytes = align64((size_t)l->p.out * (size_t)l->p.in * esize(&l->p));
    if (!l->weight) l->weight = aligned_alloc(64, bytes);
    if (!l->weight) return err_set(e, ERR_RESOURCE, "no memory for a weight of %zu bytes", bytes);
    convert(l->weight, weight, l->p.precision);
    gemm_rebind(l->gemm, l->weight, l->bias);
    return 0;
}

/* Room for the rounded copy of x. */
static size_t input_bytes(const struct linear *l, int rows)
{
    return l->p.precision == PRECISION_FP32
               ? 0
               : align64((size_t)rows * (size_t)l->p.in * esize(&l->p));
}

int linear_prepare(struct linear *l, int rows, size_t *scratch, struct err *e)
{
    size_t inner;
    if (gemm_prepare(l->gemm, rows, &inner, e) < 0) return -1;
    *scratch = inner + input_bytes(l, rows);
    return 0;
}

struct act_job {
    float *y;
    const float *x;
    void *dst;
    int rows, features, chunk;
    enum activation act;
    enum precision precision;
    bool round;
};

static void act_chunk(void *ctx, int task, int worker)
{
    const struct act_job *j = ctx;
    (void)worker;
    int end = (task + 1) * j->chunk < j->rows ? (task + 1) * j->chunk : j->rows;
    for (int r = task * j->chunk; r < end; r++) {
        size_t at = (size_t)r * (size_t)j->features, n = (size_t)j->features;
        row_ops_pick()->act_row(j->y + at, j->features, j->act, j->round);
        if (j->dst) row_ops_pick()->to_bf16((uint16_t *)j->dst + at, j->y + at, n);
    }
}

static void input_chunk(void *ctx, int task, int worker)
{
    const struct act_job *j = ctx;
    (void)worker;
    int end = (task + 1) * j->chunk < j->rows ? (task + 1) * j->chunk : j->rows;
    size_t first = (size_t)task * (size_t)j->chunk * (size_t)j->features;
    size_t n = (size_t)(end - task * j->chunk) * (size_t)j->features;
    if (j->precision == PRECISION_BF16) {
        row_ops_pick()->to_bf16((uint16_t *)j->dst + first, j->x + first, n);
    } else {
        float *d = (float *)j->dst + first;
        for (size_t i = 0; i < n; i++)
            d[i] = bf16_round(j->x[first + i]);
    }
}

/* x as the products take it: itself, or rounded into scratch, which moves on. */
static const void *input_of(const struct linear *l, const float *x, int rows, char **scratch)
{
    if (l->p.precision == PRECISION_FP32) return x;
    int chunk = 1 + 32768 / l->p.in;
    struct act_job j = {.x = x,
                        .dst = *scratch,
                        .rows = rows,
                        .features = l->p.in,
                        .chunk = chunk,
                        .precision = l->p.precision};
    threads_run((rows + chunk - 1) / chunk, input_chunk, &j);
    *scratch += input_bytes(l, rows);
    return j.dst;
}

/* Activation and rounding of a layer's result. dst: as the next layer's products take it, or NULL:
 * in place alone. */
static void finish(const struct linear *l, float *y, int rows, void *dst)
{
    bool round = l->p.precision != PRECISION_FP32 && l->p.round_out;
    if (l->p.act == ACT_NONE && !round && !dst) return;
    int chunk = 1 + 16384 / l->p.out;
    struct act_job j = {.y = y,
                        .dst = dst,
                        .rows = rows,
                        .features = l->p.out,
                        .chunk = chunk,
                        .act = l->p.act,
                        .round = round};
    threads_run((rows + chunk - 1) / chunk, act_chunk, &j);
}

int linear_run(struct linear *l, float *y, const float *x, int rows, void *scratch, struct err *e)
{
    char *inner = scratch;
    void *owned = NULL;
    size_t want;
    if (linear_prepare(l, rows, &want, e) < 0) return -1;
    if (want && !scratch) {
        owned = inner = aligned_alloc(64, align64(want));
        if (!owned) return err_set(e, ERR_RESOURCE, "no memory for %zu bytes of scratch", want);
    }
    const void *in = input_of(l, x, rows, &inner);
    int r = gemm_run(l->gemm, y, in, rows, inner, e);
    free(owned);
    if (r < 0) return -1;
    finish(l, y, rows, NULL);
    return 0;
}

int linear_run_several(struct linear *const *l, float *const *y, int n, const float *x, int rows,
                       void *scratch, struct err *e)
{
    char *inner = scratch;
    const void *in = input_of(l[0], x, rows, &inner);
    for (int i = 0; i < n; i++) {
        assert(l[i]->p.in == l[0]->p.in && l[i]->p.precision == l[0]->p.precision);
        if (gemm_run(l[i]->gemm, y[i], in, rows, inner, e) < 0) return -1;
        finish(l[i], y[i], rows, NULL);
    }
    return 0;
}

int linear_run_chain(struct linear *first, struct linear *second, float *y, float *mid,
                     const float *x, int rows, void *scratch, struct err *e)
{
    char *inner = scratch;
    bool bf16 = second->p.precision == PRECISION_BF16;
    assert(first->p.out == second->p.in && first->p.precision == second->p.precision);
    assert(first->p.precision == PRECISION_FP32 || first->p.round_out); /* mid is what is read */
    const void *in = input_of(first, x, rows, &inner);
    if (gemm_run(first->gemm, mid, in, rows, inner, e) < 0) return -1;
    /* first's input is read: its place takes second's */
    finish(first, mid, rows, bf16 ? scratch : NULL);
    in = bf16 ? scratch : (const void *)mid;
    inner = (char *)scratch + (bf16 ? input_bytes(second, rows) : 0);
    if (gemm_run(second->gemm, y, in, rows, inner, e) < 0) return -1;
    finish(second, y, rows, NULL);
    return 0;
}

size_t linear_bytes(const struct linear_params *p)
{
    return align64((size_t)p->out * (size_t)p->in * esize(p)) + align64((size_t)p->out * 4);
}

float act_apply(enum activation a, float x)
{
    double d = (double)x;
    switch (a) {
    case ACT_NONE:
        return x;
    case ACT_GELU_TANH:
        return (float)(0.5 * d * (1 + tanh(0.7978845608028654 * (d + 0.044715 * d * d * d))));
    case ACT_GELU_ERF:
        return (float)(0.5 * d * (1 + erf(d * 0.7071067811865476)));
    case ACT_SILU:
        return (float)(d / (1 + exp(-d)));
    }
    return x;
}

void ref_linear(float *y, const float *x, const float *w, const float *b, int rows, int in, int out,
                enum activation act)
{
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            double s = b ? (double)b[o] : 0;
            for (int i = 0; i < in; i++)
                s += (double)x[(size_t)r * (size_t)in + (size_t)i] *
                     (double)w[(size_t)o * (size_t)in + (size_t)i];
            y[(size_t)r * (size_t)out + (size_t)o] = act_apply(act, (float)s);
        }
}

const char *ops_backend(void) { return gemm_backend(); }

bool ops_has_bf16(void) { return gemm_has_bf16(); }
