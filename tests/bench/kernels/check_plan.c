/* Planners on the device against attention/policy/, and what a plan costs there. */
#include "tests/bench/kernels/bench_sage.h"

#include "attention/kernels/cuda/plan_cuda.h"
#include "attention/policy/score.h"
#include "attention/policy/select.h"
#include "model/base/dtype.h"

static void counts_of(int *count, int blocks, int runs, int block, int len)
{
    for (int i = 0; i < blocks * runs; i++) {
        int n = len - i * (block / runs);
        count[i] = n < 0 ? 0 : n < block / runs ? n : block / runs;
    }
}

static void compare_bits(const char *what, const uint32_t *got, const uint32_t *want, size_t n,
                         const struct plan_shape *s)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += got[i] != want[i];
    CHECK_MSG(!wrong,
              "%s: %zu of %zu words are not the host's: %d heads of %d x %d blocks, %d runs", what,
              wrong, n, s->n_heads, s->rows, s->cols, s->runs);
}

static void one(struct test_rng *r, int runs, int rows, int cols)
{
    struct err e = {0};
    int dim = rng_int(r, 0, 1) ? 64 : 128, heads = rng_int(r, 1, 3);
    struct plan_shape s = {.n_heads = heads,
                           .rows = rows,
                           .cols = cols,
                           .head_dim = dim,
                           .runs = runs,
                           .len_q = rows * 128 - rng_int(r, 0, 127),
                           .len_k = cols * 128 - rng_int(r, 0, 127),
                           .block_q = 128,
                           .block_k = 128};
    size_t nq = (size_t)(heads * rows * runs) * (size_t)dim,
           nk = (size_t)(heads * cols * runs) * (size_t)dim;
    size_t per = (size_t)rows * (size_t)cols, n = (size_t)heads * per,
           words = (size_t)select_words(cols), nw = (size_t)(heads * rows) * words;
    float *q = host_new(nq * 4), *k = host_new(nk * 4), *want = host_new(n * 4),
          *got = host_new(n * 4);
    float *scratch = host_new((size_t)runs * (size_t)(cols * runs) * 4);
    int *qc = host_new((size_t)(rows * runs) * 4), *kc = host_new((size_t)(cols * runs) * 4),
        *index = host_new((size_t)cols * 4);
    uint32_t *bits = host_new(nw * 4), *wb = host_new(nw * 4);
    for (size_t i = 0; i < nq; i++)
        q[i] = rng_normal(r);
    for (size_t i = 0; i < nk; i++)
        k[i] = rng_normal(r);
    counts_of(qc, rows, runs, 128, s.len_q);
    counts_of(kc, cols, runs, 128, s.len_k);
    float *dq = gpu_copy(q, nq * 4), *dk = gpu_copy(k, nk * 4), *ds = gpu_new(n * 4),
          scale = (float)(1 / sqrt((double)dim));
    uint32_t *db = gpu_new(nw * 4);
    CHECK_OK(plan_scores(ds, dq, dk, &s, &e));
    gpu_read(got, ds, n * 4);
    double most = 0;
    for (int h = 0; h < heads; h++) {
        const float *qh = q + nq / (size_t)heads * (size_t)h,
                    *kh = k + nk / (size_t)heads * (size_t)h;
        if (runs == 1)
            score_pooled(want + per * (size_t)h, qh, kh, kc, rows, cols, dim, scale, dots_ref);
        else
            score_runs(want + per * (size_t)h, qh, qc, kh, kc, rows, cols, runs, dim, scale,
                       scratch, dots_ref);
    }
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= most))
            most = fabs((double)got[i] - (double)want[i]);
    CHECK_MSG(most <= 1e-4, "plan_scores: off by %.3g: %d x %d blocks, %d runs", most, rows, cols,
              runs);
    for (size_t i = 0; i < n; i += 5)
        got[i] = got[i / 2]; /* equals, and some that may not be taken */
    for (size_t i = 3; i < n; i += 11)
        got[i] = -INFINITY;
    GPU(cudaMemcpy(ds, got, n * 4, cudaMemcpyHostToDevice));
    int best = rng_int(r, 0, cols + 1);
    GPU(cudaMemset(db, 0, nw * 4));
    CHECK_OK(plan_top_k(db, ds, best, &s, &e));
    gpu_read(bits, db, nw * 4);
    select_top_k(wb, got, heads * rows, cols, best, index);
    compare_bits("plan_top_k", bits, wb, nw, &s);
    CHECK_OK(plan_softmax(ds, &s, &e));
    memcpy(want, got, n * 4);
    score_softmax(want, heads * rows, cols);
    gpu_read(got, ds, n * 4);
    most = 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= most))
            most = fabs((double)got[i] - (double)want[i]);
    CHECK_MSG(most <= 1e-6, "plan_softmax: off by %.3g", most);
    double p = (double)rng_unit(r);
    int least = rng_int(r, 0, cols / 4);
    GPU(cudaMemset(db, 0, nw * 4));
    memset(wb, 0, nw * 4);
    CHECK_OK(plan_top_p(db, ds, p, least, &s, &e));
    gpu_read(bits, db, nw * 4);
    select_top_p(wb, got, heads * rows, cols, p, least, index);
    compare_bits("plan_top_p", bits, wb, nw, &s);
    uint32_t *dead = gpu_copy(q, nw * 4 < nq * 4 ? nw * 4 : nq * 4),
             *alive = gpu_copy(k, nw * 4 < nk * 4 ? nw * 4 : nk * 4);
    size_t few = nw < nq ? nw : nq;
    if (nk < few) few = nk;
    uint32_t *after = host_new(few * 4);
    CHECK_OK(plan_retire(dead, db, alive, few, NULL, &e));
    gpu_read(after, dead, few * 4);
    for (size_t i = 0; i < few; i++) {
        uint32_t x, y;
        memcpy(&x, &q[i], 4);
        memcpy(&y, &k[i], 4);
        wb[i] = x | (bits[i] & ~y);
    }
    compare_bits("plan_retire", after, wb, few, &s);
    GPU(cudaFree(dq));
    GPU(cudaFree(dk));
    GPU(cudaFree(ds));
    GPU(cudaFree(db));
    GPU(cudaFree(dead));
    GPU(cudaFree(alive));
    void *all[] = {q, k, want, got, scratch, qc, kc, index, bits, wb, after};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        free(all[i]);
    tally_up();
}

void check_plan(uint64_t seed)
{
    struct test_rng r = {seed};
    one(&r, 1, 1, 1);
    for (int i = 0; i < 24; i++)
        one(&r, 1 << i % 3, rng_int(&r, 1, 70), rng_int(&r, 1, 300));
    one(&r, 1, 20, 1182);
}

/* From q, k, v to lists: every launch by itself, then all of it, as a share of dense attention. */
static void plan_size(int len, int heads, int dim, double seconds)
{
    enum { QUANT, SCORES, TOP_K, SOFTMAX, TOP_P, EXPAND, BF16, PARTS };
    static const char *const names[] = {
        "quant_qkv with means", "scores", "top-k", "softmax", "top-p", "lists", "bf16 dense"};
    struct err e = {0};
    size_t n = (size_t)len * (size_t)heads * (size_t)dim;
    struct attn_tensor t[4];
    for (int i = 0; i < 4; i++)
        t[i] = (struct attn_tensor){gpu_new(n * 2), (int64_t)heads * dim, dim};
    for (int i = 0; i < 3; i++) {
        uint16_t *x = bench_numbers(n, (uint64_t)i + 1);
        GPU(cudaMemcpy(t[i].at, x, n * 2, cudaMemcpyHostToDevice));
        free(x);
    }
    struct attn_cuda w = {.q = t[0],
                          .k = t[1],
                          .v = t[2],
                          .o = t[3],
                          .len_q = len,
                          .len_k = len,
                          .n_heads = heads,
                          .head_dim = dim,
                          .scratch = gpu_new(attn_cuda_scratch())};
    struct codes_pair c;
    struct quant_codes sizes = {.len_q = len,
                                .len_k = len,
                                .n_heads = heads,
                                .head_dim = dim,
                                .how = {.bits = 8, .smooth_k = true, .pools = 1}};
    codes_make(&c, &sizes);
    int blocks = c.gpu.q_blocks, words = (blocks + 31) / 32;
    struct plan_shape s = {.n_heads = heads,
                           .rows = blocks,
                           .cols = blocks,
                           .head_dim = dim,
                           .runs = 1,
                           .len_q = len,
                           .len_k = len,
                           .block_q = 128,
                           .block_k = 128};
    float *scores = gpu_new((size_t)heads * (size_t)blocks * (size_t)blocks * 4);
    size_t rows = (size_t)heads * (size_t)blocks, bit_bytes = rows * (size_t)words * 4;
    uint32_t *bits = gpu_new(bit_bytes);
    struct attn_plan plan = {
        .where = PLACE_DEVICE, .n_heads = heads, .per_head = true, .kept = bits};
    CHECK_OK(attn_blocks_equal(&plan.q, len, 128, &e));
    CHECK_OK(attn_blocks_equal(&plan.k, len, 128, &e));
    uint32_t *row_ptr = gpu_new((rows + 1) * 4), *steps = gpu_new(attn_expand_steps(&plan) * 4),
             *order = gpu_new(rows * 4);
    void *scratch = gpu_new(attn_expand_scratch(&plan));
    struct attn_lists lists;
    double ms[PARTS][64], spent = 0, all = 0;
    int rounds = 0;
    cudaEvent_t from, to;
    GPU(cudaEventCreate(&from));
    GPU(cudaEventCreate(&to));
    for (int round = -1; rounds < 64 && (rounds < 5 || spent < 1000 * seconds); round++) {
        for (int i = 0; i < PARTS; i++) {
            float x;
            if (i == TOP_K || i == TOP_P) GPU(cudaMemset(bits, 0, bit_bytes));
            gpu_pause(60);
            GPU(cudaEventRecord(from, NULL));
            switch (i) {
            case QUANT:
                CHECK_OK(quant_qkv(&c.gpu, &w, &e));
                break;
            case SCORES:
                CHECK_OK(plan_scores(scores, c.gpu.q_pool, c.gpu.k_pool, &s, &e));
                break;
            case TOP_K:
                CHECK_OK(plan_top_k(bits, scores, blocks * 3 / 10, &s, &e));
                break;
            case SOFTMAX:
                CHECK_OK(plan_softmax(scores, &s, &e));
                break;
            case TOP_P:
                CHECK_OK(plan_top_p(bits, scores, .3, 1, &s, &e));
                break;
            case EXPAND:
                CHECK_OK(
                    attn_expand(&lists, row_ptr, steps, order, NULL, &plan, scratch, NULL, &e));
                break;
            default:
                CHECK_OK(attn_sm90(&w, &e));
            }
            GPU(cudaEventRecord(to, NULL));
            GPU(cudaEventSynchronize(to));
            GPU(cudaEventElapsedTime(&x, from, to));
            spent += (double)x;
            if (round >= 0) ms[i][rounds] = (double)x;
        }
        rounds += round >= 0;
    }
    printf("plan of %d tokens x %d heads x %d channels (%d rounds), medians\n", len, heads, dim,
           rounds);
    for (int i = 0; i < PARTS; i++)
        qsort(ms[i], (size_t)rounds, sizeof ms[i][0], bench_ascending);
    for (int i = 0; i < PARTS; i++) {
        double median = ms[i][rounds / 2];
        printf("  %-22s %8.4f ms  %5.2f %% of bf16 dense\n", names[i], median,
               100 * median / ms[BF16][rounds / 2]);
        if (i == SCORES || i == TOP_K || i == EXPAND) all += median;
    }
    printf("  scores, top-k, lists: %.2f %% of bf16 dense (must: 3 %%)\n",
           100 * all / ms[BF16][rounds / 2]);
    void *mine[] = {t[0].at, t[1].at, t[2].at, t[3].at, w.scratch, scores,
                    bits,    row_ptr, steps,   order,   scratch};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++)
        GPU(cudaFree(mine[i]));
    codes_free(&c);
    tally_up();
}

void time_plan(double seconds)
{
    plan_size(32760, 12, 128, seconds / 2);
    plan_size(32760, 24, 64, seconds / 2);
}
