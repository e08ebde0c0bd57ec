/* Linear layers: weights to the precision's type, packed once; inputs rounded, products by the
 * backend, activation and rounding by rows.c. See ops.h.
 *
 * A packed layer's rows are cut into chunks, a borrowed one's outputs into parts: both by the shape
 * alone, each by one thread from rounding to activation. So neither the number of threads nor which
 * of them does what changes a bit, and a chunk stays in the cache of its core. */
#include "model/ops/backend.h"

#include "model/base/threads.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#define PART 256 /* outputs of a borrowed layer that one thread computes */
#define CHUNKS 16 /* of a few thousand rows: shared evenly by 2, 4, 8 or 16 threads */
#define CHUNK_LEAST 128 /* rows: each chunk reads, and oneDNN 2.6 packs, the whole weight again */
#define CHUNK_MOST 384

struct linear {
    struct linear_params p;
    struct gemm **parts; /* [parts_of(&p)] */
    void *weight; /* own copy of the type, when borrowing cannot use the file's bytes */
    float *bias; /* own fp32 copy, or NULL */
};

static int parts_of(const struct linear_params *p)
{
    return p->borrow ? (p->out + PART - 1) / PART : 1;
}

static struct gemm_kind kind_of(const struct linear_params *p, int part, bool bias)
{
    int out = p->out;
    if (p->borrow) out = p->out - part * PART < PART ? p->out - part * PART : PART;
    return (struct gemm_kind){.type = p->precision == PRECISION_BF16 ? GEMM_BF16 : GEMM_F32,
                              .out = out,
                              .in = p->in,
                              .bias = bias,
                              .borrow = p->borrow};
}

static int chunk_rows(const struct linear_params *p, int rows)
{
    if (rows < 1) return 1;
    if (p->borrow) return rows;
    int want = rows / CHUNKS;
    if (want < CHUNK_LEAST) want = CHUNK_LEAST;
    if (want > CHUNK_MOST) want = CHUNK_MOST;
    int chunks = (rows + want - 1) / want;
    return (rows + chunks - 1) / chunks;
}

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

/* --- Scratch: a worker's room holds what its calls need beside x and y --- */

/* Room for the rounded copy of x. */
static size_t input_bytes(const struct linear_params *p, int rows)
{
    return p->precision == PRECISION_FP32 ? 0 : align64((size_t)rows * (size_t)p->in * esize(p));
}

/* Where in a worker's room things lie. */
struct room {
    size_t pad, x, y; /* bytes: the backend's; rounded rows; a part's result, or a chain's middle */
    size_t x2; /* the middle as the second layer takes it */
};

static size_t room_bytes(const struct room *r) { return r->pad + r->x + r->y + r->x2; }

static struct room room_of(const struct linear_params *p, int rows, size_t pad)
{
    struct room r = {.pad = pad};
    if (p->borrow)
        r.y = align64((size_t)rows * PART * sizeof(float));
    else
        r.x = input_bytes(p, chunk_rows(p, rows));
    return r;
}

static struct room chain_room(const struct linear_params *first, const struct linear_params *second,
                              int rows, size_t pad)
{
    int chunk = chunk_rows(first, rows);
    return (struct room){.pad = pad,
                         .x = input_bytes(first, chunk),
                         .y = align64((size_t)chunk * (size_t)first->out * sizeof(float)),
                         .x2 =
                             second->precision == PRECISION_BF16 ? input_bytes(second, chunk) : 0};
}

static size_t run_bytes(const struct linear_params *p, int rows, const struct room *r)
{
    return (p->borrow ? input_bytes(p, rows) : 0) + (size_t)threads_count() * room_bytes(r);
}

/* The backend's scratch for the largest of the calls that `rows` rows are cut into. l: prepares
 * them; NULL: asks only. */
static int pad_of(size_t *pad, struct linear *l, const struct linear_params *p, int rows,
                  struct err *e)
{
    int chunk = chunk_rows(p, rows), counts[] = {chunk, rows % chunk};
    for (int i = 0; i < 2 && counts[i]; i++)
        for (int part = 0; part < parts_of(p); part++) {
            size_t bytes;
            if (l) {
                if (gemm_prepare(l->parts[part], counts[i], &bytes, e) < 0) return -1;
            } else {
                if (part > 0 && part < parts_of(p) - 1) continue; /* as the first */
                struct gemm_kind k = kind_of(p, part, true);
                bytes = gemm_scratch(&k, counts[i]);
            }
            bytes = align64(bytes);
            if (bytes > *pad) *pad = bytes;
        }
    return 0;
}

size_t linear_scratch(const struct linear_params *p, int rows)
{
    size_t pad = 0;
    struct err none;
    pad_of(&pad, NULL, p, rows, &none);
    struct room r = room_of(p, rows, pad);
    return run_bytes(p, rows, &r);
}

size_t linear_chain_scratch(const struct linear_params *first, const struct linear_params *second,
                            int rows)
{
    size_t pad = 0;
    struct err none;
    pad_of(&pad, NULL, first, rows, &none);
    pad_of(&pad, NULL, second, rows, &none);
    struct room r = chain_room(first, second, rows, pad);
    return run_bytes(first, rows, &r);
}

int linear_prepare(struct linear *l, int rows, size_t *scratch, struct err *e)
{
    size_t pad = 0;
    if (pad_of(&pad, l, &l->p, rows, e) < 0) return -1;
    struct room r = room_of(&l->p, rows, pad);
    *scratch = run_bytes(&l->p, rows, &r);
    return 0;
}

int linear_prepare_chain(struct linear *first, struct linear *second, int rows, size_t *scratch,
                         struct err *e)
{
    size_t pad = 0;
    if (pad_of(&pad, first, &first->p, rows, e) < 0 ||
        pad_of(&pad, second, &second->p, rows, e) < 0)
        return -1;
    struct room r = chain_room(&first->p, &second->p, rows, pad);
    *scratch = run_bytes(&first->p, rows, &r);
    return 0;
}

/* --- Running --- */

struct run {
    struct linear *const *layers; /* that read x */
    float *const *y;
    int n;
    struct linear *second; /* reads what layers[0] makes, which goes nowhere else; NULL: none */
    float *end; /* its result */
    const float *x;
    const void *narrow; /* x rounded for all, or NULL: each chunk by itself */
    int rows, chunk;
    char *rooms;
    struct room room;
    int failed; /* the backend's code, of any task */
};

static void keep_first(struct run *r, int code)
{
    if (code) __atomic_store_n(&r->failed, code, __ATOMIC_RELAXED);
}

/* n numbers as products of this precision take them. */
static void narrow(void *dst, const float *x, size_t n, enum precision precision)
{
    float *f = dst;
    if (precision == PRECISION_BF16) {
        row_ops_pick()->to_bf16(dst, x, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        f[i] = bf16_round(x[i]);
}

/* Activation and rounding of a result [rows, features] that lies together. */
static void finish(const struct linear_params *p, float *y, int rows, int features)
{
    bool round = p->precision != PRECISION_FP32 && p->round_out;
    if (p->act == ACT_NONE && !round) return;
    for (int r = 0; r < rows; r++)
        row_ops_pick()->act_row(y + (size_t)r * (size_t)features, features, p->act, round);
}

static void run_second(struct run *r, float *mid, void *narrowed, void *pad, int first, int rows,
                       int worker)
{
    const struct linear_params *p = &r->second->p;
    const void *in = mid; /* emulated: rounded already */
    if (p->precision == PRECISION_BF16) {
        narrow(narrowed, mid, (size_t)rows * (size_t)p->in, p->precision);
        in = narrowed;
    }
    float *y = r->end + (size_t)first * (size_t)p->out;
    keep_first(r, gemm_run(r->second->parts[0], y, in, rows, pad, worker));
    finish(p, y, rows, p->out);
}

static void chunk_task(void *ctx, int task, int worker)
{
    struct run *r = ctx;
    char *pad = r->rooms + (size_t)worker * room_bytes(&r->room), *at = pad + r->room.pad;
    const struct linear_params *p = &r->layers[0]->p;
    int first = task * r->chunk, rows = r->rows - first < r->chunk ? r->rows - first : r->chunk;
    const float *x = r->x + (size_t)first * (size_t)p->in;
    const void *in = x;
    if (p->precision != PRECISION_FP32) {
        narrow(at, x, (size_t)rows * (size_t)p->in, p->precision);
        in = at;
    }
    float *mid = (float *)(void *)(at + r->room.x);
    for (int i = 0; i < r->n; i++) {
        p = &r->layers[i]->p;
        float *y = r->second ? mid : r->y[i] + (size_t)first * (size_t)p->out;
        keep_first(r, gemm_run(r->layers[i]->parts[0], y, in, rows, pad, worker));
        finish(p, y, rows, p->out);
    }
    if (r->second) run_second(r, mid, at + r->room.x + r->room.y, pad, first, rows, worker);
}

static void narrow_task(void *ctx, int task, int worker)
{
    const struct run *r = ctx;
    const struct linear_params *p = &r->layers[0]->p;
    size_t at = (size_t)task * (size_t)p->in;
    (void)worker;
    narrow((char *)(uintptr_t)r->narrow + at * esize(p), r->x + at, (size_t)p->in, p->precision);
}

/* A part of a borrowed layer: into the worker's room, then to its columns. */
static void part_task(void *ctx, int task, int worker)
{
    struct run *r = ctx;
    const struct linear_params *p = &r->layers[0]->p;
    char *pad = r->rooms + (size_t)worker * room_bytes(&r->room);
    float *y = (float *)(void *)(pad + r->room.pad);
    int width = kind_of(p, task, false).out;
    const void *in = r->narrow ? r->narrow : (const void *)r->x;
    keep_first(r, gemm_run(r->layers[0]->parts[task], y, in, r->rows, pad, worker));
    finish(p, y, r->rows, width);
    for (int i = 0; i < r->rows; i++)
        memcpy(r->y[0] + (size_t)i * (size_t)p->out + (size_t)task * PART,
               y + (size_t)i * (size_t)width, (size_t)width * sizeof(float));
}

static int run_tasks(struct run *r, int tasks, void (*task)(void *, int, int), struct err *e)
{
    threads_run(tasks, task, r);
    return r->failed ? gemm_fail(r->failed, e) : 0;
}

static int run_borrowed(struct run *r, char *scratch, struct err *e)
{
    const struct linear_params *p = &r->layers[0]->p;
    if (p->precision != PRECISION_FP32) {
        r->narrow = scratch;
        threads_run(r->rows, narrow_task, r);
    }
    r->rooms = scratch + input_bytes(p, r->rows);
    return run_tasks(r, parts_of(p), part_task, e);
}

static int run_chunks(struct run *r, char *scratch, struct err *e)
{
    r->rooms = scratch;
    r->chunk = chunk_rows(&r->layers[0]->p, r->rows);
    return run_tasks(r, (r->rows + r->chunk - 1) / r->chunk, chunk_task, e);
}

int linear_run(struct linear *l, float *y, const float *x, int rows, void *scratch, struct err *e)
{
    struct run r = {.layers = &l, .y = &y, .n = 1, .x = x, .rows = rows};
    void *owned = NULL;
    size_t pad = 0;
    if (pad_of(&pad, l, &l->p, rows, e) < 0) return -1;
    r.room = room_of(&l->p, rows, pad);
    size_t want = run_bytes(&l->p, rows, &r.room);
    if (want && !scratch) {
        owned = scratch = aligned_alloc(64, want);
        if (!owned) return err_set(e, ERR_RESOURCE, "no memory for %zu bytes of scratch", want);
    }
    int rc = l->p.borrow ? run_borrowed(&r, scratch, e) : run_chunks(&r, scratch, e);
    free(owned);
    return rc;
}

int linear_run_several(struct linear *const *l, float *const *y, int n, const float *x, int rows,
                       void *scratch, struct err *e)
{
    struct run r = {.layers = l, .y = y, .n = n, .x = x, .rows = rows};
    size_t pad = 0;
    for (int i = 0; i < n; i++) {
        assert(l[i]->p.in == l[0]->p.in && l[i]->p.precision == l[0]->p.precision);
        assert(!l[i]->p.borrow);
        if (pad_of(&pad, l[i], &l[i]->p, rows, e) < 0) return -1;
    }
    r.room = room_of(&l[0]->p, rows, pad);
    return run_chunks(&r, scratch, e);
}

int linear_run_chain(struct linear *first, struct linear *second, float *y, const float *x,
                     int rows, void *scratch, struct err *e)
{
    struct run r = {.layers = &first, .n = 1, .second = second, .end = y, .x = x, .rows = rows};
    size_t pad = 0;
    assert(first->p.out == second->p.in && first->p.precision == second->p.precision);
    assert(first->p.precision == PRECISION_FP32 || first->p.round_out); /* mid is what is read */
    assert(!first->p.borrow && !second->p.borrow);
    if (pad_of(&pad, first, &first->p, rows, e) < 0 ||
        pad_of(&pad, second, &second->p, rows, e) < 0)
        return -1;
    r.room = chain_room(&first->p, &second->p, rows, pad);
    return run_chunks(&r, scratch, e);
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
