/* Linear layers against double sums: every precision that runs here, packed and borrowed. */
#include "model/ops/linear.h"

#include "model/base/threads.h"
#include "tests/check.h"

static void one(struct test_rng *r, int rows, int in, int out, enum precision p, bool borrow,
                enum dtype file, enum activation act, bool bias)
{
    size_t nx = (size_t)rows * (size_t)in, nw = (size_t)in * (size_t)out,
           ny = (size_t)rows * (size_t)out;
    float *x = malloc(4 * nx), *w = malloc(4 * nw), *b = malloc(4 * (size_t)out);
    float *y = malloc(4 * ny), *want = malloc(4 * ny);
    uint16_t *h = malloc(2 * nw + 2);
    for (size_t i = 0; i < nx; i++)
        x[i] = rng_normal(r);
    for (size_t i = 0; i < nw; i++)
        w[i] = bf16_round(rng_normal(r)), h[i] = f32_to_bf16(w[i]);
    for (int i = 0; i < out; i++)
        b[i] = bf16_round(rng_normal(r));
    if (p != PRECISION_FP32) round_rows(x, nx);
    struct tensor tw = {.data = file == DTYPE_BF16 ? (void *)h : (void *)w,
                        .dtype = file,
                        .n_dims = 2,
                        .shape = {out, in}};
    struct tensor tb = {.data = b, .dtype = DTYPE_F32, .n_dims = 1, .shape = {out}};
    struct linear_params lp = {.in = in, .out = out, .precision = p, .act = act, .borrow = borrow};
    struct linear *l;
    struct err e = {0};
    CHECK_OK(linear_open(&l, &lp, &tw, bias ? &tb : NULL, &e));
    if (!l) goto done;
    size_t scratch;
    CHECK_OK(linear_prepare(l, rows, &scratch, &e));
    void *s = aligned_alloc(64, (scratch + 127) / 64 * 64);
    for (size_t i = 0; i < ny; i++)
        y[i] = NAN;
    CHECK_OK(linear_run(l, y, x, rows, s, &e));
    ref_linear(want, x, w, bias ? b : NULL, rows, in, out, act);
    char what[128];
    snprintf(what, sizeof what, "[%d, %d] x [%d] %s%s", rows, in, out, precision_name(p),
             borrow ? " borrowed" : "");
    check_close(what, y, want, ny, 1e-6 * sqrt(in));
    for (size_t i = 0; i < ny; i++)
        y[i] = NAN;
    CHECK_OK(linear_run(l, y, x, rows, NULL, &e)); /* its own scratch */
    check_close(what, y, want, ny, 1e-6 * sqrt(in));
    free(s);
done:
    linear_close(l);
    free(x), free(w), free(b), free(y), free(want), free(h);
}

/* Several layers on one input, and two in a chain: the same bytes as one by one. */
static void together(struct test_rng *r, int rows, int in, int middle, enum precision p)
{
    struct linear *l[3];
    struct linear_stage stage = {0};
    struct err e = {0};
    size_t nw = (size_t)in * (size_t)middle, most = 0;
    float *w = malloc(4 * nw), *x = malloc(4 * (size_t)rows * (size_t)in);
    float *y[4], *want = malloc(4 * (size_t)rows * (size_t)middle);
    for (int i = 0; i < 4; i++)
        y[i] = malloc(4 * (size_t)rows * (size_t)(in > middle ? in : middle));
    for (size_t i = 0; i < nw; i++)
        w[i] = rng_normal(r) / sqrtf((float)in);
    for (size_t i = 0; i < (size_t)rows * (size_t)in; i++)
        x[i] = rng_normal(r);
    for (int i = 0; i < 3; i++) { /* in → middle twice, and back */
        struct linear_params lp = {.in = i < 2 ? in : middle,
                                   .out = i < 2 ? middle : in,
                                   .precision = p,
                                   .act = i == 0 ? ACT_GELU_TANH : ACT_NONE,
                                   .round_out = i != 1 && p != PRECISION_FP32};
        struct tensor tw = {.data = w, .dtype = DTYPE_F32, .n_dims = 2, .shape = {lp.out, lp.in}};
        size_t scratch;
        CHECK_OK(linear_open_staged(&l[i], &lp, &tw, NULL, &stage, &e));
        CHECK_OK(linear_prepare(l[i], rows, &scratch, &e));
        most = scratch > most ? scratch : most;
    }
    void *s = aligned_alloc(64, (most + 127) / 64 * 64);
    CHECK_OK(linear_run_several(l, y, 2, x, rows, s, &e));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(linear_run(l[i], want, x, rows, s, &e));
        CHECK(memcmp(y[i], want, 4 * (size_t)rows * (size_t)middle) == 0);
    }
    CHECK_OK(linear_run(l[2], y[3], y[0], rows, s, &e));
    free(s);
    CHECK_OK(linear_prepare_chain(l[0], l[2], rows, &most, &e));
    s = aligned_alloc(64, (most + 127) / 64 * 64);
    CHECK_OK(linear_run_chain(l[0], l[2], y[2], x, rows, s, &e));
    CHECK(memcmp(y[2], y[3], 4 * (size_t)rows * (size_t)in) == 0);
    for (int i = 0; i < 4; i++)
        free(y[i]);
    for (int i = 0; i < 3; i++)
        linear_close(l[i]);
    free(w), free(x), free(want), free(s), free(stage.data);
}

/* Any number of threads, the same bytes: a sum over the inner dimension must not be cut by them. */
static void threads_apart(struct test_rng *r, int rows, int in, int out, bool borrow)
{
    size_t nx = (size_t)rows * (size_t)in, nw = (size_t)in * (size_t)out,
           ny = (size_t)rows * (size_t)out;
    float *x = malloc(4 * nx), *w = malloc(4 * nw), *y = malloc(4 * ny), *one = malloc(4 * ny);
    for (size_t i = 0; i < nx; i++)
        x[i] = rng_normal(r);
    for (size_t i = 0; i < nw; i++)
        w[i] = rng_normal(r);
    struct tensor tw = {.data = w, .dtype = DTYPE_F32, .n_dims = 2, .shape = {out, in}};
    struct linear_params lp = {.in = in, .out = out, .borrow = borrow};
    struct linear *l;
    struct err e = {0};
    int before = threads_count();
    CHECK_OK(linear_open(&l, &lp, &tw, NULL, &e));
    for (int threads = 1; threads <= 7; threads += 2) {
        threads_set(threads);
        CHECK_OK(linear_run(l, y, x, rows, NULL, &e));
        if (threads == 1) memcpy(one, y, 4 * ny);
        CHECK_MSG(memcmp(y, one, 4 * ny) == 0, "[%d, %d] x [%d]%s: %d threads give other bytes",
                  rows, in, out, borrow ? " borrowed" : "", threads);
    }
    threads_set(before);
    linear_close(l);
    free(x), free(w), free(y), free(one);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    printf("%s, bf16 %s\n", ops_backend(), ops_has_bf16() ? "native" : "emulated");
    for (int n = 0; n < 60; n++) {
        enum precision p = n % 3 == 0 ? PRECISION_FP32 : PRECISION_BF16_EMULATED;
        if (n % 3 == 2 && ops_has_bf16()) p = PRECISION_BF16;
        one(&r, rng_int(&r, 1, 70), rng_int(&r, 1, 200), rng_int(&r, 1, 150), p, rng_int(&r, 0, 1),
            rng_int(&r, 0, 1) ? DTYPE_BF16 : DTYPE_F32, (enum activation)rng_int(&r, 0, 3),
            rng_int(&r, 0, 1));
    }
    one(&r, 300, 320, 1280, PRECISION_FP32, false, DTYPE_BF16, ACT_GELU_TANH, true);

    for (int n = 0; n < 6; n++) {
        enum precision p = n % 2 ? PRECISION_BF16_EMULATED : PRECISION_FP32;
        if (n > 3 && ops_has_bf16()) p = PRECISION_BF16;
        together(&r, rng_int(&r, 1, 300), rng_int(&r, 1, 90), rng_int(&r, 1, 200), p);
    }

    for (int borrow = 0; borrow < 2; borrow++) {
        threads_apart(&r, 1, 320, 1920, borrow);
        threads_apart(&r, 5, 640, 256, borrow);
        threads_apart(&r, 32, 1280, 320, borrow);
        threads_apart(&r, 300, 1280, 320, borrow);
    }

    /* many row counts on one layer: the oldest primitive makes room */
    float w[6 * 4], x[20 * 4], y[20 * 6], want[20 * 6];
    for (int i = 0; i < 24; i++)
        w[i] = rng_normal(&r);
    for (int i = 0; i < 80; i++)
        x[i] = rng_normal(&r);
    struct tensor tw = {.data = w, .dtype = DTYPE_F32, .n_dims = 2, .shape = {6, 4}};
    struct linear_params lp = {.in = 4, .out = 6};
    struct linear *l;
    struct err e = {0};
    CHECK_OK(linear_open(&l, &lp, &tw, NULL, &e));
    for (int rows = 1; rows <= 20; rows++) {
        CHECK_OK(linear_run(l, y, x, rows, NULL, &e));
        ref_linear(want, x, w, NULL, rows, 4, 6, ACT_NONE);
        check_close("row counts", y, want, (size_t)rows * 6, 1e-6);
    }
    linear_close(l);

    /* integers are no weights */
    tw.dtype = DTYPE_I32;
    CHECK(linear_open(&l, &lp, &tw, NULL, &e) < 0 && e.code == ERR_INPUT && !l);
    if (!ops_has_bf16()) {
        tw.dtype = DTYPE_F32;
        lp.precision = PRECISION_BF16;
        CHECK(linear_open(&l, &lp, &tw, NULL, &e) < 0 && e.code == ERR_DEVICE);
    }
    return TEST_RESULT();
}
