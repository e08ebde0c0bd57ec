/* A job to launches of matrix units; see tiles_cuda.h. */
#include "attention/kernels/cuda/every_args.h"
#include "attention/kernels/cuda/moved_cuda.h"
#include "attention/kernels/cuda/resid_cuda.h"
#include "attention/kernels/cuda/sage_cuda.h"
#include "attention/kernels/cuda/simt_cuda.h"
#include "attention/kernels/cuda/tiles_cuda.h"
#include "attention/kernels/cuda/tiles_list.h"
#include "model/base/device_table.h"

#include <string.h>

/* --- scratch --- */

struct room { /* bytes from the beginning of scratch */
    size_t q, k, v; /* [N, len, D] in the order of the plan */
    size_t x; /* [N, len_q, D]: the plan's output beside the exact one */
    size_t lse; /* [N, len_q] by position */
    size_t alive; /* [N * rows, words]: a record that nobody reads */
    size_t steps; /* of the plan's lists */
    size_t bytes;
};

static size_t take(struct room *r, bool wanted, size_t bytes)
{
    size_t at = r->bytes;
    if (wanted) r->bytes += (bytes + 255) / 256 * 256;
    return at;
}

static struct room room_of(const struct attn_size *s)
{
    bool codes = s->needs & ATTN_NEED_LOW; /* theirs begins with what every launch has */
    size_t first = codes ? sage_scratch(s) : attn_cuda_scratch();
    struct room r = {.bytes = (first + 255) / 256 * 256};
    unsigned orders = s->needs & (ATTN_NEED_Q_ORDER | ATTN_NEED_K_ORDER);
    size_t heads = (size_t)s->n_heads, row = heads * (size_t)s->head_dim * 2,
           len_q = (size_t)s->len_q;
    r.q = take(&r, orders, len_q * row);
    r.k = take(&r, orders, (size_t)s->len_k * row);
    r.v = take(&r, orders, (size_t)s->len_k * row);
    r.x = take(&r, s->needs & ATTN_NEED_MAKE_RESIDUAL, len_q * row);
    r.lse = take(&r, orders && s->needs & ATTN_NEED_LSE, heads * len_q * sizeof(float));
    r.alive = take(&r, s->needs & ATTN_NEED_ALIVE && s->needs & ATTN_NEED_WALK,
                   heads * (size_t)s->rows * (size_t)attn_words(s->cols) * sizeof(uint32_t));
    size_t steps = tiles_steps(heads * (size_t)s->rows, (size_t)s->cols, s->block_k,
                               s->needs & ATTN_NEED_MEAN);
    r.steps = take(&r, !tiles_by_runs(s), steps * sizeof(uint32_t));
    return r;
}

size_t tiles_scratch(const struct attn_size *s) { return room_of(s).bytes; }

/* --- a launch --- */

struct work {
    const struct attn_job *j;
    const struct attn_plan *p;
    enum attn_cuda_row row;
    const uint32_t *at; /* the prepared plan, or NULL: every tile */
    struct tiles_parts parts;
    struct room room;
    bool ordered; /* tensors of `call` are in the order of the plan, in scratch */
    struct attn_cuda call; /* of all heads of the job */
    struct moved moved;
};

static struct attn_tensor tensor(const struct heads *h)
{
    return (struct attn_tensor){h->at, h->token, h->head};
}

static char *in_scratch(const struct work *w, size_t at) { return (char *)w->j->scratch + at; }

static struct attn_tensor own_tensor(const struct work *w, size_t at, int len)
{
    int64_t dim = w->call.head_dim;
    return (struct attn_tensor){in_scratch(w, at), dim, dim * len};
}

static struct attn_tensor from_head(struct attn_tensor t, int head)
{
    if (t.at) t.at = (uint16_t *)t.at + t.head * head;
    return t;
}

/* The heads [i, end) of the plan, which are neighbours, of a call of all heads. */
static struct attn_cuda of_heads(const struct work *w, const struct attn_cuda *all, int i, int end)
{
    struct attn_cuda c = *all;
    int head = attn_head(w->p, i);
    c.n_heads = end - i;
    c.q = from_head(c.q, head), c.k = from_head(c.k, head), c.v = from_head(c.v, head);
    c.o = from_head(c.o, head);
    c.k_mean = from_head(c.k_mean, head), c.v_mean = from_head(c.v_mean, head);
    if (c.lse) c.lse += (size_t)head * (size_t)c.len_q;
    if (c.alive) c.alive += (size_t)head * (size_t)w->p->q.n * (size_t)attn_words(w->p->k.n);
    return c;
}

static struct attn_lists lists_of(const struct work *w, int i, int end)
{
    const struct attn_plan *p = w->p;
    const struct tiles_parts *t = &w->parts;
    size_t rows = (size_t)p->q.n, plan_row = p->per_head ? (size_t)i * rows : 0;
    int words = attn_words(p->k.n);
    return (struct attn_lists){.rows = p->q.n,
                               .cols = p->k.n,
                               .block_q = p->q.size,
                               .block_k = p->k.size,
                               .n_plans = p->per_head ? end - i : 1,
                               .row_ptr = w->at + plan_row,
                               .steps =
                                   (const uint32_t *)(const void *)in_scratch(w, w->room.steps),
                               .order = w->at + t->order + (size_t)i * rows,
                               .mean = t->mean ? w->at + t->mean + plan_row * (size_t)words : NULL,
                               .words = words};
}

static int list_tiles(const struct work *w, struct err *e)
{
    const struct attn_plan *p = w->p;
    const struct tiles_parts *t = &w->parts;
    struct tiles_listing l = {.steps = (uint32_t *)(void *)in_scratch(w, w->room.steps),
                              .row_ptr = w->at,
                              .kept = w->at + t->kept,
                              .mean = t->mean ? w->at + t->mean : NULL,
                              .plan_rows = attn_plans(p) * p->q.n,
                              .words = attn_words(p->k.n),
                              .block_k = p->k.size,
                              .falls = tiles_fall(p, w->j->size)};
    return t->runs ? 0 : tiles_list(&l, w->call.stream, e);
}

static int compute_codes(const struct work *w, const struct attn_cuda *all, bool exact,
                         struct err *e)
{
    struct attn_job j = *w->j; /* sizes and precisions alone are read */
    struct attn_cuda c = *all;
    struct attn_lists l;
    struct quant_codes codes;
    j.k.len = c.len_k; /* those of the plan */
    if (!exact) {
        l = lists_of(w, 0, w->p->n_heads);
        c.lists = &l;
    }
    if (sage_codes(&codes, &j, e) < 0 || quant_qkv(&codes, &c, e) < 0) return -1;
    return sage_sm90(&codes, &c, e);
}

/* Every tile, or the plan's: o, and lse and alive where the call has them. */
static int compute(const struct work *w, const struct attn_cuda *all, bool exact, struct err *e)
{
    bool sm90 = w->row == ATTN_SM90;
    if (w->p->qk != ATTN_PREC_RUN) return compute_codes(w, all, exact, e);
    if (!exact && w->parts.runs) {
        struct attn_ragged r = {.rows = (int)w->parts.n_rows,
                                .block_q = ATTN_RAGGED_QUERIES(all->head_dim),
                                .row = (const void *)(w->at + w->parts.rows),
                                .run = (const void *)(w->at + w->parts.run)};
        return attn_ragged_sm90(all, &r, e);
    }
    for (int i = 0, end; i < w->p->n_heads; i = end) {
        end = tiles_heads_end(w->p, i);
        struct attn_cuda c = of_heads(w, all, i, end);
        struct attn_lists l = {0};
        if (!exact) {
            l = lists_of(w, i, end);
            c.lists = &l;
        } else {
            c.alive = NULL;
        }
        if ((sm90 ? attn_sm90(&c, e) : attn_sm80(&c, e)) < 0) return -1;
    }
    return 0;
}

/* One pass over plan and rest. */
static bool one_pass(const struct work *w)
{
    return w->row == ATTN_SM90 && !w->parts.runs && !w->parts.mean && w->p->q.size == 128 &&
           w->p->k.size == 128 && !w->call.alive && !tiles_fall(w->p, w->j->size);
}

static int compute_residual(const struct work *w, const struct attn_cuda *all,
                            const struct attn_tensor *residual, struct err *e)
{
    for (int i = 0, end; i < w->p->n_heads; i = end) {
        end = tiles_heads_end(w->p, i);
        struct attn_cuda c = of_heads(w, all, i, end);
        struct attn_lists l = lists_of(w, i, end);
        struct attn_tensor r = from_head(*residual, attn_head(w->p, i));
        c.lists = &l;
        if (attn_resid_sm90(&c, &r, w->p->rule, e) < 0) return -1;
    }
    return 0;
}

/* --- rules --- */

static struct moved_order order_of(const struct work *w, const struct attn_order *o, size_t at,
                                   int len)
{
    if (!w->at || !o->token) return (struct moved_order){0};
    return (struct moved_order){(const int32_t *)(w->at + at),
                                o->stride && w->p->per_head ? len : 0};
}

static int put_in_order(struct work *w, struct err *e)
{
    const struct attn_plan *p = w->p;
    struct attn_cuda *c = &w->call;
    struct moved_order q = order_of(w, &p->q_order, w->parts.q_token, p->q.len),
                       k = order_of(w, &p->k_order, w->parts.k_token, p->k.len);
    struct attn_tensor to[] = {own_tensor(w, w->room.q, p->q.len),
                               own_tensor(w, w->room.k, p->k.len),
                               own_tensor(w, w->room.v, p->k.len)};
    if (moved_there(to[0].at, &c->q, &q, p->q.len, &w->moved, e) < 0 ||
        moved_there(to[1].at, &c->k, &k, p->k.len, &w->moved, e) < 0 ||
        moved_there(to[2].at, &c->v, &k, p->k.len, &w->moved, e) < 0)
        return -1;
    c->q = to[0], c->k = to[1], c->v = to[2];
    c->o = c->q; /* a row's queries are read before its output is written, and by it alone */
    if (c->lse) c->lse = (float *)(void *)in_scratch(w, w->room.lse);
    return 0;
}

static int put_back(const struct work *w, struct moved_result *r, struct err *e)
{
    const struct attn_job *j = w->j;
    r->o = tensor(&j->o);
    r->residual = tensor(&j->residual);
    r->rows = w->p->q.len;
    if (w->ordered) {
        r->order = order_of(w, &w->p->q_order, w->parts.q_token, w->p->q.len);
        if (j->lse) r->lse_from = w->call.lse, r->lse = j->lse;
    }
    return moved_back(r, &w->moved, e);
}

static int make_residual(const struct work *w, struct err *e)
{
    struct attn_tensor x = own_tensor(w, w->room.x, w->p->q.len), r = tensor(&w->j->residual);
    struct attn_cuda exact = w->call, part = w->call;
    if (one_pass(w)) {
        struct moved_result both = {.x = exact.o, .y = x, .what = MOVED_BOTH};
        if (compute_residual(w, &exact, w->ordered ? &x : &r, e) < 0) return -1;
        return w->ordered ? put_back(w, &both, e) : 0;
    }
    if (w->ordered)
        exact.o = x; /* the queries are still wanted */
    else
        part.o = x;
    part.lse = NULL; /* that of exact attention */
    struct moved_result less = {.x = exact.o, .y = part.o, .what = MOVED_LESS};
    if (compute(w, &exact, true, e) < 0 || compute(w, &part, false, e) < 0) return -1;
    return put_back(w, &less, e);
}

static int by_rule(struct work *w, struct err *e)
{
    const struct attn_plan *p = w->p;
    struct attn_tensor r = tensor(&w->j->residual);
    struct moved_result back = {.what = p->rule == ATTN_ADD_RESIDUAL ? MOVED_ADD : MOVED_BACK};
    if (p->rule == ATTN_MAKE_RESIDUAL) return make_residual(w, e);
    if (p->rule == ATTN_ADD_RESIDUAL && !w->ordered && one_pass(w))
        return compute_residual(w, &w->call, &r, e);
    if (compute(w, &w->call, !w->at, e) < 0) return -1;
    if (!w->ordered && p->rule == ATTN_COMPUTE) return 0;
    back.x = w->call.o;
    return put_back(w, &back, e);
}

static int check(const struct attn_job *j, const void *at, const char *name, struct err *e)
{
    const struct attn_plan *p = j->plan;
    enum dtype type = j->q.type;
    if (type != j->k.type || type != j->v.type || type != j->o.type)
        return err_set(e, ERR_BUG, "attention kernel %s over %s, %s, %s into %s", name,
                       dtype_name(type), dtype_name(j->k.type), dtype_name(j->v.type),
                       dtype_name(j->o.type));
    if (p->n_heads > 65535 || (p->heads && p->n_heads > 256))
        return err_set(e, ERR_USAGE, "attention of %d heads", p->n_heads);
    if (!at && (!p->all || p->rule != ATTN_COMPUTE || p->q_order.token || p->k_order.token))
        return err_set(e, ERR_BUG, "attention by a plan that was not put on the device");
    return 0;
}

static int check_bf16(const struct attn_job *j, const char *name, struct err *e)
{
    if (j->q.type != DTYPE_BF16)
        return err_set(e, ERR_BUG, "attention kernel %s over %s, wanted BF16", name,
                       dtype_name(j->q.type));
    if (j->plan->rule != ATTN_COMPUTE && j->residual.type != DTYPE_BF16)
        return err_set(e, ERR_BUG, "attention kernel %s with a residual of %s, wanted BF16", name,
                       dtype_name(j->residual.type));
    return 0;
}

/* Of dense attention as one tile: it is alive. */
static int all_alive(const struct work *w, struct err *e)
{
    const struct attn_plan *p = w->p;
    struct every_args a = {.n_heads = p->n_heads, .named = p->heads != NULL};
    if (p->k.n != 1)
        return err_set(e, ERR_BUG, "alive of %d tiles of a plan that was not put on the device",
                       p->k.n);
    if (p->heads) memcpy(a.heads, p->heads, (size_t)p->n_heads);
    return every_set(&a, w->j->alive, 0, p->q.n, 1, 1, w->call.stream, e);
}

/* Every key in some order is every key: nothing of the order is left to see. */
static bool is_dense(const struct attn_job *j)
{
    const struct attn_plan *p = j->plan;
    return p->all && p->rule == ATTN_COMPUTE && p->k.len == j->k.len && !j->alive &&
           (!p->key_bias || !p->k_order.token);
}

static struct work work_of(enum attn_cuda_row row, struct device *d, const struct attn_job *j,
                           const void *at)
{
    const struct attn_plan *p = j->plan;
    struct work w = {.j = j, .p = p, .row = row, .at = at};
    w.call = (struct attn_cuda){.q = tensor(&j->q),
                                .k = tensor(&j->k),
                                .v = tensor(&j->v),
                                .o = tensor(&j->o),
                                .k_mean = tensor(&j->k_mean),
                                .v_mean = tensor(&j->v_mean),
                                .len_q = p->q.len,
                                .len_k = p->k.len,
                                .n_heads = j->q.n,
                                .head_dim = j->q.dim,
                                .key_bias = p->key_bias,
                                .lse = j->lse,
                                .alive = j->alive,
                                .alive_log2 = j->alive_log2,
                                .scratch = j->scratch,
                                .stream = device_stream(d)};
    w.moved = (struct moved){.n_heads = p->n_heads,
                             .head_dim = j->q.dim,
                             .named = p->heads != NULL,
                             .stream = w.call.stream};
    if (p->heads) memcpy(w.moved.heads, p->heads, (size_t)p->n_heads);
    if (at) {
        w.parts = tiles_parts(p, j->size);
        w.room = room_of(j->size);
    }
    return w;
}

static int run(enum attn_cuda_row row, struct device *d, const struct attn_job *j, const void *at,
               struct err *e)
{
    const struct attn_plan *p = j->plan;
    const char *name = row == ATTN_SM90 ? "sm90" : "sm80";
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) return every_run(d, j, at, e);
    if (check(j, at, name, e) < 0 || check_bf16(j, name, e) < 0) return -1;
    struct work w = work_of(row, d, j, is_dense(j) ? NULL : at);
    if (!w.at && j->alive && all_alive(&w, e) < 0) return -1;
    if (!w.at) return by_rule(&w, e);
    if (list_tiles(&w, e) < 0) return -1;
    w.ordered = p->q_order.token || p->k_order.token;
    if (tiles_fall(p, j->size) && !j->alive) { /* listed for the kernel that records */
        w.call.alive = (uint32_t *)(void *)in_scratch(&w, w.room.alive);
        w.call.alive_log2 = -1;
    }
    if (w.ordered && put_in_order(&w, e) < 0) return -1;
    return by_rule(&w, e);
}

int tiles_run_sm90(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    return run(ATTN_SM90, d, j, at, e);
}

int tiles_run_sage(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    return run(ATTN_SM90, d, j, at, e);
}

int tiles_run_sm80(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    return run(ATTN_SM80, d, j, at, e);
}

static int run_wide(struct device *d, const struct attn_job *j, const void *at, bool units,
                    struct err *e)
{
    struct err odd; /* strides are known only here */
    if (check(j, at, units ? "tf32" : "simt", e) < 0) return -1;
    struct work w = work_of(ATTN_SM80, d, j, at);
    struct attn_lists l = {0};
    if (at) {
        if (list_tiles(&w, e) < 0) return -1;
        l = lists_of(&w, 0, w.p->n_heads);
        w.call.lists = &l;
    }
    if (units && attn_tf32_takes(&w.call, &odd) == 0) return attn_tf32(&w.call, e);
    return attn_simt(&w.call, j->q.type, e);
}

int tiles_run_simt(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    return run_wide(d, j, at, false, e);
}

int tiles_run_tf32(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    return run_wide(d, j, at, true, e);
}
