/* Norms, residuals and positions against the same in double. */
#include "tests/bench/ops/check_ops.h"

#include "model/ops/cuda/rows_cuda.h"

static const int widths[] = {1,   7,   36,   130,  8,    24,   40,   320,
                             512, 520, 1024, 1032, 1536, 3072, 5120, 8192};
static const int small_widths[] = {36, 8, 320, 1032};
static const int counts[] = {1, 3, 5, 37};

/* --- norm --- */

struct norm_case {
    struct cuda_norm p;
    const void *x0; /* x is put back before each run */
    size_t x_bytes;
};

static int run_norm(void *ctx, struct err *e)
{
    struct norm_case *c = ctx;
    GPU(cudaMemcpy(c->p.x, c->x0, c->x_bytes, cudaMemcpyDeviceToDevice));
    return cuda_norm(&c->p, NULL, e);
}

/* The numbers of a row: ordinary, around a large mean, all the same, large. */
static void fill_rows(struct numbers *x, int rows, int features, struct test_rng *r)
{
    for (int i = 0; i < rows; i++)
        for (int c = 0; c < features; c++) {
            double v = (double)rng_normal(r);
            x->host[(size_t)i * (size_t)features + (size_t)c] = (float)(i % 4 == 0   ? v
                                                                        : i % 4 == 1 ? 30 + v
                                                                        : i % 4 == 2 ? 0.75
                                                                                     : 1e4 * v);
        }
    numbers_up(x);
}

/* What the formula gives from the numbers that the kernel reads, and what its roundings may move. */
static void norm_judge(double *want, double *bound, double *new_x, double *x_bound,
                       const struct cuda_norm *p, const float *x, const float *add,
                       const float *gate, const float *weight, const float *bias,
                       const float *scale, const float *shift)
{
    int n = p->features;
    double *v = host_new((size_t)n * sizeof *v);
    bool x_bf16 = p->type == DTYPE_BF16, y_bf16 = p->y_type == DTYPE_BF16;
    for (int r = 0; r < p->rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        size_t mod =
            p->mods > 1 ? (size_t)(r / p->rows_per_mod % p->mods) * (size_t)p->mod_stride : 0;
        double mean = 0, var = 0, most = 0;
        for (int c = 0; c < n; c++) {
            double y = add ? (double)add[at + (size_t)c] : 0;
            double g = gate ? (double)gate[mod + (size_t)c] : 1;
            v[c] = (double)x[at + (size_t)c] + y * g;
            new_x[at + (size_t)c] = v[c];
            x_bound[at + (size_t)c] = 2 * U_F32 * (fabs((double)x[at + (size_t)c]) + fabs(y * g)) +
                                      (x_bf16 ? U_BF16 * 1.01 * fabs(v[c]) : 0);
            if (add) v[c] = (double)(x_bf16 ? bf16_round((float)v[c]) : (float)v[c]);
            mean += v[c];
            if (fabs(v[c]) > most) most = fabs(v[c]);
        }
        mean /= n;
        for (int c = 0; c < n; c++)
            var += (v[c] - mean) * (v[c] - mean);
        double rs = 1 / sqrt(var / n + (double)p->eps);
        /* a sum over a thread's numbers, then a tree: so many additions deep */
        double deep = 32 + 8 + 4;
        for (int c = 0; c < n; c++) {
            double y = (v[c] - mean) * rs, one = 0, mag = fabs(y);
            /* a stored x that rounded the other way moves the row's numbers by a unit of its own */
            double other = add ? (x_bf16 ? 2 * U_BF16 : 4 * U_F32) * most * rs : 0;
            double err = deep * U_F32 * (most * rs + fabs(y)) + other;
            if (weight) {
                y = y * (double)weight[c] + (double)bias[c];
                err = err * fabs((double)weight[c]);
                mag = mag * fabs((double)weight[c]) + fabs((double)bias[c]);
            }
            if (scale) {
                one = 1 + (double)scale[mod + (size_t)c];
                y = y * one + (double)shift[mod + (size_t)c];
                err = err * fabs(one);
                mag = mag * fabs(one) + fabs((double)shift[mod + (size_t)c]);
            }
            want[at + (size_t)c] = y;
            bound[at + (size_t)c] =
                err + 4 * U_F32 * mag + (y_bf16 || p->round ? U_BF16 * 1.01 * fabs(y) : 0);
        }
    }
    free(v);
}

static void one_norm(struct test_rng *r, int rows, int features, enum dtype x_type,
                     enum dtype y_type, bool affine, bool modulated, int add, int mods)
{
    size_t n = (size_t)rows * (size_t)features, f = (size_t)features;
    size_t sets = mods > 1 ? (size_t)mods : 1;
    enum dtype add_type = rows == 5 ? DTYPE_F32 : x_type; /* a table joins bf16 rows */
    struct numbers x0 = numbers_new(x_type, n), x = numbers_new(x_type, n);
    struct numbers y = numbers_new(y_type, n), a = numbers_new(add_type, n);
    struct numbers w = numbers_new(DTYPE_F32, f), b = numbers_new(DTYPE_F32, f);
    struct numbers m = numbers_new(DTYPE_F32, 3 * sets * f);
    fill_rows(&x0, rows, features, r);
    numbers_normal(&a, r, 0, 1);
    numbers_normal(&w, r, 1, 0.2);
    numbers_normal(&b, r, 0, 0.2);
    numbers_normal(&m, r, 0, 0.3);
    const float *dm = m.device;
    struct norm_case c = {.x0 = x0.device, .x_bytes = n * dtype_size(x_type)};
    c.p = (struct cuda_norm){.rows = rows,
                             .features = features,
                             .type = x_type,
                             .y_type = y_type,
                             .add_type = add_type,
                             .x = x.device,
                             .add = add ? a.device : NULL,
                             .gate = add > 1 ? dm : NULL,
                             .y = y.device,
                             .x_row = features,
                             .add_row = features,
                             .y_row = features,
                             .eps = 1e-6f,
                             .weight = affine ? w.device : NULL,
                             .bias = affine ? b.device : NULL,
                             .scale = modulated ? dm + f : NULL,
                             .shift = modulated ? dm + 2 * f : NULL,
                             .mod_stride = 3 * features,
                             .rows_per_mod = 2,
                             .mods = mods};
    double *want = host_new(n * 8), *bound = host_new(n * 8), *new_x = host_new(n * 8),
           *x_bound = host_new(n * 8);
    norm_judge(want, bound, new_x, x_bound, &c.p, x0.host, add ? a.host : NULL,
               add > 1 ? m.host : NULL, affine ? w.host : NULL, affine ? b.host : NULL,
               modulated ? m.host + f : NULL, modulated ? m.host + 2 * f : NULL);
    verdict_case("[%d, %d] %s to %s%s%s%s, %d sets", rows, features, dtype_name(x_type),
                 dtype_name(y_type), affine ? " affine" : "", modulated ? " modulated" : "",
                 add > 1 ? " after a gated sum"
                 : add   ? " after a sum"
                         : "",
                 mods);
    numbers_dirty(&y);
    verdict_check(&y, run_norm, &c, want, bound);
    if (add) verdict_check(&x, run_norm, &c, new_x, x_bound);
    free(want), free(bound), free(new_x), free(x_bound);
    numbers_free(&x0), numbers_free(&x), numbers_free(&y), numbers_free(&a);
    numbers_free(&w), numbers_free(&b), numbers_free(&m);
}

static void check_norms(struct test_rng *r, bool small)
{
    const int *list = small ? small_widths : widths;
    size_t n = small ? ARRAY_LEN(small_widths) : ARRAY_LEN(widths);
    verdict_begin("norm, residual + norm");
    for (size_t i = 0; i < n; i++)
        for (int kind = 0; kind < 8; kind++) {
            enum dtype x = kind & 1 ? DTYPE_F32 : DTYPE_BF16, y = kind & 2 ? DTYPE_F32 : DTYPE_BF16;
            int rows = counts[(i + (size_t)kind) % ARRAY_LEN(counts)];
            one_norm(r, rows, list[i], x, y, kind % 3 == 0, kind % 3 != 0,
                     (int)(i + (size_t)kind) % 3, kind & 4 ? 3 : 1);
        }
}

/* --- norm and positions --- */

static int run_rope(void *ctx, struct err *e) { return cuda_rope(ctx, NULL, e); }

/* want of one part in its place; where nothing is written the bytes stay */
static void rope_judge(double *want, double *bound, const struct cuda_rope *p, const float *x,
                       const float *weight, const float *cos_t, const float *sin_t, bool turn,
                       int64_t y_row, int64_t y_head)
{
    int n = p->features, half = p->head_dim / 2;
    bool bf16 = p->type == DTYPE_BF16;
    double u = bf16 || p->round ? U_BF16 * 1.01 : 0;
    for (int r = 0; r < p->rows; r++) {
        const float *row = x + (size_t)r * (size_t)n;
        size_t at = (size_t)(r / p->turns % p->tokens) * (size_t)half;
        double sum = 0;
        for (int c = 0; c < n; c++)
            sum += (double)row[c] * (double)row[c];
        double rs = 1 / sqrt(sum / n + (double)p->eps);
        for (int c = 0; c < n; c += 2) {
            double v[2], err[2], out[2], out_err[2];
            for (int k = 0; k < 2; k++) {
                v[k] = (double)row[c + k] * (weight ? rs * (double)weight[c + k] : 1);
                err[k] = weight ? (44 * U_F32 + u) * fabs(v[k]) : 0;
                out[k] = v[k], out_err[k] = err[k];
            }
            if (turn) {
                double co = (double)cos_t[at + (size_t)(c % p->head_dim / 2)],
                       si = (double)sin_t[at + (size_t)(c % p->head_dim / 2)];
                double mag[2] = {fabs(v[0] * co) + fabs(v[1] * si),
                                 fabs(v[0] * si) + fabs(v[1] * co)};
                out[0] = v[0] * co - v[1] * si;
                out[1] = v[0] * si + v[1] * co;
                out_err[0] =
                    err[0] * fabs(co) + err[1] * fabs(si) + 3 * U_F32 * mag[0] + u * fabs(out[0]);
                out_err[1] =
                    err[0] * fabs(si) + err[1] * fabs(co) + 3 * U_F32 * mag[1] + u * fabs(out[1]);
                for (int k = 0; k < 2; k++) /* a rounding of what is off already */
                    out_err[k] *= 1 + u;
            }
            for (int k = 0; k < 2; k++) {
                size_t to =
                    (size_t)(r * y_row + (c + k) / p->head_dim * y_head + (c + k) % p->head_dim);
                want[to] = out[k];
                bound[to] = out_err[k];
            }
        }
    }
}

static void one_rope(struct test_rng *r, int rows, int heads, int dim, enum dtype type, bool apart,
                     int turns, int tokens)
{
    int f = heads * dim;
    size_t n = (size_t)rows * (size_t)f, pairs = (size_t)tokens * (size_t)dim / 2;
    struct numbers x[3], y[3], w[2];
    struct numbers co = numbers_new(DTYPE_F32, pairs), si = numbers_new(DTYPE_F32, pairs);
    for (size_t i = 0; i < pairs; i++) {
        double angle = 6.3 * rng_unit(r);
        co.host[i] = (float)cos(angle);
        si.host[i] = (float)sin(angle);
    }
    numbers_up(&co), numbers_up(&si);
    struct cuda_rope p = {.rows = rows,
                          .features = f,
                          .type = type,
                          .n_parts = 3,
                          .eps = 1e-6f,
                          .cos_t = co.device,
                          .sin_t = si.device,
                          .tokens = tokens,
                          .turns = turns,
                          .head_dim = dim};
    /* q | k | v of one product, to one array each; apart: head by head */
    int64_t y_row = apart ? dim : f, y_head = apart ? (int64_t)rows * dim : dim;
    for (int i = 0; i < 3; i++) {
        x[i] = numbers_new(type, n);
        y[i] = numbers_new(type, n);
        fill_rows(&x[i], rows, f, r);
        if (i < 2) {
            w[i] = numbers_new(DTYPE_F32, (size_t)f);
            numbers_normal(&w[i], r, 1, 0.2);
        }
        p.part[i].x = x[i].device;
        p.part[i].y = y[i].device;
        p.part[i].weight = i < 2 ? w[i].device : NULL;
        p.part[i].x_row = f;
        p.part[i].y_row = y_row;
        p.part[i].y_head = y_head;
        p.part[i].turn = i < 2;
        numbers_dirty(&y[i]);
    }
    double *want = host_new(n * 8), *bound = host_new(n * 8);
    verdict_case("%d rows of %d x %d %s, %s, %d tokens, %d turns", rows, heads, dim,
                 dtype_name(type), apart ? "head by head" : "as they lie", tokens, turns);
    for (int i = 0; i < 3; i++) {
        rope_judge(want, bound, &p, x[i].host, i < 2 ? w[i].host : NULL, co.host, si.host, i < 2,
                   y_row, y_head);
        verdict_check(&y[i], run_rope, &p, want, i < 2 ? bound : NULL);
    }
    for (int i = 0; i < 3; i++) {
        numbers_free(&x[i]), numbers_free(&y[i]);
        if (i < 2) numbers_free(&w[i]);
    }
    numbers_free(&co), numbers_free(&si);
    free(want), free(bound);
}

static void check_ropes(struct test_rng *r, bool small)
{
    static const int shapes[][2] = {{5, 64},  {12, 128}, {2, 16}, {2, 12}, {40, 128}, {24, 128},
                                    {64, 64}, {4, 6},    {3, 2},  {2, 18}, {5, 26}};
    verdict_begin("rms norm + positions of q, k; v copied");
    for (size_t i = 0; i < (small ? 4 : ARRAY_LEN(shapes)); i++)
        for (int kind = 0; kind < 4; kind++)
            one_rope(r, counts[(i + (size_t)kind) % ARRAY_LEN(counts)], shapes[i][0], shapes[i][1],
                     kind & 1 ? DTYPE_F32 : DTYPE_BF16, kind & 2, 1 + kind % 2, 3 + kind);
}

void check_rows(struct test_rng *r, bool small)
{
    check_norms(r, small);
    check_ropes(r, small);
}
