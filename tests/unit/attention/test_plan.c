/* Plans: fates by their definition, runs as long as can be, density, bands; broken plans and jobs are
 * found; what a job needs. */
#include "attention/plan/plan.h"
#include "tests/check.h"

#include <stdlib.h>

#define MAX_LEN 900

struct drawn { /* a random plan and its arrays */
    struct attn_plan p;
    uint32_t *planes[4], *column_ptr;
    int32_t *columns, *q_at, *k_at, *order;
    int len_q, len_k; /* tokens */
};

static void *must(void *p)
{
    if (!p) exit(70);
    return p;
}

static int32_t *cuts(struct test_rng *r, int plans, int n, int len)
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

static int32_t *shuffled(struct test_rng *r, int plans, int len, int tokens)
{
    int32_t *all = must(malloc((size_t)plans * (size_t)tokens * sizeof *all));
    for (int p = 0; p < plans; p++) {
        int32_t x[MAX_LEN];
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

static uint32_t *plane(struct test_rng *r, const struct attn_plan *p, double chance)
{
    size_t words = (size_t)attn_words(p->k.n), rows = (size_t)attn_plans(p) * (size_t)p->q.n;
    uint32_t *x = must(calloc(attn_plane_size(p), sizeof *x));
    for (size_t i = 0; i < rows; i++)
        for (int t = 0; t < p->k.n; t++)
            if (rng_unit(r) < chance) x[i * words + (size_t)(t / 32)] |= (uint32_t)1 << (t % 32);
    return x;
}

static void blocks(struct test_rng *r, struct attn_blocks *b, int32_t **at, int plans, int len)
{
    struct err e = {0};
    CHECK_OK(attn_blocks_equal(b, len, rng_int(r, 1, 130), &e));
    if (rng_int(r, 0, 1)) return;
    b->size = 0;
    b->n = rng_int(r, 1, 40);
    *at = cuts(r, plans, b->n, len);
    b->at = *at;
    b->stride = plans > 1 && rng_int(r, 0, 1) ? b->n + 1 : 0;
}

/* Columns anywhere but in tiles that count by their mean. */
static void draw_columns(struct test_rng *r, struct drawn *d)
{
    struct attn_plan *p = &d->p;
    size_t rows = (size_t)attn_plans(p) * (size_t)p->q.n, n = 0;
    d->column_ptr = must(calloc(rows + 1, sizeof *d->column_ptr));
    d->columns = must(malloc(rows * (size_t)p->k.len * sizeof *d->columns));
    for (size_t row = 0; row < rows; row++) {
        int plan = (int)(row / (size_t)p->q.n), tile = 0;
        for (int key = 0; key < p->k.len; key++) {
            while (attn_block_at(&p->k, plan, tile + 1) <= key)
                tile++;
            if (rng_int(r, 0, 9) == 0 &&
                attn_plan_fate(p, plan, (int)(row % (size_t)p->q.n), tile) != ATTN_BY_MEAN)
                d->columns[n++] = key;
        }
        d->column_ptr[row + 1] = (uint32_t)n;
    }
    p->column_ptr = d->column_ptr;
    p->columns = d->columns;
}

static void draw(struct drawn *d, struct test_rng *r)
{
    *d = (struct drawn){.len_q = rng_int(r, 1, 300), .len_k = rng_int(r, 1, MAX_LEN)};
    struct attn_plan *p = &d->p;
    p->n_heads = rng_int(r, 1, 3);
    p->per_head = rng_int(r, 0, 1);
    int plans = attn_plans(p), keys = d->len_k;
    if (rng_int(r, 0, 2) == 0) { /* a subset, in another order */
        keys = rng_int(r, 1, d->len_k);
        d->order = shuffled(r, plans, keys, d->len_k);
        p->k_order = (struct attn_order){.token = d->order, .stride = plans > 1 ? keys : 0};
    }
    blocks(r, &p->q, &d->q_at, plans, d->len_q);
    blocks(r, &p->k, &d->k_at, plans, keys);
    d->planes[0] = plane(r, p, rng_unit(r) * 1.2);
    p->kept = d->planes[0];
    if (rng_int(r, 0, 1)) p->forced = d->planes[1] = plane(r, p, .1);
    if (rng_int(r, 0, 1)) p->dead = d->planes[2] = plane(r, p, .4);
    if (rng_int(r, 0, 1)) p->mean = d->planes[3] = plane(r, p, .6);
    if (rng_int(r, 0, 1)) draw_columns(r, d);
}

static void drop(struct drawn *d)
{
    for (int i = 0; i < 4; i++)
        free(d->planes[i]);
    free(d->column_ptr);
    free(d->columns);
    free(d->q_at);
    free(d->k_at);
    free(d->order);
}

/* Whether a row computes a key, by the definition. */
static bool computes(const struct attn_plan *p, int plan, int row, int tile, int key)
{
    size_t at = (size_t)plan * (size_t)p->q.n + (size_t)row;
    int words = attn_words(p->k.n);
    bool kept = attn_bit(p->kept, at, words, tile) && !attn_bit(p->dead, at, words, tile);
    kept = kept || attn_bit(p->forced, at, words, tile);
    CHECK((attn_plan_fate(p, plan, row, tile) == ATTN_COMPUTED) == kept);
    for (uint32_t i = p->column_ptr ? p->column_ptr[at] : 0;
         !kept && p->column_ptr && i < p->column_ptr[at + 1]; i++)
        kept = p->columns[i] == key;
    return kept;
}

static void test_runs(struct test_rng *r)
{
    for (int n = 0; n < 120; n++) {
        struct drawn d;
        draw(&d, r);
        const struct attn_plan *p = &d.p;
        double pairs = 0;
        int wrong = 0;
        bool empty = false;
        for (int plan = 0; plan < attn_plans(p); plan++) {
            for (int row = 0; row < p->q.n; row++) {
                bool want[MAX_LEN + 1] = {0}, got[MAX_LEN + 1] = {0};
                int queries = attn_block_at(&p->q, plan, row + 1) - attn_block_at(&p->q, plan, row);
                int end = -1, any = 0;
                for (int t = 0; t < p->k.n; t++)
                    for (int j = attn_block_at(&p->k, plan, t);
                         j < attn_block_at(&p->k, plan, t + 1); j++) {
                        want[j] = computes(p, plan, row, t, j);
                        pairs += want[j] ? queries : 0;
                        any |= want[j] || attn_plan_fate(p, plan, row, t) == ATTN_BY_MEAN;
                    }
                empty = empty || (!any && queries > 0);
                for (struct attn_run x = attn_run_begin(p, plan, row); attn_run_next(&x);) {
                    wrong += x.k0 <= end || x.k1 <= x.k0 || x.k1 > p->k.len; /* a gap between */
                    end = x.k1;
                    for (int j = x.k0; j < x.k1 && j < p->k.len; j++)
                        got[j] = true;
                }
                wrong += memcmp(want, got, sizeof want) != 0;
            }
        }
        CHECK_MSG(!wrong, "%d rows of %d x %d blocks", wrong, p->q.n, p->k.n);
        double share = pairs / ((double)attn_plans(p) * p->q.len * d.len_k);
        CHECK(fabs(attn_plan_density(p, d.len_k) - share) < 1e-12);
        uint32_t *seen = must(malloc(attn_seen_size(d.len_q, d.len_k) * sizeof *seen));
        struct err e = {0};
        CHECK_MSG(attn_plan_check(p, d.len_q, d.len_k, seen, &e) == (empty ? -1 : 0), "%s", e.msg);
        if (empty) CHECK(e.code == ERR_BUG && strstr(e.msg, "keeps nothing"));
        d.p.may_be_empty = true;
        CHECK_OK(attn_plan_check(p, d.len_q, d.len_k, seen, &e));
        free(seen);
        drop(&d);
    }
}

static void test_band(void)
{
    static const int sizes[][4] = {{2304, 2304, 128, 128}, {300, 300, 64, 32}, {300, 300, 32, 64},
                                   {7, 7, 128, 128},       {500, 90, 32, 32},  {90, 500, 32, 32}};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        for (int tiles = 0; tiles < 20; tiles += 3) {
            struct attn_plan p = {.n_heads = 2, .per_head = true};
            struct err e = {0};
            CHECK_OK(attn_blocks_equal(&p.q, sizes[s][0], sizes[s][2], &e));
            CHECK_OK(attn_blocks_equal(&p.k, sizes[s][1], sizes[s][3], &e));
            uint32_t *kept = must(malloc(attn_plane_size(&p) * sizeof *kept));
            attn_plane_band(kept, &p, tiles);
            p.kept = kept;
            CHECK_OK(attn_plan_check(&p, sizes[s][0], sizes[s][1], NULL, &e));
            bool ok = true;
            for (int i = 0; i < p.q.n; i++) {
                int lo = attn_block_at(&p.q, 0, i) / sizes[s][3],
                    hi = (attn_block_at(&p.q, 0, i + 1) - 1) / sizes[s][3];
                if (lo >= p.k.n) lo = p.k.n - 1;
                for (int j = 0; j < p.k.n; j++)
                    ok = ok && (attn_plan_fate(&p, 1, i, j) == ATTN_COMPUTED) ==
                                   (j >= lo - tiles && j <= hi + tiles);
                if (sizes[s][2] == sizes[s][3] && sizes[s][0] == sizes[s][1])
                    for (int j = 0; j < p.k.n; j++)
                        ok = ok && (attn_plan_fate(&p, 0, i, j) == ATTN_COMPUTED) ==
                                       (abs(i - j) <= tiles);
            }
            CHECK_MSG(ok, "size %zu, %d tiles", s, tiles);
            free(kept);
        }
    }
}

static void broken(const struct attn_plan *p, const char *word)
{
    struct err e = {0};
    uint32_t seen[10];
    CHECK(attn_plan_check(p, 256, 300, seen, &e) == -1 && e.code == ERR_BUG);
    CHECK_MSG(strstr(e.msg, word), "'%s' does not say '%s'", e.msg, word);
}

static void test_broken(void)
{
    uint32_t kept[2] = {5, 2}, more[2] = {5, 10}, none[2] = {5, 0}, ptr[3] = {0, 1, 2};
    uint32_t mean[2] = {2, 0};
    int32_t columns[2] = {110, 299}, at[4] = {0, 200, 100, 300}, order[300];
    uint8_t heads[2] = {1, 1};
    struct err e = {0};
    struct attn_plan good = {.n_heads = 2, .kept = kept}, p;
    CHECK_OK(attn_blocks_equal(&good.q, 256, 128, &e));
    CHECK_OK(attn_blocks_equal(&good.k, 300, 100, &e)); /* 2 x 3 tiles */
    CHECK_OK(attn_plan_check(&good, 256, 300, NULL, &e));
    p = good, p.kept = more, broken(&p, "past the last");
    p = good, p.forced = more, broken(&p, "past the last");
    p = good, p.kept = none, broken(&p, "row 1 of 2: keeps nothing");
    p = good, p.kept = NULL, broken(&p, "keeps nothing");
    p = good, p.dead = kept, broken(&p, "keeps nothing");
    p = good, p.heads = heads, broken(&p, "head 1 twice");
    p = good, p.n_heads = 0, broken(&p, "0 heads");
    p = good, p.q.len = 200, p.q.n = 2, broken(&p, "wanted all 256");
    p = good, p.k.len = 299, broken(&p, "without an order");
    p = good, p.k.n = 4, broken(&p, "do not hold");
    p = good, p.k.size = 0, broken(&p, "without offsets");
    p = good, p.k.size = 0, p.k.at = at, broken(&p, "do not rise");
    p = good, p.skip_log2 = 1, broken(&p, "skip_log2");
    p = good, p.column_ptr = ptr, broken(&p, "without columns");
    p = good, p.column_ptr = ptr, p.columns = columns;
    CHECK_OK(attn_plan_check(&p, 256, 300, NULL, &e));
    p.mean = mean, broken(&p, "counts by its mean");
    p.mean = NULL, columns[1] = 300, broken(&p, "past the last key");
    columns[1] = 5, ptr[1] = 0, broken(&p, "do not rise");
    ptr[1] = 3, broken(&p, "out of order");
    for (int i = 0; i < 300; i++)
        order[i] = 299 - i;
    p = good, p.k_order.token = order;
    uint32_t seen[10];
    CHECK_OK(attn_plan_check(&p, 256, 300, seen, &e));
    CHECK(attn_plan_check(&p, 256, 300, NULL, &e) == -1 && strstr(e.msg, "no memory"));
    order[7] = 300, broken(&p, "there is none of");
    order[7] = 5, broken(&p, "elsewhere");
    p.k_order.fixed = true;
    CHECK_OK(attn_plan_check(&p, 256, 300, NULL, &e)); /* was checked when it was made */
    CHECK(attn_blocks_equal(&p.q, 70000, 1, &e) == -1 && e.code == ERR_USAGE);
    CHECK(attn_blocks_equal(&p.q, 5, 0, &e) == -1 && e.code == ERR_USAGE);
    CHECK(attn_plan_dense(&p, 3, 0, 1, &e) == -1 && e.code == ERR_USAGE);
    CHECK_OK(attn_plan_dense(&p, 3, 9, 1, &e));
    CHECK_OK(attn_plan_check(&p, 3, 9, NULL, &e));
    CHECK(attn_plan_density(&p, 9) == 1);
    p.rule = ATTN_ZERO;
    CHECK(attn_plan_density(&p, 9) == 0);
}

static void refused(const struct attn_job *j, const char *word)
{
    struct err e = {0};
    CHECK(attn_job_check(j, &e) == -1 && e.code == ERR_BUG);
    CHECK_MSG(strstr(e.msg, word), "'%s' does not say '%s'", e.msg, word);
}

static void test_jobs(void)
{
    static float x[9 * 2 * 4];
    struct err e = {0};
    struct attn_plan p;
    CHECK_OK(attn_plan_dense(&p, 3, 9, 2, &e));
    struct heads q = heads_f32(x, 3, 2, 4), k = heads_f32(x, 9, 2, 4), none = {0};
    const struct attn_job good = {.q = q, .k = k, .v = k, .o = q, .plan = &p};
    struct attn_job j = good;
    char text[400];
    CHECK_OK(attn_job_check(&j, &e));
    CHECK(attn_job_needs(&j) == 0);
    j = good, j.v = none, refused(&j, "without v");
    j = good, j.o = none, refused(&j, "without o");
    j = good, j.k = j.v = q, refused(&j, "a k of 3");
    j = good, j.q.where = PLACE_DEVICE, refused(&j, "on a device");
    j = good, j.mass = x, refused(&j, "mass without lse");
    j = good, j.alive = (uint32_t *)(void *)x, refused(&j, "bound of 0");
    p.rule = ATTN_MAKE_RESIDUAL;
    j = good, refused(&j, "without residual");
    j.residual = q, j.accumulate = true, refused(&j, "accumulate");
    j.accumulate = false;
    CHECK_OK(attn_job_check(&j, &e));
    CHECK_STR(attn_needs_text(attn_job_needs(&j), text, sizeof text), "plan.rule make residual");
    uint32_t kept[1] = {1};
    p = (struct attn_plan){.n_heads = 1, .q = p.q, .k = p.k, .kept = kept, .mean = kept};
    p.sol_tau = 1, p.skip_log2 = -4, p.walk = ATTN_WALK_DOWN, p.qk = ATTN_PREC_FP4;
    j = good, refused(&j, "without k_mean");
    j.lse = j.mass = x;
    CHECK_STR(attn_needs_text(attn_job_needs(&j), text, sizeof text),
              "plan.kept, plan.mean, plan.heads, plan.skip_log2, plan.sol_tau, plan.walk, "
              "plan.qk, plan.pv, lse, mass");
    CHECK(strlen(attn_needs_text(~0u, text, 30)) == 29);
    p = (struct attn_plan){.n_heads = 2, .q = p.q, .k = p.k, .all = true};
    p.qk = ATTN_PREC_INT4, p.pv = ATTN_PREC_FP8, p.codes.smooth_q = true;
    CHECK_STR(attn_needs_text(attn_plan_needs(&p), text, sizeof text),
              "plan.qk int4, plan.pv fp8, plan.codes.smooth_q");
    p.qk = ATTN_PREC_RUN; /* values by codes stand on q and k by codes */
    CHECK_STR(attn_needs_text(attn_plan_needs(&p), text, sizeof text), "plan.qk, plan.pv");
    p = (struct attn_plan){.n_heads = 2, .q = p.q, .k = p.k, .rule = ATTN_COPY};
    j = good, refused(&j, "without residual");
    p.heads = (const uint8_t[]){0, 2};
    refused(&j, "head 2 of 2");
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    test_runs(&r);
    test_band();
    test_broken();
    test_jobs();
    return TEST_RESULT();
}
