/* The plan of an attention call: what some heads do. One type, on the host or on a device, executed
 * by every kernel and judged by one reference (kernels/ref.c).
 *
 *   o = softmax(scale * q·kᵀ + key_bias) · v     over the keys that a query's block keeps
 *
 * Queries stand in the order q_order and are cut into the blocks q (rows); keys stand in k_order and
 * are cut into the blocks k (cols). A tile is (row, col), and has one fate:
 *
 *   computed    kept and not dead, or forced
 *   by mean     not computed, and marked in `mean`: its keys count as that many copies of their
 *               mean key, with their mean value
 *   left out    else
 *
 * Keys named by `columns` are computed for their row as well, unless their tile already is. A query
 * that keeps nothing, or only keys of bias -inf, gets o = 0 and lse = -inf; a row that keeps
 * nothing is refused unless may_be_empty says that the planner meant it.
 *
 * "Position" means a place in an order; without an order it is the token itself. Everything here
 * speaks of positions; tensors are read and written by token. A call is an array of plans whose
 * heads cover every head once. A zeroed plan with q, k, n_heads and `all` is dense attention.
 *
 * Design: house.md 2 and 3; attention-sparse.md 13. Owner: the planner, whose memory the arrays
 * are; they stay as they are until the kernel is done. Threads: read-only while a kernel runs.
 * Errors: ERR_BUG (a plan that breaks a rule), ERR_USAGE (sizes, or what no kernel here can do). */
#ifndef DITGEN_ATTENTION_PLAN_PLAN_H
#define DITGEN_ATTENTION_PLAN_PLAN_H

#include "model/base/err.h"
#include "model/base/tensor.h"

#include <stdbool.h>
#include <stdint.h>

/* nvcc includes this too */
#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_MAX_BLOCKS 65535 /* a side: lists of kernels have 16 bits for a tile */

struct attn_order { /* position → token */
    const int32_t *token; /* [blocks.len] each at most once; NULL: position i is token i */
    int64_t stride; /* from the table of one plan to the next; 0: all plans share it */
    bool fixed; /* a table of the whole run, checked when it was made; else made for this call */
};

struct attn_blocks { /* block i holds positions [i * size, (i + 1) * size), or [at[i], at[i + 1]) */
    int len; /* positions; queries: every token; keys: fewer than tokens are a subset */
    int n; /* blocks, 1 to ATTN_MAX_BLOCKS */
    int size; /* equal blocks, the last one shorter; 0: at[] says */
    const int32_t *at; /* [n + 1] from 0 to len, never falling: blocks may be empty */
    int64_t stride; /* from the offsets of one plan to the next; 0: all plans share them */
};

enum attn_out { /* what o becomes (house.md 3) */
                ATTN_COMPUTE, /* the plan's attention */
                ATTN_ZERO, /* 0: a head that is left out */
                ATTN_COPY, /* job.residual as it is; q, k and v are not looked at */
                ATTN_MAKE_RESIDUAL, /* exact attention over all positions, and job.residual = exact - plan's */
                ATTN_ADD_RESIDUAL, /* the plan's attention + job.residual */
};

enum attn_walk { /* the order in which a row's tiles are visited; matters to alive and skip_log2 */
                 ATTN_WALK_UP, /* rising, then columns, then means */
                 ATTN_WALK_DOWN, /* falling */
};

enum attn_prec { /* of one of the two products */
                 ATTN_PREC_RUN, /* as the run */
                 ATTN_PREC_INT8,
                 ATTN_PREC_INT4,
                 ATTN_PREC_FP8,
                 ATTN_PREC_FP4,
};

/* How codes of 8 or 4 bits are made (attention-kernels.md 1.2, 1.3). */
struct attn_codes {
    bool smooth_k; /* of k less its mean over all keys: a row's scores move by one constant */
    bool smooth_q; /* of q less its mean over ATTN_CODE_BLOCK positions, which is added again */
    bool rotate; /* of rows turned by a Hadamard matrix; head_dim must be a power of 2 */
};
#define ATTN_CODE_BLOCK 128

struct attn_plan {
    enum place where; /* whose memory the arrays are; the struct itself is the host's */
    const uint8_t *heads; /* [n_heads] which heads, in any order; NULL: 0 .. n_heads - 1 */
    int n_heads;
    bool per_head; /* arrays hold n_heads plans, else one for all of these heads */
    struct attn_order q_order, k_order;
    struct attn_blocks q, k;
    bool all; /* every tile: no planes are looked at, and k may be cut in any way */
    /* Bit planes [plans * q.n, words], words = attn_words(k.n): tile t of a row is bit t % 32 of
     * word t / 32; bits past the last tile are 0. NULL: none. */
    const uint32_t *kept, *forced, *dead, *mean;
    /* Keys outside the tiles: positions columns[column_ptr[r]] .. columns[column_ptr[r + 1] - 1],
     * rising, of row r of plans * q.n. None may lie in a tile that counts by its mean. */
    const uint32_t *column_ptr; /* [plans * q.n + 1], or NULL */
    const int32_t *columns;
    /* [k.len] by position, added to scaled scores of keys, not of means; -inf hides; or NULL */
    const float *key_bias;
    enum attn_out rule;
    /* < 0: a tile whose largest score stays this far below the largest before it, for every query of
     * the row, in powers of two, is left out by the kernel (attention-sparse.md 2, 12.4); 0: off */
    float skip_log2;
    float sol_tau; /* the kernel chooses tiles by block means (attention-sparse.md 12.1); 0: off */
    enum attn_walk walk;
    /* Codes: of q and k a scale a row, of v a scale a channel, all keys alike. Weights of a chunk of
     * keys (kernels/kernels.h) are 255ths of its largest under INT8, e4m3 of 448ths of the largest
     * so far under FP8. pv other than the run's wants qk other than the run's. */
    enum attn_prec qk, pv;
    struct attn_codes codes;
    bool may_be_empty; /* a row that keeps nothing is meant, else the planner's bug, and refused */
};

/* --- reading a plan (host memory) --- */

enum attn_fate { ATTN_LEFT_OUT, ATTN_COMPUTED, ATTN_BY_MEAN };

static inline int attn_words(int cols) { return (cols + 31) / 32; } /* uint32s a row of a plane */
static inline int attn_plans(const struct attn_plan *p) { return p->per_head ? p->n_heads : 1; }
static inline int attn_head(const struct attn_plan *p, int i) { return p->heads ? p->heads[i] : i; }
static inline bool attn_bit(const uint32_t *plane, size_t row, int words, int tile)
{
    return plane && plane[row * (size_t)words + (size_t)(tile / 32)] >> (tile % 32) & 1;
}
/* First position of block i of a plan; i = n gives the end of the last. */
static inline int attn_block_at(const struct attn_blocks *b, int plan, int i)
{
    if (!b->size) return b->at[(int64_t)plan * b->stride + i];
    return i < b->n ? i * b->size : b->len;
}
static inline int attn_token(const struct attn_order *o, int plan, int position)
{
    return o->token ? o->token[(int64_t)plan * o->stride + position] : position;
}
/* Block of a position; of the end, the last. */
int attn_block_of(const struct attn_blocks *b, int plan, int position);
enum attn_fate attn_plan_fate(const struct attn_plan *p, int plan, int row, int tile);
/* Pairs of query and key that are computed, as a share of q.len * len_k, averaged over plans.
 * len_k: tokens, of which k may hold fewer. */
double attn_plan_density(const struct attn_plan *p, int len_k);

/* One row's computed keys as the longest possible runs, rising: tiles and columns. What kernels
 * execute follows from this set alone.
 *     for (struct attn_run r = attn_run_begin(p, plan, row); attn_run_next(&r);) use r.k0 .. r.k1
 */
struct attn_run {
    const struct attn_plan *plan;
    int plan_no;
    size_t row; /* plan * q.n + row */
    int tile; /* next one to look at */
    uint32_t column, columns; /* next entry and end of the row's columns */
    int k0, k1; /* the run: positions [k0, k1) */
};
struct attn_run attn_run_begin(const struct attn_plan *p, int plan, int row);
bool attn_run_next(struct attn_run *r); /* false: no more */

/* --- writing one --- */

/* Equal blocks of `size`, at most ATTN_MAX_BLOCKS of them. */
int attn_blocks_equal(struct attn_blocks *b, int len, int size, struct err *e);
/* Every key for every query: one tile. */
int attn_plan_dense(struct attn_plan *p, int len_q, int len_k, int n_heads, struct err *e);
/* uint32s of one plane of this plan. */
size_t attn_plane_size(const struct attn_plan *p);
/* A band in every plan of a plane: row i keeps the tiles that hold its own positions and `tiles` more
 * on each side; rows past the last key keep the band round the last tile. */
void attn_plane_band(uint32_t *plane, const struct attn_plan *p, int tiles);

/* --- one launch --- */

struct attn_size; /* kernels/kernels.h: what scratch was sized for */

struct attn_job {
    struct heads q, k, v, o; /* [len, N, D]; o overlaps nothing */
    struct heads residual; /* [q.len, N, D]: out of MAKE, into ADD_RESIDUAL; COPY's source */
    struct heads k_mean, v_mean; /* [k.n, N, D] for plans with `mean`: finite for every block */
    struct heads v_sum; /* [k.n, N, D] for plans with sol_tau */
    const struct attn_plan *plan;
    float
        *lse; /* [N, q.len] natural logarithm of the sum of a query's weights, by token, or NULL */
    /* [N * q.n, k.n] mean over the queries of a row of the weight that softmax gives each block of
     * keys, all of them, under lse, which must be there too; or NULL. o.at NULL: nothing else is
     * computed, and lse is read: of an earlier run, maybe under another plan. */
    float *mass;
    /* [N * q.n, words] computed tiles of which some query's largest score came within alive_log2 of
     * the largest before it, in powers of two; or NULL. Kept tiles without a bit may be left out
     * next time (LiteAttention). Columns and means have none. */
    uint32_t *alive;
    float alive_log2; /* < 0 */
    bool accumulate; /* o += */
    const struct attn_size *size;
    void *scratch; /* the kernel's scratch() of *size bytes, 64-byte aligned */
};

/* What a job asks of a kernel beside plain dense attention. Bits of attn_kernel.can. */
enum attn_need {
    ATTN_NEED_PLANES = 1 << 0, /* plan.kept, forced, dead */
    ATTN_NEED_MEAN = 1 << 1, /* plan.mean */
    ATTN_NEED_BLOCKS = 1 << 2, /* blocks by offsets: plan.q.at, plan.k.at */
    ATTN_NEED_Q_ORDER = 1 << 3,
    ATTN_NEED_K_ORDER = 1 << 4, /* a permutation, or a subset of the keys */
    ATTN_NEED_COLUMNS = 1 << 5,
    ATTN_NEED_KEY_BIAS = 1 << 6,
    ATTN_NEED_HEADS = 1 << 7, /* some of the heads, or in another order */
    ATTN_NEED_ZERO = 1 << 8,
    ATTN_NEED_COPY = 1 << 9,
    ATTN_NEED_MAKE_RESIDUAL = 1 << 10,
    ATTN_NEED_ADD_RESIDUAL = 1 << 11,
    ATTN_NEED_SKIP = 1 << 12, /* plan.skip_log2 */
    ATTN_NEED_SOL = 1 << 13, /* plan.sol_tau */
    ATTN_NEED_WALK = 1 << 14, /* other than rising */
    ATTN_NEED_PREC = 1 << 15, /* plan.qk, plan.pv other than the run's and those below */
    ATTN_NEED_LSE = 1 << 16,
    ATTN_NEED_MASS = 1 << 17,
    ATTN_NEED_ALIVE = 1 << 18,
    ATTN_NEED_ACCUMULATE = 1 << 19,
    ATTN_NEED_DEVICE = 1 << 20, /* plan.where */
    ATTN_NEED_BF16 = 1 << 21, /* tensors of bf16 instead of fp32, residual apart */
    ATTN_NEED_QK_INT8 = 1 << 22,
    ATTN_NEED_QK_INT4 = 1 << 23,
    ATTN_NEED_PV_INT8 = 1 << 24,
    ATTN_NEED_PV_FP8 = 1 << 25,
    ATTN_NEED_SMOOTH_Q = 1 << 26, /* plan.codes.smooth_q */
    ATTN_NEEDS = 27, /* bits */
    ATTN_NEED_LOW = ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8 | ATTN_NEED_PV_FP8 |
                    ATTN_NEED_SMOOTH_Q,
};
unsigned attn_plan_needs(const struct attn_plan *p); /* of the plan alone */
unsigned attn_job_needs(const struct attn_job *j);
/* The fields behind the bits, for messages: "plan.mean, lse". Returns buf. */
const char *attn_needs_text(unsigned needs, char *buf, size_t size);

/* Whether the plan keeps its rules (host memory; n_tokens: of q and of k). seen: attn_seen_size()
 * uint32s of scratch, to find a token that an order names twice; may be NULL when no order is of
 * this call. ERR_BUG with plan, row and what is wrong. */
size_t attn_seen_size(int len_q, int len_k);
int attn_plan_check(const struct attn_plan *p, int len_q, int len_k, uint32_t *seen, struct err *e);
/* Whether the job's tensors and outputs are what its plan wants; the plan itself was checked. */
int attn_job_check(const struct attn_job *j, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
