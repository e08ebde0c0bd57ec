/* The skeleton of every flash-style kernel on a CPU: online softmax over packed keys and values.
 *
 * An instruction set includes this file after defining
 *   FLASH_MR   rows a micro-kernel holds        FLASH_NR  keys of a panel of packed K
 *   FLASH_SUB  rows whose scores stay in L1     FLASH_DB  rows of a task of a dense plan
 *   FLASH_KB   keys of a chunk (whole panels)   FLASH_QB  rows of any task, at most
 *   FLASH_P    1: probabilities are stored apart, packed
 *   packed     element of packed q and k        packed_v  of packed v and probabilities
 *   flash_pad_k(d), flash_pad_v(d): padded head_dim
 *   FLASH_FETCH_V  channels of a panel of packed v; 0: all, those of NR keys lie together
 *   FLASH_ENTER, FLASH_LEAVE  optional: what a thread does round a task
 *   FLASH_CODES  optional, 1: q and k become codes (cpu_codes.h)
 *   flash_key(d)  optional: elements of packed k a key takes, more than flash_pad_k(d) where
 *                 something stands behind each panel
 * and then defines the six static functions declared below.
 *
 * K and V of a few heads are packed once (flash_group), then a task is (head, some queries of one
 * row of the plan): it walks the row's kept keys in chunks of up to FLASH_KB / FLASH_NR panels, and
 * each chunk (L2) serves all its rows, FLASH_SUB at a time (L1):
 *
 *   S = q·kᵀ;   m' = max(m, S);   alpha = exp2(m - m');
 *   P = exp2(S - m');   l = l*alpha + P;   O = O*alpha + P·v
 *
 * Scores are in units of log2: log2(e)/sqrt(D) is folded into q, or applied to S where q stays
 * bf16. The arithmetic of one query depends on the plan and its kept keys alone: not on the rows
 * beside it, not on the threads.
 *
 *   cpu_flash_keys.h   packing: all keys of a head in their order, or those that a row names
 *   cpu_flash_task.h   one task: tiles, columns, means, the rest
 *   cpu_flash_out.h    what it writes
 *   cpu_flash_run.h    tasks, their order, the mass of tiles, the job */
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
#if !defined(FLASH_CODES)
#define FLASH_CODES 0
#endif
#if !defined(flash_key)
#define flash_key(d) flash_pad_k(d)
#endif
#define FLASH_CAN ATTN_FLASH_CAN

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
    float *biases; /* [KB] of its panels */
    int n, runs;
    struct flash_panel panel[FLASH_PANELS];
    struct flash_keys run[FLASH_PANELS]; /* the same keys, in the fewest pieces */
    int picked; /* positions in flash_worker.pick, not yet packed: then there are no panels */
};

/* Lines of the next chunk's panels, asked for a few at a time between the rows of this one: all at once
 * they would hold up the core, which has only so many requests under way. */
struct flash_ahead {
    int n, at; /* pieces; the one under way */
    size_t offset; /* bytes of it that were asked for */
    int lines; /* a row */
    struct flash_piece {
        const char *from;
        size_t bytes;
    } piece[FLASH_PANELS * (1 + ATTN_MAX_HEAD_DIM / VLEN)];
    /* and rows that are needed when the task ends, one between two rows of probabilities: of o, its own;
     * of q, the next one's */
    struct flash_far {
        const struct heads *of;
        int plan, head, at, end; /* positions */
    } far[2];
    const struct attn_order *order;
};

struct flash_worker {
    struct flash_ahead ahead;
    packed *q; /* [QB, pad_k] as flash_pack_q() lays it */
    float *s; /* [SUB, KB] scores, then probabilities */
    packed_v *p; /* FLASH_P: [SUB, KB] */
    float *o; /* [QB, pad_v] */
    float *m; /* [QB] running maximum, log2 units */
    float *l; /* [QB, VLEN] running sum, a lane each */
    float *rowmax; /* [SUB, VLEN] of this chunk, a lane each */
    float *alpha; /* [SUB] */
    float *weight; /* [SUB] FLASH_CODES: of the products of this chunk */
    float *q_scale, *shift; /* [QB] FLASH_CODES: of a row's codes; what smoothing took from lse */
    int q_block; /* FLASH_CODES: that of the task's rows, of ATTN_CODE_BLOCK positions */
    int32_t *q_sum; /* [QB] FLASH_CODES: what a row's sums begin from: cpu_code_scores.h */
    float *bias[2]; /* [KB] of one chunk each */
    float *rows; /* [max(MR, NR), d] gathered by an order */
    /* when a job may need them: */
    packed *k; /* panels of keys that a row names, [KB, key] */
    packed_v *v; /* [KB, pad_v] */
    int32_t *pick; /* [KB] their positions */
    float *part, *o_then, *m_then, *l_then; /* MAKE_RESIDUAL: the plan's o; sums before means */
    float *mass; /* [KB] of each key of a chunk */
};

struct flash_task { /* queries of one row of the plan: positions [q0, q0 + n) */
    int head; /* of the group */
    int row, q0, n;
    uint32_t cost; /* 0 .. 255 */
};

struct flash {
    const struct attn_job *j;
    const struct attn_plan *p;
    int d, dk, dv, key; /* head_dim; padded for q·k; padded for p·v; elements a packed key */
    int panels, means; /* of one head's keys, and of its mean keys behind them */
    size_t keys; /* of one head: flash_keys_apart(panels and means) */
    int group, heads; /* heads packed together at once at most; now */
    int first; /* of the plan's heads */
    bool by_rows; /* tasks are rows of the plan, else parts of all queries */
    bool gather; /* each task packs the keys that its row names */
    int n_tasks;
    float scale; /* log2(e) / sqrt(d) */
    packed *k; /* [group][keys * key] */
    packed_v *v; /* the same by dv */
    float *k_less, *v_scale; /* [group, d] FLASH_CODES: what is taken off keys; of values' codes */
    /* smooth_q, else NULL: [group, q_blocks, d] means of q; [group, q_blocks, keys] their scores, of what
     * is packed, in log2 units */
    float *q_mean, *delta;
    int q_blocks; /* of ATTN_CODE_BLOCK positions */
    char *workers; /* one carved region each */
    size_t worker_bytes;
    struct flash_task *tasks;
    uint32_t *order; /* of tasks, longest first */
};

/* What an instruction set provides. Row 0 is row `at` of the task, rows up to the next multiple of
 * MR may be computed as well; len: keys of a panel of channels of packed v; nth: head of the group. */
static void flash_pack_q(const struct flash *f, struct flash_worker *w, int nth, int at,
                         const float *q, size_t stride, int rows);
static void flash_pack_k(const struct flash *f, int nth, packed *dst, const float *k, size_t stride,
                         int keys);
/* keys of panel `at / NR`, channels in whatever panels flash_values() wants; zeros past keys, d */
static void flash_pack_v(const struct flash *f, int nth, packed_v *dst, size_t len, const float *v,
                         size_t stride, int at, int keys);
/* w->s, w->rowmax */
static void flash_scores(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         int at, int rows);
/* w->s → probabilities; w->m, w->l, w->alpha */
static void flash_probs(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                        int at, int rows);
static void flash_values(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         const packed_v *v, size_t len, int at, int rows);

#if FLASH_CODES
/* k_less and v_scale of the nth head of the group: cpu_flash_codes.h */
static void flash_codes_task(void *ctx, int nth, int worker);
#endif

ALWAYS_INLINE int flash_min(int a, int b) { return a < b ? a : b; }
ALWAYS_INLINE int flash_up(int a, int to) { return (a + to - 1) / to * to; }
ALWAYS_INLINE int flash_plan(const struct flash *f, int head) /* head: of the group */
{
    return f->p->per_head ? f->first + head : 0;
}

/* Asks for rows of positions [at, at + n) ahead of time: they are far apart, and come from memory. */
static void flash_fetch_rows(const struct heads *t, int head, const struct attn_order *o, int plan,
                             int at, int n)
{
    for (int i = 0; i < n; i++) {
        const float *x = heads_at(t, attn_token(o, plan, at + i), head);
        for (int c = 0; c < t->dim; c += 16)
            __builtin_prefetch(x + c, 0, 2);
    }
}

ALWAYS_INLINE void flash_fetch_some(struct flash_ahead *a)
{
    struct flash_far *far = &a->far[a->far[0].at == a->far[0].end];
    if (far->at < far->end) flash_fetch_rows(far->of, far->head, a->order, far->plan, far->at++, 1);
    for (int i = 0; i < a->lines && a->at < a->n; i++) {
        const struct flash_piece *p = &a->piece[a->at];
        __builtin_prefetch(p->from + a->offset, 0, 2);
        if ((a->offset += 64) >= p->bytes) a->at++, a->offset = 0;
    }
}

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

/* Keys from one panel of channels of packed v to the next, at least n. At a power of two all panels of a
 * chunk would claim the same sets of L2: a chunk apart they lie side by side. */
static size_t flash_keys_apart(size_t n)
{
    size_t chunk = FLASH_KB;
    return n < 4 * chunk ? n : (n + 3 * chunk - 1) / (4 * chunk) * (4 * chunk) + chunk;
}

/* Heads packed together: all whose panels fit 32 MiB (past that they come from memory anyway), but
 * never so few that the threads wait for each other. */
static int flash_group(const struct attn_size *s)
{
    size_t keys = (size_t)flash_up(s->len_k, FLASH_NR);
    size_t head = keys * ((size_t)flash_key(s->head_dim) * sizeof(packed) +
                          (size_t)flash_pad_v(s->head_dim) * sizeof(packed_v));
    int blocks = (s->len_q + FLASH_DB - 1) / FLASH_DB;
    size_t fit = ((size_t)32 << 20) / head,
           busy = ((size_t)s->threads * 8 + (size_t)blocks - 1) / (size_t)blocks;
    size_t n = fit > busy ? fit : busy;
    if (n < 1) n = 1;
    return n < (size_t)s->n_heads ? (int)n : s->n_heads;
}

static void flash_carve_worker(const struct flash *f, struct flash_worker *w, unsigned needs,
                               struct arena *a)
{
    size_t kb = FLASH_KB, qb = (size_t)flash_up(FLASH_QB, FLASH_MR), sub = FLASH_SUB,
           d = (size_t)f->d, dv = (size_t)f->dv;
    size_t rows = FLASH_MR > FLASH_NR ? FLASH_MR : FLASH_NR;
    w->q = arena_take(a, qb * (size_t)f->dk * sizeof *w->q);
    w->s = arena_take(a, sub * kb * sizeof *w->s);
    w->p = arena_take(a, FLASH_P ? sub * kb * sizeof *w->p : 0);
    w->o = arena_take(a, qb * dv * sizeof *w->o);
    w->m = arena_take(a, qb * sizeof *w->m);
    w->l = arena_take(a, qb * VLEN * sizeof *w->l);
    w->rowmax = arena_take(a, sub * VLEN * sizeof *w->rowmax);
    w->alpha = arena_take(a, sub * sizeof *w->alpha);
    w->weight = arena_take(a, FLASH_CODES ? sub * sizeof *w->weight : 0);
    w->q_scale = arena_take(a, FLASH_CODES ? qb * sizeof *w->q_scale : 0);
    w->shift = arena_take(a, FLASH_CODES ? qb * sizeof *w->shift : 0);
    w->q_sum = arena_take(a, FLASH_CODES ? qb * sizeof *w->q_sum : 0);
    w->bias[0] = arena_take(a, kb * sizeof(float));
    w->bias[1] = arena_take(a, kb * sizeof(float));
    w->rows = arena_take(a, rows * d * sizeof *w->rows);
    size_t picked = needs & (ATTN_NEED_COLUMNS | ATTN_NEED_BLOCKS) ? kb : 0;
    w->k = arena_take(a, picked * (size_t)f->key * sizeof *w->k);
    w->v = arena_take(a, picked * dv * sizeof *w->v);
    w->pick = arena_take(a, picked * sizeof *w->pick);
    size_t part = needs & ATTN_NEED_MAKE_RESIDUAL ? qb : 0;
    w->part = arena_take(a, part * dv * sizeof *w->part);
    if (!(needs & ATTN_NEED_MEAN)) part = 0;
    w->o_then = arena_take(a, part * dv * sizeof *w->o_then);
    w->m_then = arena_take(a, part * sizeof *w->m_then);
    w->l_then = arena_take(a, part * VLEN * sizeof *w->l_then);
    w->mass = arena_take(a, needs & ATTN_NEED_MASS ? kb * sizeof *w->mass : 0);
}

static void flash_carve(struct flash *f, const struct attn_size *s, struct arena *a)
{
    struct arena one = {0};
    struct flash_worker w;
    f->d = s->head_dim;
    f->dk = flash_pad_k(f->d);
    f->dv = flash_pad_v(f->d);
    f->key = flash_key(f->d);
    f->group = flash_group(s);
    f->scale = (float)(FLASH_LOG2E / sqrt((double)f->d));
    size_t head = (size_t)flash_up(s->len_k, FLASH_NR);
    if (s->needs & ATTN_NEED_MEAN) head += (size_t)flash_up(s->cols, FLASH_NR);
    head = flash_keys_apart(head);
    f->k = arena_take(a, (size_t)f->group * head * (size_t)f->key * sizeof *f->k);
    f->v = arena_take(a, (size_t)f->group * head * (size_t)f->dv * sizeof *f->v);
    size_t channels = FLASH_CODES ? (size_t)f->group * (size_t)f->d : 0;
    f->k_less = arena_take(a, channels * sizeof *f->k_less);
    f->v_scale = arena_take(a, channels * sizeof *f->v_scale);
    f->q_blocks = (s->len_q + ATTN_CODE_BLOCK - 1) / ATTN_CODE_BLOCK;
    size_t means =
        FLASH_CODES && s->needs & ATTN_NEED_SMOOTH_Q ? (size_t)f->group * (size_t)f->q_blocks : 0;
    f->q_mean = arena_take(a, means * (size_t)f->d * sizeof *f->q_mean);
    f->delta = arena_take(a, means * head * sizeof *f->delta);
    flash_carve_worker(f, &w, s->needs, &one);
    f->worker_bytes = one.used;
    f->workers = arena_take(a, one.used * (size_t)s->threads);
    size_t tasks = 0;
    if (s->rows > 0) tasks = (size_t)f->group * ((size_t)s->rows + (size_t)s->len_q / FLASH_QB + 1);
    f->tasks = arena_take(a, tasks * sizeof *f->tasks);
    f->order = arena_take(a, tasks * sizeof *f->order);
}

static size_t flash_scratch(const struct attn_size *s)
{
    struct flash f = {0};
    struct arena a = {0};
    flash_carve(&f, s, &a);
    return a.used;
}

static void flash_worker_of(const struct flash *f, struct flash_worker *w, int worker)
{
    struct arena a = {.base = f->workers + f->worker_bytes * (size_t)worker,
                      .size = f->worker_bytes};
    flash_carve_worker(f, w, f->j->size->needs, &a);
}

#include "attention/kernels/cpu_flash_keys.h"
#include "attention/kernels/cpu_flash_task.h"
#include "attention/kernels/cpu_flash_run.h"
