/* UMT5's own operations on a card against plain loops in double. Needs a GPU; exit 77 without one. */
#include "model/ops/cuda/text_cuda.h"
#include "tests/bench/frames/frames_data.h"

static void check_attend(int n, int heads, int dim, bool bf16, struct test_rng *r)
{
    struct err e = {0};
    size_t wide = (size_t)heads * (size_t)dim, all = (size_t)n * wide, span = 2 * (size_t)n - 1;
    float *q = random_numbers(all, 0.5f, bf16, r), *k = random_numbers(all, 0.5f, bf16, r),
          *v = random_numbers(all, 1, bf16, r),
          *bias = random_numbers((size_t)heads * span, 2, false, r);
    struct card kq = card_of(q, all, bf16), kk = card_of(k, all, bf16), kv = card_of(v, all, bf16),
                kb = card_of(bias, (size_t)heads * span, false);
    CHECK_OK(text_attend_cuda(kq.at, kq.at, kk.at, kv.at, (const float *)(void *)kb.at, n, heads,
                              dim, bf16, NULL, &e));
    float *got = card_get(&kq);
    double *want = calloc(all, sizeof *want), *tolerance = malloc(all * sizeof *tolerance),
           *s = malloc((size_t)n * sizeof *s);
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < n; i++) {
            double most = -INFINITY, sum = 0;
            const float *qi = q + (size_t)i * wide + (size_t)(h * dim);
            for (int j = 0; j < n; j++) {
                const float *kj = k + (size_t)j * wide + (size_t)(h * dim);
                s[j] = (double)bias[(size_t)h * span + (size_t)(j - i + n - 1)];
                for (int c = 0; c < dim; c++)
                    s[j] += (double)qi[c] * (double)kj[c];
                most = fmax(most, s[j]);
            }
            for (int j = 0; j < n; j++)
                sum += s[j] = exp(s[j] - most);
            for (int j = 0; j < n; j++)
                for (int c = 0; c < dim; c++)
                    want[(size_t)i * wide + (size_t)(h * dim + c)] +=
                        s[j] / sum * (double)v[(size_t)j * wide + (size_t)(h * dim + c)];
        }
    for (size_t i = 0; i < all; i++) /* weights and the result are rounded, |v| is about 1 */
        tolerance[i] = bf16 ? 0x1p-8 * fabs(want[i]) + 0x1p-7 : 1e-5;
    char what[96];
    snprintf(what, sizeof what, "text attention %s, %d tokens, %d heads of %d",
             bf16 ? "bf16" : "fp32", n, heads, dim);
    card_near(what, got, want, tolerance, all);
    free(got), free(want), free(tolerance), free(s), free(q), free(k), free(v), free(bias);
    card_free(&kq), card_free(&kk), card_free(&kv), card_free(&kb);
}

static void check_rows(int n, int features, bool bf16, struct test_rng *r)
{
    struct err e = {0};
    size_t all = (size_t)n * (size_t)features;
    float *x = random_numbers(all, 3, bf16, r), *y = random_numbers(all, 1, bf16, r),
          *weight = random_numbers((size_t)features, 1, bf16, r);
    struct card kx = card_of(x, all, bf16), ky = card_of(y, all, bf16), kn = card_room(all, bf16),
                kw = card_of(weight, (size_t)features, false);
    CHECK_OK(text_norm_cuda(kn.at, kx.at, (const float *)(void *)kw.at, n, features, 1e-6f, bf16,
                            NULL, &e));
    CHECK_OK(text_multiply_cuda(ky.at, kx.at, all, bf16, NULL, &e));
    float *norm = card_get(&kn), *product = card_get(&ky);
    double *want = malloc(all * sizeof *want), *tolerance = malloc(all * sizeof *tolerance);
    for (int i = 0; i < n; i++) {
        double squares = 0;
        for (int c = 0; c < features; c++)
            squares += pow((double)x[i * features + c], 2);
        for (int c = 0; c < features; c++) {
            size_t at = (size_t)(i * features + c);
            want[at] = (double)x[at] / sqrt(squares / features + 1e-6) * (double)weight[c];
            tolerance[at] = (bf16 ? 2.02 * 0x1p-8 : 1e-6) * fabs(want[at]) + 1e-9;
        }
    }
    card_near("text norm", norm, want, tolerance, all);
    for (size_t i = 0; i < all; i++) {
        want[i] = (double)x[i] * (double)y[i];
        tolerance[i] = (bf16 ? 1.01 * 0x1p-8 : 1e-7) * fabs(want[i]) + 1e-30;
    }
    card_near("text product", product, want, tolerance, all);
    free(norm), free(product), free(want), free(tolerance), free(x), free(y), free(weight);
    card_free(&kx), card_free(&ky), card_free(&kn), card_free(&kw);
}

static void check_bias(int n, int heads, struct test_rng *r)
{
    struct err e = {0};
    int span = 2 * n - 1, bad = 0;
    float *table = random_numbers((size_t)(32 * heads), 1, false, r);
    int *bucket = malloc((size_t)span * sizeof *bucket);
    for (int i = 0; i < span; i++)
        bucket[i] = rng_int(r, 0, 31);
    struct card kt = card_of(table, (size_t)(32 * heads), false),
                kb = card_of((const float *)(void *)bucket, (size_t)span, false),
                out = card_room((size_t)(heads * span), false);
    CHECK_OK(text_spread_bias_cuda((float *)(void *)out.at, (const float *)(void *)kt.at,
                                   (const int *)(void *)kb.at, heads, span, NULL, &e));
    float *got = card_get(&out);
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < span; i++)
            bad += got[h * span + i] != table[bucket[i] * heads + h];
    CHECK_MSG(bad == 0, "bias of %d tokens, %d heads: %d differ", n, heads, bad);
    free(got), free(table), free(bucket);
    card_free(&kt), card_free(&kb), card_free(&out);
}

int main(int argc, char **argv)
{
    int devices = 0;
    struct test_rng r = test_seed(argc, argv);
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 1) {
        printf("no GPU\n");
        return 77;
    }
    static const int shapes[][3] = {{1, 1, 64},  {2, 3, 64},  {63, 2, 64},
                                    {64, 1, 64}, {65, 2, 64}, {131, 2, 64},
                                    {33, 4, 12}, {40, 2, 80}, {9, 2, 256}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (int bf16 = 0; bf16 < 2; bf16++)
            check_attend(shapes[i][0], shapes[i][1], shapes[i][2], bf16, &r);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check_rows(1, 32, bf16, &r);
        check_rows(7, 333, bf16, &r);
        check_rows(5, 4096, bf16, &r);
    }
    check_bias(1, 1, &r);
    check_bias(37, 5, &r);
    return TEST_RESULT();
}
