/* Vector row steps against the plain C row, all variants this processor runs. */
#include "model/ops/cpu/row_ops.h"

#include "model/base/cpu.h"
#include "tests/check.h"

static void one(const struct row_ops *v, const char *name, struct test_rng *r, int n, int head_dim)
{
    float *x = malloc(4 * (size_t)n), *w = malloc(4 * (size_t)n), *b = malloc(4 * (size_t)n);
    float *got = malloc(4 * (size_t)n), *want = malloc(4 * (size_t)n), c[128], s[128];
    for (int i = 0; i < n; i++)
        x[i] = 3 * rng_normal(r) + 1, w[i] = rng_normal(r), b[i] = rng_normal(r);
    for (int i = 0; i < head_dim / 2; i++)
        c[i] = (float)cos(i), s[i] = (float)sin(i);
    char what[96];
    for (int round = 0; round < 2; round++) {
        double tol = round ? 4e-3 : 1e-6; /* a sum's last bit can move a bf16 by one step */
        for (int k = 0; k < 4; k++) {
            const float *weight = k & 1 ? w : NULL, *scale = k & 2 ? b : NULL;
            v->norm_row(got, x, n, 1e-6f, weight, b, scale, w, round);
            row_ops_ref.norm_row(want, x, n, 1e-6f, weight, b, scale, w, round);
            snprintf(what, sizeof what, "%s norm %d of %d", name, k, n);
            check_close(what, got, want, (size_t)n, tol);
        }
        for (int k = 0; k < 2; k++) {
            memcpy(got, x, 4 * (size_t)n), memcpy(want, x, 4 * (size_t)n);
            v->rms_rope_row(got, n, w, 1e-6f, k ? c : NULL, s, head_dim, round);
            row_ops_ref.rms_rope_row(want, n, w, 1e-6f, k ? c : NULL, s, head_dim, round);
            snprintf(what, sizeof what, "%s rms+rope %d of %d", name, k, n);
            check_close(what, got, want, (size_t)n, tol);
            memcpy(got, x, 4 * (size_t)n), memcpy(want, x, 4 * (size_t)n);
            v->residual_row(got, w, k ? b : NULL, n, round);
            row_ops_ref.residual_row(want, w, k ? b : NULL, n, round);
            snprintf(what, sizeof what, "%s residual %d of %d", name, k, n);
            check_close(what, got, want, (size_t)n, tol);
        }
        for (int act = ACT_NONE; act <= ACT_SILU; act++) {
            for (int i = 0; i < n; i++)
                got[i] = want[i] = i % 7 == 0 ? x[i] * 40 : x[i];
            v->act_row(got, n, (enum activation)act, round);
            row_ops_ref.act_row(want, n, (enum activation)act, round);
            snprintf(what, sizeof what, "%s activation %d of %d", name, act, n);
            check_close(what, got, want, (size_t)n, tol);
        }
    }
    uint16_t h1[8], h2[8];
    float odd[8] = {1, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, 3.3895e38f, 1.00390625f};
    v->to_bf16(h1, odd, 8);
    row_ops_ref.to_bf16(h2, odd, 8);
    CHECK(memcmp(h1, h2, sizeof h1) == 0);
    free(x), free(w), free(b), free(got), free(want);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    struct cpu c;
    cpu_detect(&c);
    static const struct {
        const struct row_ops *v;
        const char *name;
        enum cpu_level needs;
    } variants[] = {
        {&row_ops_ref, "ref", CPU_REF},
#if defined(__x86_64__)
        {&row_ops_avx2, "avx2", CPU_AVX2},
        {&row_ops_avx512, "avx512", CPU_AVX512},
#endif
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        if (variants[i].needs > c.level) {
            printf("%s: not on this processor\n", variants[i].name);
            continue;
        }
        one(variants[i].v, variants[i].name, &r, 32, 16);
        one(variants[i].v, variants[i].name, &r, 320, 64);
        one(variants[i].v, variants[i].name, &r, 1536, 128);
        one(variants[i].v, variants[i].name, &r, 36, 12);
    }
    return TEST_RESULT();
}
