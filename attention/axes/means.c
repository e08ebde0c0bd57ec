/* Blocks that are not kept count by their means, and which are kept so that this errs least: SVG-EAR,
 * arXiv 2603.08982; attention-sparse.md 1c, 17.2. */
#include "attention/axes/axes.h"
#include "attention/policy/pool.h"
#include "attention/policy/score.h"

#include <math.h>
#include <string.h>

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

/* --- means --- */

size_t means_carve(struct means *to, const struct attn_part *p, char *at)
{
    struct attn_limits most = attn_limits(p);
    size_t n = (size_t)p->shape->n_heads, blocks = (size_t)most.blocks;
    size_t means = round64(blocks * n * (size_t)p->shape->head_dim * sizeof(float));
    size_t plane = round64(n * blocks * (size_t)attn_words(most.blocks) * sizeof(uint32_t));
    *to = (struct means){0};
    if (at) *to = (struct means){(float *)at, (float *)(at + means), (uint32_t *)(at + 2 * means)};
    return 2 * means + plane;
}

static void head_means(const struct axis_head *h)
{
    const struct means *to = h->ctx;
    size_t dim = (size_t)h->k.dim, token = (size_t)h->p->shape->n_heads * dim;
    struct blocks v = h->k;
    v.x = heads_at(&h->t->v, 0, h->head);
    v.stride = h->t->v.token;
    for (int b = 0; b < h->k.n; b++) {
        float *km = to->k + (size_t)b * token + (size_t)h->head * dim;
        float *vm = to->v + (size_t)b * token + (size_t)h->head * dim;
        float part = 1 / (float)blocks_count(&h->k, b); /* not used where there are none */
        memset(km, 0, dim * sizeof *km);
        memset(vm, 0, dim * sizeof *vm);
        for (int at = blocks_begin(&h->k, b); at < blocks_begin(&h->k, b + 1); at++)
            for (size_t c = 0; c < dim; c++) {
                km[c] += blocks_row(&h->k, at)[c] * part;
                vm[c] += blocks_row(&v, at)[c] * part;
            }
    }
}

int means_before(const struct attn_part *p, const struct attn_turn *t, struct attn_launch *l,
                 struct err *e)
{
    struct attn_plan *plan = &l->plan, each = l->plan;
    struct means to;
    int words = attn_words(plan->k.n);
    (void)e;
    means_carve(&to, p, attn_scratch(p));
    each.per_head = true; /* a head's means are its own, also where all share one plan */
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .ctx = &to, .fn = head_means});
    memset(to.plane, 0, attn_plane_size(plan) * sizeof *to.plane);
    for (int i = 0; i < attn_plans(plan); i++)
        for (int r = 0; r < plan->q.n; r++)
            for (int c = 0; c < plan->k.n; c++) {
                size_t row = (size_t)i * (size_t)plan->q.n + (size_t)r;
                if (attn_block_at(&plan->k, i, c) < attn_block_at(&plan->k, i, c + 1) &&
                    !attn_bit(plan->kept, row, words, c))
                    select_add(to.plane + row * (size_t)words, c);
            }
    plan->mean = to.plane;
    l->k_mean = heads_f32(to.k, plan->k.n, p->shape->n_heads, p->shape->head_dim);
    l->v_mean = heads_f32(to.v, plan->k.n, p->shape->n_heads, p->shape->head_dim);
    return 0;
}

static unsigned means_looks(const struct attn_part *p, const struct attn_turn *t)
{
    return (void)p, (void)t, ATTN_LOOK_K | ATTN_LOOK_V;
}

static void means_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    struct means none;
    s->scratch = means_carve(&none, p, NULL);
}

const struct axis_compensate rest_by_mean = {
    .name = "mean",
    .summary = "blocks that are not kept count by their means",
    .needs = ATTN_NEED_MEAN,
    .before = means_before,
    .sizes = means_sizes,
    .before_looks = means_looks,
};

/* --- where a mean would err --- */

/* Mean over the keys of each block of (exp(z) - exp(s))^2, z the score of the block's mean and s that
 * of a key, under the largest of both; all of one query. */
static void errors(float *error, const struct axis_head *h, const float *z, const float *s)
{
    float top = -INFINITY;
    for (int c = 0; c < h->k.n; c++)
        if (blocks_count(&h->k, c) && z[c] > top) top = z[c];
    for (int j = 0; j < h->k.len; j++)
        if (s[j] > top) top = s[j];
    for (int c = 0; c < h->k.n; c++) {
        double sum = 0;
        float mean = expf(z[c] - top);
        int n = blocks_count(&h->k, c);
        for (int at = blocks_begin(&h->k, c); at < blocks_begin(&h->k, c + 1); at++) {
            float d = mean - expf(s[h->k.order ? h->k.order[at] : at] - top);
            sum += (double)(d * d);
        }
        error[c] = n ? (float)(sum / n) : -INFINITY;
    }
}

/* Of each row as many keys as top-p would keep, in blocks of largest error; the one that crosses is
 * kept. */
static void by_error(const struct axis_head *h)
{
    const struct attn_knobs *o = h->p->knobs;
    size_t dim = (size_t)h->q.dim;
    int cols = h->k.n, words = attn_words(cols), least = (int)(o->least * cols);
    float *qp = h->scratch, *kp = qp + (size_t)h->q.n * dim, *z = kp + (size_t)cols * dim,
          *row = z + cols, *s = row + cols;
    int *index = (int *)(s + h->k.len);
    pool_mean(qp, &h->q);
    pool_mean(kp, &h->k);
    for (int r = 0; r < h->q.n; r++) {
        uint32_t *bits = h->kept + (size_t)r * (size_t)words;
        const float *q = qp + (size_t)r * dim;
        int budget = 0;
        memcpy(row, h->scores + (size_t)r * (size_t)cols, (size_t)cols * sizeof *row);
        score_softmax(row, 1, cols);
        select_top_p(bits, row, 1, cols, o->mass, least, index);
        for (int c = 0; c < cols; c++)
            if (select_has(bits, c)) budget += blocks_count(&h->k, c);
        memset(bits, 0, (size_t)words * sizeof *bits);
        h->dots(z, cols, q, (int64_t)dim, kp, (int64_t)dim, 1, cols, h->q.dim, h->scale);
        h->dots(s, h->k.len, q, (int64_t)dim, h->k.x, h->k.stride, 1, h->k.len, h->q.dim, h->scale);
        errors(row, h, z, s);
        int n = select_best(index, row, cols, cols);
        for (int i = 0; i < n && budget > 0; i++) {
            select_add(bits, index[i]);
            budget -= blocks_count(&h->k, index[i]);
        }
    }
    axis_finish(h);
}

static void error_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t n = (size_t)attn_limits(p).blocks;
    s->scratch = axis_scratch(p, (n * (2 * (size_t)p->shape->head_dim + 3) + (size_t)p->tokens) *
                                     sizeof(float));
}

AXIS_SELECT(by_error)
const struct axis_select keep_by_error = {
    .name = "error",
    .summary = "as many pairs as hold a row's weight, where a mean would err most",
    .needs_score = true,
    .per_head = true,
    .select = by_error_all,
    .sizes = error_sizes};
