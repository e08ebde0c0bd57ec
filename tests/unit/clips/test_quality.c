/* PSNR and SSIM against values worked out by hand. */
#include "app/clips/quality.h"
#include "tests/check.h"

#define S 16

static void near(const char *what, double got, double want, double tol)
{
    CHECK_MSG(fabs(got - want) <= tol, "%s is %.12g, wanted %.12g", what, got, want);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    struct err e = {0};
    enum { N = S * S * 3 };
    uint8_t a[2 * N], b[2 * N];
    static double scratch[7 * S * S];
    CHECK(quality_ssim_scratch(S, S) == 7 * S * S);

    /* one byte of four off by 2: MSE 1, PSNR 20 log10(255) */
    static const uint8_t x[4] = {10, 20, 30, 40}, y[4] = {10, 22, 30, 40};
    near("MSE", quality_mse(x, y, 4), 1, 0);
    near("PSNR", quality_psnr(1, 255), 48.130803608679074, 1e-12);
    CHECK(isinf(quality_psnr(0, 255)));

    /* flat grey 100 against flat grey 120: no variance, so SSIM is the luminance term alone,
     * (2*100*120 + 6.5025) / (100^2 + 120^2 + 6.5025) */
    memset(a, 100, sizeof a);
    memset(b, 120, sizeof b);
    near("SSIM of flat frames", quality_ssim(a, b, S, S, scratch), 24006.5025 / 24406.5025, 1e-9);
    near("SSIM of itself", quality_ssim(a, a, S, S, scratch), 1, 1e-12);

    /* one bright pixel of luma 255 in the middle of an 11x11 frame against black: one window.
     * g0 = centre weight; mean = 255 g0^2, variance = 255^2 g0^2 (1 - g0^2), the other side all 0
     */
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    memset(a + 3 * (5 * 11 + 5), 255, 3);
    double sum = 0;
    for (int i = -5; i <= 5; i++)
        sum += exp(-i * i / 4.5);
    double g = 1 / (sum * sum), mean = 255 * g, var = 255.0 * 255 * g - mean * mean;
    near("SSIM of a point", quality_ssim(a, b, 11, 11, scratch),
         6.5025 * 58.5225 / ((mean * mean + 6.5025) * (var + 58.5225)), 1e-12);

    /* luma weighs red 0.299: a flat red change of 50 moves luma by 14.95 */
    memset(a, 100, sizeof a);
    memset(b, 100, sizeof b);
    for (int i = 0; i < S * S; i++)
        b[3 * i] = 150;
    double la = 100, lb = 114.95;
    near("SSIM of red", quality_ssim(a, b, S, S, scratch),
         (2 * la * lb + 6.5025) / (la * la + lb * lb + 6.5025), 1e-9);

    /* an inverted picture is negatively correlated */
    for (size_t i = 0; i < N; i++)
        a[i] = (uint8_t)(rng_u64(&r) & 1 ? 255 : 0), b[i] = (uint8_t)(255 - a[i]);
    CHECK(quality_ssim(a, b, S, S, scratch) < 0);
    CHECK(isnan(quality_ssim(a, b, 10, S, scratch)));

    /* two frames: the first equal, every byte of the second off by 4 */
    for (size_t i = 0; i < 2 * N; i++)
        a[i] = (uint8_t)rng_int(&r, 0, 250), b[i] = (uint8_t)(a[i] + (i < N ? 0 : 4));
    struct quality q;
    CHECK_OK(quality_clips(&q, a, b, 2, S, S, &e));
    near("clip PSNR", q.psnr, 10 * log10(255 * 255 / 8.0), 1e-9);
    near("worst frame PSNR", q.psnr_worst, 10 * log10(255 * 255 / 16.0), 1e-9);
    CHECK(q.worst_frame == 1 && q.differing == N && q.max_difference == 4);
    near("mean SSIM", q.ssim, (1 + q.ssim_worst) / 2, 1e-12);
    CHECK_OK(quality_clips(&q, a, a, 2, S, S, &e));
    CHECK(q.differing == 0 && isinf(q.psnr) && q.worst_frame == 0);
    near("SSIM of equal clips", q.ssim, 1, 1e-12);
    return TEST_RESULT();
}
