/* Products of linear layers, and the fp8 codes they may read, against sums in double. */
#include "tests/bench/ops/check_ops.h"

#include "model/ops/cuda/blas.h"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/fp8.h"

struct linear_case {
    struct cuda_matmul *m;
    void *y;
    const void *x, *w, *bias, *y0;
    const float *x_scale, *w_scale;
    void *room;
    size_t y_bytes;
};

static int run_linear(void *ctx, struct err *e)
{
    struct linear_case *c = ctx;
    if (c->y0) GPU(cudaMemcpy(c->y, c->y0, c->y_bytes, cudaMemcpyDeviceToDevice));
    return cuda_matmul_run(c->m, c->y, c->x, c->w, c->bias, c->x_scale, c->w_scale, c->room, NULL,
                           e);
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

/* y of `batch` layers over one x. Matrix units may cut partial sums to fewer bits than fp32 has (they
 * align the terms of a sum of 16): a unit of 2^-22 a step of 16 terms, as attention's judge allows. */
static void judge(double *want, double *bound, const struct cuda_product *p, const float *x,
                  const float *w, const float *bias, const float *y0, double unit)
{
    int batch = p->batch > 1 ? p->batch : 1;
    int64_t y_row = p->y_row ? p->y_row : p->out, x_row = p->x_row ? p->x_row : p->in;
    for (int k = 0; k < batch; k++)
        for (int r = 0; r < p->rows; r++)
            for (int o = 0; o < p->out; o++) {
                const float *wk = w + k * p->w_batch + (int64_t)o * p->in;
                size_t at = (size_t)(k * p->y_batch + r * y_row + o);
                double v = bias ? (double)bias[k * p->bias_batch + o] : 0, mag = fabs(v);
                for (int c = 0; c < p->in; c++) {
                    double t = (double)x[r * x_row + c] * (double)wk[c];
                    v += t;
                    mag += fabs(t);
                }
                double err = (p->in / 16.0 + 8) * unit * mag;
                if (p->add) { /* the library rounds what it adds */
                    err += 2 * U_F32 * fabs((double)y0[at]) +
                           (p->y_type == DTYPE_BF16 ? 1.01 * U_BF16 * fabs(v) : 0);
                    v += (double)y0[at];
                }
                if (p->act == ACT_GELU_TANH) {
                    /* slope at most 1.13; tanh by the unit's approximation, 2^-11 (PTX tanh.approx) */
                    double y = gelu(v);
                    err = 1.13 * err + 0.5 * fabs(v) * 0x1p-10;
                    v = y;
                }
                want[at] = v;
                bound[at] =
                    err + (p->y_type == DTYPE_BF16 ? 1.01 * U_BF16 * fabs(v) : 2 * U_F32 * fabs(v));
            }
}

static void one_linear(struct test_rng *r, struct cuda_blas *b, struct cuda_product p, void *room)
{
    int batch = p.batch > 1 ? p.batch : 1;
    size_t y_row = (size_t)(p.y_row ? p.y_row : p.out), x_row = (size_t)(p.x_row ? p.x_row : p.in);
    struct numbers x = numbers_new(p.type, (size_t)p.rows * x_row);
    struct numbers w = numbers_new(p.type, (size_t)batch * (size_t)p.out * (size_t)p.in);
    struct numbers bias = numbers_new(p.y_type, (size_t)batch * (size_t)p.out);
    struct numbers y = numbers_new(p.y_type, (size_t)batch * (size_t)p.rows * y_row);
    struct numbers y0 = numbers_new(p.y_type, y.n);
    numbers_normal(&x, r, 0, 1);
    numbers_normal(&w, r, 0, 1 / sqrt((double)p.in));
    numbers_normal(&bias, r, 0, 0.3);
    numbers_normal(&y0, r, 0, 1);
    p.w_batch = (int64_t)p.out * p.in, p.bias_batch = p.out,
    p.y_batch = (int64_t)p.rows * (int64_t)y_row;
    double *want = host_new(y.n * 8), *bound = host_new(y.n * 8);
    for (size_t i = 0; i < y.n; i++)
        want[i] = (double)y0.host[i]; /* what lies between rows stays */
    judge(want, bound, &p, x.host, w.host, p.bias ? bias.host : NULL, y0.host,
          p.type == DTYPE_BF16 ? 0x1p-22
          : p.tf32             ? 0x1p-10
                               : U_F32 * 2);
    verdict_case("%s [%d, %d] -> %d to %s%s%s%s, %d at once", dtype_name(p.type), p.rows, p.in,
                 p.out, dtype_name(p.y_type), p.bias ? " + bias" : "", p.act ? ", gelu" : "",
                 p.add ? ", added" : "", batch);
    struct linear_case c = {.y = y.device,
                            .x = x.device,
                            .w = w.device,
                            .bias = bias.device,
                            .y0 = y0.device,
                            .y_bytes = y.n * dtype_size(y.type),
                            .room = room};
    struct err e = {0};
    if (cuda_matmul_open(&c.m, b, &p, &e) < 0) {
        verdict_that(false, e.msg);
    } else {
        verdict_check(&y, run_linear, &c, want, bound);
        if (cuda_matmul_launches(c.m) > 1)
            printf("note: %s [%d, %d] -> %d has its activation in a launch of its own\n",
                   dtype_name(p.type), p.rows, p.in, p.out);
        cuda_matmul_close(c.m);
    }
    free(want), free(bound);
    numbers_free(&x), numbers_free(&w), numbers_free(&bias), numbers_free(&y), numbers_free(&y0);
}

static void check_products(struct test_rng *r, struct cuda_blas *b, void *room, bool small)
{
    /* embedded model, 1.3B, and what no tile divides */
    static const int shapes[][3] = {{1, 320, 320},   {33, 256, 320},   {77, 320, 1280},
                                    {5, 1280, 320},  {129, 64, 320},   {200, 320, 64},
                                    {7, 1536, 1536}, {17, 1536, 8960}, {3, 8960, 1536},
                                    {31, 24, 40},    {1, 8, 8},        {300, 320, 960}};
    const int n = small ? 6 : (int)ARRAY_LEN(shapes);
    verdict_begin("linear bf16");
    for (int i = 0; i < n; i++)
        for (int kind = 0; kind < 4; kind++)
            one_linear(r, b,
                       (struct cuda_product){.rows = shapes[i][0],
                                             .in = shapes[i][1],
                                             .out = shapes[i][2],
                                             .type = DTYPE_BF16,
                                             .y_type = kind == 3 ? DTYPE_F32 : DTYPE_BF16,
                                             .act = kind == 1 ? ACT_GELU_TANH : ACT_NONE,
                                             .bias = kind != 2,
                                             .add = kind == 2},
                       room);
    verdict_begin("linear fp32, no TF32");
    for (int i = 0; i < n; i++)
        for (int kind = 0; kind < 3; kind++)
            one_linear(r, b,
                       (struct cuda_product){.rows = shapes[i][0],
                                             .in = shapes[i][1],
                                             .out = shapes[i][2],
                                             .type = DTYPE_F32,
                                             .y_type = DTYPE_F32,
                                             .act = kind == 1 ? ACT_GELU_TANH : ACT_NONE,
                                             .bias = kind != 2,
                                             .add = kind == 2},
                       room);
    verdict_begin("linear bf16, rows with gaps, three at once");
    for (int i = 0; i < 4; i++)
        one_linear(r, b,
                   (struct cuda_product){.rows = 33 + i,
                                         .in = 320,
                                         .out = 320,
                                         .type = DTYPE_BF16,
                                         .y_type = DTYPE_BF16,
                                         .x_row = i & 1 ? 640 : 0,
                                         .y_row = i & 1 ? 960 : 0,
                                         .bias = true,
                                         .batch = i & 2 ? 3 : 1},
                   room);
}

/* --- fp8 --- */

/* Codes and scales of x [rows, cols]; host copies in code, scale. Nearest code to x / scale. */
static void one_code(struct numbers *x, int rows, int cols, bool whole, uint8_t **q, float **s,
                     float *decoded)
{
    size_t n = (size_t)rows * (size_t)cols, scales = whole ? 1 : (size_t)rows;
    struct err e = {0};
    *q = gpu_new(n);
    *s = gpu_new(scales * 4);
    uint32_t *peak = gpu_new(4);
    uint8_t *codes = host_new(n), *again = host_new(n);
    float *scale = host_new(scales * 4);
    for (int i = 0; i < 2; i++) {
        GPU(cudaMemset(peak, 0, 4));
        if (cuda_codes(*q, *s, peak, x->device, x->type, rows, cols, whole, NULL, &e) < 0)
            verdict_that(false, e.msg);
        GPU(cudaDeviceSynchronize());
        gpu_read(i ? again : codes, *q, n);
    }
    gpu_read(scale, *s, scales * 4);
    verdict_that(memcmp(codes, again, n) == 0, "codes twice are the same");
    bool near = true, top = true;
    for (size_t i = 0; i < n; i++) {
        double sc = (double)scale[whole ? 0 : i / (size_t)cols],
               v = (double)e4m3_value(codes[i]) * sc;
        /* half a step: 2^-4 of the number, or of the least normal one */
        double step = fmax(fabs((double)x->host[i]) * 0x1p-4, sc * 0x1p-10) * 1.001;
        near = near && fabs(v - (double)x->host[i]) <= step;
        decoded[i] = (float)v;
    }
    for (size_t k = 0; k < scales; k++) {
        double most = 0;
        size_t len = whole ? n : (size_t)cols;
        for (size_t i = 0; i < len; i++)
            most = fmax(most, fabs((double)x->host[k * len + i]));
        double wanted = most > 0 ? most / 448 : 1;
        top = top && fabs((double)scale[k] - wanted) <= 2 * U_F32 * wanted;
    }
    verdict_that(near, "each code is the nearest");
    verdict_that(top, "each scale takes the largest to 448");
    free(codes), free(again), free(scale);
    gpu_free(peak);
}

static void check_fp8_products(struct test_rng *r, struct cuda_blas *b, void *room, bool small)
{
    enum { KINDS = 5 };
    static const int shapes[][3] = {
        {33, 320, 320}, {77, 320, 1280}, {16, 1536, 1536}, {130, 1280, 320}};
    struct cudaDeviceProp dev;
    GPU(cudaGetDeviceProperties(&dev, 0));
    bool can = dev.major * 10 + dev.minor >= 89;
    verdict_begin("linear fp8: one scale, row scales, fast, after");
    for (int i = 0; i < (small ? 2 : (int)ARRAY_LEN(shapes)) * KINDS; i++) {
        static const enum cuda_scales scales[KINDS] = {CUDA_ONE_SCALE, CUDA_ROW_SCALES,
                                                       CUDA_ROW_SCALES, CUDA_ROW_SCALES_AFTER,
                                                       CUDA_ROW_SCALES_AFTER};
        int kind = i % KINDS;
        struct cuda_product p = {.rows = shapes[i / KINDS][0],
                                 .in = shapes[i / KINDS][1],
                                 .out = shapes[i / KINDS][2],
                                 .type = DTYPE_F8_E4M3,
                                 .y_type = DTYPE_BF16,
                                 .bias = true,
                                 .fast = kind == 2 || kind == 4,
                                 .act = kind == 4 ? ACT_GELU_TANH : ACT_NONE,
                                 .scales = scales[kind]};
        bool whole = kind == 0, after = p.scales == CUDA_ROW_SCALES_AFTER;
        size_t xn = (size_t)p.rows * (size_t)p.in, wn = (size_t)p.out * (size_t)p.in;
        struct numbers x = numbers_new(DTYPE_BF16, xn), w = numbers_new(DTYPE_F32, wn);
        struct numbers bias = numbers_new(DTYPE_BF16, (size_t)p.out);
        struct numbers y = numbers_new(DTYPE_BF16, (size_t)p.rows * (size_t)p.out);
        numbers_normal(&x, r, 0, 1), numbers_normal(&w, r, 0, 0.05),
            numbers_normal(&bias, r, 0, 0.3);
        for (int k = 0; k < p.in; k++)
            x.host[k] = 0; /* a row of zeros */
        numbers_up(&x);
        float *xd = host_new(xn * 4), *wd = host_new(wn * 4), *xs, *ws;
        uint8_t *xq, *wq;
        double *want = host_new(y.n * 8), *bound = host_new(y.n * 8);
        verdict_case("[%d, %d] -> %d, %s%s%s", p.rows, p.in, p.out,
                     whole ? "one scale" : "row scales", p.fast ? ", fast" : "",
                     after ? ", after the product" : "");
        one_code(&x, p.rows, p.in, whole, &xq, &xs, xd);
        one_code(&w, p.out, p.in, whole, &wq, &ws, wd);
        /* fp8 sums keep 14 bits between the promotions to fp32 that `fast` leaves out */
        judge(want, bound, &p, xd, wd, bias.host, NULL, 0x1p-14);
        for (size_t k = 0; k < y.n && after; k++) /* the sum is stored before its scales */
            bound[k] += 1.01 * U_BF16 * (fabs(want[k]) + 2);
        struct linear_case c = {.y = y.device,
                                .x = xq,
                                .w = wq,
                                .bias = bias.device,
                                .x_scale = xs,
                                .w_scale = ws,
                                .room = room};
        struct err e = {0};
        if (!can)
            verdict_that(cuda_matmul_open(&c.m, b, &p, &e) < 0, "a card without fp8 refuses");
        else if (cuda_matmul_open(&c.m, b, &p, &e) < 0)
            verdict_that(false, e.msg);
        else
            verdict_check(&y, run_linear, &c, want, bound);
        if (can) cuda_matmul_close(c.m);
        free(want), free(bound), free(xd), free(wd);
        gpu_free(xq), gpu_free(wq), gpu_free(xs), gpu_free(ws);
        numbers_free(&x), numbers_free(&w), numbers_free(&bias), numbers_free(&y);
    }
}

void check_linear(struct test_rng *r, bool small)
{
    struct cuda_blas *b;
    struct err e = {0};
    if (cuda_blas_open(&b, &e) < 0) {
        verdict_begin("linear");
        verdict_case("cuBLASLt");
        verdict_that(false, e.msg);
        return;
    }
    printf("cuBLASLt %d\n", cuda_blas_version(b));
    void *room = gpu_new(CUDA_BLAS_ROOM);
    check_products(r, b, room, small);
    check_fp8_products(r, b, room, small);
    gpu_free(room);
    cuda_blas_close(b);
}
