#include "tests/bench/kernels/problem.h"

#define NAN_ROWS 3 /* rows of NaN past the last token: nobody may read them */

struct tally tally;

static void *must(void *p)
{
    if (!p) exit(4);
    return p;
}

static struct attn_tensor tensor(uint16_t *at, const struct problem_want *w, int len)
{
    int64_t row = w->head_dim + (w->by_head && w->gaps ? 8 : 0);
    if (w->by_head) return (struct attn_tensor){at, row, row * (len + NAN_ROWS)};
    return (struct attn_tensor){at, (int64_t)w->n_heads * w->head_dim + (w->gaps ? 8 : 0),
                                w->head_dim};
}

static size_t tensor_count(const struct problem_want *w, int len)
{
    return (size_t)(len + NAN_ROWS) * (size_t)w->n_heads * (size_t)(w->head_dim + 8);
}

static uint16_t *numbers(const struct problem_want *w, int len, double scale, double offset,
                         struct test_rng *r)
{
    size_t n = tensor_count(w, len);
    uint16_t *x = must(malloc(n * sizeof *x));
    for (size_t i = 0; i < n; i++)
        x[i] = 0x7fff; /* NaN where nothing belongs */
    struct attn_tensor t = tensor(x, w, len);
    for (int h = 0; h < w->n_heads; h++)
        for (int i = 0; i < len; i++)
            for (int c = 0; c < w->head_dim; c++)
                x[i * t.token + h * t.head + c] =
                    f32_to_bf16((float)(scale * (double)rng_normal(r) + offset));
    return x;
}

static uint32_t *plane(const struct problem *p, bool wanted, double chance, struct test_rng *r)
{
    if (!wanted) return NULL;
    size_t words = (size_t)attn_words(p->plan.k.n), rows = attn_plane_size(&p->plan) / words;
    uint32_t *x = must(calloc(rows * words + 1, sizeof *x));
    for (size_t i = 0; i < rows; i++)
        for (int t = 0; t < p->plan.k.n; t++)
            if (rng_unit(r) < chance) x[i * words + (size_t)(t / 32)] |= 1u << (t % 32);
    return x;
}

static struct heads view(const struct attn_tensor *t, int len, const struct attn_cuda *c)
{
    return (struct heads){.at = t->at,
                          .type = DTYPE_BF16,
                          .len = len,
                          .n = c->n_heads,
                          .dim = c->head_dim,
                          .token = t->token,
                          .head = t->head};
}

struct attn_job judged(const struct attn_cuda *c, const struct attn_plan *plan)
{
    return (struct attn_job){.q = view(&c->q, c->len_q, c),
                             .k = view(&c->k, c->len_k, c),
                             .v = view(&c->v, c->len_k, c),
                             .k_mean = view(&c->k_mean, plan->k.n, c),
                             .v_mean = view(&c->v_mean, plan->k.n, c),
                             .plan = plan,
                             .lse = c->lse,
                             .alive = c->alive,
                             .alive_log2 = c->alive_log2};
}

void problem_lists(struct problem *p)
{
    struct err e = {0};
    struct attn_plan plan = p->plan;
    plan.key_bias = NULL; /* the call's */
    CHECK_OK(attn_lists_fill(&p->lists, p->row_ptr, p->steps, p->order, p->mean_out, &plan, &e));
}

static void make_plan(struct problem *p, struct test_rng *r)
{
    const struct problem_want *w = &p->want;
    struct err e = {0};
    p->plan.all = false;
    p->plan.per_head = w->per_head;
    p->plan.may_be_empty = true;
    CHECK_OK(attn_blocks_equal(&p->plan.q, w->len_q, w->block_q, &e));
    CHECK_OK(attn_blocks_equal(&p->plan.k, w->len_k, w->block_k, &e));
    p->plan.kept = p->kept = plane(p, true, w->density, r);
    p->plan.forced = p->forced = plane(p, w->forced, .1, r);
    p->plan.dead = p->dead = plane(p, w->dead, .3, r);
    p->plan.mean = p->mean = plane(p, w->mean, .7, r);
    CHECK_OK(attn_lists_size(&p->size, &p->plan, &e));
    p->row_ptr = must(malloc((p->size.row_ptr + 1) * 4));
    p->steps = must(malloc((p->size.steps + 1) * 4));
    p->order = must(malloc((p->size.order + 1) * 4));
    p->mean_out = must(malloc((p->size.mean + 1) * 4));
    problem_lists(p);
}

static void poison(struct problem *p)
{
    const struct attn_lists *l = &p->lists;
    for (int t = 0; t < l->cols; t++) {
        bool used = false;
        for (size_t i = 0; i < p->size.steps; i++)
            used |= l->steps[i] == (uint32_t)t;
        for (int j = t * l->block_k; !used && j < (t + 1) * l->block_k && j < p->want.len_k; j++)
            for (int h = 0; h < p->want.n_heads; h++)
                for (int c = 0; c < p->want.head_dim; c++) {
                    p->k[j * p->host.k.token + h * p->host.k.head + c] = 0x7fff;
                    p->v[j * p->host.v.token + h * p->host.v.head + c] = 0x7fff;
                }
    }
}

static uint16_t *at(const struct attn_tensor *t, int head, int token)
{
    return (uint16_t *)t->at + token * t->token + head * t->head;
}

/* Smooth trajectories over the tokens, root mean square 1, times a gain a channel. */
static void smooth(const struct attn_tensor *t, int heads, int len, int dim, struct test_rng *r)
{
    for (int h = 0; h < heads; h++) {
        double x[128] = {0}, gain[128];
        for (int c = 0; c < dim; c++)
            gain[c] = .5 + rng_unit(r);
        for (int i = -200; i < len; i++) { /* settled by the first token */
            double squares = 0;
            for (int c = 0; c < dim; c++) {
                x[c] = .98 * x[c] + .199 * (double)rng_normal(r);
                squares += x[c] * x[c];
            }
            for (int c = 0; i >= 0 && c < dim; c++)
                at(t, h, i)[c] = f32_to_bf16((float)(x[c] / sqrt(squares / dim) * gain[c]));
        }
    }
}

static void add_offsets(const struct attn_tensor *t, int heads, int len, int first, int last,
                        double size, struct test_rng *r)
{
    for (int h = 0; h < heads; h++)
        for (int c = first; c < last; c++) {
            float by = (float)(size * (size > 2 ? 1 : (double)rng_normal(r)));
            for (int i = 0; i < len; i++)
                at(t, h, i)[c] = f32_to_bf16(bf16_to_f32(at(t, h, i)[c]) + by);
        }
}

static void make_set(struct problem *p, struct test_rng *r)
{
    const struct problem_want *w = &p->want;
    const struct attn_cuda *c = &p->host;
    int n = w->n_heads, dim = w->head_dim;
    if (w->logits == STRUCTURED) {
        smooth(&c->q, n, w->len_q, dim, r);
        smooth(&c->k, n, w->len_k, dim, r);
        smooth(&c->v, n, w->len_k, dim, r);
        add_offsets(&c->k, n, w->len_k, 0, dim, 1, r);
        add_offsets(&c->v, n, w->len_k, 0, dim, 2, r);
    } else if (w->logits == BIASED) {
        add_offsets(&c->k, n, w->len_k, 0, 8, 25, r);
        add_offsets(&c->v, n, w->len_k, 0, dim, 2, r);
    } else if (w->logits == ONE_KEY) {
        for (int h = 0; h < n; h++)
            for (int i = 0; i < w->len_q; i++) {
                const uint16_t *key = at(&c->k, h, rng_int(r, 0, w->len_k - 1));
                for (int x = 0; x < dim; x++) /* q = 2 k: the score is 2 sqrt(dim) */
                    at(&c->q, h, i)[x] = f32_to_bf16(2 * bf16_to_f32(key[x]));
            }
    } else { /* ONE_VALUE */
        for (int h = 0; h < n; h++)
            for (int i = 1; i < w->len_k; i++)
                memcpy(at(&c->v, h, i), at(&c->v, h, 0), (size_t)dim * 2);
    }
}

void problem_make(struct problem *p, const struct problem_want *want, struct test_rng *r)
{
    static const double scales[] = {1, 1e-18, 24, 1, 3, 1, 1, 1, 1, 1};
    *p = (struct problem){.want = *want};
    const struct problem_want *w = &p->want;
    double scale = scales[w->logits], offset = w->logits == OFFSET ? 3 : 0;
    p->q_count = tensor_count(w, w->len_q);
    p->k_count = tensor_count(w, w->len_k);
    p->q = numbers(w, w->len_q, scale, 0, r);
    p->k = numbers(w, w->len_k, scale, offset, r);
    p->v = numbers(w, w->len_k, 1, offset, r);
    struct attn_cuda *c = &p->host;
    *c = (struct attn_cuda){.q = tensor(p->q, w, w->len_q),
                            .k = tensor(p->k, w, w->len_k),
                            .v = tensor(p->v, w, w->len_k),
                            .len_q = w->len_q,
                            .len_k = w->len_k,
                            .n_heads = w->n_heads,
                            .head_dim = w->head_dim,
                            .alive_log2 = -3};
    c->o = c->q; /* strides; the place is the caller's */
    struct err e = {0};
    p->plan = (struct attn_plan){.n_heads = w->n_heads, .all = true};
    CHECK_OK(attn_blocks_equal(&p->plan.q, w->len_q, JUDGE_DENSE, &e));
    CHECK_OK(attn_blocks_equal(&p->plan.k, w->len_k, JUDGE_DENSE, &e));
    if (w->logits >= STRUCTURED) make_set(p, r);
    if (w->logits == EQUAL)
        for (int h = 0; h < w->n_heads; h++)
            for (int j = 1; j < w->len_k; j++)
                memcpy(p->k + j * c->k.token + h * c->k.head, p->k + h * c->k.head,
                       (size_t)w->head_dim * 2);
    if (w->bias) {
        p->key_bias = must(malloc((size_t)w->len_k * sizeof(float)));
        for (int j = 0; j < w->len_k; j++)
            p->key_bias[j] = rng_int(r, 0, 3) ? rng_normal(r) : -INFINITY;
        c->key_bias = p->key_bias;
    }
    if (w->sparse) {
        make_plan(p, r);
        c->lists = &p->lists;
        if (w->mean) {
            int cols = p->plan.k.n;
            p->mean_count = tensor_count(w, cols);
            p->k_mean = numbers(w, cols, scale / 4, offset, r);
            p->v_mean = numbers(w, cols, .25, offset, r);
            c->k_mean = tensor(p->k_mean, w, cols);
            c->v_mean = tensor(p->v_mean, w, cols);
        }
        if (w->poison) poison(p);
    }
    p->plan.key_bias = p->key_bias; /* of the call where there are lists */
    snprintf(
        p->what, sizeof p->what,
        "q %d k %d heads %d x %d, %s%s%s%s%s%s tiles of %d x %d, density %.2f, logits %d%s%s%s%s",
        w->len_q, w->len_k, w->n_heads, w->head_dim, w->sparse ? "sparse" : "dense",
        w->per_head ? " by head" : "", w->forced ? " forced" : "", w->dead ? " dead" : "",
        w->mean ? " mean" : "", w->alive ? " alive" : "", w->block_q, w->block_k, w->density,
        (int)w->logits, w->bias ? ", bias" : "", w->by_head ? ", [N, L, D]" : "",
        w->gaps ? ", gaps" : "", w->poison ? ", poison" : "");
    tally_up();
}

size_t problem_rows(const struct problem *p)
{
    return (size_t)p->want.n_heads * (size_t)p->plan.q.n;
}

void problem_free(struct problem *p)
{
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->k_mean);
    free(p->v_mean);
    free(p->key_bias);
    free(p->kept);
    free(p->forced);
    free(p->dead);
    free(p->mean);
    free(p->row_ptr);
    free(p->steps);
    free(p->order);
    free(p->mean_out);
}
