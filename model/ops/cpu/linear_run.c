/* Linear layers, running: inputs rounded, products by the library, activation and rounding by row.
 *
 * A packed layer's rows are cut into chunks, a borrowed one's outputs into parts: both by the shape
 * alone, each by one thread from rounding to activation. So neither the number of threads nor which
 * of them does what changes a bit, and a chunk stays in the cache of its core. */
#include "model/ops/cpu/linear_internal.h"

#include "model/base/threads.h"
#include "model/ops/cpu/row_ops.h"

#include <assert.h>
#include <stdlib.h>

#define CHUNKS 16 /* of a few thousand rows: shared evenly by 2, 4, 8 or 16 threads */
#define CHUNK_LEAST 128 /* rows: each chunk reads, and oneDNN 2.6 packs, the whole weight again */
#define CHUNK_MOST 384

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

/* How many may work in the caller's scratch: the pool may have grown since it was sized. */
static int workers_of(const struct linear *l)
{
    int now = threads_count();
    return l->workers && l->workers < now ? l->workers : now;
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
    l->workers = threads_count();
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
    first->workers = second->workers = threads_count();
    *scratch = run_bytes(&first->p, rows, &r);
    return 0;
}

/* --- Running --- */

struct linear_job {
    struct linear *const *layers; /* that read x */
    float *const *y;
    int n;
    struct linear *second; /* reads what layers[0] makes, which goes nowhere else; NULL: none */
    float *end; /* its result */
    const float *x;
    const void *narrow; /* x rounded for all, or NULL: each chunk by itself */
    int rows, chunk, workers;
    char *rooms;
    struct room room;
    int failed; /* the backend's code, of any task */
};

static void keep_first(struct linear_job *r, int code)
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

static void run_second(struct linear_job *r, float *mid, void *narrowed, void *pad, int first,
                       int rows, int worker)
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
    struct linear_job *r = ctx;
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
    const struct linear_job *r = ctx;
    const struct linear_params *p = &r->layers[0]->p;
    size_t at = (size_t)task * (size_t)p->in;
    (void)worker;
    narrow((char *)(uintptr_t)r->narrow + at * esize(p), r->x + at, (size_t)p->in, p->precision);
}

/* A part of a borrowed layer: into the worker's room, then to its columns. */
static void part_task(void *ctx, int task, int worker)
{
    struct linear_job *r = ctx;
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

static int run_tasks(struct linear_job *r, int tasks, void (*task)(void *, int, int), struct err *e)
{
    threads_run_most(r->workers, tasks, task, r);
    return r->failed ? gemm_fail(r->failed, e) : 0;
}

static int run_borrowed(struct linear_job *r, char *scratch, struct err *e)
{
    const struct linear_params *p = &r->layers[0]->p;
    if (p->precision != PRECISION_FP32) {
        r->narrow = scratch;
        threads_run(r->rows, narrow_task, r);
    }
    r->rooms = scratch + input_bytes(p, r->rows);
    return run_tasks(r, parts_of(p), part_task, e);
}

static int run_chunks(struct linear_job *r, char *scratch, struct err *e)
{
    r->rooms = scratch;
    r->chunk = chunk_rows(&r->layers[0]->p, r->rows);
    return run_tasks(r, (r->rows + r->chunk - 1) / r->chunk, chunk_task, e);
}

int linear_run(struct linear *l, float *y, const float *x, int rows, void *scratch, struct err *e)
{
    struct linear_job r = {.layers = &l, .y = &y, .n = 1, .x = x, .rows = rows};
    void *owned = NULL;
    size_t pad = 0;
    if (pad_of(&pad, l, &l->p, rows, e) < 0) return -1;
    r.room = room_of(&l->p, rows, pad);
    size_t want = run_bytes(&l->p, rows, &r.room);
    r.workers = scratch ? workers_of(l) : threads_count();
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
    struct linear_job r = {.layers = l, .y = y, .n = n, .x = x, .rows = rows};
    size_t pad = 0;
    for (int i = 0; i < n; i++) {
        assert(l[i]->p.in == l[0]->p.in && l[i]->p.precision == l[0]->p.precision);
        assert(!l[i]->p.borrow);
        if (pad_of(&pad, l[i], &l[i]->p, rows, e) < 0) return -1;
    }
    r.room = room_of(&l[0]->p, rows, pad);
    r.workers = workers_of(l[0]);
    return run_chunks(&r, scratch, e);
}

int linear_run_chain(struct linear *first, struct linear *second, float *y, const float *x,
                     int rows, void *scratch, struct err *e)
{
    struct linear_job r = {
        .layers = &first, .n = 1, .second = second, .end = y, .x = x, .rows = rows};
    size_t pad = 0;
    assert(first->p.out == second->p.in && first->p.precision == second->p.precision);
    assert(first->p.precision == PRECISION_FP32 || first->p.round_out); /* mid is what is read */
    assert(!first->p.borrow && !second->p.borrow);
    if (pad_of(&pad, first, &first->p, rows, e) < 0 ||
        pad_of(&pad, second, &second->p, rows, e) < 0)
        return -1;
    r.room = chain_room(&first->p, &second->p, rows, pad);
    r.workers = workers_of(first);
    return run_chunks(&r, scratch, e);
}
