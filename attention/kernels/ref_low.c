/* The judge's products over codes: the same codes as every kernel's (cpu_codes.h), integer sums,
 * weights rounded as plan.pv says, everything else in double. Keys come in the chunks of the kernel
 * that is judged, which its 8-bit weights depend on (kernels.h). */
#include "attention/kernels/cpu_codes.h"
#include "attention/kernels/ref.h"
#include "model/base/threads.h"

static void *take(char *at, size_t *used, size_t bytes)
{
    void *p = at ? at + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return p;
}

size_t low_carve(struct low *l, int len_k, int cols, int n_heads, int dim, void *at)
{
    size_t n = (size_t)n_heads, d = (size_t)dim, keys = n * (size_t)len_k, used = 0;
    size_t means = n * (size_t)cols;
    l->less = take(at, &used, n * d * sizeof *l->less);
    l->v_scale = take(at, &used, n * d * sizeof *l->v_scale);
    l->k = take(at, &used, keys * d);
    l->k_scale = take(at, &used, keys * sizeof *l->k_scale);
    l->v = take(at, &used, keys * d * sizeof *l->v);
    l->mean = take(at, &used, means * d);
    l->mean_scale = take(at, &used, means * sizeof *l->mean_scale);
    l->v_mean = take(at, &used, means * d * sizeof *l->v_mean);
    return used;
}

static void fetch(float *x, const struct heads *h, int token, int head)
{
    for (int c = 0; c < h->dim; c++)
        x[c] = (float)element(h, token, head, c);
}

/* One row of values under the head's scales. */
static void value_row(float *to, const float *v, const float *scale, int dim, enum attn_prec pv)
{
    for (int c = 0; c < dim; c++)
        to[c] = pv == ATTN_PREC_INT8  ? (float)codes_value(v[c], scale[c])
                : pv == ATTN_PREC_FP8 ? codes_value_fp8(v[c], scale[c])
                                      : v[c];
}

struct coded { /* of keys and their values, one head's */
    const struct heads *k, *v;
    int8_t *code;
    float *scale, *value;
};

static void make_rows(const struct coded *r, const struct low *l, const struct attn_plan *p,
                      int head)
{
    size_t d = (size_t)r->k->dim, first = (size_t)head * (size_t)r->k->len;
    float x[ATTN_MAX_HEAD_DIM], tmp[ATTN_MAX_HEAD_DIM];
    for (int i = 0; i < r->k->len; i++) {
        size_t at = first + (size_t)i;
        fetch(x, r->k, i, head);
        r->scale[at] = codes_row(r->code + at * d, tmp, x, l->less + (size_t)head * d, r->k->dim,
                                 codes_most(p->qk), p->codes.rotate);
        if (!r->v->at) continue;
        fetch(x, r->v, i, head);
        value_row(r->value + at * d, x, l->v_scale + (size_t)head * d, r->v->dim, p->pv);
    }
}

static void make_head(void *ctx, int i, int worker)
{
    const struct judging *g = ctx;
    const struct attn_job *j = g->j;
    const struct low *l = &g->low;
    int head = attn_head(j->plan, i), d = j->q.dim;
    double sum[ATTN_MAX_HEAD_DIM] = {0};
    uint32_t top[ATTN_MAX_HEAD_DIM] = {0};
    float x[ATTN_MAX_HEAD_DIM];
    (void)worker;
    for (int t = 0; t < j->k.len; t++) {
        fetch(x, &j->k, t, head);
        codes_add(sum, top, x, NULL, d);
        if (!j->v.at) continue;
        fetch(x, &j->v, t, head);
        codes_add(sum, top, NULL, x, d);
    }
    size_t at = (size_t)head * (size_t)d;
    codes_head(l->less + at, l->v_scale + at, sum, top, d, j->k.len, j->plan);
    make_rows(&(struct coded){&j->k, &j->v, l->k, l->k_scale, l->v}, l, j->plan, head);
    if (j->plan->mean && !j->plan->all)
        make_rows(&(struct coded){&j->k_mean, &j->v_mean, l->mean, l->mean_scale, l->v_mean}, l,
                  j->plan, head);
}

void low_make(struct judging *g) { threads_run(g->j->plan->n_heads, make_head, g); }

/* Of the positions that share it with the query's. */
static void query_mean(struct query *q)
{
    const struct attn_job *j = q->g->j;
    const struct attn_plan *p = j->plan;
    double sum[ATTN_MAX_HEAD_DIM] = {0};
    float x[ATTN_MAX_HEAD_DIM];
    int from = q->position / ATTN_CODE_BLOCK * ATTN_CODE_BLOCK, n = 0;
    for (; n < ATTN_CODE_BLOCK && from + n < p->q.len; n++) {
        fetch(x, &j->q, attn_token(&p->q_order, q->plan, from + n), q->head);
        codes_add(sum, NULL, x, NULL, j->q.dim);
    }
    codes_mean(q->mean, sum, n, j->q.dim);
}

void low_query(struct query *q)
{
    const struct attn_job *j = q->g->j;
    const float *less = q->g->low.less + (size_t)q->head * (size_t)j->q.dim;
    float x[ATTN_MAX_HEAD_DIM], tmp[ATTN_MAX_HEAD_DIM];
    fetch(x, &j->q, q->token, q->head);
    bool smooth = j->plan->codes.smooth_q;
    if (smooth) query_mean(q);
    q->code_scale = (double)codes_row(q->code, tmp, x, smooth ? q->mean : NULL, j->q.dim,
                                      codes_most(j->plan->qk), j->plan->codes.rotate);
    q->shift = 0;
    for (int c = 0; c < j->q.dim; c++)
        q->shift += (double)x[c] * (double)less[c] / sqrt((double)j->q.dim);
}

/* What smooth_q took off the score of a key: row `at` of keys or of means. */
static double taken(const struct query *q, const struct heads *keys, int at)
{
    const float *less = q->g->low.less + (size_t)q->head * (size_t)keys->dim;
    float x[ATTN_MAX_HEAD_DIM];
    double sum = 0;
    if (!q->g->j->plan->codes.smooth_q) return 0;
    fetch(x, keys, at, q->head);
    for (int c = 0; c < keys->dim; c++)
        sum += (double)q->mean[c] * (double)(x[c] - less[c]);
    return sum / sqrt((double)keys->dim);
}

static double score(const struct query *q, const int8_t *k, double scale)
{
    int dim = q->g->j->q.dim;
    int32_t dot = 0;
    for (int c = 0; c < dim; c++)
        dot += (int32_t)q->code[c] * k[c];
    return (double)dot * (q->code_scale * scale) / sqrt((double)dim) + q->shift;
}

double low_score(const struct query *q, int token)
{
    const struct low *l = &q->g->low;
    size_t at = (size_t)q->head * (size_t)q->g->j->k.len + (size_t)token;
    return score(q, l->k + at * (size_t)q->g->j->q.dim, (double)l->k_scale[at]) +
           taken(q, &q->g->j->k, token);
}

double low_score_mean(const struct query *q, int tile)
{
    const struct low *l = &q->g->low;
    size_t at = (size_t)q->head * (size_t)q->g->j->plan->k.n + (size_t)tile;
    return score(q, l->mean + at * (size_t)q->g->j->q.dim, (double)l->mean_scale[at]) +
           taken(q, &q->g->j->k_mean, tile);
}

/* --- sums by chunks --- */

#define MOST_CHUNK 256

struct walk {
    struct query *q;
    double *acc, most, sum; /* most: in powers of two */
    int n, panels; /* keys and panels of the chunk */
    double s[MOST_CHUNK];
    const float *v[MOST_CHUNK];
};

static void add_chunk(struct walk *w)
{
    const struct attn_job *j = w->q->g->j;
    const float *scale = w->q->g->low.v_scale + (size_t)w->q->head * (size_t)j->q.dim;
    double top = -HUGE_VAL;
    for (int i = 0; i < w->n; i++)
        top = w->s[i] > top ? w->s[i] : top;
    double most = top > w->most ? top : w->most, shrink = exp2(w->most - most);
    for (int c = 0; c < j->q.dim && shrink < 1; c++)
        w->acc[c] *= shrink;
    if (shrink < 1) w->sum *= shrink;
    w->most = most;
    for (int i = 0; i < w->n && top > -HUGE_VAL; i++) {
        double p, share; /* what a value is multiplied with, and one of it */
        if (j->plan->pv == ATTN_PREC_INT8) {
            p = rint(255 * exp2(w->s[i] - top));
            share = exp2(top - most) / 255;
            w->sum += p * share;
        } else {
            p = exp2(w->s[i] - most);
            w->sum += p;
            p = (double)codes_e4m3((float)(p * 448));
            share = 1.0 / 448;
        }
        for (int c = 0; c < j->q.dim; c++)
            w->acc[c] += p * share * (double)w->v[i][c] * (double)scale[c];
    }
    w->n = w->panels = 0;
}

static void add_key(struct walk *w, int position)
{
    const struct attn_job *j = w->q->g->j;
    int token = attn_token(&j->plan->k_order, w->q->plan, position);
    size_t at = (size_t)w->q->head * (size_t)j->k.len + (size_t)token;
    w->s[w->n] = w->q->score[position] * LOG2E;
    w->v[w->n++] = w->q->g->low.v + at * (size_t)j->q.dim;
}

static void end_panel(struct walk *w)
{
    if (++w->panels == w->q->g->low.chunk / w->q->g->low.panel) add_chunk(w);
}

static bool one_by_one(const struct attn_plan *p) { return !p->all && !p->k.size; }

/* Positions [k0, k1) of one run. */
static void add_run(struct walk *w, int k0, int k1)
{
    int panel = w->q->g->low.panel;
    for (int i = k0; i < k1; i++) {
        add_key(w, i);
        if (one_by_one(w->q->g->j->plan)) {
            if (w->n == w->q->g->low.chunk) add_chunk(w);
        } else if (i + 1 == k1 || (i + 1) % panel == 0) {
            end_panel(w);
        }
    }
}

static void add_columns(struct walk *w)
{
    const struct attn_plan *p = w->q->g->j->plan;
    size_t at = (size_t)w->q->plan * (size_t)p->q.n + (size_t)w->q->row;
    for (uint32_t i = p->column_ptr[at]; i < p->column_ptr[at + 1]; i++) {
        int tile = attn_block_of(&p->k, w->q->plan, p->columns[i]);
        if (attn_plan_fate(p, w->q->plan, w->q->row, tile) == ATTN_COMPUTED) continue;
        add_key(w, p->columns[i]);
        if (w->n == w->q->g->low.chunk) add_chunk(w);
    }
    add_chunk(w);
}

static void add_means(struct walk *w)
{
    const struct attn_job *j = w->q->g->j;
    const struct attn_plan *p = j->plan;
    int panel = w->q->g->low.panel, before = 0;
    for (int t = 0; t < p->k.n; t++) {
        int size = attn_block_at(&p->k, w->q->plan, t + 1) - attn_block_at(&p->k, w->q->plan, t);
        if (size && attn_plan_fate(p, w->q->plan, w->q->row, t) == ATTN_BY_MEAN) {
            size_t at = (size_t)w->q->head * (size_t)p->k.n + (size_t)t;
            w->s[w->n] = w->q->score[p->k.len + t] * LOG2E;
            w->v[w->n++] = w->q->g->low.v_mean + at * (size_t)j->q.dim;
        }
        if ((t + 1) % panel && t + 1 < p->k.n) continue;
        if (w->n > before) end_panel(w);
        before = w->n;
    }
    add_chunk(w);
}

/* Tiles, or runs, and columns: what is before the means. */
static void add_plan(struct walk *w)
{
    const struct attn_job *j = w->q->g->j;
    const struct attn_plan *p = j->plan;
    struct attn_run r = attn_run_begin(p, w->q->plan, w->q->row);
    bool apart = !one_by_one(p) || j->alive; /* columns by themselves */
    for (int i = 0; j->alive && i < p->k.n; i++) {
        int t = p->walk == ATTN_WALK_DOWN ? p->k.n - 1 - i : i;
        if (attn_plan_fate(p, w->q->plan, w->q->row, t) != ATTN_COMPUTED) continue;
        add_run(w, attn_block_at(&p->k, w->q->plan, t), attn_block_at(&p->k, w->q->plan, t + 1));
        add_chunk(w);
    }
    if (apart) r.columns = r.column;
    while (!j->alive && attn_run_next(&r))
        add_run(w, r.k0, r.k1);
    add_chunk(w);
    if (apart && p->column_ptr && !p->all) add_columns(w);
}

static struct walk begin(struct query *q, double *acc)
{
    for (int c = 0; c < q->g->j->q.dim; c++)
        acc[c] = 0;
    return (struct walk){.q = q, .acc = acc, .most = -HUGE_VAL};
}

static double end(struct walk *w)
{
    w->q->most = w->most / LOG2E;
    return w->sum;
}

double low_sums(struct query *q, double *acc)
{
    const struct attn_plan *p = q->g->j->plan;
    struct walk w = begin(q, acc);
    add_plan(&w);
    if (p->mean && !p->all) add_means(&w);
    return end(&w);
}

/* MAKE_RESIDUAL goes on from the plan's keys to the rest. */
double low_all_sums(struct query *q, double *acc)
{
    const struct attn_plan *p = q->g->j->plan;
    struct walk w = begin(q, acc);
    int from = 0;
    add_plan(&w);
    for (struct attn_run r = attn_run_begin(p, q->plan, q->row); attn_run_next(&r);) {
        add_run(&w, from, r.k0);
        from = r.k1;
    }
    add_run(&w, from, p->k.len);
    add_chunk(&w);
    return end(&w);
}
