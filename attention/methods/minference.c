/* Lines of the map: keys that all look at (columns) and distances that many look along (slashes),
 * found by exact rows: MInference's vertical-slash heads, arXiv 2407.02490, in the form for clips of
 * attention-sparse.md 10, without its offline choice of a shape for each head.
 *
 * Rows are spread over the clip. Slashes are counted in buckets of 64 distances, each by the probes
 * for which it lies inside; what they hit is rounded out to blocks. Columns outside of these are
 * gathered. Cost: 64 rows, 32 / len of a dense call. */
#include "attention/axes/axes.h"
#include "attention/policy/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKET = 64, NEAR = 50 }; /* distances a bucket; always seen */

struct minference {
    struct attn_knobs knobs;
    double columns, slashes;
    int rows;
};

static const struct minference *of(const struct attn_part *p) { return p->options; }
static int columns_of(const struct attn_part *p)
{
    return (int)ceil(of(p)->columns * p->tokens - 1e-9);
}
static int buckets_of(const struct attn_part *p) { return (2 * p->tokens + BUCKET - 1) / BUCKET; }
static size_t words_of(const struct attn_part *p) { return (size_t)attn_words(p->tokens); }

/* Columns of every head, bits by token: they stand as long as the plan does. */
static uint32_t *bits_of(const struct attn_part *p, const struct attn_turn *t, int plan)
{
    uint32_t *bits = attn_state(p, t->plan_layer, t->at.branch);
    return bits + (size_t)plan * words_of(p);
}

/* Blocks with keys at a place that some query of the row reaches by distances from .. to. */
static void keep_slash(const struct axis_head *h, int from, int to)
{
    for (int r = 0; r < h->q.n; r++) {
        int first = blocks_begin(&h->q, r) + from, last = blocks_begin(&h->q, r + 1) - 1 + to;
        for (int c = 0; c < h->k.n; c++)
            if (blocks_begin(&h->k, c) <= last && blocks_begin(&h->k, c + 1) > first)
                select_add(h->kept + (size_t)r * (size_t)attn_words(h->k.n), c);
    }
}

static void lines(const struct axis_head *h)
{
    int len = h->k.len, buckets = buckets_of(h->p), rows = of(h->p)->rows;
    float *row = h->scratch, *column = row + len, *slash = column + len;
    int *inside = (int *)(slash + buckets), *index = inside + buckets;
    uint32_t *bits = bits_of(h->p, h->t, h->plan_no);
    memset(column, 0, (size_t)(len + 2 * buckets) * sizeof(float));
    memset(bits, 0, words_of(h->p) * sizeof *bits);
    if (rows > len) rows = len;
    for (int r = 0; r < rows; r++) {
        int32_t i = (int32_t)((2 * (int64_t)r + 1) * len / (2 * rows));
        score_probe(row, &h->q, &i, 1, &h->k, h->scale, h->dots);
        for (int j = 0; j < len; j++) {
            column[j] += row[j];
            slash[(j - i + len) / BUCKET] += row[j];
        }
        for (int b = (len - i) / BUCKET; b <= (2 * len - 1 - i) / BUCKET; b++)
            inside[b]++;
    }
    for (int b = 0; b < buckets; b++)
        slash[b] = inside[b] ? slash[b] / (float)inside[b] : -INFINITY;
    int n = select_best(index, column, len, columns_of(h->p));
    for (int i = 0; i < n; i++)
        select_add(bits, index[i]);
    n = select_best(index, slash, buckets, (int)ceil(of(h->p)->slashes * len / BUCKET - 1e-9));
    for (int i = 0; i < n; i++)
        keep_slash(h, index[i] * BUCKET - len, index[i] * BUCKET - len + BUCKET - 1);
    keep_slash(h, -NEAR, NEAR);
    axis_finish(h);
}

AXIS_SELECT(lines)

static void lines_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->state = (size_t)p->shape->n_heads * words_of(p) * sizeof(uint32_t);
    s->scratch =
        axis_scratch(p, (3 * (size_t)p->tokens + 3 * (size_t)buckets_of(p)) * sizeof(float));
}

static const struct axis_select keep_lines = {.name = "lines",
                                              .summary = "blocks along the heaviest slashes",
                                              .per_head = true,
                                              .select = lines_all,
                                              .sizes = lines_sizes};

/* --- the columns --- */

static void list_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t rows = (size_t)p->shape->n_heads * (size_t)attn_limits(p).blocks;
    s->scratch = (rows + 1) * sizeof(uint32_t) + rows * (size_t)columns_of(p) * sizeof(int32_t);
}

static int list(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                struct err *e)
{
    struct attn_plan *plan = &c->at[0].plan;
    size_t n = 0, row = 0;
    uint32_t *ptr = attn_scratch(p);
    int32_t *columns = (int32_t *)(ptr + (size_t)attn_plans(plan) * (size_t)plan->q.n + 1);
    (void)e;
    for (int i = 0; i < attn_plans(plan); i++)
        for (int r = 0; r < plan->q.n; r++) {
            const uint32_t *bits = bits_of(p, t, i);
            ptr[row++] = (uint32_t)n;
            for (int at = 0; at < plan->k.len; at++)
                if (n - ptr[row - 1] < (size_t)columns_of(p) && /* no more than there is room for */
                    select_has(bits, attn_token(&plan->k_order, i, at)))
                    columns[n++] = at;
        }
    ptr[row] = (uint32_t)n;
    plan->column_ptr = ptr;
    plan->columns = columns;
    return 0;
}

const struct attn_method attn_minference = {
    .name = "minference",
    .summary = "keys that all look at, and distances that many look along",
    .paper = "2407.02490",
    .recipe = {.select = &keep_lines},
    .options = OPTIONS(
        OPT_DOUBLE(struct minference, columns, "columns", 0.03, 0, 1, "share of keys for all"),
        OPT_DOUBLE(struct minference, slashes, "slashes", 0.1, 0, 2,
                   "distances, as a share of the tokens"),
        OPT_INT(struct minference, rows, "rows", 64, 1, 4096, "exact rows of a probe"),
        KNOB_SINK(0), KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct minference),
    .still = true,
    .needs = ATTN_NEED_COLUMNS,
    .sizes = list_sizes,
    .plan = list,
    .plan_looks = attn_looks_nowhere,
    .columns = columns_of,
    .steady = true,
};
