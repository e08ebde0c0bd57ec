/* A plan of the host in the one form that every.cu reads, and how large it may get; see every_cuda.h. */
#include "attention/kernels/cuda/every_cuda.h"
#include "attention/kernels/kernels.h"
#include "model/base/device.h"

#include <stdlib.h>
#include <string.h>

static size_t align(size_t words) { return (words + 3) / 4 * 4; }
static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

#define HEADER align(sizeof(struct every_plan) / sizeof(uint32_t))

/* Tiles that the kernels choose by themselves: a plane each over all heads. */
size_t every_scratch(const struct attn_size *s)
{
    size_t words = (size_t)s->n_heads * (size_t)s->rows * (size_t)attn_words(s->cols);
    size_t planes = (s->needs & ATTN_NEED_SKIP ? 1 : 0) + (s->needs & ATTN_NEED_SOL ? 1 : 0);
    return 64 + planes * words * sizeof(uint32_t);
}

static size_t most_pieces(size_t rows, size_t len_q, int head_dim)
{
    return rows + len_q / (size_t)every_piece(head_dim) + 1;
}

size_t every_plan_bytes(const struct attn_size *s, int heads, int plans)
{
    size_t n = (size_t)plans, rows = n * (size_t)s->rows, len_q = (size_t)s->len_q,
           cols = (size_t)s->cols, plane = align(rows * (size_t)attn_words(s->cols));
    size_t words = HEADER + plane;
    (void)heads; /* which they are, a launch says */
    if (s->needs & ATTN_NEED_MEAN) words += plane;
    if (s->needs & ATTN_NEED_COLUMNS) words += align(rows + 1) + align(rows * (size_t)s->columns);
    if (s->needs & ATTN_NEED_Q_ORDER) words += align(n * len_q);
    if (s->needs & ATTN_NEED_K_ORDER) words += align(n * (size_t)s->len_k);
    if (s->needs & ATTN_NEED_BLOCKS)
        words += align(rows + n) + align(n * (cols + 1)) +
                 align(2 * n * most_pieces((size_t)s->rows, len_q, s->head_dim));
    return words * sizeof(uint32_t);
}

struct writer {
    uint32_t *to;
    size_t n, most; /* words; so many fit */
    bool full; /* more was wanted */
};

/* Room for so many words, zeroed; its place from the beginning. */
static uint32_t take(struct writer *w, size_t words)
{
    size_t at = w->n;
    if (w->full || align(words) > w->most - w->n) {
        w->full = true;
        return 0;
    }
    memset(w->to + at, 0, align(words) * sizeof *w->to);
    w->n += align(words);
    return (uint32_t)at;
}

static uint32_t copy(struct writer *w, const void *from, size_t words)
{
    uint32_t at = take(w, words);
    if (at) memcpy(w->to + at, from, words * sizeof *w->to);
    return at;
}

static void write_planes(struct writer *w, struct every_plan *h, const struct attn_plan *p)
{
    size_t n = attn_plane_size(p);
    h->kept = take(w, n);
    if (p->mean) h->mean = take(w, n);
    for (size_t i = 0; !w->full && i < n; i++) {
        uint32_t on = p->kept ? p->kept[i] : 0;
        if (p->dead) on &= ~p->dead[i];
        if (p->forced) on |= p->forced[i];
        w->to[h->kept + i] = on;
        if (p->mean) w->to[h->mean + i] = p->mean[i] & ~on;
    }
    if (!p->column_ptr) return;
    size_t rows = (size_t)attn_plans(p) * (size_t)p->q.n;
    h->column_ptr = copy(w, p->column_ptr, rows + 1);
    h->columns = copy(w, p->columns, p->column_ptr[rows]);
}

/* Tables that plans may share; their words a plan are `n`. */
static uint32_t copy_tables(struct writer *w, const int32_t *from, int64_t stride, size_t n,
                            int plans, int32_t *to_stride)
{
    bool shared = !stride || plans == 1;
    uint32_t at = take(w, shared ? n : n * (size_t)plans);
    for (int i = 0; at && i < (shared ? 1 : plans); i++)
        memcpy(w->to + at + (size_t)i * n, from + (int64_t)i * stride, n * sizeof *from);
    *to_stride = shared ? 0 : (int32_t)n;
    return at;
}

static void write_pieces(struct writer *w, struct every_plan *h, const struct attn_plan *p,
                         const struct attn_size *s)
{
    int piece = every_piece(s->head_dim), plans = attn_plans(p);
    size_t most = most_pieces((size_t)s->rows, (size_t)p->q.len, s->head_dim);
    h->most_pieces = (int32_t)most;
    h->pieces = take(w, 2 * most * (size_t)plans);
    for (int i = 0; h->pieces && i < plans; i++) {
        int32_t *to = (int32_t *)(w->to + h->pieces) + 2 * most * (size_t)i;
        size_t n = 0;
        for (int row = 0; row < p->q.n; row++)
            for (int q = attn_block_at(&p->q, i, row); q < attn_block_at(&p->q, i, row + 1);
                 q += piece, n++)
                to[2 * n] = row, to[2 * n + 1] = q;
        for (; n < most; n++)
            to[2 * n] = -1;
    }
}

size_t every_words(uint32_t *to, const struct attn_plan *p, const struct attn_size *s,
                   struct err *e)
{
    int plans = attn_plans(p);
    struct every_plan h = {.q_n = p->q.n,
                           .k_n = p->k.n,
                           .q_size = p->q.size,
                           .k_size = p->k.size,
                           .q_len = p->q.len,
                           .k_len = p->k.len,
                           .per_head = p->per_head,
                           .all = p->all,
                           .words = attn_words(p->k.n)};
    size_t bytes = every_plan_bytes(s, p->n_heads, plans);
    struct writer w = {.to = to, .n = HEADER, .most = bytes / sizeof *to};
    memset(to, 0, HEADER * sizeof *to);
    if (!p->all && p->sol_tau == 0) write_planes(&w, &h, p);
    if (p->sol_tau != 0 && p->forced) h.kept = copy(&w, p->forced, attn_plane_size(p));
    if (p->q_order.token)
        h.q_token = copy_tables(&w, p->q_order.token, p->q_order.stride, (size_t)p->q.len, plans,
                                &h.q_token_stride);
    if (p->k_order.token)
        h.k_token = copy_tables(&w, p->k_order.token, p->k_order.stride, (size_t)p->k.len, plans,
                                &h.k_token_stride);
    if (!p->q.size) {
        h.q_at = copy_tables(&w, p->q.at, p->q.stride, (size_t)p->q.n + 1, plans, &h.q_at_stride);
        write_pieces(&w, &h, p, s);
    }
    if (!p->k.size)
        h.k_at = copy_tables(&w, p->k.at, p->k.stride, (size_t)p->k.n + 1, plans, &h.k_at_stride);
    if (w.full || p->q.n > s->rows || p->k.n > s->cols) {
        char fields[200];
        err_set(e, ERR_BUG,
                "a plan of %d x %d tiles, %d queries, %d keys, with %s, does not fit the %zu bytes "
                "for one of %d x %d, %d, %d",
                p->q.n, p->k.n, p->q.len, p->k.len,
                attn_needs_text(attn_plan_needs(p), fields, sizeof fields), bytes, s->rows, s->cols,
                s->len_q, s->len_k);
        return 0;
    }
    memcpy(to, &h, sizeof h);
    return w.n;
}

int every_put(struct device *d, void *at, const struct attn_plan *plan, const struct attn_size *s,
              struct err *e)
{
    size_t most = max_size(every_plan_bytes(s, plan->n_heads, attn_plans(plan)), 4 * HEADER);
    int rc = -1;
    if (plan->rule == ATTN_ZERO || plan->rule == ATTN_COPY) return 0; /* a launch says it all */
    uint32_t *words = malloc(most);
    if (!words) return err_set(e, ERR_RESOURCE, "no memory for a plan (%zu bytes)", most);
    size_t n = every_words(words, plan, s, e);
    if (n) rc = device_upload(d, at, words, n * sizeof *words, e);
    free(words);
    return rc;
}
