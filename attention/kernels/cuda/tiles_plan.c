/* Plans of the host to what kernels of matrix units read; see tiles_cuda.h. */
#include "attention/kernels/cuda/tiles_cuda.h"

#include <stdlib.h>
#include <string.h>

static size_t align(size_t words) { return (words + 63) / 64 * 64; } /* 256 bytes */
static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static bool cut_sm90(int q, int k) { return q == k && (q == 64 || q == 128); }
static bool cut_sm80(int q, int k) { return (q == 64 || q == 128) && (k == 64 || k == 128); }

bool tiles_by_runs(const struct attn_size *s)
{
    if (s->needs & (ATTN_NEED_BLOCKS | ATTN_NEED_COLUMNS)) return true;
    return !cut_sm80(s->block_q, s->block_k);
}

/* Some call has a plan whose tiles a kernel must walk: every tile in some order is every tile. */
static bool cut(const struct attn_size *s)
{
    return s->needs & (ATTN_NEED_PLANES | ATTN_NEED_MEAN | ATTN_NEED_BLOCKS | ATTN_NEED_COLUMNS |
                       ATTN_NEED_Q_ORDER | ATTN_NEED_K_ORDER | ATTN_NEED_MAKE_RESIDUAL |
                       ATTN_NEED_ADD_RESIDUAL | ATTN_NEED_ALIVE);
}

bool tiles_take_sm90(const struct attn_size *s, const char **why)
{
    *why = "tiles of 128 x 128 or 64 x 64 tokens where they count by their mean or stay alive";
    if (!cut(s) || (!tiles_by_runs(s) && cut_sm90(s->block_q, s->block_k))) return true;
    return tiles_by_runs(s) && !(s->needs & (ATTN_NEED_MEAN | ATTN_NEED_ALIVE));
}

bool tiles_take_sage(const struct attn_size *s, const char **why)
{
    *why = "tiles of 128 x 128 tokens";
    return !cut(s) || (s->block_q == 128 && s->block_k == 128);
}

bool tiles_take_sm80(const struct attn_size *s, const char **why)
{
    *why = "tiles of 128 or 64 x 128 or 64 tokens";
    return !cut(s) || (!tiles_by_runs(s) && cut_sm80(s->block_q, s->block_k));
}

bool tiles_take_simt(const struct attn_size *s, const char **why)
{
    *why = "tiles of 128 or 64 x 128 or 64 tokens";
    return !cut(s) || !tiles_by_runs(s);
}

bool tiles_fall(const struct attn_plan *p, const struct attn_size *s)
{
    return p->walk == ATTN_WALK_DOWN && s->needs & ATTN_NEED_ALIVE;
}

int tiles_heads_end(const struct attn_plan *p, int i)
{
    if (!p->heads) return p->n_heads;
    int end = i + 1;
    while (end < p->n_heads && p->heads[end] == p->heads[end - 1] + 1)
        end++;
    return end;
}

/* --- sizes --- */

struct counts { /* of a plan, or the most of any */
    size_t heads, plans, rows, cols, columns, len_q, len_k;
    size_t q_tables, k_tables;
    bool mean;
};

static struct tiles_parts parts_of(const struct counts *c, const struct attn_size *s)
{
    struct tiles_parts t = {.runs = tiles_by_runs(s)};
    size_t at = 0;
    if (t.runs) {
        size_t runs = least((c->cols + 1) / 2 + c->columns, (c->len_k + 1) / 2) + 3,
               block_q = (size_t)ATTN_RAGGED_QUERIES(s->head_dim);
        t.n_rows = c->heads * (c->rows + c->len_q / block_q + 1);
        t.rows = at;
        at += align(t.n_rows * (sizeof(struct attn_ragged_row) / 4));
        t.run = at;
        at += align(c->plans * c->rows * runs * (sizeof(struct attn_ragged_run) / 4));
    } else {
        size_t plane = c->plans * c->rows * (size_t)attn_words((int)c->cols);
        at += align(c->plans * c->rows + 1);
        t.order = at;
        at += align(c->heads * c->rows);
        t.kept = at;
        at += align(plane);
        t.mean = c->mean ? at : 0;
        if (c->mean) at += align(plane);
    }
    t.q_token = c->q_tables ? at : 0;
    at += align(c->q_tables * c->len_q);
    t.k_token = c->k_tables ? at : 0;
    at += align(c->k_tables * c->len_k);
    t.words = at;
    return t;
}

static size_t tables(const struct attn_order *o, const struct attn_plan *p)
{
    return !o->token ? 0 : o->stride ? (size_t)attn_plans(p) : 1;
}

struct tiles_parts tiles_parts(const struct attn_plan *p, const struct attn_size *s)
{
    struct counts c = {.heads = (size_t)p->n_heads,
                       .plans = (size_t)attn_plans(p),
                       .rows = (size_t)p->q.n,
                       .cols = (size_t)p->k.n,
                       .columns = (size_t)s->columns,
                       .len_q = (size_t)p->q.len,
                       .len_k = (size_t)p->k.len,
                       .q_tables = tables(&p->q_order, p),
                       .k_tables = tables(&p->k_order, p),
                       .mean = p->mean && !p->all};
    return parts_of(&c, s);
}

size_t tiles_plan_bytes(const struct attn_size *s, int heads, int plans)
{
    size_t n = (size_t)plans;
    struct counts c = {.heads = (size_t)heads,
                       .plans = n,
                       .rows = (size_t)s->rows,
                       .cols = (size_t)s->cols,
                       .columns = (size_t)s->columns,
                       .len_q = (size_t)s->len_q,
                       .len_k = (size_t)s->len_k,
                       .q_tables = s->needs & ATTN_NEED_Q_ORDER ? n : 0,
                       .k_tables = s->needs & ATTN_NEED_K_ORDER ? n : 0,
                       .mean = s->needs & ATTN_NEED_MEAN};
    return parts_of(&c, s).words * sizeof(uint32_t);
}

size_t tiles_steps(size_t plan_rows, size_t cols, int block_k, bool mean)
{
    size_t groups = mean ? cols / (size_t)(block_k ? block_k : 1) + 1 : 0;
    return plan_rows * (cols + groups);
}

/* --- words --- */

/* The orders of starting of each group of neighbouring heads, counted from its first. */
static void order_by_heads(uint32_t *order, const struct attn_plan *p, uint32_t *spare)
{
    size_t rows = (size_t)p->q.n, all = rows * (size_t)p->n_heads, n = 0;
    memcpy(spare, order, all * sizeof *order);
    for (int i = 0, end; i < p->n_heads; i = end) {
        end = tiles_heads_end(p, i);
        for (size_t k = 0; k < all; k++)
            if (spare[k] >= (size_t)i * rows && spare[k] < (size_t)end * rows)
                order[n++] = spare[k] - (uint32_t)((size_t)i * rows);
    }
}

static void write_bits(uint32_t *kept, uint32_t *mean, const struct attn_plan *p)
{
    size_t words = (size_t)attn_words(p->k.n), rows = attn_plane_size(p) / words;
    for (size_t r = 0; r < rows; r++)
        for (int t = 0; t < p->k.n; t++) {
            enum attn_fate fate =
                attn_plan_fate(p, (int)(r / (size_t)p->q.n), (int)(r % (size_t)p->q.n), t);
            size_t at = r * words + (size_t)(t / 32);
            if (fate == ATTN_COMPUTED) kept[at] |= (uint32_t)1 << (t % 32);
            if (fate == ATTN_BY_MEAN) mean[at] |= (uint32_t)1 << (t % 32);
        }
}

/* bare: the plan by position, for heads 0 .. n_heads - 1. Steps are made there; offsets and the order of starting
 * follow from them. */
static int write_lists(uint32_t *to, const struct tiles_parts *t, const struct attn_plan *p,
                       const struct attn_plan *bare, struct err *e)
{
    struct attn_lists_size size;
    struct attn_lists lists;
    if (attn_lists_size(&size, bare, e) < 0) return -1;
    size_t most = tiles_steps(size.row_ptr - 1, (size_t)p->k.n, p->k.size, bare->mean);
    if (size.row_ptr > t->order || size.order > t->kept - t->order || size.steps > most)
        return err_set(e, ERR_BUG, "lists of %zu rows, %zu tiles in room for %zu words",
                       size.row_ptr, size.steps, t->words);
    uint32_t *spare = malloc((size.steps + size.mean + size.order) * sizeof *spare);
    if (!spare) return err_set(e, ERR_RESOURCE, "no memory for a plan (%zu tiles)", size.steps);
    int rc = attn_lists_fill(&lists, to, spare, to + t->order, spare + size.steps, bare, e);
    if (rc == 0) {
        write_bits(to + t->kept, to + t->mean, bare);
        if (p->heads) order_by_heads(to + t->order, p, spare + size.steps + size.mean);
    }
    free(spare);
    return rc;
}

static int write_runs(uint32_t *to, const struct tiles_parts *t, const struct attn_plan *p,
                      const struct attn_plan *bare, const struct attn_size *s, struct err *e)
{
    struct attn_ragged r;
    struct attn_ragged_row *row = (void *)(to + t->rows);
    struct attn_ragged_run *run = (void *)(to + t->run);
    int block_q = ATTN_RAGGED_QUERIES(s->head_dim);
    size_t rows, runs;
    if (attn_ragged_size(&rows, &runs, bare, block_q, e) < 0) return -1;
    if (rows > t->n_rows || runs * (sizeof *run / 4) > (t->q_token   ? t->q_token
                                                        : t->k_token ? t->k_token
                                                                     : t->words) -
                                                           t->run)
        return err_set(e, ERR_BUG, "%zu rows of queries, %zu runs of keys in room for %zu words",
                       rows, runs, t->words);
    if (attn_ragged_fill(&r, row, run, bare, block_q, e) < 0) return -1;
    for (size_t i = 0; i < rows; i++) /* the rest is zero: of no queries */
        row[i].head = attn_head(p, row[i].head);
    return 0;
}

static void write_order(uint32_t *to, const struct attn_order *o, const struct attn_plan *p,
                        size_t len)
{
    for (size_t i = 0; i < tables(o, p); i++)
        memcpy(to + i * len, o->token + (int64_t)i * o->stride, len * sizeof *o->token);
}

int tiles_put(struct device *d, void *at, const struct attn_plan *p, const struct attn_size *s,
              struct err *e)
{
    struct tiles_parts t = tiles_parts(p, s);
    struct attn_plan bare = *p;
    size_t most = tiles_plan_bytes(s, p->n_heads, attn_plans(p));
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) return 0; /* a launch says it all */
    if (p->q.n > s->rows || p->k.n > s->cols || t.words * sizeof(uint32_t) > most)
        return err_set(e, ERR_BUG,
                       "a plan of %d x %d tiles, %zu words, in room for %d x %d, %zu bytes", p->q.n,
                       p->k.n, t.words, s->rows, s->cols, most);
    bare.heads = NULL;
    bare.q_order = bare.k_order = (struct attn_order){0};
    bare.key_bias = NULL;
    bare.rule = ATTN_COMPUTE;
    bare.walk = ATTN_WALK_UP;
    bare.qk = bare.pv = ATTN_PREC_RUN;
    if (p->all) bare.mean = NULL;
    uint32_t *words = calloc(t.words, sizeof *words);
    if (!words) return err_set(e, ERR_RESOURCE, "no memory for a plan (%zu words)", t.words);
    int rc = t.runs ? write_runs(words, &t, p, &bare, s, e) : write_lists(words, &t, p, &bare, e);
    if (rc == 0) {
        write_order(words + t.q_token, &p->q_order, p, (size_t)p->q.len);
        write_order(words + t.k_token, &p->k_order, p, (size_t)p->k.len);
        rc = device_upload(d, at, words, t.words * sizeof *words, e);
    }
    free(words);
    return rc;
}
