/* ragged_sm90 against the judge: blocks of any length, none and one token among them. */
#include "tests/bench/kernels/checks.h"

/* Random cuts, some of them equal: empty blocks, blocks of one token. */
static void cut_blocks(struct test_rng *r, int32_t *at, int n, int len)
{
    at[0] = 0;
    for (int i = 1; i < n; i++)
        at[i] = rng_int(r, 0, len);
    at[n] = len;
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && at[k] < at[k - 1]; k--) {
            int32_t t = at[k];
            at[k] = at[k - 1];
            at[k - 1] = t;
        }
}

/* Against the judge, and the same bytes again and again. */
static void check_launches(const char *kernel, struct problem *p, struct on_device *d,
                           const struct attn_ragged *plan, const float *want, const float *lse,
                           int repeats)
{
    struct err e = {0};
    size_t n = d->lse_count, bytes = d->o_bytes + 2 * GUARD;
    struct output got = {.o = host_new(bytes), .lse = host_new(n * 4)};
    GPU(cudaMemset(d->o, 0xff, bytes));
    CHECK_OK(attn_ragged_sm90(&d->call, plan, &e));
    GPU(cudaDeviceSynchronize());
    gpu_read(got.o, d->o, bytes);
    gpu_read(got.lse, d->call.lse, n * 4);
    compare(kernel, p, &got, want, lse);
    unsigned differ = 0, *sum = gpu_copy(&differ, sizeof differ);
    void *first = gpu_copy(got.o, bytes), *first_lse = gpu_copy(got.lse, n * 4);
    for (int i = 0; i < repeats; i++) {
        GPU(cudaMemsetAsync(d->o, 0xff, bytes, NULL));
        CHECK_OK(attn_ragged_sm90(&d->call, plan, &e));
        gpu_differ(sum, first, d->o, bytes);
        gpu_differ(sum, first_lse, d->call.lse, n * 4);
    }
    GPU(cudaDeviceSynchronize());
    gpu_read(&differ, sum, sizeof differ);
    CHECK_MSG(!differ, "%s: %u words differ in %d launches", kernel, differ, repeats);
    GPU(cudaFree(sum));
    GPU(cudaFree(first));
    GPU(cudaFree(first_lse));
    output_free(&got);
}

void check_ragged(struct test_rng *r, int repeats)
{
    struct err e = {0};
    struct problem_want w = {.len_q = rng_int(r, 1, 400),
                             .len_k = rng_int(r, 1, 1200),
                             .n_heads = rng_int(r, 1, 2),
                             .head_dim = rng_int(r, 0, 1) ? 128 : 64,
                             .lse = true,
                             .by_head = rng_int(r, 0, 1),
                             .logits = (enum logits)(rng_int(r, 0, 1) ? NORMAL : PEAKY)};
    struct problem p;
    problem_make(&p, &w, r);
    int plans = rng_int(r, 0, 1) ? w.n_heads : 1, rows = rng_int(r, 1, 6), cols = rng_int(r, 1, 40);
    int words = (cols + 31) / 32, chance = rng_int(r, 1, 4);
    int32_t *q_at = host_new((size_t)(plans * (rows + 1)) * 4),
            *k_at = host_new((size_t)(plans * (cols + 1)) * 4);
    uint32_t *keep = host_new((size_t)(plans * rows * words) * 4);
    for (int i = 0; i < plans; i++) {
        cut_blocks(r, q_at + i * (rows + 1), rows, w.len_q);
        cut_blocks(r, k_at + i * (cols + 1), cols, w.len_k);
    }
    for (int i = 0; i < plans * rows; i++)
        for (int c = 0; c < cols; c++)
            if (rng_int(r, 1, 4) <= chance) keep[i * words + c / 32] |= (uint32_t)1 << (c % 32);
    struct attn_plan b = {.n_heads = w.n_heads,
                          .per_head = plans > 1,
                          .q = {.len = w.len_q, .n = rows, .at = q_at, .stride = rows + 1},
                          .k = {.len = w.len_k, .n = cols, .at = k_at, .stride = cols + 1},
                          .kept = keep,
                          .may_be_empty = true};
    size_t n = (size_t)w.len_q * (size_t)w.n_heads;
    float *want = host_new(n * (size_t)w.head_dim * 4), *lse = host_new(n * 4);
    struct attn_job judge = judged(&p.host, &b);
    judge.lse = lse;
    CHECK_OK(attn_judge(&judge, &(struct attn_judge){.o = want, .only_row = -1}, &e));
    size_t n_rows, n_runs;
    const int block_q = ATTN_RAGGED_QUERIES(w.head_dim);
    struct attn_ragged ragged;
    CHECK_OK(attn_ragged_size(&n_rows, &n_runs, &b, block_q, &e));
    struct attn_ragged_row *row = host_new(n_rows * sizeof *row);
    struct attn_ragged_run *run = host_new(n_runs * sizeof *run);
    CHECK_OK(attn_ragged_fill(&ragged, row, run, &b, block_q, &e));
    struct on_device d;
    upload(&d, &p);
    ragged.row = own(&d, gpu_copy(row, n_rows * sizeof *row));
    ragged.run = own(&d, gpu_copy(run, n_runs * sizeof *run));
    char name[64];
    snprintf(name, sizeof name, "ragged_sm90 d%d, %d x %d blocks", w.head_dim, rows, cols);
    check_launches(name, &p, &d, &ragged, want, lse, repeats);
    release(&d);
    free(want);
    free(lse);
    free(row);
    free(run);
    free(q_at);
    free(k_at);
    free(keep);
    problem_free(&p);
    tally_up();
}
