/* fp8 layers without a card: the judge of codes and products, what the processor refuses, sizes and refusals of the
 * GPU's layers. */
#include "model/ops/fp8.h"

#include "model/ops/cuda/shape_cuda.h"
#include "model/ops/ops.h"
#include "tests/check.h"

#include <math.h>

enum { R = 5, C = 32, O = 16 };

static void scales(void)
{
    float x[R * C] = {0}, s[R];
    uint8_t q[R * C];
    for (int c = 0; c < C; c++) {
        x[c] = (float)(c - 16);
        x[2 * C + c] = 1e-33f; /* too small for a scale: zeros */
        x[3 * C + c] = c == 7 ? NAN : 1;
        x[4 * C + c] = c == 7 ? 1e6f : 1; /* an outlier takes the others' bits, not more */
    }
    ref_codes(q, s, x, R, C);
    CHECK(s[0] == 16 / E4M3_MOST && s[1] == 1 && s[2] == 1 && s[3] == 1 / E4M3_MOST);
    CHECK(q[0] == 254 && q[16] == 0 && q[17] == e4m3_code(28)); /* -16: -448 */
    for (int c = 0; c < C; c++) {
        CHECK(q[C + c] == 0 && q[2 * C + c] == 0);
        CHECK(q[3 * C + c] == (c == 7 ? 127 : 126));
        CHECK(q[4 * C + c] == (c == 7 ? 126 : 0)); /* 448e-6 is below half of 2^-9 */
        float back = e4m3_value(q[c]) * s[0];
        CHECK_MSG(fabsf(back - x[c]) <= fabsf(x[c]) / 16 + s[0] * 0x1p-10f, "%g is %g",
                  (double)x[c], (double)back);
    }
    x[0] = INFINITY;
    ref_codes(q, s, x, 1, C);
    CHECK(isinf(s[0]) && (q[0] & 127) == 127); /* what it multiplies is no number */
}

static void products(void)
{
    float x[R * C], w[O * C], b[O], xd[R * C], wd[O * C], y[R * O], want[R * O], xs[R], ws[O];
    uint8_t xq[R * C], wq[O * C];
    for (int i = 0; i < R * C; i++)
        x[i] = sinf((float)i * 0.7f) * (float)(1 + i / C);
    for (int i = 0; i < O * C; i++)
        w[i] = cosf((float)i * 1.3f) / (float)(1 + i / C);
    for (int i = 0; i < O; i++)
        b[i] = (float)i / 8;
    ref_codes(xq, xs, x, R, C);
    ref_codes(wq, ws, w, O, C);
    for (int i = 0; i < R * C; i++)
        xd[i] = e4m3_value(xq[i]) * xs[i / C];
    for (int i = 0; i < O * C; i++)
        wd[i] = e4m3_value(wq[i]) * ws[i / C];
    for (int act = ACT_NONE; act <= ACT_GELU_TANH; act++) {
        ref_linear_codes(y, xq, xs, wq, ws, b, R, C, O, (enum activation)act);
        ref_linear(want, xd, wd, b, R, C, O, (enum activation)act);
        for (int i = 0; i < R * O; i++)
            CHECK_MSG(fabsf(y[i] - want[i]) < 1e-5f * (1 + fabsf(want[i])), "%g, wanted %g",
                      (double)y[i], (double)want[i]);
    }
    ref_linear(want, x, w, b, R, C, O, ACT_NONE);
    ref_linear_codes(y, xq, xs, wq, ws, b, R, C, O, ACT_NONE);
    double wrong = 0, all = 0;
    for (int i = 0; i < R * O; i++)
        wrong += pow((double)(y[i] - want[i]), 2), all += pow((double)want[i], 2);
    CHECK_MSG(wrong > 0 && sqrt(wrong / all) < 0.06, "relative L2 %g", sqrt(wrong / all));
}

static void refused(int rc, const struct err *e, enum err_code code, const char *word)
{
    CHECK_MSG(rc < 0 && e->code == code && strstr(e->msg, word), "%d: %s; wanted %d with \"%s\"",
              (int)e->code, e->msg, (int)code, word);
}

static void processor(void)
{
    struct err e = {0};
    enum dtype t;
    struct op_linear *l;
    struct linear_params p = {.in = 16, .out = 16, .precision = PRECISION_FP8};
    refused(ops_cpu.type(NULL, PRECISION_FP8, &t, &e), &e, ERR_DEVICE, "--device cuda");
    refused(ops_cpu.linear_open(&l, NULL, &p, NULL, NULL, NULL, &e), &e, ERR_DEVICE, "a GPU's");
    CHECK(!l && !ops_cpu.fp8_watch);
    CHECK(precision_beside(PRECISION_FP8) == PRECISION_BF16);
    CHECK(precision_beside(PRECISION_FP32) == PRECISION_FP32);
}

static void card(void)
{
    struct err e = {0};
    refused(cuda_fp8_runs("cuda:0", 86, &e), &e, ERR_DEVICE, "8.6, wanted 8.9");
    CHECK(cuda_fp8_runs("cuda:0", 89, &e) == 0 && cuda_fp8_runs("cuda:0", 90, &e) == 0);
    CHECK(cuda_fp8_takes(1536, 8960, ACT_GELU_TANH, &e) == 0);
    refused(cuda_fp8_takes(1544, 8960, ACT_NONE, &e), &e, ERR_USAGE, "1544 -> 8960");
    refused(cuda_fp8_takes(1536, 8, ACT_NONE, &e), &e, ERR_USAGE, "multiples of 16");
    refused(cuda_fp8_takes(1536, 16, ACT_SILU, &e), &e, ERR_BUG, "GELU");
    CHECK(cuda_codes_bytes(1, 16) == 512 && cuda_codes_bytes(100, 32) == 3328 + 512);
    for (int c = 8; c <= 14336; c += 8) {
        struct cuda_row_shape s = cuda_code_shape(c);
        CHECK_MSG(256 * s.warps * s.vecs >= c && s.vecs <= 7, "%d: %d warps of %d", c, s.warps,
                  s.vecs);
    }
    CHECK(cuda_code_shape(14344).warps == 0); /* read twice */
    static float room[64] __attribute__((aligned(16)));
    struct cuda_norm n = {.rows = 4,
                          .features = 16,
                          .type = DTYPE_BF16,
                          .y_type = DTYPE_F8_E4M3,
                          .x = room,
                          .y = room + 32,
                          .y_scale = room + 60,
                          .x_row = 16,
                          .y_row = 16,
                          .mods = 1};
    CHECK_OK(cuda_norm_takes(&n, &e));
    n.y_scale = NULL, refused(cuda_norm_takes(&n, &e), &e, ERR_USAGE, "room for scales");
    n.y_scale = room, n.type = DTYPE_F32;
    refused(cuda_norm_takes(&n, &e), &e, ERR_USAGE, "F32 rows");
    n.type = DTYPE_BF16, n.features = 20;
    refused(cuda_norm_takes(&n, &e), &e, ERR_USAGE, "a multiple of 8");
}

static void views(void)
{
    uint8_t codes[64];
    float s[4];
    struct rows r = rows_of(NULL, codes, DTYPE_F8_E4M3, 4, 16);
    CHECK(!r.scale);
    r.scale = s;
    struct rows part = rows_part(&r, 2, 2);
    CHECK(part.at == codes + 32 && part.scale == s + 2);
}

int main(void)
{
    scales();
    products();
    processor();
    card();
    views();
    return TEST_RESULT();
}
