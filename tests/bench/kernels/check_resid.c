/* Kernels beside attn_sm90(): pairs of 64 x 64 tiles, and residual windows: the refresh is exact and its residual exact less the plan's; both add up again.
 */
#include "tests/bench/kernels/bench_sage.h"

#include "attention/kernels/cuda/pair_cuda.h"
#include "attention/kernels/cuda/resid_cuda.h"
#include "model/base/dtype.h"

static void against(const char *what, const struct problem *p, const uint16_t *o, const float *want,
                    double bound)
{
    const struct problem_want *w = &p->want;
    const struct attn_tensor *t = &p->host.o;
    double off = 0, all = 0;
    for (int i = 0; i < w->len_q; i++)
        for (int h = 0; h < w->n_heads; h++)
            for (int c = 0; c < w->head_dim; c++) {
                size_t at =
                    ((size_t)i * (size_t)w->n_heads + (size_t)h) * (size_t)w->head_dim + (size_t)c;
                double d =
                    (double)bf16_to_f32(o[i * t->token + h * t->head + c]) - (double)want[at];
                off += fabs(d);
                all += fabs((double)want[at]);
            }
    CHECK_MSG(off <= bound * all, "resid: %s: relative L1 %.3g, at most %.3g wanted: %s", what,
              off / all, bound, p->what);
}

static void outside(const char *what, const struct problem *p, const unsigned char *o)
{
    int n = 0;
    for (int i = 0; i < GUARD; i++)
        n += (o[i] != 0xff) + (o[GUARD + 2 * p->q_count + (size_t)i] != 0xff);
    CHECK_MSG(!n, "resid: %s: %d bytes written outside: %s", what, n, p->what);
}

static void one(const struct problem_want *want, struct test_rng *r)
{
    struct err e = {0};
    struct problem p;
    struct on_device d;
    problem_make(&p, want, r);
    upload(&d, &p);
    size_t rows = (size_t)want->len_q * (size_t)want->n_heads, n = rows * (size_t)want->head_dim;
    size_t bytes = d.o_bytes + 2 * GUARD;
    float *exact = host_new(n * 4), *plan = host_new(n * 4), *rest = host_new(n * 4),
          *lse = host_new(rows * 4);
    struct attn_plan all = p.plan;
    all.all = true;
    struct attn_job judge = judged(&p.host, &p.plan);
    judge.lse = NULL;
    CHECK_OK(attn_judge(&judge, &(struct attn_judge){.o = plan, .only_row = -1}, &e));
    judge.plan = &all;
    judge.lse = lse;
    CHECK_OK(attn_judge(&judge, &(struct attn_judge){.o = exact, .only_row = -1}, &e));
    for (size_t i = 0; i < n; i++)
        rest[i] = exact[i] - plan[i];
    char *at = gpu_new(bytes);
    unsigned char *o = host_new(bytes), *x = host_new(bytes);
    float *got_lse = host_new(rows * 4);
    struct attn_tensor resid = {at + GUARD, d.call.o.token, d.call.o.head};
    GPU(cudaMemset(at, 0xff, bytes));
    GPU(cudaMemset(d.o, 0xff, bytes));
    CHECK_OK(attn_resid_sm90(&d.call, &resid, ATTN_MAKE_RESIDUAL, &e));
    GPU(cudaDeviceSynchronize());
    gpu_read(o, d.o, bytes);
    gpu_read(x, at, bytes);
    against("exact", &p, (uint16_t *)(void *)(o + GUARD), exact, .0035);
    double size = 0, both = 0;
    for (size_t i = 0; i < n; i++) {
        size += fabs((double)rest[i]);
        both += fabs((double)plan[i]) + fabs((double)exact[i]);
    }
    /* what is set aside is rounded to bf16, and both results' weights are */
    if (size > 0)
        against("residual", &p, (uint16_t *)(void *)(x + GUARD), rest, .0035 + .0035 * both / size);
    outside("exact", &p, o);
    outside("residual", &p, x);
    if (d.call.lse) {
        double most = 0;
        gpu_read(got_lse, d.call.lse, rows * 4);
        for (size_t i = 0; i < rows; i++)
            most = fmax(most, fabs((double)got_lse[i] - (double)lse[i]));
        CHECK_MSG(most <= 1e-3, "resid: lse off by %.3g: %s", most, p.what);
    }
    GPU(cudaMemset(d.o, 0xff, bytes));
    CHECK_OK(attn_resid_sm90(&d.call, &resid, ATTN_ADD_RESIDUAL, &e));
    GPU(cudaDeviceSynchronize());
    gpu_read(o, d.o, bytes);
    against("plan and residual", &p, (uint16_t *)(void *)(o + GUARD), exact,
            .004 + (size > 0 ? .002 * both / size : 0));
    outside("plan and residual", &p, o);
    free(exact);
    free(plan);
    free(rest);
    free(lse);
    free(got_lse);
    free(o);
    free(x);
    GPU(cudaFree(at));
    release(&d);
    problem_free(&p);
    tally_up();
}

void check_resid(int problems, uint64_t seed)
{
    struct test_rng r = {seed};
    for (int i = 0; i < problems; i++) {
        struct problem_want w = {.len_q = rng_int(&r, 1, 900),
                                 .len_k = rng_int(&r, 1, 1300),
                                 .n_heads = rng_int(&r, 1, 3),
                                 .head_dim = i % 2 ? 64 : 128,
                                 .sparse = true,
                                 .per_head = rng_int(&r, 0, 1),
                                 .dead = rng_int(&r, 0, 1),
                                 .lse = rng_int(&r, 0, 1),
                                 .by_head = rng_int(&r, 0, 1),
                                 .gaps = rng_int(&r, 0, 1),
                                 .block_q = 128,
                                 .block_k = 128,
                                 .density = rng_int(&r, 0, 4) ? rng_unit(&r) : 2};
        one(&w, &r);
    }
    tally_up();
}

static int run_pair(const struct attn_cuda *w, int variant, struct err *e)
{
    (void)variant;
    return attn_pair_sm90(w, e);
}

void check_pair(int problems, uint64_t seed)
{
    static const struct kernel_under_test pair = {.name = "pair", .run = run_pair};
    struct test_rng r = {seed};
    struct err e = {0};
    for (int i = 0; i < problems; i++) {
        struct problem_want w = {.len_q = rng_int(&r, 1, 900),
                                 .len_k = rng_int(&r, 1, 1300),
                                 .n_heads = rng_int(&r, 1, 3),
                                 .head_dim = 64,
                                 .sparse = true,
                                 .per_head = rng_int(&r, 0, 1),
                                 .dead = rng_int(&r, 0, 1),
                                 .lse = rng_int(&r, 0, 1),
                                 .by_head = rng_int(&r, 0, 1),
                                 .gaps = rng_int(&r, 0, 1),
                                 .block_q = 64,
                                 .block_k = 64,
                                 .density = rng_int(&r, 0, 4) ? rng_unit(&r) : 2};
        struct problem p;
        struct on_device d;
        problem_make(&p, &w, &r);
        upload(&d, &p);
        size_t rows = (size_t)w.len_q * (size_t)w.n_heads;
        float *want = host_new(rows * (size_t)w.head_dim * 4), *lse = host_new(rows * 4);
        struct attn_job judge = judged(&p.host, &p.plan);
        judge.lse = lse;
        CHECK_OK(attn_judge(&judge, &(struct attn_judge){.o = want, .only_row = -1}, &e));
        struct output got = run(&pair, &d, p.what);
        compare(pair.name, &p, &got, want, lse);
        output_free(&got);
        free(want);
        free(lse);
        release(&d);
        problem_free(&p);
    }
    tally_up();
}
