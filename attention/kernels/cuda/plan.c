/* From the planes of a plan to the lists that kernels execute, and the order of starting. */
#include "attention/kernels/cuda/attn_cuda.h"

#include <string.h>

#define LISTS_CAN (ATTN_NEED_PLANES | ATTN_NEED_MEAN)

static int check(const struct attn_plan *p, struct err *e)
{
    char fields[200];
    unsigned missing = attn_plan_needs(p) & ~(unsigned)LISTS_CAN;
    if (missing)
        return err_set(e, ERR_USAGE, "lists of tiles cannot hold %s",
                       attn_needs_text(missing, fields, sizeof fields));
    if (p->n_heads < 1 || (uint64_t)p->n_heads * (uint64_t)p->q.n > INT32_MAX)
        return err_set(e, ERR_USAGE,
                       "%d heads of %d rows of tiles, wanted 1 or more that fit 31 bits; use "
                       "larger tiles",
                       p->n_heads, p->q.n);
    return 0;
}

/* Number of steps of a row; writes them to steps[] and the tiles that count by their mean to
 * plane[], unless NULL. */
static size_t row_steps(const struct attn_plan *p, int plan, int row, uint32_t *steps,
                        uint32_t *plane)
{
    size_t n = 0;
    int group = -1;
    for (int t = 0; t < p->k.n; t++) {
        if (attn_plan_fate(p, plan, row, t) != ATTN_COMPUTED) continue;
        if (steps) steps[n] = (uint32_t)t;
        n++;
    }
    for (int t = 0; p->mean && t < p->k.n; t++) { /* groups come after all tiles */
        if (attn_plan_fate(p, plan, row, t) != ATTN_BY_MEAN) continue;
        if (plane) plane[t / 32] |= (uint32_t)1 << (t % 32);
        if (t / p->k.size == group) continue;
        group = t / p->k.size;
        if (steps) steps[n] = ATTN_STEP_MEAN | (uint32_t)group;
        n++;
    }
    return n;
}

int attn_lists_size(struct attn_lists_size *s, const struct attn_plan *p, struct err *e)
{
    if (check(p, e) < 0) return -1;
    size_t rows = (size_t)attn_plans(p) * (size_t)p->q.n, steps = 0;
    for (int i = 0; i < attn_plans(p); i++)
        for (int r = 0; r < p->q.n; r++)
            steps += row_steps(p, i, r, NULL, NULL);
    if (steps > UINT32_MAX)
        return err_set(e, ERR_USAGE, "%zu tiles do not fit 32-bit offsets; use larger tiles",
                       steps);
    *s = (struct attn_lists_size){.row_ptr = rows + 1,
                                  .steps = steps,
                                  .order = (size_t)p->n_heads * (size_t)p->q.n,
                                  .mean = p->mean ? rows * (size_t)attn_words(p->k.n) : 0};
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
    int words = attn_words(p->k.n), plans = attn_plans(p);
    size_t n = 0;
    if (p->mean) memset(mean, 0, (size_t)plans * (size_t)p->q.n * (size_t)words * sizeof *mean);
    for (int i = 0; i < plans; i++) {
        for (int r = 0; r < p->q.n; r++) {
            size_t row = (size_t)i * (size_t)p->q.n + (size_t)r;
            row_ptr[row] = (uint32_t)n;
            n += row_steps(p, i, r, steps + n, p->mean ? mean + row * (size_t)words : NULL);
        }
    }
    row_ptr[(size_t)plans * (size_t)p->q.n] = (uint32_t)n;
    *l = (struct attn_lists){.rows = p->q.n,
                             .cols = p->k.n,
                             .block_q = p->q.size,
                             .block_k = p->k.size,
                             .n_plans = plans,
                             .row_ptr = row_ptr,
                             .steps = steps,
                             .order = order,
                             .mean = p->mean ? mean : NULL,
                             .words = words};
    size_t tiles = (size_t)p->n_heads * (size_t)p->q.n;
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
