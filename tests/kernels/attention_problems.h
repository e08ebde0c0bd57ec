/* Random attention problems with everything that a plan can say: drawn here, computed by the
 * definition in attention_by_hand.h, asked of a kernel in attention_checks.h. */
#ifndef DITGEN_TESTS_KERNELS_ATTENTION_PROBLEMS_H
#define DITGEN_TESTS_KERNELS_ATTENTION_PROBLEMS_H

#include "attention/kernels/kernels.h"
#include "model/base/threads.h"
#include "tests/check.h"

#define MAX_THREADS 3
#define MAX_LEN 320

/* Tokens of equal blocks of queries and keys in every problem; 0: any blocks. */
static int problem_cut[2];

enum logits { LOGITS_NORMAL, LOGITS_TINY, LOGITS_HUGE, LOGITS_EQUAL, LOGITS_PEAKY, LOGITS_COUNT };
enum bias { BIAS_NONE, BIAS_SOME, BIAS_HIDES_SOME, BIAS_HIDES_ALL, BIAS_COUNT };

struct problem {
    struct attn_size size;
    struct attn_plan plan; /* arrays below */
    uint32_t *kept, *forced, *dead, *mean, *column_ptr;
    int32_t *columns, *q_at, *k_at, *q_order, *k_order;
    uint8_t heads[4];
    float *key_bias;
    struct heads q, k, v, o, residual, k_mean, v_mean; /* o: strides; nothing is there */
    float *before; /* what o holds when accumulating, laid out as o */
    void *residual_before; /* what residual holds when it is added */
    double density; /* chance of a tile; above 1: all */
    bool accumulate, lse, mass, alive;
    enum logits logits;
    char what[400];
};

static void *must(void *p)
{
    if (!p) exit(70);
    return p;
}

/* Elements of a tensor, gaps included. */
static size_t heads_count(const struct heads *h) { return (size_t)h->len * (size_t)h->token; }

/* [len, n, dim] with a gap after each token, NaN in it. */
static struct heads random_heads(struct test_rng *r, int len, int n, int dim, int gap, double scale,
                                 bool bf16)
{
    struct heads h = heads_f32(NULL, len, n, dim);
    h.token += gap;
    h.at = must(malloc(heads_count(&h) * sizeof(float) + 1));
    for (size_t i = 0; i < heads_count(&h); i++)
        ((float *)h.at)[i] = NAN;
    for (int t = 0; t < len; t++)
        for (int i = 0; i < n * dim; i++) {
            float x = (float)(scale * (double)rng_normal(r));
            ((float *)h.at)[(size_t)t * (size_t)h.token + (size_t)i] = bf16 ? bf16_round(x) : x;
        }
    return h;
}

static int32_t *random_cuts(struct test_rng *r, int plans, int n, int len)
{
    int32_t *all = must(malloc((size_t)plans * (size_t)(n + 1) * sizeof *all)), *at = all;
    for (int p = 0; p < plans; p++, at += n + 1) {
        at[0] = 0;
        for (int i = 1; i < n; i++)
            at[i] = rng_int(r, 0, len);
        for (int i = 1; i < n; i++) /* insertion sort: few */
            for (int k = i; k > 1 && at[k] < at[k - 1]; k--) {
                int32_t t = at[k];
                at[k] = at[k - 1];
                at[k - 1] = t;
            }
        at[n] = len;
    }
    return all;
}

static int32_t *random_order(struct test_rng *r, int plans, int len, int tokens)
{
    int32_t *all = must(malloc((size_t)plans * (size_t)len * sizeof *all)), x[MAX_LEN];
    for (int p = 0; p < plans; p++) {
        for (int i = 0; i < tokens; i++)
            x[i] = i;
        for (int i = 0; i < len; i++) {
            int j = rng_int(r, i, tokens - 1), t = x[i];
            x[i] = x[j];
            x[j] = t;
            all[p * len + i] = x[i];
        }
    }
    return all;
}

static uint32_t *random_plane(struct test_rng *r, const struct attn_plan *p, double chance)
{
    size_t words = (size_t)attn_words(p->k.n), rows = (size_t)attn_plans(p) * (size_t)p->q.n;
    uint32_t *x = must(calloc(attn_plane_size(p), sizeof *x));
    for (size_t i = 0; i < rows; i++)
        for (int t = 0; t < p->k.n; t++)
            if (rng_unit(r) < chance) x[i * words + (size_t)(t / 32)] |= (uint32_t)1 << (t % 32);
    return x;
}

static void random_blocks(struct test_rng *r, struct attn_blocks *b, int32_t **at, int plans,
                          int len)
{
    static const int sizes[] = {128, 64, 32, 16, 48, 7, 100, 300, 1, 13};
    struct err e = {0};
    CHECK_OK(attn_blocks_equal(b, len, sizes[rng_int(r, 0, (int)ARRAY_LEN(sizes) - 1)], &e));
    if (rng_int(r, 0, 2)) return;
    b->size = 0;
    b->n = rng_int(r, 1, 40);
    *at = random_cuts(r, plans, b->n, len);
    b->at = *at;
    b->stride = plans > 1 && rng_int(r, 0, 1) ? b->n + 1 : 0;
}

/* Columns anywhere but in tiles that count by their mean. */
static void random_columns(struct test_rng *r, struct problem *x)
{
    struct attn_plan *p = &x->plan;
    size_t rows = (size_t)attn_plans(p) * (size_t)p->q.n, n = 0;
    int rare = rng_int(r, 1, 12);
    x->column_ptr = must(calloc(rows + 1, sizeof *x->column_ptr));
    x->columns = must(malloc(rows * (size_t)p->k.len * sizeof *x->columns));
    for (size_t row = 0; row < rows; row++) {
        int plan = (int)(row / (size_t)p->q.n), tile = 0;
        for (int key = 0; key < p->k.len; key++) {
            while (attn_block_at(&p->k, plan, tile + 1) <= key)
                tile++;
            if (rng_int(r, 0, rare) == 0 &&
                attn_plan_fate(p, plan, (int)(row % (size_t)p->q.n), tile) != ATTN_BY_MEAN)
                x->columns[n++] = key;
        }
        x->column_ptr[row + 1] = (uint32_t)n;
    }
    p->column_ptr = x->column_ptr;
    p->columns = x->columns;
}

/* Tiles, orders, columns of a plan whose heads are set. */
static void random_tiles(struct problem *x, struct test_rng *r)
{
    static const double densities[] = {0, .05, .3, .7, .95, 2};
    struct attn_plan *p = &x->plan;
    p->per_head = rng_int(r, 0, 1);
    int plans = attn_plans(p), keys = x->size.len_k, len_q = x->size.len_q;
    if (rng_int(r, 0, 3) == 0) {
        if (rng_int(r, 0, 1)) keys = rng_int(r, 1, keys);
        x->k_order = random_order(r, plans, keys, x->size.len_k);
        p->k_order.token = x->k_order;
        p->k_order.stride = rng_int(r, 0, 1) ? keys : 0;
    }
    if (rng_int(r, 0, 3) == 0) {
        x->q_order = random_order(r, plans, len_q, len_q);
        p->q_order.token = x->q_order;
        p->q_order.stride = rng_int(r, 0, 1) ? len_q : 0;
    }
    if (problem_cut[0]) {
        struct err e = {0};
        CHECK_OK(attn_blocks_equal(&p->q, len_q, problem_cut[0], &e));
        CHECK_OK(attn_blocks_equal(&p->k, keys, problem_cut[1], &e));
    } else {
        random_blocks(r, &p->q, &x->q_at, plans, len_q);
        random_blocks(r, &p->k, &x->k_at, plans, keys);
    }
    x->density = densities[rng_int(r, 0, 5)];
    p->kept = x->kept = random_plane(r, p, x->density);
    if (x->density > 1) return; /* all: held against dense */
    if (rng_int(r, 0, 3) == 0) p->forced = x->forced = random_plane(r, p, .1);
    if (rng_int(r, 0, 3) == 0) p->dead = x->dead = random_plane(r, p, .4);
    if (rng_int(r, 0, 2) == 0) p->mean = x->mean = random_plane(r, p, .6);
    if (rng_int(r, 0, 2) == 0) random_columns(r, x);
}

static void random_numbers(struct problem *x, struct test_rng *r, enum bias bias)
{
    static const double scales[LOGITS_COUNT] = {1, 1e-18, 24, 1, 3};
    const struct attn_size *s = &x->size;
    struct attn_plan *p = &x->plan;
    int n = s->n_heads, d = s->head_dim, gap = rng_int(r, 0, 2) ? 0 : 8;
    bool bf16 = s->precision != PRECISION_FP32;
    double scale = scales[x->logits];
    x->q = random_heads(r, s->len_q, n, d, gap, scale, bf16);
    x->k = random_heads(r, s->len_k, n, d, gap, scale, bf16);
    x->v = random_heads(r, s->len_k, n, d, gap, 1, bf16);
    x->o = x->q;
    struct heads before = random_heads(r, s->len_q, n, d, gap, 1, bf16);
    x->before = before.at;
    x->k_mean = random_heads(r, p->k.n, n, d, gap, scale / 4, bf16);
    x->v_mean = random_heads(r, p->k.n, n, d, gap, .25, bf16);
    for (int t = 0; p->mean && t < p->k.n; t++) /* of nothing: not a number, and not looked at */
        for (int i = 0; i < p->n_heads; i++)
            if (attn_block_at(&p->k, p->per_head ? i : 0, t) ==
                attn_block_at(&p->k, p->per_head ? i : 0, t + 1))
                for (int c = 0; c < d; c++)
                    ((float *)heads_at(&x->k_mean, t, attn_head(p, i)))[c] = NAN;
    x->residual = random_heads(r, s->len_q, n, d, 0, 1, true);
    x->residual_before = x->residual.at;
    if (rng_int(r, 0, 1)) { /* kept in bf16 */
        uint16_t *narrow = must(malloc(heads_count(&x->residual) * 2));
        for (size_t i = 0; i < heads_count(&x->residual); i++)
            narrow[i] = f32_to_bf16(((float *)x->residual.at)[i]);
        free(x->residual.at);
        x->residual.type = DTYPE_BF16;
        x->residual_before = narrow;
    }
    if (x->logits == LOGITS_EQUAL)
        for (int t = 1; t < s->len_k; t++)
            memcpy(heads_at(&x->k, t, 0), x->k.at, (size_t)(n * d) * sizeof(float));
    if (bias == BIAS_NONE) return;
    struct heads b = random_heads(r, p->k.len, 1, 1, 0, 2, false);
    x->key_bias = b.at;
    for (int j = 0; j < p->k.len; j++)
        if (bias == BIAS_HIDES_ALL || (bias == BIAS_HIDES_SOME && rng_int(r, 0, 2) == 0))
            x->key_bias[j] = -INFINITY;
    p->key_bias = x->key_bias;
}

static struct problem problem_random(struct test_rng *r, enum precision precision)
{
    static const int dims[] = {64, 128, 80, 16, 64, 8, 72, 40, 1, 7, 33, 96, 20, 256, 255};
    static const int lens[] = {1, 2, 7, 31, 63, 64, 65, 97, 127, 128, 129, 191, 255, 256, 257, 293};
    static const enum attn_out rules[] = {ATTN_COMPUTE, ATTN_COMPUTE, ATTN_MAKE_RESIDUAL,
                                          ATTN_ADD_RESIDUAL};
    struct problem x = {0};
    struct attn_size *s = &x.size;
    struct err e = {0};
    s->precision = precision;
    s->threads = MAX_THREADS;
    s->len_q = rng_int(r, 0, 1) ? rng_int(r, 1, 300) : lens[rng_int(r, 0, 15)];
    s->len_k = rng_int(r, 0, 1) ? rng_int(r, 1, 300) : lens[rng_int(r, 0, 15)];
    s->n_heads = rng_int(r, 1, 3);
    s->head_dim = dims[rng_int(r, 0, (int)ARRAY_LEN(dims) - 1)];
    x.logits = (enum logits)(rng_int(r, 0, 2) ? LOGITS_NORMAL : rng_int(r, 0, LOGITS_COUNT - 1));
    CHECK_OK(attn_plan_dense(&x.plan, s->len_q, s->len_k, s->n_heads, &e));
    x.density = 2;
    if (rng_int(r, 0, 3) == 0) { /* some heads, the last first */
        x.plan.n_heads = rng_int(r, 1, s->n_heads);
        for (int i = 0; i < x.plan.n_heads; i++)
            x.heads[i] = (uint8_t)(s->n_heads - 1 - i);
        x.plan.heads = x.heads; /* moves: problem_job() names it again */
    }
    if (rng_int(r, 0, 3)) {
        x.plan.all = false;
        x.plan.may_be_empty = true;
        random_tiles(&x, r);
    }
    x.plan.rule = rules[rng_int(r, 0, 3)];
    x.accumulate = x.plan.rule == ATTN_COMPUTE && rng_int(r, 0, 2) == 0;
    x.lse = rng_int(r, 0, 1);
    x.mass = x.lse && rng_int(r, 0, 1);
    x.alive = rng_int(r, 0, 2) == 0;
    if (x.alive && rng_int(r, 0, 1)) x.plan.walk = ATTN_WALK_DOWN;
    s->rows = x.plan.q.n;
    s->cols = x.plan.k.n;
    enum bias bias = (enum bias)(rng_int(r, 0, 2) ? BIAS_NONE : rng_int(r, 1, BIAS_COUNT - 1));
    random_numbers(&x, r, bias);
    char fields[200];
    snprintf(x.what, sizeof x.what,
             "q %d k %d of %d, heads %d of %d x %d, tiles %d x %d (%d x %d), density %.2f, logits "
             "%d, bias %d, %s: %s",
             s->len_q, x.plan.k.len, s->len_k, x.plan.n_heads, s->n_heads, s->head_dim,
             x.plan.q.size, x.plan.k.size, x.plan.q.n, x.plan.k.n, x.density, (int)x.logits,
             (int)bias, precision_name(precision),
             attn_needs_text(attn_plan_needs(&x.plan), fields, sizeof fields));
    return x;
}

static void problem_free(struct problem *x)
{
    void *all[] = {x->kept,      x->forced, x->dead,           x->mean,    x->column_ptr,
                   x->columns,   x->q_at,   x->k_at,           x->q_order, x->k_order,
                   x->key_bias,  x->q.at,   x->k.at,           x->v.at,    x->k_mean.at,
                   x->v_mean.at, x->before, x->residual_before};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        free(all[i]);
}

#endif
