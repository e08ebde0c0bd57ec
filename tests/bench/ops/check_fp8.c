/* fp8 codes bit by bit against the judge of model/ops/fp8.h, norms that write codes, and layers of the table on the
 * same codes. Rows are ragged, with outliers, zeros, numbers too small for a scale, and what is no number. */
#include "tests/bench/ops/check_ops.h"

#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/fp8.h"
#include "model/ops/ops.h"

static bool same_codes(const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++) /* the sign of what is no number is nobody's */
        if (a[i] != b[i] && ((a[i] & 127) != 127 || (b[i] & 127) != 127)) return false;
    return true;
}

/* Normal ones; every fourth row with an outlier, of zeros, or with a number that is none. */
static void hard_rows(struct numbers *x, struct test_rng *r, int rows, int cols, int row)
{
    numbers_normal(x, r, 0, 1);
    for (int k = 0; k < rows; k++)
        for (int c = 0; c < cols; c++) {
            float *v = &x->host[(size_t)k * (size_t)row + (size_t)c];
            if (k % 4 == 1 && c == cols / 2) *v = 3e4f;
            if (k % 4 == 2) *v = k % 8 == 2 ? 0 : *v * 1e-33f;
            if (k % 4 == 3 && c == cols - 1) *v = k % 8 == 3 ? NAN : INFINITY;
        }
    numbers_up(x);
}

static float *packed(const struct numbers *x, int rows, int cols, int row)
{
    float *p = host_new((size_t)rows * (size_t)cols * 4);
    for (int k = 0; k < rows; k++)
        memcpy(p + (size_t)k * (size_t)cols, x->host + (size_t)k * (size_t)row, (size_t)cols * 4);
    return p;
}

struct codes { /* of the card, and copies of them here */
    uint8_t *q, *host_q;
    float *s, *host_s;
    size_t n, rows;
};
static struct codes codes_new(int rows, int cols)
{
    size_t n = (size_t)rows * (size_t)cols;
    return (struct codes){
        gpu_new(n), host_new(n), gpu_new((size_t)rows * 4), host_new((size_t)rows * 4),
        n,          (size_t)rows};
}
static void codes_down(struct codes *c)
{
    GPU(cudaDeviceSynchronize());
    gpu_read(c->host_q, c->q, c->n);
    gpu_read(c->host_s, c->s, c->rows * 4);
}
static void codes_free(struct codes *c)
{
    gpu_free(c->q), gpu_free(c->s), free(c->host_q), free(c->host_s);
}

static void check_rows_of_codes(struct test_rng *r, bool small)
{
    static const int shapes[][2] = {{1, 8},    {5, 24},   {33, 320},  {9, 1536},
                                    {8, 5120}, {9, 8960}, {9, 13824}, {8, 16384}};
    verdict_begin("fp8 codes of rows, the judge's bits");
    for (int i = 0; i < (small ? 4 : (int)ARRAY_LEN(shapes)) * 2; i++) {
        int rows = shapes[i / 2][0], cols = shapes[i / 2][1], row = i & 1 ? cols + 16 : cols;
        struct err e = {0};
        struct numbers x = numbers_new(i & 1 ? DTYPE_F32 : DTYPE_BF16, (size_t)rows * (size_t)row);
        hard_rows(&x, r, rows, cols, row);
        float *from = packed(&x, rows, cols, row);
        struct codes got = codes_new(rows, cols), want = codes_new(rows, cols);
        struct cuda_row_codes p = {.q = got.q,
                                   .scale = got.s,
                                   .x = x.device,
                                   .type = x.type,
                                   .x_row = row,
                                   .rows = rows,
                                   .cols = cols};
        verdict_case("[%d, %d] %s, rows %d apart", rows, cols, dtype_name(x.type), row);
        if (cuda_row_codes(&p, NULL, &e) < 0) verdict_that(false, e.msg);
        codes_down(&got);
        ref_codes(want.host_q, want.host_s, from, rows, cols);
        verdict_that(memcmp(got.host_s, want.host_s, got.rows * 4) == 0, "scales");
        verdict_that(same_codes(got.host_q, want.host_q, got.n), "codes");
        free(from);
        codes_free(&got), codes_free(&want);
        numbers_free(&x);
    }
    verdict_begin("fp8 codes of GELU");
    for (int i = 0; i < (small ? 4 : (int)ARRAY_LEN(shapes)); i++) {
        int rows = shapes[i][0], cols = shapes[i][1];
        struct err e = {0};
        struct numbers x = numbers_new(DTYPE_BF16, (size_t)rows * (size_t)cols);
        struct codes got = codes_new(rows, cols);
        numbers_normal(&x, r, 0, 3);
        struct cuda_row_codes p = {.q = got.q,
                                   .scale = got.s,
                                   .x = x.device,
                                   .type = x.type,
                                   .x_row = cols,
                                   .rows = rows,
                                   .cols = cols,
                                   .act = ACT_GELU_TANH};
        verdict_case("[%d, %d]", rows, cols);
        if (cuda_row_codes(&p, NULL, &e) < 0) verdict_that(false, e.msg);
        codes_down(&got);
        double worst = 0;
        for (size_t k = 0; k < got.n; k++) {
            double want = (double)act_apply(ACT_GELU_TANH, x.host[k]);
            double s = (double)got.host_s[k / (size_t)cols], v = (double)e4m3_value(got.host_q[k]);
            /* half a step of the code, and the approximation of GELU */
            double bound =
                fmax(fabs(want) * 0x1p-4, s * 0x1p-10) * 1.001 + 0x1p-20 * fabs((double)x.host[k]);
            worst = fmax(worst, fabs(v * s - want) / bound);
        }
        verdict_note(worst, worst / 16);
        verdict_that(worst <= 1, "each code is the nearest");
        codes_free(&got);
        numbers_free(&x);
    }
}

/* Codes of a norm are those of what it would have written, and the stream beside them is the same. */
static void check_norms(struct test_rng *r, bool small)
{
    static const int widths[] = {8, 320, 1536, 3072, 5120, 8192};
    enum { N = 13, MODS = 3 };
    verdict_begin("norms into fp8 codes, exactly");
    for (int i = 0; i < (small ? 2 : (int)ARRAY_LEN(widths)) * 2; i++) {
        int D = widths[i / 2];
        struct err e = {0};
        struct numbers x[2], y = numbers_new(DTYPE_BF16, (size_t)N * (size_t)D);
        struct numbers add = numbers_new(DTYPE_BF16, y.n);
        struct numbers mods = numbers_new(DTYPE_F32, (size_t)(3 * MODS) * (size_t)D);
        x[0] = numbers_new(DTYPE_BF16, y.n), x[1] = numbers_new(DTYPE_BF16, y.n);
        numbers_normal(&x[0], r, 0.5, 2), numbers_normal(&add, r, 0, 1),
            numbers_normal(&mods, r, 0, 0.4);
        memcpy(x[1].host, x[0].host, y.n * 4);
        numbers_up(&x[1]);
        const float *m = mods.device;
        struct codes got = codes_new(N, D), want = codes_new(N, D);
        struct cuda_norm p = {.rows = N,
                              .features = D,
                              .type = DTYPE_BF16,
                              .y_type = DTYPE_BF16,
                              .add_type = DTYPE_BF16,
                              .round = true,
                              .x = x[0].device,
                              .y = y.device,
                              .x_row = D,
                              .add_row = D,
                              .y_row = D,
                              .eps = 1e-6f,
                              .scale = m,
                              .shift = m + MODS * D,
                              .mod_stride = D,
                              .rows_per_mod = 5,
                              .mods = MODS};
        if (i & 1) p.add = add.device, p.gate = m + 2 * MODS * D;
        struct cuda_row_codes c = {.q = want.q,
                                   .scale = want.s,
                                   .x = y.device,
                                   .type = DTYPE_BF16,
                                   .x_row = D,
                                   .rows = N,
                                   .cols = D};
        verdict_case("[%d, %d]%s", N, D, i & 1 ? " of a new sum" : "");
        if (cuda_norm(&p, NULL, &e) < 0 || cuda_row_codes(&c, NULL, &e) < 0)
            verdict_that(false, e.msg);
        p.x = x[1].device, p.y = got.q, p.y_scale = got.s, p.y_type = DTYPE_F8_E4M3;
        if (cuda_norm(&p, NULL, &e) < 0) verdict_that(false, e.msg);
        codes_down(&got), codes_down(&want);
        verdict_that(memcmp(got.host_q, want.host_q, got.n) == 0, "codes");
        verdict_that(memcmp(got.host_s, want.host_s, got.rows * 4) == 0, "scales");
        float *a = numbers_down(&x[0]), *b = numbers_down(&x[1]);
        verdict_that(memcmp(a, b, y.n * 4) == 0, "streams");
        free(a), free(b);
        codes_free(&got), codes_free(&want);
        numbers_free(&x[0]), numbers_free(&x[1]), numbers_free(&y), numbers_free(&add),
            numbers_free(&mods);
    }
}

/* --- layers of the table --- */

enum { D = 320, F = 1280, ROWS = 77 };

struct layer {
    struct op_linear *l;
    float *w, *b, *ws; /* of the host */
    uint8_t *wq;
    int in, out;
};

static int layer_new(struct layer *l, struct device *d, struct test_rng *r, int in, int out,
                     enum activation act, enum dtype file, struct err *e)
{
    size_t n = (size_t)in * (size_t)out;
    struct numbers w = numbers_new(file, n), b = numbers_new(DTYPE_BF16, (size_t)out);
    *l = (struct layer){.in = in, .out = out};
    numbers_normal(&w, r, 0, 0.05), numbers_normal(&b, r, 0, 0.3);
    l->w = host_new(n * 4), l->b = host_new((size_t)out * 4), l->ws = host_new((size_t)out * 4);
    l->wq = host_new(n);
    memcpy(l->w, w.host, n * 4), memcpy(l->b, b.host, (size_t)out * 4);
    ref_codes(l->wq, l->ws, l->w, out, in);
    void *raw = host_new(n * dtype_size(file));
    gpu_read(raw, w.device, n * dtype_size(file));
    struct tensor weight = {.data = raw, .dtype = file, .n_dims = 2, .shape = {out, in}};
    struct tensor bias = {.data = l->b, .dtype = DTYPE_F32, .n_dims = 1, .shape = {out}};
    struct linear_params p = {.in = in, .out = out, .precision = PRECISION_FP8, .act = act};
    int rc = ops_of(d)->linear_open(&l->l, d, &p, &weight, &bias, NULL, e);
    if (rc == 0) rc = device_wait(d, e);
    free(raw);
    numbers_free(&w), numbers_free(&b);
    return rc;
}

static void layer_free(struct layer *l, struct device *d)
{
    if (l->l) ops_of(d)->linear_close(l->l);
    free(l->w), free(l->b), free(l->ws), free(l->wq);
}

/* The judge's, as bf16 stores it. */
static void judge(float *y, const struct layer *l, const float *x, int rows)
{
    uint8_t *q = host_new((size_t)rows * (size_t)l->in);
    float *s = host_new((size_t)rows * 4);
    ref_codes(q, s, x, rows, l->in);
    ref_linear_codes(y, q, s, l->wq, l->ws, l->b, rows, l->in, l->out, ACT_NONE);
    free(q), free(s);
}

static double apart(const float *a, const float *b, size_t n)
{
    double wrong = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        wrong += pow((double)a[i] - (double)b[i], 2);
        all += pow((double)b[i], 2);
    }
    return sqrt(wrong / all);
}

/* Relative L2 beside the judge: roundings to bf16 are 2^-9 of each number at most; sums of 14 bits, and codes next to a
 * tie (of a middle), are what is left. */
static void near(const char *what, const struct numbers *y, const float *want, double most)
{
    float *got = numbers_down(y);
    double off = apart(got, want, y->n);
    verdict_case("%s: relative L2 %.3g, at most %.3g", what, off, most);
    verdict_note(off / most, off);
    verdict_that(off <= most, what);
    free(got);
}

static void run_layers(struct device *d, struct test_rng *r, enum dtype file)
{
    struct err e = {0};
    const struct ops *o = ops_of(d);
    struct layer q[3] = {0}, up = {0}, down = {0};
    size_t scratch = 0, more = 0;
    struct numbers x = numbers_new(DTYPE_BF16, ROWS * D), y[3],
                   z = numbers_new(DTYPE_BF16, ROWS * D);
    float *want = host_new((size_t)ROWS * F * 4), *mid = host_new((size_t)ROWS * F * 4);
    void *room = NULL;
    int rc = 0;
    numbers_normal(&x, r, 0, 1);
    for (int k = 0; k < ROWS; k += 7)
        x.host[k * D + k] = 200; /* outliers */
    numbers_up(&x);
    for (int i = 0; i < 3; i++) {
        y[i] = numbers_new(DTYPE_BF16, ROWS * D);
        if (rc == 0) rc = layer_new(&q[i], d, r, D, D, ACT_NONE, file, &e);
    }
    if (rc == 0) rc = layer_new(&up, d, r, D, F, ACT_GELU_TANH, file, &e);
    if (rc == 0) rc = layer_new(&down, d, r, F, D, ACT_NONE, file, &e);
    if (rc == 0) rc = o->linear_prepare(q[0].l, ROWS, &scratch, &e);
    if (rc == 0) rc = o->ffn_prepare(up.l, down.l, ROWS, &more, &e);
    if (rc == 0) rc = device_alloc(d, &room, scratch > more ? scratch : more, &e);
    verdict_case("layers of %s", dtype_name(file));
    if (rc < 0) {
        verdict_that(false, e.msg);
        goto done;
    }
    struct rows from = rows_of(d, x.device, DTYPE_BF16, ROWS, D), to[3], out;
    struct op_linear *three[3] = {q[0].l, q[1].l, q[2].l};
    for (int i = 0; i < 3; i++)
        to[i] = rows_of(d, y[i].device, DTYPE_BF16, ROWS, D);
    out = rows_of(d, z.device, DTYPE_BF16, ROWS, D);
    if (o->fp8_watch(d, true, &e) < 0 || o->linear_several(three, to, 3, &from, room, &e) < 0 ||
        o->linear(q[0].l, &out, &from, room, &e) < 0 || device_wait(d, &e) < 0)
        verdict_that(false, e.msg);
    for (int i = 0; i < 3; i++) {
        judge(want, &q[i], x.host, ROWS);
        near("one of three", &y[i], want, 3e-3);
    }
    float *a = numbers_down(&y[0]), *b = numbers_down(&z);
    verdict_that(memcmp(a, b, z.n * 4) == 0, "alone and with others: the same");
    free(b);
    struct codes c = codes_new(ROWS, D); /* x as a norm hands it over */
    struct cuda_row_codes p = {.q = c.q,
                               .scale = c.s,
                               .x = x.device,
                               .type = DTYPE_BF16,
                               .x_row = D,
                               .rows = ROWS,
                               .cols = D};
    struct rows coded = rows_of(d, c.q, DTYPE_F8_E4M3, ROWS, D);
    coded.scale = c.s;
    if (cuda_row_codes(&p, NULL, &e) < 0) verdict_that(false, e.msg);
    GPU(cudaDeviceSynchronize());
    numbers_dirty(&z);
    if (o->linear(q[0].l, &out, &coded, room, &e) < 0 || device_wait(d, &e) < 0)
        verdict_that(false, e.msg);
    b = numbers_down(&z);
    verdict_that(memcmp(a, b, z.n * 4) == 0, "of codes and of what they are of: the same");
    free(a), free(b);
    codes_free(&c);
    if (o->ffn(up.l, down.l, &out, &from, room, &e) < 0 || device_wait(d, &e) < 0)
        verdict_that(false, e.msg);
    judge(mid, &up, x.host, ROWS);
    for (size_t i = 0; i < (size_t)ROWS * F; i++)
        mid[i] = act_apply(ACT_GELU_TANH, bf16_round(mid[i]));
    judge(want, &down, mid, ROWS);
    near("feed-forward", &z, want, 2e-2); /* one code in thirty falls to the other side of a tie */
    double error;
    long calls;
    if (o->fp8_watched(d, &error, &calls, &e) < 0 || o->fp8_watch(d, false, &e) < 0)
        verdict_that(false, e.msg);
    verdict_case("watched: %.3g of %ld", error, calls);
    verdict_that(calls == 6 && error > 0.01 && error < 0.08, "a sample of six products");
done:
    for (int i = 0; i < 3; i++)
        layer_free(&q[i], d), numbers_free(&y[i]);
    layer_free(&up, d), layer_free(&down, d);
    device_free(d, room);
    free(want), free(mid);
    numbers_free(&x), numbers_free(&z);
}

void check_fp8(struct test_rng *r, bool small)
{
    struct device *d;
    struct err e = {0};
    struct cudaDeviceProp dev;
    enum dtype type;
    check_rows_of_codes(r, small);
    check_norms(r, small);
    verdict_begin("fp8 layers of the table");
    verdict_case("opening");
    GPU(cudaGetDeviceProperties(&dev, 0));
    if (device_open(&d, "cuda", &e) < 0) {
        verdict_that(false, e.msg);
        return;
    }
    if (dev.major * 10 + dev.minor < 89) {
        verdict_that(ops_of(d)->type(d, PRECISION_FP8, &type, &e) < 0,
                     "a card without fp8 refuses");
    } else {
        run_layers(d, r, DTYPE_BF16);
        run_layers(d, r, DTYPE_F32);
    }
    device_close(d);
}
