/* Tile masks: build, walk, count, check. */
#include "attention/block_mask.h"

#include <assert.h>
#include <string.h>

#define MAX_TILES 65535 /* tile numbers, and the end of a range, are uint16 */

static int tiles_of(int len, int block) { return (int)(((int64_t)len + block - 1) / block); }

int block_mask_init(struct block_mask *m, int len_q, int len_k, int block_q, int block_k,
                    int n_plans, struct arena *a, struct err *e)
{
    *m = (struct block_mask){0};
    if (len_q < 1 || len_k < 1)
        return err_set(e, ERR_USAGE,
                       "attention over %d queries and %d keys: both must be 1 or more", len_q,
                       len_k);
    if (block_q < 1 || block_k < 1 || n_plans < 1)
        return err_set(e, ERR_USAGE,
                       "attention tiles of %d x %d tokens, %d plans: all must be 1 or more",
                       block_q, block_k, n_plans);
    int rows = tiles_of(len_q, block_q), cols = tiles_of(len_k, block_k);
    if (rows > MAX_TILES || cols > MAX_TILES)
        return err_set(e, ERR_USAGE,
                       "%d x %d tiles of attention, at most %d a side; use larger tiles", rows,
                       cols, MAX_TILES);
    size_t plan_rows = (size_t)n_plans * (size_t)rows;
    size_t a_row = (size_t)cols + 1; /* as ranges at most (cols + 1) / 2 pairs */
    if (plan_rows * a_row > UINT32_MAX)
        return err_set(e, ERR_USAGE,
                       "%d plans of %d x %d tiles do not fit 32-bit offsets; use larger tiles",
                       n_plans, rows, cols);
    m->len_q = len_q;
    m->len_k = len_k;
    m->block_q = block_q;
    m->block_k = block_k;
    m->rows = rows;
    m->cols = cols;
    m->n_plans = n_plans;
    m->words = ((size_t)cols + 63) / 64;
    m->tiles_capacity = plan_rows * a_row;
    m->row_ptr = arena_take(a, (plan_rows + 1) * sizeof *m->row_ptr);
    m->tiles = arena_take(a, m->tiles_capacity * sizeof *m->tiles);
    m->bits = arena_take(a, plan_rows * m->words * sizeof *m->bits);
    return 0;
}

int block_mask_dense(struct block_mask *m, int len_q, int len_k, struct err *e)
{
    *m = (struct block_mask){0};
    if (len_q < 1 || len_k < 1)
        return err_set(e, ERR_USAGE,
                       "attention over %d queries and %d keys: both must be 1 or more", len_q,
                       len_k);
    *m = (struct block_mask){
        .len_q = len_q,
        .len_k = len_k,
        .block_q = len_q,
        .block_k = len_k,
        .rows = 1,
        .cols = 1,
        .n_plans = 1,
    };
    return 0;
}

int block_mask_band(struct block_mask *m, int tiles, struct err *e)
{
    if (!m->row_ptr) return err_set(e, ERR_BUG, "a band needs a mask with arrays");
    if (tiles < 0) return err_set(e, ERR_BUG, "a band of %d tiles a side, wanted 0 or more", tiles);
    uint32_t n = 0;
    for (int p = 0; p < m->n_plans; p++) {
        for (int i = 0; i < m->rows; i++) {
            int64_t first = (int64_t)i * m->block_q, last = first + m->block_q - 1;
            if (last > m->len_q - 1) last = m->len_q - 1;
            int64_t lo = first / m->block_k, hi = last / m->block_k;
            if (lo > m->cols - 1) lo = m->cols - 1;
            lo -= tiles;
            hi += tiles;
            if (lo < 0) lo = 0;
            if (hi > m->cols - 1) hi = m->cols - 1;
            m->row_ptr[(size_t)p * (size_t)m->rows + (size_t)i] = n;
            m->tiles[2 * (size_t)n] = (uint16_t)lo;
            m->tiles[2 * (size_t)n + 1] = (uint16_t)(hi + 1);
            n++;
        }
    }
    m->row_ptr[(size_t)m->n_plans * (size_t)m->rows] = n;
    m->map = BLOCK_MAP_RANGES;
    return 0;
}

int block_mask_build(struct block_mask *m, enum block_map map,
                     bool (*keep)(void *ctx, int plan, int row, int col), void *ctx, struct err *e)
{
    if (map == BLOCK_MAP_DENSE) {
        m->map = map;
        return 0;
    }
    if (!m->row_ptr)
        return err_set(e, ERR_BUG, "this attention mask has no arrays: it can only be dense");
    uint32_t n = 0; /* tiles or pairs written */
    for (int p = 0; p < m->n_plans; p++) {
        for (int i = 0; i < m->rows; i++) {
            size_t row = (size_t)p * (size_t)m->rows + (size_t)i;
            uint64_t *bits = m->bits + row * m->words;
            bool before = false;
            if (map == BLOCK_MAP_BITS) memset(bits, 0, m->words * sizeof *bits);
            m->row_ptr[row] = n;
            for (int j = 0; j < m->cols; j++) {
                bool kept = keep(ctx, p, i, j);
                if (kept && map == BLOCK_MAP_BITS) bits[j / 64] |= (uint64_t)1 << (j % 64);
                if (kept && map == BLOCK_MAP_LIST) m->tiles[n++] = (uint16_t)j;
                if (kept && map == BLOCK_MAP_RANGES) {
                    if (!before) m->tiles[2 * (size_t)n++] = (uint16_t)j;
                    m->tiles[2 * (size_t)n - 1] = (uint16_t)(j + 1);
                }
                before = kept;
            }
        }
    }
    m->row_ptr[(size_t)m->n_plans * (size_t)m->rows] = n;
    m->map = map;
    return 0;
}

static bool bit(const struct block_mask *m, size_t row, int col)
{
    return m->bits[row * m->words + (size_t)(col / 64)] >> (col % 64) & 1;
}

bool block_mask_kept(const struct block_mask *m, int plan, int row, int col)
{
    assert(plan >= 0 && plan < m->n_plans && row >= 0 && row < m->rows && col >= 0 &&
           col < m->cols);
    size_t r = (size_t)plan * (size_t)m->rows + (size_t)row;
    switch (m->map) {
    case BLOCK_MAP_DENSE:
        return true;
    case BLOCK_MAP_BITS:
        return bit(m, r, col);
    case BLOCK_MAP_LIST:
        for (size_t i = m->row_ptr[r]; i < m->row_ptr[r + 1]; i++)
            if (m->tiles[i] == col) return true;
        return false;
    case BLOCK_MAP_RANGES:
        for (size_t i = m->row_ptr[r]; i < m->row_ptr[r + 1]; i++)
            if (m->tiles[2 * i] <= col && col < m->tiles[2 * i + 1]) return true;
        return false;
    }
    return false;
}

struct block_run block_run_begin(const struct block_mask *m, int plan, int row)
{
    assert(plan >= 0 && plan < m->n_plans && row >= 0 && row < m->rows);
    struct block_run r = {.mask = m, .row = (size_t)plan * (size_t)m->rows + (size_t)row};
    if (m->map == BLOCK_MAP_LIST || m->map == BLOCK_MAP_RANGES) r.at = m->row_ptr[r.row];
    return r;
}

bool block_run_next(struct block_run *r)
{
    const struct block_mask *m = r->mask;
    int first = 0, end = 0; /* tiles */
    switch (m->map) {
    case BLOCK_MAP_DENSE:
        if (r->at) return false;
        r->at = 1;
        end = m->cols;
        break;
    case BLOCK_MAP_BITS:
        for (first = (int)r->at; first < m->cols && !bit(m, r->row, first);)
            first++;
        for (end = first; end < m->cols && bit(m, r->row, end);)
            end++;
        r->at = (uint32_t)end;
        break;
    case BLOCK_MAP_LIST: {
        uint32_t stop = m->row_ptr[r->row + 1];
        if (r->at == stop) return false;
        first = m->tiles[r->at++];
        for (end = first + 1; r->at < stop && m->tiles[r->at] == end; r->at++)
            end++;
        break;
    }
    case BLOCK_MAP_RANGES: {
        uint32_t stop = m->row_ptr[r->row + 1];
        if (r->at == stop) return false;
        first = m->tiles[2 * (size_t)r->at];
        end = m->tiles[2 * (size_t)r->at++ + 1];
        for (; r->at < stop && m->tiles[2 * (size_t)r->at] == end; r->at++)
            end = m->tiles[2 * (size_t)r->at + 1]; /* neighbours are one run */
        break;
    }
    }
    if (first >= end) return false;
    int64_t k1 = (int64_t)end * m->block_k;
    r->k0 = first * m->block_k;
    r->k1 = k1 < m->len_k ? (int)k1 : m->len_k;
    return true;
}

double block_mask_density(const struct block_mask *m)
{
    if (m->map == BLOCK_MAP_DENSE) return 1;
    double kept = 0; /* exact: far below 2^53 */
    for (int p = 0; p < m->n_plans; p++) {
        for (int i = 0; i < m->rows; i++) {
            int q0 = i * m->block_q, q1 = i + 1 < m->rows ? q0 + m->block_q : m->len_q;
            double keys = 0;
            for (struct block_run r = block_run_begin(m, p, i); block_run_next(&r);)
                keys += r.k1 - r.k0;
            kept += keys * (q1 - q0);
        }
    }
    return kept / ((double)m->n_plans * m->len_q * m->len_k);
}

static int bad(struct err *e, const struct block_mask *m, size_t row, const char *what)
{
    return err_set(e, ERR_BUG, "attention plan %zu, row %zu of %d: %s", row / (size_t)m->rows,
                   row % (size_t)m->rows, m->rows, what);
}

int block_mask_check(const struct block_mask *m, struct err *e)
{
    if (m->map == BLOCK_MAP_DENSE) return 0;
    if (!m->row_ptr)
        return err_set(e, ERR_BUG, "this attention mask has no arrays: it can only be dense");
    size_t n = (size_t)m->n_plans * (size_t)m->rows;
    int per = m->map == BLOCK_MAP_RANGES ? 2 : 1;
    if (m->map != BLOCK_MAP_BITS && m->row_ptr[0] != 0)
        return bad(e, m, 0, "offsets do not start at 0");
    for (size_t r = 0; r < n; r++) {
        if (m->map == BLOCK_MAP_BITS) {
            uint64_t any = 0;
            for (size_t w = 0; w < m->words; w++)
                any |= m->bits[r * m->words + w];
            if (!any) return bad(e, m, r, "keeps nothing");
            uint64_t last = m->bits[r * m->words + m->words - 1];
            if (m->cols % 64 && last >> (m->cols % 64))
                return bad(e, m, r, "keeps a tile past the last");
            continue;
        }
        size_t from = m->row_ptr[r], to = m->row_ptr[r + 1];
        if (to < from || to * (size_t)per > m->tiles_capacity)
            return bad(e, m, r, "offsets out of order");
        if (to == from) return bad(e, m, r, "keeps nothing");
        int end = 0; /* first tile that may come next */
        for (size_t i = from; i < to; i++) {
            int first = m->tiles[i * (size_t)per];
            int stop = per == 2 ? m->tiles[2 * i + 1] : first + 1;
            if (first < end) return bad(e, m, r, "tiles do not ascend");
            if (stop <= first) return bad(e, m, r, "holds an empty range");
            if (stop > m->cols) return bad(e, m, r, "keeps a tile past the last");
            end = stop;
        }
    }
    return 0;
}
