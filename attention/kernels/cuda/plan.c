/* From any encoding of a plan to the lists that kernels execute, and the order of starting. */
#include "attention/kernels/cuda/attn_cuda.h"

#include <string.h>

static int check(const struct attn_plan *p, struct err *e)
{
    const struct block_mask *m = p->map;
    if (p->n_heads < 1 || (m->n_plans != 1 && m->n_plans != p->n_heads))
        return err_set(e, ERR_BUG, "%d attention plans for %d heads, wanted 1 or one a head",
                       m->n_plans, p->n_heads);
    if ((uint64_t)p->n_heads * (uint64_t)m->rows > INT32_MAX)
        return err_set(e, ERR_USAGE,
                       "%d heads of %d rows of tiles do not fit 31 bits; use larger "
                       "tiles",
                       p->n_heads, m->rows);
    return 0;
}

static bool bit(const uint32_t *plane, size_t row, int words, int tile)
{
    return plane && plane[row * (size_t)words + (size_t)(tile / 32)] >> (tile % 32) & 1;
}

enum fate { LEFT_OUT, COMPUTED, BY_MEAN };

struct walk { /* over the tiles of one row, ascending */
    const struct attn_plan *plan;
    struct block_run run;
    bool more;
    size_t row; /* plan * rows + row */
};

static struct walk walk_begin(const struct attn_plan *p, int plan, int row)
{
    struct walk w = {.plan = p, .run = block_run_begin(p->map, plan, row)};
    w.row = w.run.row;
    w.more = block_run_next(&w.run);
    return w;
}

static enum fate walk_tile(struct walk *w, int tile)
{
    const struct attn_plan *p = w->plan;
    int words = (p->map->cols + 31) / 32;
    int64_t key = (int64_t)tile * p->map->block_k;
    while (w->more && w->run.k1 <= key)
        w->more = block_run_next(&w->run);
    bool kept = w->more && w->run.k0 <= key;
    if (kept && !bit(p->dead, w->row, words, tile)) return COMPUTED;
    if (bit(p->forced, w->row, words, tile)) return COMPUTED;
    return bit(p->mean, w->row, words, tile) ? BY_MEAN : LEFT_OUT;
}

/* Number of steps of a row; writes them to steps[] and the tiles that count by their mean to
 * plane[], unless NULL. */
static size_t row_steps(const struct attn_plan *p, int plan, int row, uint32_t *steps,
                        uint32_t *plane)
{
    const struct block_mask *m = p->map;
    size_t n = 0;
    int group = -1;
    struct walk w = walk_begin(p, plan, row);
    for (int t = 0; t < m->cols; t++) {
        if (walk_tile(&w, t) != COMPUTED) continue;
        if (steps) steps[n] = (uint32_t)t;
        n++;
    }
    if (!p->mean) return n;
    w = walk_begin(p, plan, row);
    for (int t = 0; t < m->cols; t++) { /* groups come after all tiles */
        if (walk_tile(&w, t) != BY_MEAN) continue;
        if (plane) plane[t / 32] |= (uint32_t)1 << (t % 32);
        if (t / m->block_k == group) continue;
        group = t / m->block_k;
        if (steps) steps[n] = ATTN_STEP_MEAN | (uint32_t)group;
        n++;
    }
    return n;
}

int attn_lists_size(struct attn_lists_size *s, const struct attn_plan *p, struct err *e)
{
    if (check(p, e) < 0) return -1;
    const struct block_mask *m = p->map;
    size_t rows = (size_t)m->n_plans * (size_t)m->rows, steps = 0;
    for (int i = 0; i < m->n_plans; i++)
        for (int r = 0; r < m->rows; r++)
            steps += row_steps(p, i, r, NULL, NULL);
    if (steps > UINT32_MAX)
        return err_set(e, ERR_USAGE, "%zu tiles do not fit 32-bit offsets; use larger tiles",
                       steps);
    *s = (struct attn_lists_size){.row_ptr = rows + 1,
                                  .steps = steps,
                                  .order = (size_t)p->n_heads * (size_t)m->rows,
                                  .mean = p->mean ? rows * (size_t)((m->cols + 31) / 32) : 0};
    return 0;
}

/* Classes of rows, first started first. A row twice as long as the average may not start late; rows
 * of one head stay together, longest first by eighths of the average, neighbours in sequence. */
struct started {
    int outlier, head, eighths, row;
};

static struct started started_of(uint32_t head_row, const struct attn_lists *l)
{
    uint32_t rows = (uint32_t)l->rows, head = head_row / rows, row = head_row % rows;
    uint32_t at = l->n_plans > 1 ? head_row : row;
    uint32_t count = l->row_ptr[at + 1] - l->row_ptr[at];
    double mean = (double)l->row_ptr[(uint32_t)l->n_plans * rows] / (l->n_plans * (double)rows);
    double times = mean > 0 ? count / mean : 0;
    struct started s = {.head = (int)head, .row = (int)row, .eighths = (int)(times * 8)};
    while (times >= 2) {
        s.outlier++;
        times /= 2;
    }
    return s;
}

static bool before(const struct started *a, const struct started *b)
{
    if (a->outlier != b->outlier) return a->outlier > b->outlier;
    if (a->head != b->head) return a->head < b->head;
    if (a->eighths != b->eighths) return a->eighths > b->eighths;
    return a->row < b->row;
}

/* Heap sort: in place, no worst case, nothing to allocate. */
static void sift(uint32_t *order, size_t i, size_t n, const struct attn_lists *l)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        struct started c = started_of(order[child], l);
        if (child + 1 < n) {
            struct started d = started_of(order[child + 1], l);
            if (before(&c, &d)) {
                child++;
                c = d;
            }
        }
        struct started s = started_of(order[i], l);
        if (!before(&s, &c)) return;
        uint32_t t = order[i];
        order[i] = order[child];
        order[child] = t;
    }
}

int attn_lists_fill(struct attn_lists *l, uint32_t *row_ptr, uint32_t *steps, uint32_t *order,
                    uint32_t *mean, const struct attn_plan *p, struct err *e)
{
    if (check(p, e) < 0) return -1;
    const struct block_mask *m = p->map;
    int words = (m->cols + 31) / 32;
    size_t n = 0;
    if (p->mean)
        memset(mean, 0, (size_t)m->n_plans * (size_t)m->rows * (size_t)words * sizeof *mean);
    for (int i = 0; i < m->n_plans; i++) {
        for (int r = 0; r < m->rows; r++) {
            size_t row = (size_t)i * (size_t)m->rows + (size_t)r;
            row_ptr[row] = (uint32_t)n;
            n += row_steps(p, i, r, steps + n, p->mean ? mean + row * (size_t)words : NULL);
        }
    }
    row_ptr[(size_t)m->n_plans * (size_t)m->rows] = (uint32_t)n;
    *l = (struct attn_lists){.rows = m->rows,
                             .cols = m->cols,
                             .block_q = m->block_q,
                             .block_k = m->block_k,
                             .n_plans = m->n_plans,
                             .row_ptr = row_ptr,
                             .steps = steps,
                             .order = order,
                             .mean = p->mean ? mean : NULL,
                             .words = words};
    size_t tiles = (size_t)p->n_heads * (size_t)m->rows;
    for (size_t i = 0; i < tiles; i++)
        order[i] = (uint32_t)i;
    for (size_t i = tiles / 2; i-- > 0;)
        sift(order, i, tiles, l);
    for (size_t left = tiles; left-- > 1;) {
        uint32_t t = order[0];
        order[0] = order[left];
        order[left] = t;
        sift(order, 0, left, l);
    }
    return 0;
}
