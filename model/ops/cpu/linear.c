/* Linear layers, opening: weights to the precision's type, packed once or borrowed where they lie.
 * linear_run.c runs them. */
#include "model/ops/cpu/linear_internal.h"

#include "model/base/threads.h"
#include "model/ops/cpu/row_ops.h"

#include <stdlib.h>

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
    int n_parts = parts_of(p);
    l->parts = calloc((size_t)n_parts, sizeof(struct gemm *));
    if (!l->parts) {
        err_set(e, ERR_RESOURCE, "no memory for a linear layer");
        goto fail;
    }
    if (p->precision == PRECISION_BF16 && !gemm_has_bf16()) {
        err_set(e, ERR_DEVICE,
                "this processor or build has no bf16 products; use --precision fp32");
        goto fail;
    }
    if (set_bias(l, bias, e) < 0) goto fail;
    if (p->borrow) {
        for (int i = 0; i < n_parts; i++) {
            struct gemm_kind k = kind_of(p, i, l->bias != NULL);
            const float *b = l->bias ? l->bias + (size_t)i * PART : NULL;
            if (gemm_open(&l->parts[i], &k, NULL, b, e) < 0) goto fail;
        }
        if (weight && linear_rebind(l, weight, NULL, e) < 0) goto fail;
    } else {
        if (check_float(weight, e) < 0) goto fail;
        const void *plain = weight->data;
        if (!usable_in_place(weight, p->precision)) {
            size_t bytes = align64((size_t)p->out * (size_t)p->in * esize(p));
            void *room = stage_room(stage, bytes);
            if (!room) {
                err_set(e, ERR_RESOURCE, "no memory to pack a weight of %zu bytes", bytes);
                goto fail;
            }
            convert(room, weight, p->precision);
            plain = room;
        }
        struct gemm_kind k = kind_of(p, 0, l->bias != NULL);
        if (gemm_open(&l->parts[0], &k, plain, l->bias, e) < 0) goto fail;
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
    for (int i = 0; l->parts && i < parts_of(&l->p); i++)
        gemm_close(l->parts[i]);
    free(l->parts);
    free(l->weight);
    free(l->bias);
    free(l);
}

static void rebind_parts(struct linear *l, const void *weight)
{
    size_t bytes = (size_t)PART * (size_t)l->p.in * esize(&l->p);
    for (int i = 0; i < parts_of(&l->p); i++)
        gemm_rebind(l->parts[i], (const char *)weight + (size_t)i * bytes,
                    l->bias ? l->bias + (size_t)i * PART : NULL);
}

int linear_rebind(struct linear *l, const struct tensor *weight, const struct tensor *bias,
                  struct err *e)
{
    if (check_float(weight, e) < 0 || set_bias(l, bias, e) < 0) return -1;
    if (usable_in_place(weight, l->p.precision)) {
        rebind_parts(l, weight->data);
        return 0;
    }
    size_t bytes = align64((size_t)l->p.out * (size_t)l->p.in * esize(&l->p));
    if (!l->weight) l->weight = aligned_alloc(64, bytes);
    if (!l->weight) return err_set(e, ERR_RESOURCE, "no memory for a weight of %zu bytes", bytes);
    convert(l->weight, weight, l->p.precision);
    rebind_parts(l, l->weight);
    return 0;
}

size_t linear_bytes(const struct linear_params *p)
{
    return align64((size_t)p->out * (size_t)p->in * esize(p)) + align64((size_t)p->out * 4);
}

const char *ops_backend(void) { return gemm_backend(); }

bool ops_are_slow(void) { return gemm_is_slow(); }

bool ops_has_bf16(void) { return gemm_has_bf16(); }
