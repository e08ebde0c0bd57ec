/* Plans for GPUs without a GPU: lists against the question asked tile by tile, the order of
 * starting, what lists and launchers refuse, shared memory of every instance. */
#include "attention/kernels/cuda/attn_cuda.h"
#include "tests/check.h"

struct random_plan {
    struct attn_plan plan;
    uint32_t *planes[4];
    struct attn_lists lists;
    struct attn_lists_size size;
    uint32_t *row_ptr, *steps, *order, *mean;
};

static void *must(void *p)
{
    if (!p) exit(70);
    return p;
}

static void fill(struct random_plan *p)
{
    struct err e = {0};
    CHECK_OK(attn_lists_size(&p->size, &p->plan, &e));
    p->row_ptr = must(malloc(p->size.row_ptr * 4));
    p->steps = must(malloc(p->size.steps * 4 + 4));
    p->order = must(malloc(p->size.order * 4));
    p->mean = p->plan.mean ? must(malloc(p->size.mean * 4)) : NULL;
    CHECK_OK(attn_lists_fill(&p->lists, p->row_ptr, p->steps, p->order, p->mean, &p->plan, &e));
}

static void plan_random(struct random_plan *p, struct test_rng *r, int len_q, int len_k,
                        int block_q, int block_k, int heads, double density)
{
    const double chance[4] = {density, 1. / 3, 1. / 3, 1. / 3};
    struct err e = {0};
    *p = (struct random_plan){.plan = {.n_heads = heads, .per_head = rng_int(r, 0, 1)}};
    CHECK_OK(attn_blocks_equal(&p->plan.q, len_q, block_q, &e));
    CHECK_OK(attn_blocks_equal(&p->plan.k, len_k, block_k, &e));
    size_t rows = (size_t)attn_plans(&p->plan) * (size_t)p->plan.q.n, cols = (size_t)p->plan.k.n,
           words = (size_t)attn_words(p->plan.k.n);
    for (int x = 0; x < 4; x++) {
        if (x && rng_int(r, 0, 1)) continue;
        p->planes[x] = must(calloc(rows * words, 4));
        for (size_t i = 0; i < rows; i++)
            for (size_t t = 0; t < cols; t++)
                if (rng_unit(r) < chance[x])
                    p->planes[x][i * words + t / 32] |= (uint32_t)1 << (t % 32);
    }
    p->plan.kept = p->planes[0];
    p->plan.forced = p->planes[1];
    p->plan.dead = p->planes[2];
    p->plan.mean = p->planes[3];
}

static void plan_free(struct random_plan *p)
{
    for (int x = 0; x < 4; x++)
        free(p->planes[x]);
    free(p->row_ptr);
    free(p->steps);
    free(p->order);
    free(p->mean);
}

/* Every tile's fate by the definition; groups after tiles; both ascending. */
static void check_lists(const struct random_plan *p)
{
    int wrong = 0, cols = p->plan.k.n, words = attn_words(cols), block = p->plan.k.size;
    for (size_t at = 0; at < (size_t)attn_plans(&p->plan) * (size_t)p->plan.q.n; at++) {
        size_t n = p->row_ptr[at];
        for (int t = 0; t < cols; t++) {
            bool computed =
                (attn_bit(p->plan.kept, at, words, t) && !attn_bit(p->plan.dead, at, words, t)) ||
                attn_bit(p->plan.forced, at, words, t);
            if (computed) {
                wrong += n >= p->row_ptr[at + 1] || p->steps[n] != (uint32_t)t;
                n++;
            }
            bool mean = !computed && attn_bit(p->plan.mean, at, words, t);
            if (p->plan.mean) wrong += attn_bit(p->mean, at, words, t) != mean;
        }
        int group = -1;
        for (; n < p->row_ptr[at + 1]; n++) {
            int g = (int)ATTN_STEP_TILE(p->steps[n]), any = 0;
            wrong += !(p->steps[n] & ATTN_STEP_MEAN) || g <= group;
            group = g;
            for (int t = g * block; t < (g + 1) * block && t < cols; t++)
                any += attn_bit(p->mean, at, words, t);
            wrong += !any;
        }
        for (int t = 0; p->plan.mean && t < cols; t++) { /* each belongs to a group */
            bool found = !attn_bit(p->mean, at, words, t);
            for (size_t i = p->row_ptr[at]; i < p->row_ptr[at + 1]; i++)
                found |= p->steps[i] == (ATTN_STEP_MEAN | (uint32_t)(t / block));
            wrong += !found;
        }
    }
    CHECK_MSG(!wrong, "%d steps differ from the plan", wrong);
}

static uint32_t row_count(const struct attn_lists *l, uint32_t head_row)
{
    uint32_t at = l->n_plans > 1 ? head_row : head_row % (uint32_t)l->rows;
    return l->row_ptr[at + 1] - l->row_ptr[at];
}

/* A permutation; no row of twice the mean after one of less; heads stay together among the rest. */
static void check_order(const struct random_plan *p)
{
    size_t n = p->size.order;
    const struct attn_lists *l = &p->lists;
    bool *seen = must(calloc(n, 1));
    double mean = (double)p->size.steps / ((double)l->n_plans * l->rows);
    int wrong = 0, head = 0;
    bool ordinary = false;
    for (size_t i = 0; i < n; i++) {
        uint32_t x = l->order[i];
        CHECK(x < n && !seen[x]);
        seen[x] = true;
        bool outlier = mean > 0 && row_count(l, x) >= 2 * mean;
        wrong += outlier && ordinary;
        if (outlier) continue;
        ordinary = true;
        wrong += (int)(x / (uint32_t)l->rows) < head;
        head = (int)(x / (uint32_t)l->rows);
    }
    CHECK_MSG(!wrong, "%d rows start out of order", wrong);
    free(seen);
}

static void test_lists(struct test_rng *r)
{
    static const double densities[] = {0, .05, .3, .9, 2};
    for (int n = 0; n < 200; n++) {
        struct random_plan p;
        int block = rng_int(r, 0, 1) ? 128 : rng_int(r, 1, 9);
        plan_random(&p, r, rng_int(r, 1, 300), rng_int(r, 1, 700), rng_int(r, 0, 1) ? 128 : 16,
                    block, rng_int(r, 1, 4), densities[rng_int(r, 0, 4)]);
        fill(&p);
        check_lists(&p);
        check_order(&p);
        struct attn_plan all = p.plan, kept = p.plan; /* every tile, said in two ways */
        struct random_plan a = {.plan = all}, b = {.plan = kept};
        a.plan.all = true;
        a.plan.kept = a.plan.forced = a.plan.dead = a.plan.mean = NULL;
        b.planes[0] = must(calloc(attn_plane_size(&kept), 4));
        attn_plane_band(b.planes[0], &kept, ATTN_MAX_BLOCKS);
        b.plan.kept = b.planes[0];
        b.plan.forced = b.plan.dead = b.plan.mean = NULL;
        fill(&a);
        fill(&b);
        CHECK(a.size.steps == b.size.steps && memcmp(a.steps, b.steps, a.size.steps * 4) == 0);
        plan_free(&a);
        plan_free(&b);
        plan_free(&p);
    }
}

/* What lists cannot hold is refused by name. */
static void test_refusals(void)
{
    static const int32_t token[4] = {3, 2, 1, 0}, at[2] = {0, 4};
    static const uint32_t kept[1] = {1};
    struct err e = {0};
    struct attn_plan good = {.n_heads = 1, .kept = kept}, p;
    struct attn_lists_size s;
    CHECK_OK(attn_blocks_equal(&good.q, 4, 4, &e));
    CHECK_OK(attn_blocks_equal(&good.k, 4, 4, &e));
    CHECK_OK(attn_lists_size(&s, &good, &e));
    p = good, p.k_order.token = token;
    CHECK(attn_lists_size(&s, &p, &e) < 0 && strstr(e.msg, "plan.k_order"));
    p = good, p.k.size = 0, p.k.at = at;
    CHECK(attn_lists_size(&s, &p, &e) < 0 && strstr(e.msg, "plan.k.at"));
    p = good, p.rule = ATTN_MAKE_RESIDUAL, p.sol_tau = 1;
    CHECK(attn_lists_size(&s, &p, &e) < 0 && strstr(e.msg, "make residual, plan.sol_tau"));
    p = good, p.n_heads = 0;
    CHECK(attn_lists_size(&s, &p, &e) < 0 && strstr(e.msg, "1 or more"));
}

static void refused(const struct attn_cuda *w, enum attn_cuda_row row, const char *word)
{
    struct err e = {0};
    struct attn_tile t;
    CHECK(attn_tile_pick(&t, row, w, &e) < 0);
    CHECK_MSG(strstr(e.msg, word) != NULL, "'%s' does not say '%s'", e.msg, word);
}

static void test_shapes(void)
{
    static _Alignas(16) char memory[256];
    struct err e = {0};
    struct attn_tile t;
    struct attn_tensor x = {memory, 12 * 128, 128};
    const struct attn_cuda good = {.q = x,
                                   .k = x,
                                   .v = x,
                                   .o = x,
                                   .len_q = 32760,
                                   .len_k = 32760,
                                   .n_heads = 12,
                                   .head_dim = 128,
                                   .scratch = memory};
    for (int row = 0; row < ATTN_CUDA_ROWS; row++) {
        CHECK_OK(attn_tile_pick(&t, (enum attn_cuda_row)row, &good, &e));
        CHECK(t.head_dim == 128 && t.shared <= 232448);
        struct attn_cuda w = good;
        w.head_dim = 96;
        refused(&w, (enum attn_cuda_row)row, "64 or 128");
        w = good;
        w.len_k = 0;
        refused(&w, (enum attn_cuda_row)row, "1 or more");
        w = good;
        w.len_q = INT32_MAX;
        refused(&w, (enum attn_cuda_row)row, "31 bits");
        w = good;
        w.k.at = memory + 2;
        refused(&w, (enum attn_cuda_row)row, "alignment");
        w = good;
        w.v.token = 12 * 128 + 4;
        refused(&w, (enum attn_cuda_row)row, "multiples of 8");
        w = good;
        w.scratch = NULL;
        refused(&w, (enum attn_cuda_row)row, "scratch");
        w = good;
        w.alive = (void *)memory;
        w.alive_log2 = -10;
        refused(&w, (enum attn_cuda_row)row, "plans only");
    }
    struct attn_cuda w = good;
    w.key_bias = (void *)memory;
    refused(&w, ATTN_SM90, "flash_sm80");
    CHECK_OK(attn_tile_pick(&t, ATTN_SM80, &w, &e));
    struct attn_lists l = {
        .rows = 256, .cols = 256, .block_q = 128, .block_k = 128, .n_plans = 12, .words = 8};
    w = good;
    w.lists = &l;
    CHECK_OK(attn_tile_pick(&t, ATTN_SM90, &w, &e));
    CHECK_STR(t.kernel, "sparse_sm90");
    refused(&w, ATTN_CUDNN, "takes no plan");
    l.n_plans = 11;
    refused(&w, ATTN_SM90, "does not cover");
    l.n_plans = 1;
    l.rows = 255;
    refused(&w, ATTN_SM80, "does not cover");
    l = (struct attn_lists){
        .rows = 256, .cols = 512, .block_q = 128, .block_k = 64, .n_plans = 1, .words = 16};
    CHECK_OK(attn_tile_pick(&t, ATTN_SM80, &w, &e));
    refused(&w, ATTN_SM90, "128 x 128 or 64 x 64");
    l.rows = 512;
    l.block_q = 64;
    CHECK_OK(attn_tile_pick(&t, ATTN_SM90, &w, &e));
    CHECK_STR(t.kernel, "sparse64_sm90");
    CHECK((size_t)t.blocks_per_sm * (t.shared + 2048) <= 233472);
    CHECK_OK(attn_tile_pick(&t, ATTN_SM80, &w, &e));
    CHECK_STR(t.kernel, "sparse64_sm80");
    CHECK(t.block_q == 64 && (size_t)t.blocks_per_sm * (t.shared + 1024) <= 167936);
    l.block_q = 32;
    l.rows = 1024;
    refused(&w, ATTN_SM80, "128 or 64 x 128 or 64");
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    test_lists(&r);
    test_refusals();
    test_shapes();
    return TEST_RESULT();
}
