/* Variable blocks to rows of queries and runs of keys, on the host. */
#include "attention/kernels/cuda/attn_cuda.h"

#include <stdlib.h>

static int check(const struct attn_blocks *b, int block_q, struct err *e)
{
    if (b->n_heads < 1 || (b->n_plans != 1 && b->n_plans != b->n_heads) || b->rows < 1 ||
        b->cols < 1 || block_q < 1)
        return err_set(e, ERR_BUG, "%d plans of %d x %d blocks for %d heads, rows of %d queries",
                       b->n_plans, b->rows, b->cols, b->n_heads, block_q);
    if (b->len_k > INT32_MAX - ATTN_RAGGED_KEYS)
        return err_set(e, ERR_USAGE, "%d keys of a ragged plan: too many for 31 bits", b->len_k);
    for (int p = 0; p < b->n_plans; p++) {
        for (int axis = 0; axis < 2; axis++) {
            int n = axis ? b->cols : b->rows, len = axis ? b->len_k : b->len_q;
            const int32_t *at = (axis ? b->k_at : b->q_at) + (size_t)p * ((size_t)n + 1);
            bool rising = at[0] == 0 && at[n] == len;
            for (int i = 0; i < n; i++)
                rising &= at[i] <= at[i + 1];
            if (!rising)
                return err_set(e, ERR_BUG, "plan %d: blocks of %s do not rise from 0 to %d", p,
                               axis ? "keys" : "queries", len);
        }
    }
    return 0;
}

static size_t pieces(const struct attn_blocks *b, int plan, int row, int block_q)
{
    const int32_t *at = b->q_at + (size_t)plan * ((size_t)b->rows + 1);
    return (size_t)(at[row + 1] - at[row] + block_q - 1) / (size_t)block_q;
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
static size_t cut_rows(struct attn_ragged_row *row, const struct attn_blocks *b, int plan,
                       int block, int block_q, size_t stages, size_t first)
{
    const int32_t *q_at = b->q_at + (size_t)plan * ((size_t)b->rows + 1);
    size_t n = 0;
    for (int h = b->n_plans > 1 ? plan : 0; h < (b->n_plans > 1 ? plan + 1 : b->n_heads); h++)
        for (int q = q_at[block]; q < q_at[block + 1]; q += block_q)
            row[n++] = (struct attn_ragged_row){
                .head = h,
                .q0 = q,
                .queries = q_at[block + 1] - q < block_q ? q_at[block + 1] - q : block_q,
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
static size_t row_runs(size_t *stages, const struct attn_blocks *b, int plan, int row,
                       struct attn_ragged_run *run)
{
    size_t words = (size_t)(b->cols + 31) / 32, n = 1;
    const uint32_t *keep = b->keep + ((size_t)plan * (size_t)b->rows + (size_t)row) * words;
    const int32_t *k_at = b->k_at + (size_t)plan * ((size_t)b->cols + 1);
    int keys = 0, at = 0, end = INT32_MIN; /* end: of the run before */
    for (int c = 0; c < b->cols; c++)
        if (keep[c / 32] >> (c % 32) & 1) keys += k_at[c + 1] - k_at[c];
    *stages = (size_t)(keys + ATTN_RAGGED_KEYS - 1) / ATTN_RAGGED_KEYS;
    if (!keys) return 0;
    int lead = (keys - 1) % ATTN_RAGGED_KEYS + 1;
    if (run) run[0] = (struct attn_ragged_run){lead, 0};
    for (int c = 0; c < b->cols; c++) {
        if (!(keep[c / 32] >> (c % 32) & 1)) continue;
        for (int token = k_at[c]; token < k_at[c + 1];) {
            int left = k_at[c + 1] - token, part = at < lead && left > lead - at ? lead - at : left;
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

int attn_ragged_size(size_t *rows, size_t *runs, const struct attn_blocks *b, int block_q,
                     struct err *e)
{
    size_t stages;
    if (check(b, block_q, e) < 0) return -1;
    *rows = *runs = 0;
    for (int p = 0; p < b->n_plans; p++)
        for (int r = 0; r < b->rows; r++) {
            *rows += pieces(b, p, r, block_q) * (size_t)(b->n_heads / b->n_plans);
            *runs += row_runs(&stages, b, p, r, NULL);
        }
    if (*rows > INT32_MAX || *runs > UINT32_MAX)
        return err_set(e, ERR_USAGE, "a ragged plan of %zu rows, %zu runs; use larger blocks",
                       *rows, *runs);
    return 0;
}

int attn_ragged_fill(struct attn_ragged *r, struct attn_ragged_row *row,
                     struct attn_ragged_run *run, const struct attn_blocks *b, int block_q,
                     struct err *e)
{
    if (check(b, block_q, e) < 0) return -1;
    size_t n = 0, at = 0, stages;
    for (int p = 0; p < b->n_plans; p++)
        for (int i = 0; i < b->rows; i++) {
            size_t runs = row_runs(&stages, b, p, i, run + at);
            n += cut_rows(row + n, b, p, i, block_q, stages, at);
            at += runs;
        }
    order_rows(row, n);
    *r = (struct attn_ragged){(int)n, block_q, row, run};
    return 0;
}
