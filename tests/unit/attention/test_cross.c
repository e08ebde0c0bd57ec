/* Cross-attention as the model uses it: the count of identical pad keys folded into one key's bias,
 * two key sets added up, keys 1 to 512, scratch of unaligned callers,
 * every kernel that runs here. */
#include "attention/attention.h"
#include "model/base/threads.h"
#include "tests/check.h"

static float *normals(struct test_rng *r, size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(r);
    return x;
}

static void run(const struct attn_params *p, const struct attn_cross *c)
{
    struct err e = {0};
    size_t bytes = attn_cross_scratch(p, c->len_q, c->len_k, c->n_heads, c->head_dim);
    char *scratch = malloc(bytes + 4);
    CHECK(bytes > 0);
    CHECK_OK(attn_cross_run(p, c, scratch + 4, &e)); /* any alignment will do */
    free(scratch);
}

/* n text keys and `pads` copies of one key, against n + 1 keys with bias log(pads) on the last. */
static void test_collapse(const struct attn_params *p, struct test_rng *r, int n, int pads)
{
    int len_q = 77, heads = 2, d = 64, row = heads * d, all = n + pads;
    float *q = normals(r, (size_t)(len_q * row)), *k = normals(r, (size_t)(all * row)),
          *v = normals(r, (size_t)(all * row));
    float *want = calloc((size_t)(len_q * row), 4), *got = calloc((size_t)(len_q * row), 4);
    float *bias = calloc((size_t)n + 1, sizeof *bias);
    for (int j = n + 1; j < all; j++) {
        memcpy(k + j * row, k + n * row, (size_t)row * 4);
        memcpy(v + j * row, v + n * row, (size_t)row * 4);
    }
    bias[n] = logf((float)pads);
    struct attn_cross c = {.q = q,
                           .k = k,
                           .v = v,
                           .o = want,
                           .len_q = len_q,
                           .len_k = all,
                           .n_heads = heads,
                           .head_dim = d};
    run(p, &c);
    c.o = got, c.len_k = n + 1, c.key_bias = bias;
    run(p, &c);
    check_close("pads collapsed", got, want, (size_t)(len_q * row), 1e-5);
    free(q), free(k), free(v), free(want), free(got), free(bias);
}

static void test_accumulate(const struct attn_params *p, struct test_rng *r)
{
    int len_q = 50, heads = 3, d = 40, row = heads * d;
    size_t n = (size_t)(len_q * row);
    float *q = normals(r, n), *k = normals(r, (size_t)(257 * row)),
          *v = normals(r, (size_t)(257 * row));
    float *one = calloc(n, 4), *two = calloc(n, 4), *both = calloc(n, 4);
    struct attn_cross c = {.q = q,
                           .k = k,
                           .v = v,
                           .o = one,
                           .len_q = len_q,
                           .len_k = 20,
                           .n_heads = heads,
                           .head_dim = d};
    run(p, &c);
    memcpy(both, one, n * 4);
    c.k += 20 * row, c.v += 20 * row, c.len_k = 237, c.o = two;
    run(p, &c);
    c.o = both, c.accumulate = true;
    run(p, &c);
    size_t off = 0;
    for (size_t i = 0; i < n; i++)
        off += both[i] != one[i] + two[i];
    CHECK(off == 0);
    free(q), free(k), free(v), free(one), free(two), free(both);
}

static void test_lengths(const struct attn_params *p, const struct attn_params *judge,
                         struct test_rng *r)
{
    static const int lens[] = {1, 2, 15, 16, 17, 77, 129, 257, 511, 512};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        int len_q = rng_int(r, 1, 120), heads = 2, d = 128, row = heads * d;
        size_t n = (size_t)(len_q * row), nk = (size_t)(lens[i] * row);
        float *q = normals(r, n), *k = normals(r, nk), *v = normals(r, nk), *got = calloc(n, 4),
              *want = calloc(n, 4);
        struct attn_cross c = {.q = q,
                               .k = k,
                               .v = v,
                               .o = got,
                               .len_q = len_q,
                               .len_k = lens[i],
                               .n_heads = heads,
                               .head_dim = d};
        run(p, &c);
        c.o = want;
        run(judge, &c);
        check_close(p->kernel, got, want, n, 3e-6);
        free(q), free(k), free(v), free(got), free(want);
    }
}

static void test_refused(struct attn_params p)
{
    struct err e = {0};
    float x[64] = {0}, scratch[64];
    struct attn_cross c = {
        .q = x, .k = x, .v = x, .o = x, .len_q = 1, .len_k = 0, .n_heads = 1, .head_dim = 8};
    CHECK(attn_cross_run(&p, &c, scratch, &e) == -1 && e.code == ERR_USAGE);
    CHECK(attn_cross_scratch(&p, 1, 0, 1, 8) == 0);
    c.len_k = 1, c.head_dim = 257;
    CHECK(attn_cross_run(&p, &c, scratch, &e) == -1 && e.code == ERR_USAGE);
    c.head_dim = 8;
    CHECK(attn_cross_run(&p, &c, NULL, &e) == -1 && e.code == ERR_BUG);
    p.kernel = "none";
    CHECK(attn_cross_run(&p, &c, scratch, &e) == -1 && e.code == ERR_USAGE && strstr(e.msg, "ref"));
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    struct attn_params p = {.threads = 2}, judge;
    threads_set(2);
    cpu_detect(&p.cpu);
    judge = p;
    judge.kernel = attn_kernel_at(attn_kernel_count() - 1).name;
    CHECK(attn_kernel_at(attn_kernel_count() - 1).needs == CPU_REF);
    CHECK(!attn_kernel_at(-1).name && !attn_kernel_at(attn_kernel_count()).name);
    for (int i = 0; i < attn_kernel_count(); i++) {
        struct attn_kernel_info k = attn_kernel_at(i);
        struct err e = {0};
        float x[64] = {0}, scratch[64];
        struct attn_cross c = {
            .q = x, .k = x, .v = x, .o = x, .len_q = 1, .len_k = 1, .n_heads = 1, .head_dim = 8};
        p.kernel = k.name;
        CHECK(k.summary && k.summary[0]);
        if (k.needs > p.cpu.level) { /* named in the refusal, with what this machine has */
            CHECK(attn_cross_run(&p, &c, scratch, &e) == -1 && e.code == ERR_DEVICE &&
                  strstr(e.msg, k.name));
            continue;
        }
        if (k.needs >= CPU_AVX512_BF16) { /* not a kernel for fp32 */
            CHECK(attn_cross_run(&p, &c, scratch, &e) == -1 && e.code == ERR_DEVICE &&
                  strstr(e.msg, "fp32"));
            continue;
        }
        test_collapse(&p, &r, 12, 500);
        test_collapse(&p, &r, 1, 511);
        test_accumulate(&p, &r);
        test_lengths(&p, &judge, &r);
    }
    test_refused(judge);
    return TEST_RESULT();
}
