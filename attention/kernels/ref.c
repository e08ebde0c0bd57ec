/* The judge: plain C, every field of a plan and a job, sums in double, one query at a time. Slow on
 * purpose. Tensors are fp32 or bf16, in any strides. */
#include "attention/kernels/ref.h"
#include "model/base/threads.h"

#include <stdlib.h>
#include <string.h>

#define PANEL 32 /* keys of 8-bit weights that share a maximum: kernels.h */
#define CHUNK 128
#define PIECE 32 /* queries of a task where rows need not stay whole */

static double dot(const struct heads *a, int i, const struct heads *b, int j, int head)
{
    double s = 0;
    if (a->type == DTYPE_F32 && b->type == DTYPE_F32) {
        const float *x = heads_at(a, i, head), *y = heads_at(b, j, head);
        for (int c = 0; c < a->dim; c++)
            s += (double)x[c] * (double)y[c];
    } else {
        for (int c = 0; c < a->dim; c++)
            s += element(a, i, head, c) * element(b, j, head, c);
    }
    return s;
}

static void store(const struct heads *h, int token, int head, int c, double x, bool round)
{
    void *at = heads_at(h, token, head);
    float f = (float)x;
    if (h->type == DTYPE_BF16)
        ((uint16_t *)at)[c] = f32_to_bf16(f);
    else
        ((float *)at)[c] = round ? bf16_round(f) : f;
}

static double scale_of(const struct attn_job *j) { return 1 / sqrt((double)j->q.dim); }

static enum attn_fate fate_of(const struct query *q, int tile)
{
    return q->fate ? q->fate[tile] : attn_plan_fate(q->g->j->plan, q->plan, q->row, tile);
}

static int tile_size(const struct query *q, int tile)
{
    const struct attn_blocks *k = &q->g->j->plan->k;
    return attn_block_at(k, q->plan, tile + 1) - attn_block_at(k, q->plan, tile);
}

static void set_token(struct query *q, int position)
{
    q->position = position;
    q->token = attn_token(&q->g->j->plan->q_order, q->plan, position);
    if (q->g->low.on) low_query(q);
}

/* Score of a position; keeps the largest. */
static double score_key(struct query *q, int position)
{
    const struct attn_job *j = q->g->j;
    const struct attn_plan *p = j->plan;
    int key = attn_token(&p->k_order, q->plan, position);
    double s =
        q->g->low.on ? low_score(q, key) : dot(&j->q, q->token, &j->k, key, q->head) * scale_of(j);
    if (p->key_bias) s += (double)p->key_bias[position];
    q->score[position] = s;
    return s;
}

/* Scores of a tile; how far its largest is above the largest before it, in powers of two. */
static double score_tile(struct query *q, int tile)
{
    const struct attn_blocks *k = &q->g->j->plan->k;
    double most = -HUGE_VAL;
    for (int i = attn_block_at(k, q->plan, tile); i < attn_block_at(k, q->plan, tile + 1); i++) {
        double s = score_key(q, i);
        if (!(s <= most)) most = s; /* NaN too */
    }
    double rise = q->most == -HUGE_VAL ? HUGE_VAL : (most - q->most) * LOG2E;
    if (!(most <= q->most)) q->most = most;
    return rise;
}

static void score_mean(struct query *q, int tile)
{
    const struct attn_job *j = q->g->j;
    double s = q->g->low.on ? low_score_mean(q, tile)
                            : dot(&j->q, q->token, &j->k_mean, tile, q->head) * scale_of(j);
    s += log((double)tile_size(q, tile));
    q->score[j->plan->k.len + tile] = s;
    if (s > q->most) q->most = s;
}

static double add(double *acc, const struct query *q, const struct heads *v, int at, double s)
{
    double p = q->most == -HUGE_VAL ? 0 : exp(s - q->most);
    if (p != 0) /* 0 * NaN of a hidden key is not a weight */
        for (int c = 0; c < v->dim; c++)
            acc[c] += p * element(v, at, q->head, c);
    return p;
}

static int nth_tile(const struct attn_plan *p, int i)
{
    return p->walk == ATTN_WALK_DOWN ? p->k.n - 1 - i : i;
}

/* Whether no computed tile holds the row's i-th column; *tile: where the one before lies. */
static bool own_column(const struct query *q, uint32_t i, int *tile)
{
    const struct attn_plan *p = q->g->j->plan;
    while (attn_block_at(&p->k, q->plan, *tile + 1) <= p->columns[i])
        ++*tile;
    return fate_of(q, *tile) != ATTN_COMPUTED;
}

/* The plan's softmax sums of one query: acc [dim], returns the sum of weights, q->most is their
 * base. rise [k.n]: of each computed tile, largest over queries so far, or NULL. */
static double plan_sums(struct query *q, double *acc, double *rise)
{
    const struct attn_job *j = q->g->j;
    const struct attn_plan *p = j->plan;
    size_t at = (size_t)q->plan * (size_t)p->q.n + (size_t)q->row;
    uint32_t from = p->column_ptr && !p->all ? p->column_ptr[at] : 0,
             to = p->column_ptr && !p->all ? p->column_ptr[at + 1] : 0;
    double sum = 0;
    int tile = 0;
    memset(acc, 0, (size_t)j->q.dim * sizeof *acc);
    q->most = -HUGE_VAL;
    for (int i = 0; i < p->k.n; i++) {
        int t = nth_tile(p, i);
        if (fate_of(q, t) != ATTN_COMPUTED || !tile_size(q, t)) continue;
        double r = score_tile(q, t);
        if (rise && !(r <= rise[t])) rise[t] = r;
    }
    for (uint32_t i = from; i < to; i++)
        if (own_column(q, i, &tile)) {
            double s = score_key(q, p->columns[i]);
            if (!(s <= q->most)) q->most = s;
        }
    for (int t = 0; t < p->k.n; t++)
        if (fate_of(q, t) == ATTN_BY_MEAN && tile_size(q, t)) score_mean(q, t);
    for (int t = 0; t < p->k.n; t++) {
        enum attn_fate fate = fate_of(q, t);
        int k0 = attn_block_at(&p->k, q->plan, t), k1 = attn_block_at(&p->k, q->plan, t + 1);
        for (int i = k0; fate == ATTN_COMPUTED && i < k1; i++)
            sum += add(acc, q, &j->v, attn_token(&p->k_order, q->plan, i), q->score[i]);
        if (fate != ATTN_BY_MEAN || k0 == k1) continue;
        double s = q->score[p->k.len + t];
        if (p->sol_tau != 0) { /* values are sums: the weight is of one key */
            (void)add(acc, q, &j->v_sum, t, s - log((double)(k1 - k0)));
            sum += exp(s - q->most);
        } else {
            sum += add(acc, q, &j->v_mean, t, s);
        }
    }
    tile = 0;
    for (uint32_t i = from; i < to; i++)
        if (own_column(q, i, &tile))
            sum += add(acc, q, &j->v, attn_token(&p->k_order, q->plan, p->columns[i]),
                       q->score[p->columns[i]]);
    return sum;
}

/* Every position. */
static double exact_sums(struct query *q, double *acc)
{
    const struct attn_job *j = q->g->j;
    const struct attn_plan *p = j->plan;
    double sum = 0;
    memset(acc, 0, (size_t)j->q.dim * sizeof *acc);
    q->most = -HUGE_VAL;
    for (int i = 0; i < p->k.len; i++) {
        double s = score_key(q, i);
        if (!(s <= q->most)) q->most = s;
    }
    for (int i = 0; i < p->k.len; i++)
        sum += add(acc, q, &j->v, attn_token(&p->k_order, q->plan, i), q->score[i]);
    return sum;
}

/* What a query leaves behind; returns the logarithm of its sum. */
static double judge_query(struct query *q, double *rise)
{
    const struct attn_job *j = q->g->j;
    const struct attn_plan *p = j->plan;
    double acc[ATTN_MAX_HEAD_DIM], part[ATTN_MAX_HEAD_DIM] = {0};
    double sum = plan_sums(q, acc, rise);
    bool make = p->rule == ATTN_MAKE_RESIDUAL, low = q->g->low.on && p->pv != ATTN_PREC_RUN;
    if (low) sum = low_sums(q, acc);
    if (make) {
        for (int c = 0; c < j->q.dim; c++)
            part[c] = sum == 0 ? 0 : acc[c] / sum;
        sum = exact_sums(q, acc);
        if (low) sum = low_all_sums(q, acc);
    }
    for (int c = 0; c < j->q.dim; c++) {
        double x = sum == 0 ? 0 : acc[c] / sum;
        if (make) store(&j->residual, q->token, q->head, c, x - part[c], false);
        if (p->rule == ATTN_ADD_RESIDUAL) x += element(&j->residual, q->token, q->head, c);
        if (q->g->out->o)
            q->g->out->o[((size_t)q->token * (size_t)j->q.n + (size_t)q->head) * (size_t)j->q.dim +
                         (size_t)c] = (float)x;
        if (!j->o.at) continue;
        if (j->accumulate) {
            float y = (float)x, before = (float)element(&j->o, q->token, q->head, c);
            x = (double)(before + (q->g->round ? bf16_round(y) : y));
        }
        store(&j->o, q->token, q->head, c, x, q->g->round);
    }
    double lse = sum == 0 ? -HUGE_VAL : q->most + log(sum);
    if (j->lse) j->lse[(size_t)q->head * (size_t)j->q.len + (size_t)q->token] = (float)lse;
    return lse;
}

static void add_mass(struct query *q, double *mass, double lse, int queries)
{
    const struct attn_blocks *k = &q->g->j->plan->k;
    if (lse == -HUGE_VAL) return;
    for (int t = 0; t < k->n; t++)
        for (int i = attn_block_at(k, q->plan, t); i < attn_block_at(k, q->plan, t + 1); i++)
            mass[t] += exp(score_key(q, i) - lse) / queries;
}

/* One row of blocks of one head. */
static void judge_row(const struct judging *g, struct query *q, double *rise)
{
    const struct attn_job *j = g->j;
    const struct attn_plan *p = j->plan;
    int q0 = attn_block_at(&p->q, q->plan, q->row), q1 = attn_block_at(&p->q, q->plan, q->row + 1);
    size_t head_row = (size_t)q->head * (size_t)p->q.n + (size_t)q->row, cols = (size_t)p->k.n;
    double *mass = rise + cols;
    enum attn_fate *fate = (void *)(mass + cols);
    for (size_t t = 0; t < cols; t++)
        rise[t] = -HUGE_VAL, mass[t] = 0;
    if (p->sol_tau != 0) {
        sol_fates(fate, j, q->head, q->plan, q->row);
        q->fate = fate;
    }
    if (p->skip_log2 < 0) { /* which tiles no query of the row would miss */
        double acc[ATTN_MAX_HEAD_DIM];
        for (int i = q0; i < q1; i++) {
            set_token(q, i);
            (void)plan_sums(q, acc, rise);
        }
        for (int t = 0; t < p->k.n; t++) {
            fate[t] = fate_of(q, t);
            if (fate[t] == ATTN_COMPUTED && !(rise[t] > (double)p->skip_log2))
                fate[t] = ATTN_LEFT_OUT;
        }
        q->fate = fate;
    }
    for (int i = q0; i < q1; i++) {
        set_token(q, i);
        size_t at = (size_t)q->head * (size_t)j->q.len + (size_t)q->token;
        double lse = j->o.at || g->out->o ? judge_query(q, rise) : (double)j->lse[at];
        if (j->mass) add_mass(q, mass, lse, q1 - q0);
    }
    q->fate = NULL;
    for (size_t t = 0; j->mass && t < cols; t++)
        j->mass[head_row * cols + t] = (float)mass[t];
    for (size_t t = 0; g->out->margin && t < cols; t++)
        g->out->margin[head_row * cols + t] = (float)rise[t];
    size_t words = (size_t)attn_words(p->k.n);
    if (!j->alive) return;
    memset(j->alive + head_row * words, 0, words * sizeof *j->alive);
    for (size_t t = 0; t < cols; t++)
        if (rise[t] > (double)j->alive_log2)
            j->alive[head_row * words + t / 32] |= (uint32_t)1 << (t % 32);
}

static void judge_task(void *ctx, int task, int worker)
{
    const struct judging *g = ctx;
    const struct attn_plan *p = g->j->plan;
    int per_head = g->whole ? p->q.n : (p->q.len + PIECE - 1) / PIECE, i = task / per_head;
    double *scratch = g->scratch + g->each * (size_t)worker;
    struct query q = {
        .g = g,
        .head = attn_head(p, i),
        .plan = p->per_head ? i : 0,
        .score = scratch,
    };
    if (g->whole) {
        q.row = task % per_head;
        if (g->out->only_row < 0 || q.row == g->out->only_row)
            judge_row(g, &q, scratch + p->k.len + p->k.n);
        return;
    }
    int first = task % per_head * PIECE;
    for (int n = first; n < p->q.len && n < first + PIECE; n++) {
        q.row = attn_block_of(&p->q, q.plan, n);
        set_token(&q, n);
        if (g->out->only_row < 0 || q.row == g->out->only_row) (void)judge_query(&q, NULL);
    }
}

/* doubles a worker: scores of positions and means, rises, masses, fates */
static size_t each_of(int len_k, int cols)
{
    return ((size_t)len_k + 4 * (size_t)cols + 7) / 8 * 8;
}

static void judge_all(struct judging *g)
{
    const struct attn_job *j = g->j;
    const struct attn_plan *p = j->plan;
    g->whole = j->mass || j->alive || g->out->margin || p->skip_log2 < 0 || p->sol_tau != 0;
    int per_head = g->whole ? p->q.n : (p->q.len + PIECE - 1) / PIECE;
    if (g->low.on) low_make(g);
    threads_run(p->n_heads * per_head, judge_task, g);
}

int attn_judge(const struct attn_job *j, const struct attn_judge *out, struct err *e)
{
    const struct attn_plan *p = j->plan;
    struct judging g = {.j = j, .out = out, .each = each_of(p->k.len, p->k.n)};
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY)
        return err_set(e, ERR_BUG, "there is nothing to judge where nothing is computed");
    size_t doubles = (size_t)threads_count() * g.each;
    g.low = (struct low){.on = p->qk != ATTN_PREC_RUN, .panel = PANEL, .chunk = CHUNK};
    if (out->panel) g.low.panel = out->panel, g.low.chunk = out->chunk;
    size_t codes = g.low.on ? low_carve(&g.low, j->k.len, p->k.n, j->q.n, j->q.dim, NULL) : 0;
    g.scratch = malloc(doubles * sizeof *g.scratch + codes);
    if (!g.scratch)
        return err_set(e, ERR_RESOURCE, "no memory to judge attention over %d keys", j->k.len);
    if (codes) (void)low_carve(&g.low, j->k.len, p->k.n, j->q.n, j->q.dim, g.scratch + doubles);
    judge_all(&g);
    free(g.scratch);
    return 0;
}

static bool ref_fits(const struct attn_size *s) { return s->head_dim <= ATTN_MAX_HEAD_DIM; }

static int ref_cols(const struct attn_size *s) { return s->cols > 0 ? s->cols : 1; }

static size_t ref_scratch(const struct attn_size *s)
{
    struct low none = {0};
    size_t doubles = each_of(s->len_k, ref_cols(s)) * (size_t)s->threads;
    return doubles * sizeof(double) +
           (s->needs & ATTN_NEED_LOW
                ? low_carve(&none, s->len_k, ref_cols(s), s->n_heads, s->head_dim, NULL)
                : 0);
}

static void ref_run(const struct attn_job *j)
{
    static const struct attn_judge nothing = {.only_row = -1};
    const struct attn_size *s = j->size;
    struct judging g = {
        .j = j,
        .out = &nothing,
        .round = s->precision != PRECISION_FP32,
        .scratch = j->scratch,
        .each = each_of(s->len_k, ref_cols(s)),
        .low = {.on = j->plan->qk != ATTN_PREC_RUN, .panel = PANEL, .chunk = CHUNK},
    };
    if (g.low.on)
        (void)low_carve(&g.low, s->len_k, ref_cols(s), s->n_heads, s->head_dim,
                        g.scratch + g.each * (size_t)s->threads);
    judge_all(&g);
}

const struct attn_kernel attn_ref = {
    .name = "ref",
    .summary = "plain C, sums in double: any machine, any size; slow",
    .needs = CPU_REF,
    .can = ((1u << ATTN_NEEDS) - 1) & ~(unsigned)(ATTN_NEED_DEVICE | ATTN_NEED_PREC),
    .panel = PANEL,
    .chunk = CHUNK,
    .fits = ref_fits,
    .scratch = ref_scratch,
    .run = ref_run,
};
