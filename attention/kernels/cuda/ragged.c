/* Variable blocks to rows of queries and runs of keys, on the host. */
#include "attention/kernels/cuda/attn_cuda.h"

#include <stdlib.h>

#define RAGGED_CAN (ATTN_NEED_PLANES | ATTN_NEED_BLOCKS | ATTN_NEED_COLUMNS)

static int check(const struct attn_plan *p, int block_q, struct err *e)
{
    char fields[200];
    unsigned missing = attn_plan_needs(p) & ~(unsigned)RAGGED_CAN;
    if (missing)
        return err_set(e, ERR_USAGE, "runs of keys cannot hold %s",
                       attn_needs_text(missing, fields, sizeof fields));
    if (block_q < 1) return err_set(e, ERR_BUG, "ragged rows of %d queries", block_q);
    if (p->k.len > INT32_MAX - ATTN_RAGGED_KEYS)
        return err_set(e, ERR_USAGE, "%d keys of a ragged plan: too many for 31 bits", p->k.len);
    return attn_plan_check(p, p->q.len, p->k.len, NULL, e);
}

static int q_at(const struct attn_plan *p, int plan, int i)
{
    return attn_block_at(&p->q, plan, i);
}

static size_t pieces(const struct attn_plan *p, int plan, int row, int block_q)
{
    return (size_t)(q_at(p, plan, row + 1) - q_at(p, plan, row) + block_q - 1) / (size_t)block_q;
}

static int sooner(const void *x, const void *y)
{
    const struct attn_ragged_row *a = x, *b = y;
    if (a->late != b->late) return a->late < b->late ? -1 : 1;
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    if (a->eighths != b->eighths) return a->eighths > b->eighths ? -1 : 1;
    return (a->q0 > b->q0) - (a->q0 < b->q0);
}

/* Up to block_q queries each of one block, in every head of its plan. Returns how many. */
static size_t cut_rows(struct attn_ragged_row *row, const struct attn_plan *p, int plan, int block,
                       int block_q, size_t stages, size_t first)
{
    int end = q_at(p, plan, block + 1);
    size_t n = 0;
    for (int h = p->per_head ? plan : 0; h < (p->per_head ? plan + 1 : p->n_heads); h++)
        for (int q = q_at(p, plan, block); q < end; q += block_q)
            row[n++] = (struct attn_ragged_row){.head = h,
                                                .q0 = q,
                                                .queries = end - q < block_q ? end - q : block_q,
                                                .stages = (int)stages,
                                                .first = (uint32_t)first};
    return n;
}

static void order_rows(struct attn_ragged_row *row, size_t n)
{
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += (size_t)row[i].stages;
    for (size_t i = 0; i < n; i++) {
        double times = all ? (double)row[i].stages * (double)n / (double)all : 0;
        row[i].eighths = (int)(times * 8);
        for (row[i].late = 31; times >= 2; times /= 2)
            row[i].late--;
    }
    qsort(row, n, sizeof *row, sooner);
}

/* The runs of one row of blocks, unless run is NULL. Returns their number, *stages beside it. */
static size_t row_runs(size_t *stages, const struct attn_plan *p, int plan, int row,
                       struct attn_ragged_run *run)
{
    size_t n = 1;
    int keys = 0, at = 0, end = INT32_MIN; /* end: of the run before */
    for (struct attn_run r = attn_run_begin(p, plan, row); attn_run_next(&r);)
        keys += r.k1 - r.k0;
    *stages = (size_t)(keys + ATTN_RAGGED_KEYS - 1) / ATTN_RAGGED_KEYS;
    if (!keys) return 0;
    int lead = (keys - 1) % ATTN_RAGGED_KEYS + 1;
    if (run) run[0] = (struct attn_ragged_run){lead, 0};
    for (struct attn_run r = attn_run_begin(p, plan, row); attn_run_next(&r);) {
        for (int token = r.k0; token < r.k1;) {
            int left = r.k1 - token, part = at < lead && left > lead - at ? lead - at : left;
            if (at == lead) at = ATTN_RAGGED_KEYS; /* the other stages are full */
            if (token != end || at == ATTN_RAGGED_KEYS) {
                if (run) run[n] = (struct attn_ragged_run){token, at};
                n++;
            }
            token += part;
            at += part;
            end = token;
        }
    }
    if (run) run[n] = (struct attn_ragged_run){0, INT32_MAX};
    return n + 1;
}

int attn_ragged_size(size_t *rows, size_t *runs, const struct attn_plan *p, int block_q,
                     struct err *e)
{
    size_t stages;
    if (check(p, block_q, e) < 0) return -1;
    *rows = *runs = 0;
    for (int i = 0; i < attn_plans(p); i++)
        for (int r = 0; r < p->q.n; r++) {
            *rows += pieces(p, i, r, block_q) * (size_t)(p->per_head ? 1 : p->n_heads);
            *runs += row_runs(&stages, p, i, r, NULL);
        }
    if (*rows > INT32_MAX || *runs > UINT32_MAX)
        return err_set(e, ERR_USAGE, "a ragged plan of %zu rows, %zu runs; use larger blocks",
                       *rows, *runs);
    return 0;
}

int attn_ragged_fill(struct attn_ragged *r, struct attn_ragged_row *row,
                     struct attn_ragged_run *run, const struct attn_plan *p, int block_q,
                     struct err *e)
{
    if (check(p, block_q, e) < 0) return -1;
    size_t n = 0, at = 0, stages;
    for (int i = 0; i < attn_plans(p); i++)
        for (int k = 0; k < p->q.n; k++) {
            size_t runs = row_runs(&stages, p, i, k, run + at);
            n += cut_rows(row + n, p, i, k, block_q, stages, at);
            at += runs;
        }
    order_rows(row, n);
    *r = (struct attn_ragged){(int)n, block_q, row, run};
    return 0;
}
