/* Plans that the card makes itself, by the room's own table, against attention/policy/ on the host.
 *
 *   check_making [PROBLEMS [SEED]]     (40, 1)
 *
 * Of numbers whose sums are exact kept sets are the host's, bit by bit; of any numbers they differ in no more than
 * NEAR of the pairs, and their density by a hundredth. Whatever was kept, all words of the prepared plan are those
 * that put() makes of the same set, and pairs are counted right. Each plan is made twice, once from a recording. */
#include "attention/policy/dots.h"
#include "attention/policy/pool.h"
#include "attention/policy/score.h"
#include "attention/policy/select.h"
#include "tests/bench/kernels/making.h"

#include <math.h>

#define NEAR 2e-3 /* pairs whose scores rounding may put in another order */

/* Directions that many tokens in a row share, so that blocks differ as they do in a model. */
static void lean(struct test_rng *r, float *x, int len, int n, int dim)
{
    float *way = need(calloc((size_t)(n * dim), sizeof *way));
    for (int t = 0; t < len; t++) {
        if (t % 96 == 0)
            for (int c = 0; c < n * dim; c++)
                way[c] = rng_normal(r);
        for (int c = 0; c < n * dim; c++)
            x[(size_t)t * (size_t)(n * dim) + (size_t)c] =
                bf16_round(x[(size_t)t * (size_t)(n * dim) + (size_t)c] + way[c]);
    }
    free(way);
}

static struct one one_new(struct test_rng *r, bool exact)
{
    struct err e = {0};
    struct one o = {.exact = exact};
    int block = rng_int(r, 0, 1) ? 128 : 64, heads = rng_int(r, 1, 4),
        dim = exact || rng_int(r, 0, 1) ? 64 : 128, blocks = rng_int(r, 1, 40),
        len = blocks * block - (exact ? 0 : rng_int(r, 0, block - 1));
    o.size = (struct attn_size){.len_q = len,
                                .len_k = len,
                                .n_heads = heads,
                                .head_dim = dim,
                                .rows = blocks,
                                .cols = blocks,
                                .block_q = block,
                                .block_k = block,
                                .precision = PRECISION_BF16,
                                .needs = ATTN_NEED_BF16 | ATTN_NEED_PLANES};
    o.plan = (struct attn_plan){.n_heads = heads, .per_head = heads > 1};
    CHECK_OK(attn_blocks_equal(&o.plan.q, len, block, &e));
    CHECK_OK(attn_blocks_equal(&o.plan.k, len, block, &e));
    o.how = (struct attn_making){.pool = rng_int(r, 0, 3) ? ATTN_POOL_MEAN : ATTN_POOL_MAX,
                                 .runs = 1,
                                 .pick = exact ? ATTN_PICK_TOP_K : (enum attn_pick)rng_int(r, 0, 2),
                                 .k = rng_int(r, 1, blocks),
                                 .mass = (double)rng_unit(r),
                                 .least = rng_int(r, 0, blocks / 3),
                                 .share = .05 + .9 * (double)rng_unit(r)};
    if (o.how.pool == ATTN_POOL_MEAN && !exact) o.how.runs = 1 << rng_int(r, 0, 2);
    if (rng_int(r, 0, 1)) {
        o.order = need(malloc((size_t)len * sizeof *o.order));
        for (int i = 0; i < len; i++)
            o.order[i] = i;
        for (int i = len - 1; i > 0; i--) {
            int other = rng_int(r, 0, i), was = o.order[i];
            o.order[i] = o.order[other], o.order[other] = was;
        }
        o.plan.q_order.token = o.plan.k_order.token = o.order;
        o.size.needs |= ATTN_NEED_Q_ORDER | ATTN_NEED_K_ORDER;
    }
    size_t words = (size_t)attn_words(blocks), plane = attn_plane_size(&o.plan);
    if (rng_int(r, 0, 2) == 0) {
        o.forced = need(calloc((size_t)blocks * words, sizeof *o.forced));
        for (int i = 0; i < blocks; i++)
            select_add(o.forced + (size_t)i * words, rng_int(r, 0, blocks - 1));
    }
    o.kept = need(calloc(plane, sizeof *o.kept));
    for (size_t row = 0; row < plane / words; row++)
        for (int c = 0; c < blocks; c++)
            select_add(o.kept + row * words, c);
    o.plan.kept = o.kept;
    for (int i = 0; i < 2; i++) {
        o.x[i] = numbers(r, (size_t)len * (size_t)(heads * dim), exact);
        if (!exact) lean(r, o.x[i], len, heads, dim);
    }
    return o;
}

/* --- the host's --- */

static struct blocks side(const struct one *o, int which, int head)
{
    const struct attn_size *s = &o->size;
    return (struct blocks){.x = o->x[which] + (size_t)head * (size_t)s->head_dim,
                           .stride = (int64_t)s->n_heads * s->head_dim,
                           .len = s->len_q,
                           .dim = s->head_dim,
                           .order = o->order,
                           .size = s->block_q,
                           .n = s->rows};
}

static void host_head(const struct one *o, int head, uint32_t *kept)
{
    struct blocks q = side(o, 0, head), k = side(o, 1, head);
    int n = o->size.rows, dim = o->size.head_dim, runs = o->how.runs;
    size_t all = (size_t)(n * runs), tiles = (size_t)n * (size_t)n, words = (size_t)attn_words(n);
    float *qp = need(malloc(all * (size_t)dim * 4)), *kp = need(malloc(all * (size_t)dim * 4)),
          *z = need(malloc((size_t)runs * all * 4)), *s = need(malloc(tiles * 4)),
          *spare = need(malloc(2 * tiles * 4)), scale = 1 / sqrtf((float)dim);
    int *qc = need(malloc(all * 4)), *kc = need(malloc(all * 4)), best;
    pool_runs(qp, qc, &q, runs);
    pool_runs(kp, kc, &k, runs);
    if (o->how.pool == ATTN_POOL_MAX) pool_max(qp, &q), pool_max(kp, &k);
    if (runs > 1)
        score_runs(s, qp, qc, kp, kc, n, n, runs, dim, scale, z, dots_ref);
    else
        score_pooled(s, qp, kp, kc, n, n, dim, scale, dots_ref);
    memcpy(spare, s, tiles * sizeof *s);
    if (o->how.pick != ATTN_PICK_TOP_K) score_softmax(spare, n, n);
    if (o->how.pick == ATTN_PICK_TOP_K) select_top_k(kept, s, n, n, o->how.k, qc);
    if (o->how.pick == ATTN_PICK_TOP_P)
        select_top_p(kept, spare, n, n, o->how.mass, o->how.least, qc);
    if (o->how.pick == ATTN_PICK_PERCENTILE)
        select_percentile(kept, spare, n, n, o->how.share, spare + tiles);
    for (int r = 0; r < n; r++) {
        uint32_t any = 0, *row = kept + (size_t)r * words;
        for (size_t w = 0; w < words; w++)
            any |= row[w];
        if (!any && select_best(&best, s + (size_t)r * (size_t)n, n, 1) == 1) select_add(row, best);
        for (size_t w = 0; o->forced && w < words; w++)
            row[w] |= o->forced[(size_t)r * words + w];
    }
    free(qp), free(kp), free(z), free(s), free(spare), free(qc), free(kc);
}

/* --- comparing --- */

static void make_recorded(struct card *c)
{
    struct err e = {0};
    struct device_steps *steps = NULL;
    if (!device_can_record(device)) {
        make(c);
        return;
    }
    CHECK_OK(device_record(device, &e));
    make(c);
    CHECK_OK(device_recorded(device, &steps, &e));
    CHECK_OK(device_replay(device, steps, &e));
    CHECK_OK(device_wait(device, &e));
    if (steps) device_steps_close(device, steps);
}

static double worst_share, worst_density;

static void compare(struct one *o, const uint32_t *want, const uint32_t *got)
{
    size_t n = attn_plane_size(&o->plan), wrong = 0, of = 0;
    struct attn_plan a = o->plan, b = o->plan;
    a.kept = want, b.kept = got;
    for (size_t i = 0; i < n; i++)
        wrong += (size_t)__builtin_popcount(want[i] ^ got[i]);
    of = (size_t)attn_plans(&o->plan) * (size_t)o->size.rows * (size_t)o->size.cols;
    double share = (double)wrong / (double)of, da = attn_plan_density(&a, o->size.len_k),
           db = attn_plan_density(&b, o->size.len_k), off = fabs(da - db) / da;
    bool few = o->exact ? wrong == 0 : wrong <= 1 + (size_t)ceil(NEAR * (double)of);
    CHECK_MSG(
        few && (o->exact || of < 1000 || off < .01),
        "%s: %zu of %zu pairs are not the host's, density %g and %g: pool %d, %d runs, pick %d, "
        "%d heads of %d, %d blocks of %d, %s order",
        o->exact ? "exact sums" : "any numbers", wrong, of, db, da, (int)o->how.pool, o->how.runs,
        (int)o->how.pick, o->size.n_heads, o->size.head_dim, o->size.rows, o->size.block_q,
        o->order ? "an" : "no");
    if (of >= 1000 && share > worst_share) worst_share = share;
    if (of >= 1000 && off > worst_density) worst_density = off;
}

static void check(struct test_rng *r, int turn)
{
    struct err e = {0};
    struct one o = one_new(r, turn % 3 == 0);
    struct card c;
    if (!card_open(&c, &o)) {
        one_free(&o);
        return;
    }
    size_t words = attn_plane_size(&o.plan), each = words / (size_t)attn_plans(&o.plan);
    uint32_t *want = need(calloc(words, 4)), *got = need(calloc(words, 4));
    char *made = need(malloc(c.bytes)), *put = need(malloc(c.bytes));
    for (int h = 0; h < o.size.n_heads; h++)
        host_head(&o, h, want + each * (size_t)h);
    make(&c); /* and over what that left, from a recording */
    make_recorded(&c);
    size_t first = c.kernel->planner->kept_at(&o.plan, &o.size);
    uint64_t pairs = 0;
    CHECK_OK(device_download(device, got, c.at + first, words * 4, &e));
    CHECK_OK(device_download(device, made, c.at, c.bytes, &e));
    CHECK_OK(device_download(device, &pairs, c.made.pairs, sizeof pairs, &e));
    compare(&o, want, got);
    struct attn_plan same = o.plan;
    same.kept = got;
    double all = (double)o.size.len_q * o.size.len_k * attn_plans(&o.plan);
    CHECK_MSG((double)pairs == rint(attn_plan_density(&same, o.size.len_k) * all),
              "%llu pairs are told, %.0f kept", (unsigned long long)pairs,
              attn_plan_density(&same, o.size.len_k) * all);
    CHECK_OK(c.kernel->put(device, c.at, &same, &o.size, &e));
    CHECK_OK(device_download(device, put, c.at, c.bytes, &e));
    CHECK_MSG(memcmp(made, put, c.bytes) == 0,
              "a plan that was made is not what put() makes of it: "
              "%d heads, %d blocks",
              o.size.n_heads, o.size.rows);
    card_close(&c);
    free(want), free(got), free(made), free(put);
    one_free(&o);
}

int main(int argc, char **argv)
{
    int problems = argc > 1 ? atoi(argv[1]) : 40, rc = making_device();
    struct test_rng r = {argc > 2 ? (uint64_t)atoi(argv[2]) : 1};
    if (rc) return rc;
    for (int i = 0; i < problems; i++)
        check(&r, i);
    device_close(device);
    printf("%d checks, %d failed; at most %.2g of a plan's pairs not the host's, density off by "
           "%.2g\n",
           checks_done, checks_failed, worst_share, worst_density);
    return checks_failed ? 1 : 0;
}
