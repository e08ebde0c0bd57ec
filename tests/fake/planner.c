/* Plans that the fake makes itself: attention/policy/ behind its addresses, as the host's own members call it. */
#include "tests/fake/fake.h"

#include "attention/policy/dots.h"
#include "attention/policy/pool.h"
#include "attention/policy/score.h"
#include "attention/policy/select.h"
#include "model/base/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static long made;

long fake_plans_made(void) { return made; }

static size_t scratch(const struct attn_size *s, const struct attn_making *how)
{
    (void)s;
    return how->runs <= 4 ? 256 : 0; /* more are left to the host, so that both ways are walked */
}

/* As take() of attention.c leaves it: behind the struct and the heads. */
static size_t kept_at(const struct attn_plan *p, const struct attn_size *s)
{
    (void)p, (void)s;
    return sizeof(struct attn_plan) + 256;
}

struct making {
    struct attn_making how;
    struct attn_plan *plan; /* as put() left it */
    struct heads q, k;
    const uint32_t *forced;
    uint64_t *pairs;
};

static struct blocks side(const struct heads *x, const struct attn_blocks *b,
                          const struct attn_order *o, int plan, int head)
{
    return (struct blocks){.x = heads_at(x, 0, head),
                           .stride = x->token,
                           .len = b->len,
                           .dim = x->dim,
                           .order = o->token ? o->token + plan * o->stride : NULL,
                           .size = b->size,
                           .n = b->n};
}

static void *room(size_t n)
{
    void *x = calloc(n + 1, sizeof(float));
    if (!x) fake_stop("no memory for a plan");
    return x;
}

static void score(float *to, const struct attn_making *how, const struct blocks *q,
                  const struct blocks *k)
{
    size_t runs = (size_t)how->runs, dim = (size_t)q->dim, rows = (size_t)q->n * runs,
           cols = (size_t)k->n * runs;
    float *qp = room(rows * dim), *kp = room(cols * dim), *z = room(runs * cols),
          scale = 1 / sqrtf((float)q->dim);
    int *qc = room(rows), *kc = room(cols);
    struct cpu c;
    cpu_detect(&c);
    dots_fn *dots = dots_pick(c.level);
    if (how->pool == ATTN_POOL_MEAN && how->runs > 1) {
        pool_runs(qp, qc, q, how->runs);
        pool_runs(kp, kc, k, how->runs);
        score_runs(to, qp, qc, kp, kc, q->n, k->n, how->runs, q->dim, scale, z, dots);
    } else {
        void (*pool)(float *, const struct blocks *) =
            how->pool == ATTN_POOL_MEAN ? pool_mean : pool_max;
        pool(qp, q);
        pool(kp, k);
        for (int i = 0; i < k->n; i++)
            kc[i] = blocks_count(k, i);
        score_pooled(to, qp, kp, kc, q->n, k->n, q->dim, scale, dots);
    }
    free(qp), free(kp), free(z), free(qc), free(kc);
}

static void pick(uint32_t *kept, float *scores, const struct attn_making *how, int rows, int cols)
{
    size_t tiles = (size_t)rows * (size_t)cols, words = (size_t)attn_words(cols);
    float *spare = room(2 * tiles);
    int *index = room((size_t)cols), best;
    if (how->pick == ATTN_PICK_TOP_K) {
        select_top_k(kept, scores, rows, cols, how->k, index);
    } else {
        memcpy(spare, scores, tiles * sizeof *spare);
        score_softmax(spare, rows, cols);
        if (how->pick == ATTN_PICK_TOP_P)
            select_top_p(kept, spare, rows, cols, how->mass, how->least, index);
        else
            select_percentile(kept, spare, rows, cols, how->share, spare + tiles);
    }
    for (int r = 0; r < rows; r++) {
        uint32_t any = 0, *row = kept + (size_t)r * words;
        for (size_t w = 0; w < words; w++)
            any |= row[w];
        if (!any && select_best(&best, scores + (size_t)r * (size_t)cols, cols, 1) == 1)
            select_add(row, best);
    }
    free(spare), free(index);
}

static int do_make(struct device *d, void *args, struct err *e)
{
    struct making *m = args;
    struct attn_plan *p = m->plan;
    size_t words = (size_t)p->q.n * (size_t)attn_words(p->k.n);
    float *scores = room((size_t)p->q.n * (size_t)p->k.n);
    uint32_t *kept = (uint32_t *)(uintptr_t)p->kept;
    (void)d, (void)e;
    memset(kept, 0, (size_t)attn_plans(p) * words * sizeof *kept);
    for (int i = 0; i < attn_plans(p); i++) {
        struct blocks q = side(&m->q, &p->q, &p->q_order, i, attn_head(p, i)),
                      k = side(&m->k, &p->k, &p->k_order, i, attn_head(p, i));
        uint32_t *to = kept + (size_t)i * words;
        score(scores, &m->how, &q, &k);
        pick(to, scores, &m->how, p->q.n, p->k.n);
        for (size_t w = 0; m->forced && w < words; w++)
            to[w] |= m->forced[w];
    }
    *m->pairs =
        (uint64_t)llround(attn_plan_density(p, p->k.len) * p->q.len * p->k.len * attn_plans(p));
    free(scores);
    made++;
    return 0;
}

static int make(struct device *d, void *at, const struct attn_made *x, struct err *e)
{
    struct making m = {*x->how, fake_real(at),        x->q,
                       x->k,    fake_real(x->forced), fake_real(x->pairs)};
    m.q.at = fake_real(x->q.at);
    m.k.at = fake_real(x->k.at);
    return fake_do(d, do_make, &m, sizeof m, e);
}

struct tallying {
    uint64_t *sum;
    const uint64_t *pairs;
};

static int do_tally(struct device *d, void *args, struct err *e)
{
    struct tallying *t = args;
    (void)d, (void)e;
    *t->sum += *t->pairs;
    return 0;
}

static int tally(struct device *d, uint64_t *sum, const uint64_t *pairs, struct err *e)
{
    struct tallying t = {fake_real(sum), fake_real(pairs)};
    return fake_do(d, do_tally, &t, sizeof t, e);
}

const struct attn_planner fake_planner = {scratch, make, kept_at, tally};
