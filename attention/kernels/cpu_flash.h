/* The skeleton of every flash-style kernel on a CPU: online softmax over packed keys and values.
 *
 * An instruction set includes this file after defining
 *   FLASH_MR   rows a micro-kernel holds        FLASH_NR  keys of a panel of packed K
 *   FLASH_SUB  rows whose scores stay in L1     FLASH_QB  rows of a task, at most
 *   FLASH_KB   keys of a chunk (whole panels)   FLASH_P   1: probabilities are stored apart, packed
 *   packed     element of packed q, k, v        flash_pad_k(d), flash_pad_v(d): padded head_dim
 *   FLASH_ENTER, FLASH_LEAVE  optional: what a thread does round a task
 * and then defines the six static functions declared below.
 *
 * K and V of a few heads are packed once (flash_group), then a task is (head, query block): it
 * walks its row's kept keys in chunks of up to FLASH_KB / FLASH_NR panels, and each chunk (L2)
 * serves all its rows, FLASH_SUB at a time (L1):
 *
 *   S = q·kᵀ;   m' = max(m, S);   alpha = exp2(m - m');
 *   P = exp2(S - m');   l = l*alpha + P;   O = O*alpha + P·v
 *
 * Scores are in units of log2: log2(e)/sqrt(D) is folded into q, or applied to S where q stays
 * bf16. The arithmetic of one query depends on its kept keys alone: not on the encoding of the
 * mask, not on the rows beside it, not on the threads. */
#include "attention/kernels/cpu_vec.h"
#include "attention/kernels/kernels.h"
#include "model/base/arena.h"
#include "model/base/threads.h"

#define FLASH_PANELS (FLASH_KB / FLASH_NR)
#define FLASH_LOG2E 1.4426950408889634
#if !defined(FLASH_ENTER)
#define FLASH_ENTER() ((void)0)
#define FLASH_LEAVE() ((void)0)
#endif
#define FLASH_PACK 8 /* panels a packing task: enough work to be worth handing out */

struct flash_panel { /* NR keys of a chunk, of which [lo, hi) are kept */
    const packed *k;
    size_t key; /* of lane 0; whole panels, so always a multiple of NR */
    const float *bias; /* [NR] log2 units, -inf outside [lo, hi); NULL: nothing to add */
    int lo, hi;
};
/* kept keys that follow each other in memory and in S: [key, key + n) at column */
struct flash_keys {
    size_t key;
    int column, n;
};
struct flash_chunk {
    int n, runs;
    struct flash_panel panel[FLASH_PANELS];
    struct flash_keys run[FLASH_PANELS]; /* the same keys, in the fewest pieces */
};

struct flash_worker {
    packed *q; /* [QB, pad_k] as flash_pack_q() lays it */
    float *s; /* [SUB, KB] scores, then probabilities */
    packed *p; /* FLASH_P: [SUB, KB] */
    float *o; /* [QB, pad_v] */
    float *m; /* [QB] running maximum, log2 units */
    float *l; /* [QB, VLEN] running sum, a lane each */
    float *rowmax; /* [SUB, VLEN] of this chunk, a lane each */
    float *alpha; /* [SUB] */
    float *bias; /* [KB] */
};

struct flash {
    const struct attn_work *w;
    int d, dk, dv; /* head_dim; padded for q·k; padded for p·v */
    int panels; /* of one head's keys */
    int group, heads; /* heads packed at once at most; now */
    int first; /* head */
    int tile, parts; /* tokens of a query row of the plan; tasks it is cut into */
    int block; /* rows of a task */
    float scale; /* log2(e) / sqrt(d) */
    packed *k, *v; /* [group][panels * NR * dk], [group][panels * NR * dv] */
    char *workers; /* one carved region each */
    size_t worker_bytes;
    uint32_t *order; /* sparse plans: tasks, longest first */
};

/* What an instruction set provides. rows is a multiple of MR; row 0 is row `at` of the block. */
static void flash_pack_q(const struct flash *f, packed *dst, const float *q, size_t stride,
                         int rows);
static void flash_pack_k(const struct flash *f, packed *dst, const float *k, size_t stride,
                         int keys);
/* keys of panel `at / NR`, channels in whatever panels flash_values() wants; zeros past keys, d */
static void flash_pack_v(const struct flash *f, packed *dst, const float *v, size_t stride, int at,
                         int keys);
/* w->s, w->rowmax */
static void flash_scores(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         int at, int rows);
/* w->s → probabilities; w->m, w->l, w->alpha */
static void flash_probs(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                        int at, int rows);
static void flash_values(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         const packed *v, int at, int rows);

ALWAYS_INLINE int flash_min(int a, int b) { return a < b ? a : b; }
ALWAYS_INLINE int flash_up(int a, int to) { return (a + to - 1) / to * to; }

/* A new maximum of row i (of the sub-block) and what it makes of the sums so far; returns the value
 * to subtract. Shared by all flash_probs(). */
ALWAYS_INLINE float flash_new_max(struct flash_worker *w, int at, int i, int degree)
{
    float old = w->m[at + i], most = v_hmax(v_load(w->rowmax + i * VLEN));
    if (!(most > old)) most = old;
    float base = most == -INFINITY ? 0.0f : most; /* nothing kept yet: -inf - 0, not -inf - -inf */
    vec alpha = v_set1(1.0f); /* exactly: the polynomial's 2^0 is not */
    if (most != old) alpha = v_exp2(v_set1(old - base), degree);
    w->m[at + i] = most;
    v_store(w->l + (at + i) * VLEN, v_mul(v_load(w->l + (at + i) * VLEN), alpha));
    float first[VLEN];
    v_store(first, alpha);
    w->alpha[i] = first[0];
    return base;
}

/* Heads packed together: all whose panels fit 32 MiB (past that they come from memory anyway), but
 * never so few that the threads wait for each other. */
static int flash_group(const struct attn_size *s)
{
    size_t keys = (size_t)flash_up(s->len_k, FLASH_NR);
    size_t head =
        keys * (size_t)(flash_pad_k(s->head_dim) + flash_pad_v(s->head_dim)) * sizeof(packed);
    int blocks = (s->len_q + FLASH_QB - 1) / FLASH_QB;
    size_t fit = ((size_t)32 << 20) / head,
           busy = ((size_t)s->threads * 8 + (size_t)blocks - 1) / (size_t)blocks;
    size_t n = fit > busy ? fit : busy;
    if (n < 1) n = 1;
    if (n >= (size_t)s->n_heads) return s->n_heads;
    int groups =
        (s->n_heads + (int)n - 1) / (int)n; /* of equal size, or the last one idles threads */
    return (s->n_heads + groups - 1) / groups;
}

/* Rows of a task: FLASH_QB, halved while there are too few tasks to go round. */
static int flash_dense_block(const struct attn_size *s)
{
    int b = FLASH_QB;
    while (b > FLASH_SUB &&
           (int64_t)s->n_heads * ((s->len_q + b - 1) / b) < 3 * (int64_t)s->threads)
        b = flash_up(b / 2, FLASH_SUB);
    return b;
}

static void flash_carve_worker(const struct flash *f, struct flash_worker *w, struct arena *a)
{
    size_t kb = FLASH_KB, qb = FLASH_QB, sub = FLASH_SUB;
    w->q = arena_take(a, qb * (size_t)f->dk * sizeof *w->q);
    w->s = arena_take(a, sub * kb * sizeof *w->s);
    w->p = arena_take(a, FLASH_P ? sub * kb * sizeof *w->p : 0);
    w->o = arena_take(a, qb * (size_t)f->dv * sizeof *w->o);
    w->m = arena_take(a, qb * sizeof *w->m);
    w->l = arena_take(a, qb * VLEN * sizeof *w->l);
    w->rowmax = arena_take(a, sub * VLEN * sizeof *w->rowmax);
    w->alpha = arena_take(a, sub * sizeof *w->alpha);
    w->bias = arena_take(a, kb * sizeof *w->bias);
}

static void flash_carve(struct flash *f, const struct attn_size *s, struct arena *a)
{
    struct arena one = {0};
    struct flash_worker w;
    f->d = s->head_dim;
    f->dk = flash_pad_k(f->d);
    f->dv = flash_pad_v(f->d);
    f->panels = (s->len_k + FLASH_NR - 1) / FLASH_NR;
    f->group = flash_group(s);
    f->scale = (float)(FLASH_LOG2E / sqrt((double)f->d));
    size_t keys = (size_t)f->group * (size_t)f->panels * FLASH_NR;
    f->k = arena_take(a, keys * (size_t)f->dk * sizeof *f->k);
    f->v = arena_take(a, keys * (size_t)f->dv * sizeof *f->v);
    flash_carve_worker(f, &w, &one);
    f->worker_bytes = one.used;
    f->workers = arena_take(a, one.used * (size_t)s->threads);
    size_t tasks = 0;
    if (s->block_q > 0) {
        size_t rows = ((size_t)s->len_q + (size_t)s->block_q - 1) / (size_t)s->block_q;
        tasks = (size_t)f->group * rows * (((size_t)s->block_q + FLASH_QB - 1) / FLASH_QB);
    }
    f->order = arena_take(a, tasks * sizeof *f->order);
}

static size_t flash_scratch(const struct attn_size *s)
{
    struct flash f = {0};
    struct arena a = {0};
    flash_carve(&f, s, &a);
    return a.used;
}

static void flash_pack_task(void *ctx, int task, int worker)
{
    const struct flash *f = ctx;
    const struct attn_work *w = f->w;
    int per_head = (f->panels + FLASH_PACK - 1) / FLASH_PACK;
    int head = task / per_head, p0 = task % per_head * FLASH_PACK,
        p1 = flash_min(p0 + FLASH_PACK, f->panels);
    size_t stride = (size_t)w->size->n_heads * (size_t)f->d;
    size_t at = (size_t)(f->first + head) * (size_t)f->d;
    size_t keys = (size_t)head * (size_t)f->panels * FLASH_NR; /* packed before this head */
    (void)worker;
    for (int p = p0; p < p1; p++) {
        int key = p * FLASH_NR, n = flash_min(FLASH_NR, w->mask->len_k - key);
        size_t src = (size_t)key * stride + at;
        flash_pack_k(f, f->k + (keys + (size_t)key) * (size_t)f->dk, w->k + src, stride, n);
        flash_pack_v(f, f->v + keys * (size_t)f->dv, w->v + src, stride, key, n);
    }
}

static void flash_flush(const struct flash *f, struct flash_worker *w, struct flash_chunk *c,
                        const packed *v, int rows)
{
    if (!c->n) return;
    for (int at = 0; at < rows; at += FLASH_SUB) {
        int n = flash_min(FLASH_SUB, rows - at);
        flash_scores(f, w, c, at, n);
        flash_probs(f, w, c, at, n);
        flash_values(f, w, c, v, at, n);
    }
    c->n = c->runs = 0;
}

/* Adds keys [lo, hi) of the panel that starts at `key`. */
static void flash_push(const struct flash *f, struct flash_worker *w, struct flash_chunk *c,
                       const packed *k, size_t key, int lo, int hi)
{
    const float *bias = f->w->mask->key_bias;
    struct flash_panel *p = &c->panel[c->n];
    *p = (struct flash_panel){.k = k + key * (size_t)f->dk, .key = key, .lo = lo, .hi = hi};
    if (bias || lo > 0 || hi < FLASH_NR) {
        float *b = w->bias + c->n * FLASH_NR;
        for (int i = 0; i < FLASH_NR; i++) {
            if (i < lo || i >= hi)
                b[i] = -INFINITY;
            else
                b[i] = bias ? (float)(FLASH_LOG2E * (double)bias[key + (size_t)i]) : 0.0f;
        }
        p->bias = b;
    }
    struct flash_keys *last = c->runs ? &c->run[c->runs - 1] : NULL;
    int column = c->n * FLASH_NR + lo;
    if (last && last->key + (size_t)last->n == key + (size_t)lo && last->column + last->n == column)
        last->n += hi - lo;
    else
        c->run[c->runs++] = (struct flash_keys){key + (size_t)lo, column, hi - lo};
    c->n++;
}

static void flash_finish(const struct flash *f, const struct flash_worker *w, float *o,
                         size_t stride, int rows)
{
    bool round = f->w->size->precision != PRECISION_FP32;
    for (int i = 0; i < rows; i++, o += stride) {
        float l = v_hsum(v_load(w->l + i * VLEN)), inv = l == 0 ? 0 : 1 / l;
        const float *src = w->o + (size_t)i * (size_t)f->dv;
        if (!round && !f->w->accumulate) {
            for (int c = 0; c < f->d; c++)
                o[c] = src[c] * inv;
        } else if (!round) {
            for (int c = 0; c < f->d; c++)
                o[c] += src[c] * inv;
        } else {
            for (int c = 0; c < f->d; c++) {
                float x = bf16_round(src[c] * inv);
                o[c] = f->w->accumulate ? bf16_round(o[c] + x) : x;
            }
        }
    }
}

static void flash_task(void *ctx, int task, int worker)
{
    const struct flash *f = ctx;
    const struct attn_work *work = f->w;
    const struct block_mask *m = work->mask;
    if (m->map != BLOCK_MAP_DENSE) task = (int)f->order[task];
    int plan_rows = (m->len_q + f->tile - 1) / f->tile;
    int part = task % f->parts, row = task / f->parts % plan_rows,
        head = task / f->parts / plan_rows;
    int q0 = row * f->tile + part * f->block;
    int q1 = flash_min(q0 + f->block, flash_min(m->len_q - row * f->tile, f->tile) + row * f->tile);
    if (q0 >= q1) return;

    struct flash_worker w;
    struct arena a = {.base = f->workers + f->worker_bytes * (size_t)worker,
                      .size = f->worker_bytes};
    flash_carve_worker(f, &w, &a);
    size_t stride = (size_t)work->size->n_heads * (size_t)f->d;
    size_t at = (size_t)q0 * stride + (size_t)(f->first + head) * (size_t)f->d;
    int rows = flash_up(q1 - q0, FLASH_MR);
    for (int i = 0; i < rows; i += FLASH_MR)
        flash_pack_q(f, w.q + (size_t)i * (size_t)f->dk, work->q + at + (size_t)i * stride, stride,
                     flash_min(FLASH_MR, q1 - q0 - i));
    for (int i = 0; i < rows; i++)
        w.m[i] = -INFINITY;
    memset(w.l, 0, (size_t)rows * VLEN * sizeof *w.l);
    memset(w.o, 0, (size_t)rows * (size_t)f->dv * sizeof *w.o);

    FLASH_ENTER();
    size_t keys = (size_t)head * (size_t)f->panels * FLASH_NR;
    const packed *k = f->k + keys * (size_t)f->dk, *v = f->v + keys * (size_t)f->dv;
    struct flash_chunk c = {0};
    int plan = m->n_plans > 1 ? f->first + head : 0;
    for (struct block_run r = block_run_begin(m, plan, m->map == BLOCK_MAP_DENSE ? 0 : row);
         block_run_next(&r);) {
        for (int key = r.k0 / FLASH_NR * FLASH_NR; key < r.k1; key += FLASH_NR) {
            flash_push(f, &w, &c, k, (size_t)key, key < r.k0 ? r.k0 - key : 0,
                       flash_min(FLASH_NR, r.k1 - key));
            if (c.n == FLASH_PANELS) flash_flush(f, &w, &c, v, rows);
        }
    }
    flash_flush(f, &w, &c, v, rows);
    FLASH_LEAVE();
    flash_finish(f, &w, work->o + at, stride, q1 - q0);
}

/* Tasks by falling number of kept keys (256 buckets), so that no long one is left for the end. */
static void flash_sort(const struct flash *f)
{
    const struct block_mask *m = f->w->mask;
    uint32_t start[257] = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (int head = 0; head < f->heads; head++) {
            for (int row = 0; row < m->rows; row++) {
                int64_t kept = 0;
                for (struct block_run r =
                         block_run_begin(m, m->n_plans > 1 ? f->first + head : 0, row);
                     block_run_next(&r);)
                    kept += r.k1 - r.k0;
                int bucket = 255 - (int)(kept * 255 / m->len_k);
                uint32_t first = (uint32_t)((head * m->rows + row) * f->parts);
                if (pass == 0)
                    start[bucket + 1] += (uint32_t)f->parts;
                else
                    for (int i = 0; i < f->parts; i++)
                        f->order[start[bucket]++] = first + (uint32_t)i;
            }
        }
        if (pass == 0)
            for (int i = 0; i < 256; i++)
                start[i + 1] += start[i];
    }
}

static void flash_run(const struct attn_work *work)
{
    const struct block_mask *m = work->mask;
    struct flash f = {.w = work};
    struct arena a = {.base = work->scratch, .size = SIZE_MAX};
    bool dense = m->map == BLOCK_MAP_DENSE;
    flash_carve(&f, work->size, &a);
    f.tile = dense ? m->len_q : m->block_q;
    f.block = flash_dense_block(work->size);
    f.parts = (f.tile + f.block - 1) / f.block;
    if (!dense) { /* equal parts of a query tile */
        f.parts = (f.tile + FLASH_QB - 1) / FLASH_QB;
        f.block = flash_up((f.tile + f.parts - 1) / f.parts, FLASH_MR);
    }
    for (f.first = 0; f.first < work->size->n_heads; f.first += f.group) {
        f.heads = flash_min(f.group, work->size->n_heads - f.first);
        threads_run(f.heads * ((f.panels + FLASH_PACK - 1) / FLASH_PACK), flash_pack_task, &f);
        if (!dense) flash_sort(&f);
        threads_run(f.heads * f.parts * (dense ? 1 : m->rows), flash_task, &f);
    }
}
