/* Plans made on the card in the form that tiles_run.c reads: means, scores, the best, offsets and the order of
 * starting, in that order, on the device's line of work; see attention/device.h: struct attn_planner. */
#include "attention/kernels/cuda/plan_pool.h"
#include "attention/kernels/cuda/tiles_cuda.h"
#include "model/base/device_table.h"

struct room { /* bytes from the beginning of scratch */
    size_t q, k; /* [N, n * runs, D] */
    size_t scores; /* [N, rows, cols] */
    size_t cut; /* [N] */
    size_t steps, expand; /* of attn_expand() */
    size_t bytes;
};

static size_t take(struct room *r, size_t bytes)
{
    size_t at = r->bytes;
    r->bytes += (bytes + 255) / 256 * 256;
    return at;
}

/* As a plan of so many tiles at most has them. */
static struct room room_of(const struct attn_size *s, const struct attn_making *how)
{
    struct room r = {0};
    size_t heads = (size_t)s->n_heads, rows = heads * (size_t)s->rows, cols = (size_t)s->cols,
           mean = (size_t)how->runs * (size_t)s->head_dim * sizeof(float);
    struct attn_plan most = {.n_heads = s->n_heads, .per_head = s->n_heads > 1};
    most.q = (struct attn_blocks){.len = s->len_q, .n = s->rows, .size = s->block_q};
    most.k = (struct attn_blocks){.len = s->len_k, .n = s->cols, .size = s->block_k};
    r.q = take(&r, rows * mean);
    r.k = take(&r, heads * cols * mean);
    r.scores = take(&r, rows * cols * sizeof(float));
    r.cut = take(&r, heads * sizeof(float));
    r.steps = take(&r, attn_expand_steps(&most) * sizeof(uint32_t));
    r.expand = take(&r, attn_expand_scratch(&most));
    return r;
}

static size_t scratch(const struct attn_size *s, const struct attn_making *how)
{
    bool runs =
        how->runs == 1 || (how->pool == ATTN_POOL_MEAN && (how->runs == 2 || how->runs == 4));
    if (!runs || tiles_by_runs(s) || s->needs & (ATTN_NEED_MEAN | ATTN_NEED_COLUMNS)) return 0;
    if (s->head_dim % 32 || s->rows > PLAN_MOST_COLS || s->cols > PLAN_MOST_COLS) return 0;
    return room_of(s, how).bytes;
}

static struct plan_tokens tokens(const struct attn_made *m, const struct heads *x,
                                 const struct attn_blocks *b, const int32_t *order, void *stream)
{
    return (struct plan_tokens){.at = x->at,
                                .token = x->token,
                                .head = x->head,
                                .fp32 = x->type == DTYPE_F32,
                                .order = order,
                                .len = b->len,
                                .n_heads = x->n,
                                .dim = x->dim,
                                .block = b->size,
                                .n = b->n,
                                .runs = m->how->runs,
                                .max = m->how->pool == ATTN_POOL_MAX,
                                .stream = stream};
}

static int pick(uint32_t *kept, float *scores, float *cut, const struct attn_making *how,
                const struct plan_shape *s, struct err *e)
{
    if (how->pick == ATTN_PICK_TOP_K) return plan_top_k(kept, scores, how->k, s, e);
    if (plan_softmax(scores, s, e) < 0) return -1;
    if (how->pick == ATTN_PICK_TOP_P) return plan_top_p(kept, scores, how->mass, how->least, s, e);
    return plan_percentile(kept, cut, scores, how->share, s, e);
}

/* Offsets and the order of starting of what is kept; its steps are made anew at each launch. */
static int list(uint32_t *to, const struct tiles_parts *t, const struct attn_made *m,
                const struct room *r, void *stream, struct err *e)
{
    struct attn_lists none;
    struct attn_plan p = {.where = PLACE_DEVICE,
                          .n_heads = m->plan->n_heads,
                          .per_head = m->plan->per_head,
                          .q = m->plan->q,
                          .k = m->plan->k,
                          .kept = to + t->kept};
    char *at = m->scratch;
    return attn_expand(&none, to, (uint32_t *)(void *)(at + r->steps), to + t->order, NULL, &p,
                       at + r->expand, stream, e);
}

static int make(struct device *d, void *at, const struct attn_made *m, struct err *e)
{
    const struct attn_plan *p = m->plan;
    struct tiles_parts t = tiles_parts(p, m->size);
    struct room r = room_of(m->size, m->how);
    uint32_t *to = at, *kept = to + t.kept;
    char *room = m->scratch;
    float *q_pool = (float *)(void *)(room + r.q), *k_pool = (float *)(void *)(room + r.k),
          *scores = (float *)(void *)(room + r.scores), *cut = (float *)(void *)(room + r.cut);
    void *stream = device_stream(d);
    const int32_t *q_order = p->q_order.token ? (const int32_t *)(to + t.q_token) : NULL,
                  *k_order = p->k_order.token ? (const int32_t *)(to + t.k_token) : NULL;
    struct plan_tokens q = tokens(m, &m->q, &p->q, q_order, stream),
                       k = tokens(m, &m->k, &p->k, k_order, stream);
    struct plan_shape s = {.n_heads = p->n_heads,
                           .rows = p->q.n,
                           .cols = p->k.n,
                           .head_dim = m->q.dim,
                           .runs = m->how->runs,
                           .len_q = p->q.len,
                           .len_k = p->k.len,
                           .block_q = p->q.size,
                           .block_k = p->k.size,
                           .even = true,
                           .stream = stream};
    struct plan_finishing f = {kept,     m->forced, m->pairs,  p->n_heads, p->q.n, p->k.n,
                               p->q.len, p->k.len,  p->q.size, p->k.size,  stream};
    if (attn_plans(p) != p->n_heads || p->heads || p->q_order.stride || p->k_order.stride)
        return err_set(e, ERR_BUG, "a plan of all heads, each its own, is what the card makes");
    if (plan_pool(q_pool, &q, e) < 0 || plan_pool(k_pool, &k, e) < 0 ||
        plan_scores(scores, q_pool, k_pool, &s, e) < 0 ||
        plan_clear(kept, attn_plane_size(p), m->pairs, stream, e) < 0 ||
        pick(kept, scores, cut, m->how, &s, e) < 0 || plan_finish(&f, e) < 0)
        return -1;
    return list(to, &t, m, &r, stream, e);
}

static size_t kept_at(const struct attn_plan *p, const struct attn_size *s)
{
    return tiles_parts(p, s).kept * sizeof(uint32_t);
}

static int tally(struct device *d, uint64_t *sum, const uint64_t *pairs, struct err *e)
{
    return plan_tally(sum, pairs, device_stream(d), e);
}

const struct attn_planner tiles_planner = {scratch, make, kept_at, tally};
