/* Reading and writing plans: fates, runs, density, dense, band. */
#include "attention/plan/plan.h"

#include <limits.h>

/* Word w of the tiles of a row that are computed. */
static uint32_t computed(const struct attn_plan *p, size_t row, int w)
{
    size_t at = row * (size_t)attn_words(p->k.n) + (size_t)w;
    uint32_t on = p->kept ? p->kept[at] : 0;
    if (p->dead) on &= ~p->dead[at];
    if (p->forced) on |= p->forced[at];
    return on;
}

enum attn_fate attn_plan_fate(const struct attn_plan *p, int plan, int row, int tile)
{
    size_t r = (size_t)plan * (size_t)p->q.n + (size_t)row;
    if (p->all || computed(p, r, tile / 32) >> (tile % 32) & 1) return ATTN_COMPUTED;
    return attn_bit(p->mean, r, attn_words(p->k.n), tile) ? ATTN_BY_MEAN : ATTN_LEFT_OUT;
}

/* First computed tile that is not below `tile`; k.n: none. */
static int next_tile(const struct attn_plan *p, size_t row, int tile)
{
    if (p->all || tile >= p->k.n) return tile;
    int w = tile / 32, words = attn_words(p->k.n);
    uint32_t on = computed(p, row, w) >> (tile % 32) << (tile % 32);
    while (!on && ++w < words)
        on = computed(p, row, w);
    return on ? 32 * w + __builtin_ctz(on) : p->k.n;
}

struct attn_run attn_run_begin(const struct attn_plan *p, int plan, int row)
{
    struct attn_run r = {.plan = p, .plan_no = plan};
    r.row = (size_t)plan * (size_t)p->q.n + (size_t)row;
    if (p->column_ptr && !p->all) {
        r.column = p->column_ptr[r.row];
        r.columns = p->column_ptr[r.row + 1];
    }
    return r;
}

bool attn_run_next(struct attn_run *r)
{
    const struct attn_plan *p = r->plan;
    if (p->all) { /* however k is cut */
        if (r->tile) return false;
        r->tile = p->k.n;
        r->k0 = 0;
        r->k1 = p->k.len;
        return true;
    }
    for (;;) {
        r->tile = next_tile(p, r->row, r->tile);
        int tile = r->tile < p->k.n ? attn_block_at(&p->k, r->plan_no, r->tile) : INT_MAX;
        int column = r->column < r->columns ? p->columns[r->column] : INT_MAX;
        r->k0 = r->k1 = tile < column ? tile : column;
        if (r->k0 == INT_MAX) return false;
        for (;;) { /* what begins where the run ends */
            r->tile = next_tile(p, r->row, r->tile);
            if (r->tile < p->k.n && attn_block_at(&p->k, r->plan_no, r->tile) == r->k1) {
                r->tile++;
                r->k1 = attn_block_at(&p->k, r->plan_no, r->tile);
                while (r->column < r->columns && p->columns[r->column] < r->k1)
                    r->column++; /* its tile is computed: it counts once */
            } else if (r->column < r->columns && p->columns[r->column] == r->k1) {
                r->column++;
                r->k1++;
            } else {
                break;
            }
        }
        if (r->k0 < r->k1) return true; /* else blocks of nothing */
    }
}

double attn_plan_density(const struct attn_plan *p, int len_k)
{
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) return 0;
    if (p->rule == ATTN_MAKE_RESIDUAL || p->all) return p->k.len / (double)len_k;
    double kept = 0; /* exact: far below 2^53 */
    for (int i = 0; i < attn_plans(p); i++) {
        for (int row = 0; row < p->q.n; row++) {
            double keys = 0;
            for (struct attn_run r = attn_run_begin(p, i, row); attn_run_next(&r);)
                keys += r.k1 - r.k0;
            kept += keys * (attn_block_at(&p->q, i, row + 1) - attn_block_at(&p->q, i, row));
        }
    }
    return kept / ((double)attn_plans(p) * p->q.len * len_k);
}

int attn_blocks_equal(struct attn_blocks *b, int len, int size, struct err *e)
{
    if (len < 1 || size < 1)
        return err_set(e, ERR_USAGE, "%d tokens in blocks of %d: both must be 1 or more", len,
                       size);
    int64_t n = ((int64_t)len + size - 1) / size;
    if (n > ATTN_MAX_BLOCKS)
        return err_set(e, ERR_USAGE,
                       "%lld attention blocks of %d tokens, at most %d a side; use larger ones",
                       (long long)n, size, ATTN_MAX_BLOCKS);
    *b = (struct attn_blocks){.len = len, .n = (int)n, .size = size};
    return 0;
}

int attn_plan_dense(struct attn_plan *p, int len_q, int len_k, int n_heads, struct err *e)
{
    *p = (struct attn_plan){.n_heads = n_heads, .all = true};
    if (len_q < 1 || len_k < 1)
        return err_set(e, ERR_USAGE,
                       "attention over %d queries and %d keys: both must be 1 or more", len_q,
                       len_k);
    if (attn_blocks_equal(&p->q, len_q, len_q, e) < 0) return -1;
    return attn_blocks_equal(&p->k, len_k, len_k, e);
}

size_t attn_plane_size(const struct attn_plan *p)
{
    return (size_t)attn_plans(p) * (size_t)p->q.n * (size_t)attn_words(p->k.n);
}

int attn_block_of(const struct attn_blocks *b, int plan, int position)
{
    int lo = 0, hi = b->n - 1;
    if (b->size) return position / b->size < hi ? position / b->size : hi;
    while (lo < hi) { /* the last that does not begin behind it */
        int middle = (lo + hi + 1) / 2;
        if (attn_block_at(b, plan, middle) <= position)
            lo = middle;
        else
            hi = middle - 1;
    }
    return lo;
}

void attn_plane_band(uint32_t *plane, const struct attn_plan *p, int tiles)
{
    size_t words = (size_t)attn_words(p->k.n);
    for (int i = 0; i < attn_plans(p); i++) {
        for (int row = 0; row < p->q.n; row++, plane += words) {
            int first = attn_block_at(&p->q, i, row), last = attn_block_at(&p->q, i, row + 1) - 1;
            int64_t lo = (int64_t)attn_block_of(&p->k, i, first) - tiles,
                    hi = (int64_t)attn_block_of(&p->k, i, last < first ? first : last) + tiles;
            if (lo < 0) lo = 0;
            if (hi > p->k.n - 1) hi = p->k.n - 1;
            for (size_t w = 0; w < words; w++)
                plane[w] = 0;
            for (int64_t t = lo; t <= hi; t++)
                plane[t / 32] |= (uint32_t)1 << (t % 32);
        }
    }
}
