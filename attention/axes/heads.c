/* One head at a time, the heads of a call spread over threads: what members that look at numbers
 * are made of. */
#include "attention/axes/axes.h"
#include "attention/room.h"
#include "model/base/threads.h"

#include <math.h>
#include <string.h>

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

size_t axis_scratch(const struct attn_part *p, size_t bytes)
{
    return (size_t)attn_limits(p).threads * round64(bytes);
}

static struct blocks blocks_of(const struct heads *x, const struct attn_order *order,
                               const struct attn_blocks *b, int plan, int head)
{
    return (struct blocks){.x = x->at ? heads_at(x, 0, head) : NULL,
                           .stride = x->token,
                           .len = b->len,
                           .dim = x->dim,
                           .order = order->token ? order->token + plan * order->stride : NULL,
                           .offset = b->size ? NULL : b->at + plan * b->stride,
                           .size = b->size,
                           .n = b->n};
}

struct work {
    const struct axis_job *job;
    char *scratch;
    size_t share; /* bytes of it for each worker */
    dots_fn *dots;
};

/* Plan i of the job, for one of its heads. */
static void do_head(const struct work *w, int i, int head, int worker)
{
    const struct axis_job *j = w->job;
    const struct attn_plan *plan = j->plan;
    size_t tiles = (size_t)plan->q.n * (size_t)plan->k.n;
    struct axis_head h = {
        .p = j->p,
        .t = j->t,
        .plan = plan,
        .plan_no = i,
        .head = head,
        .q = blocks_of(&j->t->q, &plan->q_order, &plan->q, i, head),
        .k = blocks_of(&j->t->k, &plan->k_order, &plan->k, i, head),
        .scale = j->t->q.dim ? 1 / sqrtf((float)j->t->q.dim) : 0,
        .scratch = w->scratch ? w->scratch + (size_t)worker * w->share : NULL,
        .ctx = j->ctx,
        .dots = w->dots,
    };
    if (j->score) h.score = j->score + (size_t)i * tiles;
    if (j->scores) h.scores = j->scores + (size_t)i * tiles;
    if (j->kept) h.kept = j->kept + (size_t)i * (size_t)plan->q.n * (size_t)attn_words(plan->k.n);
    j->fn(&h);
}

static void one(void *ctx, int i, int worker)
{
    const struct work *w = ctx;
    do_head(w, i, attn_head(w->job->plan, i), worker);
}

void axis_heads(const struct axis_job *j)
{
    struct attn_limits most = attn_limits(j->p);
    struct work w = {.job = j, .scratch = attn_scratch(j->p), .dots = dots_pick(most.level)};
    w.share = j->p->room->memory[j->p->index].size.scratch / (size_t)most.threads / 64 * 64;
    threads_run(attn_plans(j->plan), one, &w);
}

void axis_each_head(const struct axis_job *j)
{
    struct work w = {
        .job = j, .scratch = attn_scratch(j->p), .dots = dots_pick(attn_limits(j->p).level)};
    for (int i = 0; i < j->plan->n_heads; i++)
        do_head(&w, j->plan->per_head ? i : 0, attn_head(j->plan, i), 0);
}

void axis_counts(int *count, const struct blocks *b)
{
    for (int i = 0; i < b->n; i++)
        count[i] = blocks_count(b, i);
}

void axis_force_frames(const struct axis_head *h, int from, int to, bool rows)
{
    const struct attn_shape *s = h->p->shape;
    int frame = s->grid_h * s->grid_w;
    int words = attn_words(h->k.n);
    for (int side = 0; side < (rows ? 2 : 1); side++) {
        const struct blocks *b = side ? &h->q : &h->k;
        for (int i = 0; i < b->n; i++) {
            bool meets = false;
            for (int at = blocks_begin(b, i); at < blocks_begin(b, i + 1) && !meets; at++) {
                int f = (b->order ? b->order[at] : at) / frame;
                meets = f >= from && f < to;
            }
            if (meets && side) select_row(h->kept, h->k.n, i);
            for (int r = 0; meets && !side && r < h->q.n; r++)
                select_add(h->kept + (size_t)r * (size_t)words, i);
        }
    }
}

static void force(const struct axis_head *h)
{
    const struct attn_making *how = h->ctx;
    if (how->sink > 0) axis_force_frames(h, 0, how->sink, how->seeing);
}

void axis_forced(uint32_t *kept, const struct attn_part *p, const struct attn_plan *plan,
                 const struct attn_making *how)
{
    static const struct attn_turn nothing;
    struct attn_plan one = *plan;
    one.per_head = false;
    axis_heads(&(struct axis_job){.p = p,
                                  .t = &nothing,
                                  .plan = &one,
                                  .kept = kept,
                                  .ctx = (void *)(uintptr_t)how,
                                  .fn = force});
}

void axis_density(const struct attn_part *p, double least, double most, double *lo, double *hi)
{
    const struct axis_order *order = p->room->stack.recipe.order;
    struct attn_limits size = attn_limits(p);
    double frame = (double)p->shape->grid_h * p->shape->grid_w, len = p->tokens;
    *lo = 0, *hi = 1;
    if (order && order->blocks) return;
    double missing = (double)size.cols * size.block - len; /* of the last block */
    *lo = fmax(0, fmin(1, (least * size.block - missing) / len));
    if (p->knobs->sink > 0) most += p->knobs->sink * frame / size.block + 2;
    *hi = fmin(1, most * size.block / len);
}

void axis_band(const struct attn_part *p, double share, double *lo, double *hi)
{
    const struct axis_order *order = p->room->stack.recipe.order;
    struct attn_limits size = attn_limits(p);
    int n = size.cols, last = p->tokens - (n - 1) * size.block;
    double half = share >= 1 ? 2 : 1 - sqrt(1 - share), pairs = 0;
    *lo = 0, *hi = 1;
    if ((order && order->blocks) || p->knobs->block_q) return;
    for (int r = 0; r < n; r++)
        for (int c = 0; c < n; c++)
            if (r == c || fabs((double)(r - c)) / n < half)
                pairs += (double)(r < n - 1 ? size.block : last) * (c < n - 1 ? size.block : last);
    *lo = *hi = pairs / ((double)p->tokens * p->tokens);
}

/* A row that keeps no key gets the block at its own place, or the next one that holds keys. */
static void fill_row(uint32_t *row, const struct blocks *k, int own)
{
    for (int c = 0; c < k->n; c++)
        if (select_has(row, c) && blocks_count(k, c) > 0) return;
    for (int i = 0; i < k->n; i++) {
        int c = (own + i) % k->n;
        if (blocks_count(k, c) == 0) continue;
        select_add(row, c);
        return;
    }
}

void axis_finish(const struct axis_head *h)
{
    int sink = h->p->knobs->sink, words = attn_words(h->k.n);
    if (sink > 0) axis_force_frames(h, 0, sink, false);
    for (int r = 0; r < h->q.n; r++)
        fill_row(h->kept + (size_t)r * (size_t)words, &h->k, (int)((int64_t)r * h->k.n / h->q.n));
}
