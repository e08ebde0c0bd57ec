/* Plans for GPUs without a GPU: lists against the question asked tile by tile, the order of
 * starting, what launchers refuse, shared memory of every instance, and the judge against ref.c. */
#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/kernels.h"
#include "model/base/threads.h"
#include "tests/check.h"

struct random_plan {
    struct arena arena;
    struct block_mask mask;
    struct attn_plan plan;
    bool *keep;
    uint32_t *planes[3];
    struct attn_lists lists;
    struct attn_lists_size size;
    uint32_t *row_ptr, *steps, *order, *mean;
};

static void *must(void *p)
{
    if (!p) exit(70);
    return p;
}

static bool keep(void *ctx, int plan, int row, int col)
{
    const struct random_plan *p = ctx;
    return p->keep[((size_t)plan * (size_t)p->mask.rows + (size_t)row) * (size_t)p->mask.cols +
                   (size_t)col];
}

static bool bit(const uint32_t *plane, const struct random_plan *p, size_t row, int t)
{
    return plane &&
           plane[row * (size_t)((p->mask.cols + 31) / 32) + (size_t)(t / 32)] >> (t % 32) & 1;
}

static void fill(struct random_plan *p, enum block_map map)
{
    struct err e = {0};
    CHECK_OK(block_mask_build(&p->mask, map, keep, p, &e));
    CHECK_OK(attn_lists_size(&p->size, &p->plan, &e));
    p->row_ptr = must(malloc(p->size.row_ptr * 4));
    p->steps = must(malloc(p->size.steps * 4 + 4));
    p->order = must(malloc(p->size.order * 4));
    p->mean = p->plan.mean ? must(malloc(p->size.mean * 4)) : NULL;
    CHECK_OK(attn_lists_fill(&p->lists, p->row_ptr, p->steps, p->order, p->mean, &p->plan, &e));
}

static void drop(struct random_plan *p)
{
    free(p->row_ptr);
    free(p->steps);
    free(p->order);
    free(p->mean);
}

static void plan_random(struct random_plan *p, struct test_rng *r, int len_q, int len_k,
                        int block_q, int block_k, int heads, double density)
{
    struct err e = {0};
    struct arena count = {0};
    *p = (struct random_plan){0};
    int plans = rng_int(r, 0, 1) ? heads : 1;
    CHECK_OK(block_mask_init(&p->mask, len_q, len_k, block_q, block_k, plans, &count, &e));
    CHECK_OK(arena_open(&p->arena, count.used, &e));
    CHECK_OK(block_mask_init(&p->mask, len_q, len_k, block_q, block_k, plans, &p->arena, &e));
    size_t rows = (size_t)plans * (size_t)p->mask.rows, cols = (size_t)p->mask.cols;
    p->keep = must(malloc(rows * cols));
    for (size_t i = 0; i < rows * cols; i++)
        p->keep[i] = rng_unit(r) < density;
    for (int x = 0; x < 3; x++) {
        if (rng_int(r, 0, 1)) continue;
        p->planes[x] = must(calloc(rows * ((cols + 31) / 32), 4));
        for (size_t i = 0; i < rows; i++)
            for (size_t t = 0; t < cols; t++)
                if (rng_int(r, 0, 2) == 0)
                    p->planes[x][i * ((cols + 31) / 32) + t / 32] |= (uint32_t)1 << (t % 32);
    }
    p->plan = (struct attn_plan){&p->mask, p->planes[0], p->planes[1], p->planes[2], heads};
}

static void plan_free(struct random_plan *p)
{
    for (int x = 0; x < 3; x++)
        free(p->planes[x]);
    free(p->keep);
    arena_close(&p->arena);
}

/* Every tile's fate by the definition; groups after tiles; both ascending. */
static void check_lists(const struct random_plan *p)
{
    int wrong = 0;
    for (int plan = 0; plan < p->mask.n_plans; plan++) {
        for (int row = 0; row < p->mask.rows; row++) {
            size_t at = (size_t)plan * (size_t)p->mask.rows + (size_t)row, n = p->row_ptr[at];
            for (int t = 0; t < p->mask.cols; t++) {
                bool computed =
                    (keep((void *)(uintptr_t)p, plan, row, t) && !bit(p->plan.dead, p, at, t)) ||
                    bit(p->plan.forced, p, at, t);
                if (computed) {
                    wrong += n >= p->row_ptr[at + 1] || p->steps[n] != (uint32_t)t;
                    n++;
                }
                bool mean = !computed && bit(p->plan.mean, p, at, t);
                if (p->plan.mean) wrong += bit(p->mean, p, at, t) != mean;
            }
            int group = -1;
            for (; n < p->row_ptr[at + 1]; n++) {
                int g = (int)ATTN_STEP_TILE(p->steps[n]), any = 0;
                wrong += !(p->steps[n] & ATTN_STEP_MEAN) || g <= group;
                group = g;
                for (int t = g * p->mask.block_k; t < (g + 1) * p->mask.block_k && t < p->mask.cols;
                     t++)
                    any += bit(p->mean, p, at, t);
                wrong += !any;
            }
            for (int t = 0; p->plan.mean && t < p->mask.cols; t++) { /* each belongs to a group */
                bool found = !bit(p->mean, p, at, t);
                for (size_t i = p->row_ptr[at]; i < p->row_ptr[at + 1]; i++)
                    found |= p->steps[i] == (ATTN_STEP_MEAN | (uint32_t)(t / p->mask.block_k));
                wrong += !found;
            }
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
        fill(&p, BLOCK_MAP_LIST);
        check_lists(&p);
        check_order(&p);
        for (int map = BLOCK_MAP_BITS; map <= BLOCK_MAP_RANGES; map++) {
            struct random_plan q = p;
            q.plan.map = &q.mask;
            fill(&q, (enum block_map)map);
            CHECK(memcmp(q.row_ptr, p.row_ptr, p.size.row_ptr * 4) == 0);
            CHECK(memcmp(q.steps, p.steps, p.size.steps * 4) == 0);
            CHECK(memcmp(q.order, p.order, p.size.order * 4) == 0);
            if (p.plan.mean) CHECK(memcmp(q.mean, p.mean, p.size.mean * 4) == 0);
            drop(&q);
        }
        drop(&p);
        plan_free(&p);
    }
}

static uint16_t *random_bf16(struct test_rng *r, size_t n)
{
    uint16_t *x = must(malloc(n * sizeof *x));
    for (size_t i = 0; i < n; i++)
        x[i] = f32_to_bf16(rng_normal(r));
    return x;
}

static float *widened(const uint16_t *x, size_t n)
{
    float *y = must(malloc(n * sizeof *y));
    for (size_t i = 0; i < n; i++)
        y[i] = bf16_to_f32(x[i]);
    return y;
}

/* Plans without means are what ref.c executes as well: two judges, one answer. Then what only this
 * one knows: masses add up to 1 when every tile is computed; a mean of one key is that key. */
static void test_judge(struct test_rng *r)
{
    for (int n = 0; n < 30; n++) {
        int lq = rng_int(r, 1, 150), lk = rng_int(r, 1, 150), heads = rng_int(r, 1, 3), d = 64;
        size_t nq = (size_t)(lq * heads * d), nk = (size_t)(lk * heads * d);
        struct random_plan p;
        plan_random(&p, r, lq, lk, 32, 16, heads, n % 3 ? .4 : 2);
        for (int x = 0; x < 3; x++) {
            free(p.planes[x]);
            p.planes[x] = NULL;
        }
        p.plan = (struct attn_plan){.map = &p.mask, .n_heads = heads};
        fill(&p, BLOCK_MAP_BITS);
        uint16_t *q = random_bf16(r, nq), *k = random_bf16(r, nk), *v = random_bf16(r, nk);
        float *q32 = widened(q, nq), *k32 = widened(k, nk), *v32 = widened(v, nk);
        float *got = must(malloc(nq * 4)), *want = must(malloc(nq * 4));
        float *lse = must(malloc((size_t)(lq * heads) * 4)),
              *mass = must(malloc((size_t)heads * (size_t)(p.mask.rows * p.mask.cols) * 4));
        struct attn_cuda w = {.q = {q, heads * d, d},
                              .k = {k, heads * d, d},
                              .v = {v, heads * d, d},
                              .len_q = lq,
                              .len_k = lk,
                              .n_heads = heads,
                              .head_dim = d,
                              .lists = &p.lists,
                              .lse = lse};
        struct err e = {0};
        CHECK_OK(
            attn_ref_plan(&w, &(struct attn_judge){.o = got, .mass = mass, .only_row = -1}, &e));
        threads_set(1);
        const struct attn_kernel *ref = attn_kernel_find("ref");
        struct attn_size s = {lq, lk, heads, d, 32, 1, PRECISION_FP32};
        void *scratch = must(aligned_alloc(64, (ref->scratch(&s) + 63) / 64 * 64));
        ref->run(&(struct attn_work){.q = q32,
                                     .k = k32,
                                     .v = v32,
                                     .o = want,
                                     .size = &s,
                                     .mask = &p.mask,
                                     .scratch = scratch});
        check_close("the judge of plans against ref", got, want, nq, 1e-6);
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < lq; i++) /* an empty row is zeros of weight 0 */
                if (isinf(lse[h * lq + i]))
                    for (int c = 0; c < d; c++)
                        CHECK(got[(i * heads + h) * d + c] == 0);
        for (int i = 0; n % 3 == 0 && i < heads * p.mask.rows; i++) {
            double sum = 0;
            for (int t = 0; t < p.mask.cols; t++)
                sum += (double)mass[i * p.mask.cols + t];
            CHECK_MSG(fabs(sum - 1) < 1e-5, "masses of a row add up to %.9g", sum);
        }
        free(scratch);
        free(q);
        free(k);
        free(v);
        free(q32);
        free(k32);
        free(v32);
        free(got);
        free(want);
        free(lse);
        free(mass);
        drop(&p);
        plan_free(&p);
    }
}

/* Tiles of one key: then the mean of a tile is the key itself, and means change nothing. */
static void test_means(struct test_rng *r)
{
    enum { LQ = 40, LK = 37, D = 64 };
    struct err e = {0};
    for (int n = 0; n < 10; n++) {
        struct random_plan p;
        plan_random(&p, r, LQ, LK, 16, 1, 1, .5);
        for (int x = 0; x < 3; x++) {
            free(p.planes[x]);
            p.planes[x] = NULL;
        }
        size_t words = (LK + 31) / 32;
        p.planes[2] = must(malloc((size_t)p.mask.rows * words * 4));
        memset(p.planes[2], 0xff, (size_t)p.mask.rows * words * 4);
        p.plan = (struct attn_plan){.map = &p.mask, .mean = p.planes[2], .n_heads = 1};
        fill(&p, BLOCK_MAP_LIST);
        uint16_t *q = random_bf16(r, LQ * D), *k = random_bf16(r, LK * D),
                 *v = random_bf16(r, LK * D);
        float got[LQ * D], want[LQ * D], lse[LQ], lse_dense[LQ];
        struct attn_cuda w = {.q = {q, D, D},
                              .k = {k, D, D},
                              .v = {v, D, D},
                              .k_mean = {k, D, D},
                              .v_mean = {v, D, D},
                              .len_q = LQ,
                              .len_k = LK,
                              .n_heads = 1,
                              .head_dim = D,
                              .lists = &p.lists,
                              .lse = lse};
        CHECK_OK(attn_ref_plan(&w, &(struct attn_judge){.o = got, .only_row = -1}, &e));
        w.lists = NULL;
        w.lse = lse_dense;
        CHECK_OK(attn_ref_plan(&w, &(struct attn_judge){.o = want, .only_row = -1}, &e));
        check_close("means of tiles of one key against dense", got, want, LQ * D, 1e-6);
        check_close("their lse", lse, lse_dense, LQ, 1e-6);
        free(q);
        free(k);
        free(v);
        drop(&p);
        plan_free(&p);
    }
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
    refused(&w, ATTN_SM80, "128 x 64");
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    test_lists(&r);
    test_judge(&r);
    test_means(&r);
    test_shapes();
    return TEST_RESULT();
}
