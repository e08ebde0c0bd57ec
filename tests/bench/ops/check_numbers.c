/* Casts, activations, solver sums, bytes, patches, time: most of them to the bit. */
#include "tests/bench/ops/check_ops.h"

#include "model/base/lincomb.h"
#include "model/ops/cuda/rows_cuda.h"

/* --- casts and activations --- */

static int run_map(void *ctx, struct err *e) { return cuda_map(ctx, NULL, e); }

static double act_of(enum activation a, double x)
{
    switch (a) {
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x * 0.7071067811865476));
    case ACT_SILU:
        return x / (1 + exp(-x));
    default:
        return x;
    }
}

/* Every class of number: both zeros, denormals, ties of bf16, infinities, NaN. */
static void fill_odd(struct numbers *x, struct test_rng *r)
{
    static const uint32_t odd[] = {0x00000000, 0x80000000, 0x00000001, 0x807fffff, 0x3f808000,
                                   0x3f818000, 0x3f807fff, 0x7f800000, 0xff800000, 0x7fc00000,
                                   0x7f7fffff, 0xff7fffff, 0x7f7f8000, 0x00008000, 0x42b17218};
    for (size_t i = 0; i < x->n; i++) {
        uint32_t bits = i < ARRAY_LEN(odd) ? odd[i] : (uint32_t)rng_u64(r);
        memcpy(&x->host[i], &bits, 4);
    }
    numbers_up(x);
}

static void check_casts(struct test_rng *r)
{
    verdict_begin("casts");
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 4; i++)
        for (size_t n = 1; n <= 70000; n = n * 37 + 11) {
            struct numbers x = numbers_new(types[i & 1], n), y = numbers_new(types[i >> 1], n);
            double *want = host_new(n * 8);
            fill_odd(&x, r);
            for (size_t k = 0; k < n; k++)
                want[k] = (double)(y.type == DTYPE_BF16 ? bf16_round(x.host[k]) : x.host[k]);
            struct cuda_map p = {
                .x = x.device, .y = y.device, .from = x.type, .to = y.type, .n = n, .times = 1};
            verdict_case("%zu of %s to %s", n, dtype_name(x.type), dtype_name(y.type));
            numbers_dirty(&y);
            verdict_check(&y, run_map, &p, want, NULL);
            free(want), numbers_free(&x), numbers_free(&y);
        }
    /* every code of the small types */
    struct err e = {0};
    for (int type = 0; type < 2; type++) {
        uint8_t codes[256];
        double want[256];
        struct numbers y = numbers_new(DTYPE_F32, 256);
        for (int i = 0; i < 256; i++) {
            int bits = type ? 2 : 3, bias = type ? 15 : 7, m = i & ((1 << bits) - 1);
            int x = (i & 127) >> bits;
            double v = x ? ldexp(1 + (double)m / (1 << bits), x - bias)
                         : ldexp((double)m / (1 << bits), 1 - bias);
            codes[i] = (uint8_t)i;
            if (type ? x == 31 : (i & 127) == 127) v = type && !m ? INFINITY : NAN;
            want[i] = 0.5 * (i & 128 ? -v : v);
        }
        void *up = gpu_copy(codes, 256);
        struct cuda_map p = {.x = up,
                             .y = y.device,
                             .from = type ? DTYPE_F8_E5M2 : DTYPE_F8_E4M3,
                             .to = DTYPE_F32,
                             .n = 256,
                             .times = 0.5f};
        verdict_case("256 of %s", dtype_name(p.from));
        verdict_check(&y, run_map, &p, want, NULL);
        p.from = DTYPE_I32;
        verdict_that(cuda_map(&p, NULL, &e) < 0 && e.code == ERR_USAGE, "integers are refused");
        gpu_free(up);
        numbers_free(&y);
    }
    verdict_begin("activations");
    for (int act = ACT_GELU_TANH; act <= ACT_SILU; act++)
        for (int i = 0; i < 4; i++) {
            size_t n = 3001;
            struct numbers x = numbers_new(types[i & 1], n), y = numbers_new(types[i >> 1], n);
            double *want = host_new(n * 8), *bound = host_new(n * 8);
            numbers_normal(&x, r, 0, 4);
            for (size_t k = 0; k < n; k++) {
                double v = (double)x.host[k];
                want[k] = act_of((enum activation)act, v);
                /* tanh, erf, exp to 2 units, of 1 + t where that may cancel */
                bound[k] = 8 * U_F32 * fabs(v) +
                           (y.type == DTYPE_BF16 ? U_BF16 * 1.01 * fabs(want[k]) : 0);
            }
            struct cuda_map p = {.x = x.device,
                                 .y = y.device,
                                 .from = x.type,
                                 .to = y.type,
                                 .n = n,
                                 .act = (enum activation)act,
                                 .times = 1};
            verdict_case("activation %d of %s to %s", act, dtype_name(x.type), dtype_name(y.type));
            verdict_check(&y, run_map, &p, want, bound);
            free(want), free(bound), numbers_free(&x), numbers_free(&y);
        }
}

/* --- copies and tables --- */

struct copy_case {
    void *y;
    const void *x;
    int64_t y_row, x_row;
    int rows, cols;
    const float *table; /* add_table instead */
};
static int run_copy(void *ctx, struct err *e)
{
    struct copy_case *c = ctx;
    if (c->table)
        return cuda_add_table(c->y, c->y_row, c->x, DTYPE_F32, c->x_row, c->table, c->rows, c->cols,
                              NULL, e);
    return cuda_copy_rows(c->y, c->y_row, c->x, c->x_row, c->rows, c->cols, 4, NULL, e);
}

static void check_copies(struct test_rng *r)
{
    verdict_begin("rows copied, tables added");
    static const int shapes[][4] = {
        {1, 1, 1, 1}, {3, 8, 24, 8}, {37, 33, 34, 99}, {5, 1920, 1920, 1920}};
    for (size_t i = 0; i < 2 * ARRAY_LEN(shapes); i++) {
        const int *s = shapes[i / 2];
        struct copy_case c = {.rows = s[0], .cols = s[1], .x_row = s[2], .y_row = s[3]};
        size_t n = (size_t)c.rows * (size_t)c.y_row;
        struct numbers x = numbers_new(DTYPE_F32, (size_t)c.rows * (size_t)c.x_row);
        struct numbers y = numbers_new(DTYPE_F32, n), t = numbers_new(DTYPE_F32, (size_t)c.cols);
        double *want = host_new(n * 8);
        numbers_normal(&x, r, 0, 1), numbers_normal(&t, r, 0, 1), numbers_normal(&y, r, 0, 1);
        for (size_t k = 0; k < n; k++) {
            size_t row = k / (size_t)c.y_row, col = k % (size_t)c.y_row;
            float v = col < (size_t)c.cols ? x.host[row * (size_t)c.x_row + col] : 0;
            want[k] = (double)(col >= (size_t)c.cols ? y.host[k] : i & 1 ? t.host[col] + v : v);
        }
        c.y = y.device, c.x = x.device, c.table = i & 1 ? t.device : NULL;
        verdict_case("[%d, %d] of rows of %lld to %lld%s", c.rows, c.cols, (long long)c.x_row,
                     (long long)c.y_row, i & 1 ? " and a table" : "");
        verdict_check(&y, run_copy, &c, want, NULL);
        free(want), numbers_free(&x), numbers_free(&y), numbers_free(&t);
    }
}

/* --- sums --- */

static int run_sum(void *ctx, struct err *e) { return cuda_sum(ctx, NULL, e); }

static void check_sums(struct test_rng *r)
{
    verdict_begin("solver sums (lincomb), host's bytes");
    struct err e = {0};
    for (int terms = 1; terms <= LINCOMB_TERMS; terms++)
        for (int kind = 0; kind < 4; kind++) {
            size_t n = kind & 2 ? 4099 : 1;
            struct numbers from[LINCOMB_TERMS], y = numbers_new(DTYPE_F32, n);
            struct lincomb l = {.to = LINCOMB_TERMS, .n = terms};
            struct cuda_sum p = {.to = y.device, .n_terms = terms, .n = n, .bf16 = kind & 1};
            float *x[LINCOMB_TERMS + 1];
            double *want = host_new(n * 8);
            for (int k = 0; k < terms; k++) {
                from[k] = numbers_new(DTYPE_F32, n);
                numbers_normal(&from[k], r, 0, 3);
                l.from[k] = k;
                p.from[k] = from[k].device;
                p.c[k] = l.c[k] = k ? (float)rng_normal(r) : kind & 2 ? -1 : 1.25f;
                x[k] = from[k].host;
            }
            x[LINCOMB_TERMS] = y.host;
            lincomb_host.run(NULL, x, &l, n, p.bf16, &e);
            for (size_t k = 0; k < n; k++)
                want[k] = (double)y.host[k];
            verdict_case("%d terms of %zu%s", terms, n, p.bf16 ? ", bf16" : "");
            verdict_check(&y, run_sum, &p, want, NULL);
            float *up = gpu_copy(p.c, sizeof p.c); /* numbers that a replayed step reads */
            p.c_device = up;
            memset(p.c, 0, sizeof p.c);
            verdict_check(&y, run_sum, &p, want, NULL);
            gpu_free(up);
            for (int k = 0; k < terms; k++)
                numbers_free(&from[k]);
            numbers_free(&y), free(want);
        }
}

/* --- what is not finite --- */

static void check_finite(struct test_rng *r)
{
    verdict_begin("NaN and infinities found");
    for (int kind = 0; kind < 12; kind++) {
        enum dtype type = kind & 1 ? DTYPE_F32 : DTYPE_BF16;
        int rows = kind < 4 ? 1 : 301, cols = 1 + 7 * kind, row = cols + kind % 3, seen = -1;
        struct numbers x = numbers_new(type, (size_t)rows * (size_t)row);
        struct err e = {0};
        float *values = x.host;
        for (size_t i = 0; i < x.n; i++) /* what stands between rows is not looked at */
            values[i] = i % (size_t)row < (size_t)cols ? (float)rng_normal(r) : NAN;
        bool bad = kind % 4 > 1;
        size_t at = (size_t)rng_int(r, 0, rows - 1) * (size_t)row + (size_t)rng_int(r, 0, cols - 1);
        if (bad) values[at] = kind % 2 ? NAN : -INFINITY;
        numbers_up(&x);
        int *found = gpu_new(sizeof *found);
        GPU(cudaMemset(found, 0, sizeof *found));
        verdict_case("[%d, %d] %s, rows %d apart", rows, cols, dtype_name(type), row);
        int failed = cuda_not_finite(found, 7, x.device, type, rows, cols, row, NULL, &e) < 0;
        failed |= cuda_not_finite(found, 9, x.device, type, rows, cols, row, NULL, &e) < 0;
        gpu_read(&seen, found, sizeof seen);
        verdict_that(!failed && seen == (bad ? 7 : 0), "the first label is noted, or none");
        gpu_free(found);
        numbers_free(&x);
    }
}

/* --- bytes of frames --- */

struct bytes_case {
    uint8_t *y;
    const float *x;
    size_t pixels;
    bool planes, truncate;
};
static int run_bytes(void *ctx, struct err *e)
{
    struct bytes_case *c = ctx;
    return cuda_to_bytes(c->y, c->x, c->pixels, c->planes, c->truncate, NULL, e);
}

static void check_bytes(struct test_rng *r)
{
    verdict_begin("frames to bytes, host's bytes");
    for (int kind = 0; kind < 4; kind++) {
        size_t pixels = kind ? 7001 : 1, n = 3 * pixels;
        struct numbers x = numbers_new(DTYPE_F32, n), y = numbers_new(DTYPE_U8, n);
        double *want = host_new(n * 8);
        for (size_t i = 0; i < n; i++)
            x.host[i] = i % 5 == 0 ? (float)((double)rng_int(r, -255, 510) / 255 - 1)
                                   : (float)(rng_unit(r) * 2.2 - 1.1);
        if (kind) x.host[3] = NAN, x.host[4] = INFINITY, x.host[5] = -INFINITY;
        numbers_up(&x);
        struct bytes_case c = {y.device, x.device, pixels, kind & 1, kind & 2};
        for (size_t i = 0; i < n; i++) {
            float v = x.host[c.planes ? i % 3 * pixels + i / 3 : i] * 0.5f + 0.5f;
            v = v > 0 ? (v < 1 ? v : 1) : 0;
            want[i] = (double)(uint8_t)(c.truncate ? v * 255.0f : nearbyintf(v * 255.0f));
        }
        verdict_case("%zu pixels%s%s", pixels, c.planes ? ", planes" : "",
                     c.truncate ? ", truncated" : "");
        verdict_check(&y, run_bytes, &c, want, NULL);
        free(want), numbers_free(&x), numbers_free(&y);
    }
}

/* --- patches, time, products of few rows --- */

struct patch_case {
    void *to;
    const void *from;
    enum dtype type;
    struct cuda_grid g;
    bool back;
};
static int run_patch(void *ctx, struct err *e)
{
    struct patch_case *c = ctx;
    if (c->back) return cuda_unpatchify(c->to, c->from, c->type, &c->g, NULL, e);
    return cuda_patchify(c->to, c->type, c->from, &c->g, NULL, e);
}

static void check_patches(struct test_rng *r)
{
    static const int grids[][7] = {/* C F H W ph pw, room between rows */
                                   {16, 3, 8, 12, 2, 2, 0}, {1, 1, 2, 2, 2, 2, 0},
                                   {36, 2, 6, 4, 2, 2, 8},  {48, 1, 10, 14, 2, 2, 0},
                                   {5, 2, 6, 9, 1, 3, 1},   {16, 9, 32, 32, 2, 2, 0}};
    verdict_begin("latents to patches and back");
    for (size_t i = 0; i < 4 * ARRAY_LEN(grids); i++) {
        const int *s = grids[i / 4];
        int each = s[0] * s[4] * s[5];
        struct patch_case c = {.type = i & 1 ? DTYPE_F32 : DTYPE_BF16, .back = i & 2};
        c.g = (struct cuda_grid){s[0], s[1], s[2], s[3], s[4], s[5], each + s[6]};
        size_t L = (size_t)(s[1] * (s[2] / s[4]) * (s[3] / s[5])), n = L * (size_t)each;
        struct numbers latents = numbers_new(DTYPE_F32, n);
        struct numbers cols = numbers_new(c.type, L * (size_t)c.g.row);
        numbers_normal(&latents, r, 0, 1), numbers_normal(&cols, r, 0, 1);
        double *want = host_new(cols.n * 8), *plain = host_new(n * 8);
        for (size_t k = 0; k < cols.n; k++)
            want[k] = (double)cols.host[k];
        size_t at = 0; /* of latents: channel, frame, row, column */
        for (int ch = 0; ch < s[0]; ch++)
            for (int f = 0; f < s[1]; f++)
                for (int y = 0; y < s[2]; y++)
                    for (int x = 0; x < s[3]; x++, at++) {
                        int token = (f * (s[2] / s[4]) + y / s[4]) * (s[3] / s[5]) + x / s[5];
                        int slow = (ch * s[4] + y % s[4]) * s[5] + x % s[5];
                        int fast = (y % s[4] * s[5] + x % s[5]) * s[0] + ch;
                        float v = latents.host[at];
                        want[token * c.g.row + slow] =
                            (double)(c.type == DTYPE_BF16 ? bf16_round(v) : v);
                        plain[at] = (double)cols.host[token * c.g.row + fast];
                    }
        c.to = c.back ? latents.device : cols.device;
        c.from = c.back ? cols.device : latents.device;
        verdict_case("%d x %d x %d x %d by %d x %d %s%s", s[0], s[1], s[2], s[3], s[4], s[5],
                     dtype_name(c.type), c.back ? ", back" : "");
        verdict_check(c.back ? &latents : &cols, run_patch, &c, c.back ? plain : want, NULL);
        free(want), free(plain), numbers_free(&latents), numbers_free(&cols);
    }
}

struct time_case {
    float *y;
    const float *t, *freqs;
    int n, half;
};
static int run_time(void *ctx, struct err *e)
{
    struct time_case *c = ctx;
    return cuda_sinusoid(c->y, c->t, c->freqs, c->n, c->half, NULL, e);
}
static int run_few(void *ctx, struct err *e) { return cuda_few(ctx, NULL, e); }

static void check_time(struct test_rng *r)
{
    verdict_begin("sinusoid of time");
    struct numbers t = numbers_new(DTYPE_F32, 5), f = numbers_new(DTYPE_F32, 128);
    struct numbers y = numbers_new(DTYPE_F32, 5 * 256);
    double want[5 * 256], bound[5 * 256];
    const float times[] = {0, 999, 1000, 0.25f, 875.5f};
    memcpy(t.host, times, sizeof times);
    for (int i = 0; i < 128; i++)
        f.host[i] = (float)exp(-9.210340371976184 * i / 128);
    numbers_up(&t), numbers_up(&f);
    for (int i = 0; i < 5 * 256; i++) {
        float angle = t.host[i / 256] * f.host[i % 128];
        want[i] = i % 256 < 128 ? cos((double)angle) : sin((double)angle);
        bound[i] = U_F32 * 1.01 * fabs(want[i]);
    }
    struct time_case c = {y.device, t.device, f.device, 5, 128};
    verdict_case("5 of 128");
    verdict_check(&y, run_time, &c, want, bound);
    numbers_free(&t), numbers_free(&f), numbers_free(&y);

    static const int shapes[][3] = {{1, 256, 1536}, {3, 256, 320}, {2, 8, 1},
                                    {9, 320, 1920}, {1, 5120, 37}, {13, 1544, 6}};
    verdict_begin("products of few rows");
    for (size_t i = 0; i < 4 * ARRAY_LEN(shapes); i++) {
        const int *s = shapes[i / 4];
        size_t rows = (size_t)s[0], in = (size_t)s[1], out = (size_t)s[2];
        struct numbers x = numbers_new(DTYPE_F32, rows * in),
                       w = numbers_new(i & 1 ? DTYPE_F32 : DTYPE_BF16, in * out);
        struct numbers b = numbers_new(DTYPE_F32, out), to = numbers_new(DTYPE_F32, rows * out);
        numbers_normal(&x, r, 0, 1), numbers_normal(&w, r, 0, 1 / sqrt((double)in)),
            numbers_normal(&b, r, 0, 0.2);
        struct cuda_few p = {.rows = s[0],
                             .in = s[1],
                             .out = s[2],
                             .x = x.device,
                             .y = to.device,
                             .weight = w.device,
                             .bias = i & 2 ? b.device : NULL,
                             .weight_type = w.type,
                             .pre = i % 3 ? ACT_SILU : ACT_NONE,
                             .act = i % 3 ? ACT_NONE : ACT_SILU,
                             .round_in = !(i & 1),
                             .round_out = !(i & 1)};
        double *sum = host_new(rows * out * 8), *most = host_new(rows * out * 8);
        for (size_t k = 0; k < rows * out; k++) {
            double v = p.bias ? (double)b.host[k % out] : 0, mag = fabs(v), off = 0;
            for (size_t c2 = 0; c2 < in; c2++) {
                double a = (double)x.host[k / out * in + c2],
                       ww = (double)w.host[k % out * in + c2];
                if (p.round_in) a = (double)bf16_round((float)a);
                if (p.pre) {
                    double exact = act_of(p.pre, a);
                    a = p.round_in ? (double)bf16_round((float)exact) : exact;
                    /* silu to 8 units, and where that lies at a tie, the other neighbour */
                    double half = exact == 0 ? 0 : ldexp(1, ilogb(exact) - 8);
                    bool tie = fabs(a - exact) > half - 16 * U_F32 * fabs(exact);
                    off += fabs(ww) * (!p.round_in ? 8 * U_F32 * fabs(a)
                                       : tie       ? 2 * U_BF16 * fabs(a)
                                                   : 0);
                }
                v += a * ww;
                mag += fabs(a * ww);
            }
            sum[k] = act_of(p.act, v);
            most[k] = 1.2 * (off + ((double)in / 32 + 8) * U_F32 * mag) + 8 * U_F32 * fabs(v) +
                      (p.round_out ? U_BF16 * 1.01 * fabs(sum[k]) : 0);
        }
        verdict_case("[%d, %d] -> %d, weights %s", s[0], s[1], s[2], dtype_name(w.type));
        verdict_check(&to, run_few, &p, sum, most);
        free(sum), free(most), numbers_free(&x), numbers_free(&w), numbers_free(&b),
            numbers_free(&to);
    }
}

void check_numbers(struct test_rng *r, bool small)
{
    (void)small; /* all of it is quick */
    check_casts(r);
    check_copies(r);
    check_sums(r);
    check_finite(r);
    check_bytes(r);
    check_patches(r);
    check_time(r);
}
