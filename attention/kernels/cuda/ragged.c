/* Variable blocks to rows of queries and stages of keys, on the host. */
#include "attention/kernels/cuda/attn_cuda.h"

#include <stdlib.h>
#include <string.h>

static int check(const struct attn_blocks *b, int block_q, struct err *e)
{
    if (b->n_heads < 1 || (b->n_plans != 1 && b->n_plans != b->n_heads) || b->rows < 1 ||
        b->cols < 1 || block_q < 1)
        return err_set(e, ERR_BUG, "%d plans of %d x %d blocks for %d heads, rows of %d queries",
                       b->n_plans, b->rows, b->cols, b->n_heads, block_q);
    if (b->len_k >= 1 << ATTN_RAGGED_SHIFT)
        return err_set(e, ERR_USAGE, "%d keys, ragged plans take fewer than %d", b->len_k,
                       1 << ATTN_RAGGED_SHIFT);
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

struct packer { /* stages of one row of blocks; stage NULL: only counts */
    struct attn_ragged_stage *stage;
    size_t full; /* stages before the one that is being filled */
    int octets, runs; /* in it */
};

static void add_run(struct packer *p, int token, int size, int keys)
{
    if (p->octets == ATTN_RAGGED_KEYS / 8) {
        p->full++;
        p->octets = p->runs = 0;
    }
    if (p->stage) {
        struct attn_ragged_stage *s = &p->stage[p->full];
        if (!p->runs) memset(s, 0, sizeof *s);
        s->run[p->runs] = (uint32_t)size << ATTN_RAGGED_SHIFT | (uint32_t)token;
        for (int k = 0; k < keys; k++)
            s->shown[(8 * p->octets + k) / 32] |= (uint32_t)1 << ((8 * p->octets + k) % 32);
    }
    p->runs++;
    p->octets += 1 << size;
}

/* keys [k0, k1) in the largest boxes that fit what is left of them and of the stage */
static void add_keys(struct packer *p, int k0, int k1)
{
    while (k0 < k1) {
        int room = ATTN_RAGGED_KEYS / 8 - p->octets, wanted = (k1 - k0 + 7) / 8, size = 0;
        if (room == 0) room = ATTN_RAGGED_KEYS / 8;
        if (wanted < room) room = wanted;
        while (size + 1 < ATTN_RAGGED_BOXES && 2 << size <= room)
            size++;
        int keys = 8 << size < k1 - k0 ? 8 << size : k1 - k0;
        add_run(p, k0, size, keys);
        k0 += keys;
    }
}

static size_t pack_row(const struct attn_blocks *b, int plan, int row,
                       struct attn_ragged_stage *stage)
{
    struct packer p = {.stage = stage};
    int words = (b->cols + 31) / 32, from = -1;
    const uint32_t *keep = b->keep + ((size_t)plan * (size_t)b->rows + (size_t)row) * (size_t)words;
    const int32_t *k_at = b->k_at + (size_t)plan * ((size_t)b->cols + 1);
    for (int c = 0; c <= b->cols; c++) { /* neighbours in one piece */
        bool kept = c < b->cols && (keep[c / 32] >> (c % 32) & 1);
        if (kept && from < 0) from = k_at[c];
        if (kept || from < 0) continue;
        add_keys(&p, from, k_at[c]);
        from = -1;
    }
    if (!p.octets) return 0;
    while (p.octets < ATTN_RAGGED_KEYS / 8) { /* the rest: any token, not counted */
        int size = 0;
        while (size + 1 < ATTN_RAGGED_BOXES && 2 << size <= ATTN_RAGGED_KEYS / 8 - p.octets)
            size++;
        add_run(&p, 0, size, 0);
    }
    return p.full + 1;
}

static size_t pieces(const struct attn_blocks *b, int plan, int row, int block_q)
{
    const int32_t *at = b->q_at + (size_t)plan * ((size_t)b->rows + 1);
    return (size_t)(at[row + 1] - at[row] + block_q - 1) / (size_t)block_q;
}

int attn_ragged_size(size_t *rows, size_t *stages, const struct attn_blocks *b, int block_q,
                     struct err *e)
{
    if (check(b, block_q, e) < 0) return -1;
    *rows = *stages = 0;
    for (int p = 0; p < b->n_plans; p++)
        for (int r = 0; r < b->rows; r++) {
            *rows += pieces(b, p, r, block_q) * (size_t)(b->n_heads / b->n_plans);
            *stages += pack_row(b, p, r, NULL);
        }
    if (*rows > INT32_MAX || *stages > UINT32_MAX)
        return err_set(e, ERR_USAGE, "a ragged plan of %zu rows, %zu stages; use larger blocks",
                       *rows, *stages);
    return 0;
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

int attn_ragged_fill(struct attn_ragged *r, struct attn_ragged_row *row,
                     struct attn_ragged_stage *stage, const struct attn_blocks *b, int block_q,
                     struct err *e)
{
    if (check(b, block_q, e) < 0) return -1;
    size_t n = 0, at = 0;
    for (int p = 0; p < b->n_plans; p++)
        for (int i = 0; i < b->rows; i++) {
            size_t stages = pack_row(b, p, i, stage + at);
            n += cut_rows(row + n, b, p, i, block_q, stages, at);
            at += stages;
        }
    order_rows(row, n);
    *r = (struct attn_ragged){(int)n, block_q, row, stage};
    return 0;
}

/* --- gathered --- */

/* The runs of one row of blocks, unless run is NULL. Returns their number, *stages beside it. */
static size_t gather_row(size_t *stages, const struct attn_blocks *b, int plan, int row,
                         struct attn_gather_run *run)
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
    if (run) run[0] = (struct attn_gather_run){lead, 0};
    for (int c = 0; c < b->cols; c++) {
        if (!(keep[c / 32] >> (c % 32) & 1)) continue;
        for (int token = k_at[c]; token < k_at[c + 1];) {
            int left = k_at[c + 1] - token, part = at < lead && left > lead - at ? lead - at : left;
            if (at == lead) at = ATTN_RAGGED_KEYS; /* the other stages are full */
            if (token != end || at == ATTN_RAGGED_KEYS) {
                if (run) run[n] = (struct attn_gather_run){token, at};
                n++;
            }
            token += part;
            at += part;
            end = token;
        }
    }
    if (run) run[n] = (struct attn_gather_run){0, INT32_MAX};
    return n + 1;
}

int attn_gathered_size(size_t *rows, size_t *runs, const struct attn_blocks *b, int block_q,
                       struct err *e)
{
    size_t stages;
    if (check(b, block_q, e) < 0) return -1;
    *rows = *runs = 0;
    for (int p = 0; p < b->n_plans; p++)
        for (int r = 0; r < b->rows; r++) {
            *rows += pieces(b, p, r, block_q) * (size_t)(b->n_heads / b->n_plans);
            *runs += gather_row(&stages, b, p, r, NULL);
        }
    if (*rows > INT32_MAX || *runs > UINT32_MAX)
        return err_set(e, ERR_USAGE, "a gathered plan of %zu rows, %zu runs; use larger blocks",
                       *rows, *runs);
    return 0;
}

int attn_gathered_fill(struct attn_gathered *g, struct attn_ragged_row *row,
                       struct attn_gather_run *run, const struct attn_blocks *b, int block_q,
                       struct err *e)
{
    if (check(b, block_q, e) < 0) return -1;
    size_t n = 0, at = 0, stages;
    for (int p = 0; p < b->n_plans; p++)
        for (int i = 0; i < b->rows; i++) {
            size_t runs = gather_row(&stages, b, p, i, run + at);
            n += cut_rows(row + n, b, p, i, block_q, stages, at);
            at += runs;
        }
    order_rows(row, n);
    *g = (struct attn_gathered){(int)n, block_q, row, run, false};
    return 0;
}
