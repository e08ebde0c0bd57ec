/* The host's table of UMT5's operations; see text.h. Most of it is softmax(q kᵀ + bias) v without
 * scaling, a head a task:
 *
 * A worker packs its head's keys as columns and its values as rows, padded to LANE, so that the two
 * products are the same small kernel; four query rows at a time share what they load. Memory: one
 * head's keys and values and four rows of scores, never n x n. */
#include "model/ops/text.h"

#include "model/base/cpu.h"
#include "model/base/dtype.h"
#include "model/base/threads.h"
#include "model/ops/ops.h"

#include <math.h>
#include <string.h>

#define LANE 16 /* floats: two AVX2 registers, or one of AVX-512 */
#define ROWS 4

/* GNU C: one AVX2 register, two of SSE; the address may be any float's */
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));

static size_t padded(int n) { return ((size_t)n + LANE - 1) / LANE * LANE; }

/* floats of one worker */
static size_t worker_scratch(int n, int dim)
{
    /* keys [dim, padded n], values [n, padded dim], scores and query rows [ROWS, ..], output */
    return (size_t)dim * padded(n) + (size_t)n * padded(dim) + ROWS * padded(n) +
           2 * ROWS * padded(dim);
}

typedef void product_fn(float *restrict c, const float *restrict a, size_t a_stride,
                        const float *restrict b, size_t width, size_t depth);

/* c[ROWS, width] = a[ROWS, depth] b[depth, width]; width a multiple of LANE. Plain C that the
 * compiler turns into vectors of whatever the caller it is inlined into may use. */
static inline __attribute__((always_inline)) void product(float *restrict c,
                                                          const float *restrict a, size_t a_stride,
                                                          const float *restrict b, size_t width,
                                                          size_t depth)
{
    for (size_t j = 0; j < width; j += LANE) {
        vec sum[ROWS][2] = {0}; /* arrays of float would be spilled */
        for (size_t k = 0; k < depth; k++) {
            const vec *row = (const vec *)(const void *)(b + k * width + j);
            vec low = row[0], high = row[1];
            for (int r = 0; r < ROWS; r++) {
                float x = a[(size_t)r * a_stride + k];
                sum[r][0] += x * low;
                sum[r][1] += x * high;
            }
        }
        for (int r = 0; r < ROWS; r++)
            memcpy(c + (size_t)r * width + j, sum[r], sizeof sum[r]);
    }
}

static void product_plain(float *restrict c, const float *restrict a, size_t a_stride,
                          const float *restrict b, size_t width, size_t depth)
{
    product(c, a, a_stride, b, width, depth);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void product_avx2(float *restrict c, const float *restrict a,
                                                         size_t a_stride, const float *restrict b,
                                                         size_t width, size_t depth)
{
    product(c, a, a_stride, b, width, depth);
}
#endif

static product_fn *product_pick(void)
{
#if defined(__x86_64__)
    if (cpu_level() >= CPU_AVX2) return product_avx2;
#endif
    return product_plain;
}

struct job {
    int n, n_heads, dim;
    const float *q, *k, *v, *bias;
    float *o, *scratch;
    bool round;
    product_fn *product;
};

/* Scores of one query row → probabilities; what is left of the row's width becomes 0. With round, as
 * the reference's fused attention does it in bf16: scores and their sum stay fp32, what multiplies the
 * values is the exponential rounded to bf16, and the factor that makes probabilities of it, which is
 * returned, is for the output. Else the factor is in, and 1 is returned. */
static float soften(float *s, const float *bias, size_t n, size_t width, bool round)
{
    float most = -INFINITY;
    double total = 0;
    for (size_t j = 0; j < n; j++) {
        s[j] = s[j] + bias[j];
        if (s[j] > most) most = s[j];
    }
    for (size_t j = 0; j < n; j++) {
        s[j] = expf(s[j] - most);
        total += (double)s[j];
    }
    float scale = (float)(1 / total);
    for (size_t j = 0; j < n; j++)
        s[j] = round ? bf16_round(s[j]) : s[j] * scale;
    for (size_t j = n; j < width; j++)
        s[j] = 0;
    return round ? scale : 1;
}

static void attend_head(void *ctx, int head, int worker)
{
    const struct job *job = ctx;
    size_t n = (size_t)job->n, d = (size_t)job->dim, wide = padded(job->n), deep = padded(job->dim);
    size_t stride = (size_t)job->n_heads * d, column = (size_t)head * d;
    float *keys = job->scratch + (size_t)worker * worker_scratch(job->n, job->dim);
    float *values = keys + d * wide, *scores = values + n * deep;
    float *query = scores + ROWS * wide, *out = query + ROWS * deep;
    const float *bias = job->bias + (size_t)head * (2 * n - 1);

    for (size_t k = 0; k < d; k++) {
        for (size_t j = 0; j < n; j++)
            keys[k * wide + j] = job->k[j * stride + column + k];
        for (size_t j = n; j < wide; j++)
            keys[k * wide + j] = 0;
    }
    for (size_t j = 0; j < n; j++) {
        memcpy(values + j * deep, job->v + j * stride + column, d * sizeof *values);
        for (size_t k = d; k < deep; k++)
            values[j * deep + k] = 0;
    }
    for (size_t i = 0; i < n; i += ROWS) {
        size_t rows = n - i < ROWS ? n - i : ROWS;
        memset(query, 0, ROWS * deep * sizeof *query);
        for (size_t r = 0; r < rows; r++)
            memcpy(query + r * deep, job->q + (i + r) * stride + column, d * sizeof *query);
        float scale[ROWS];
        job->product(scores, query, deep, keys, wide, d);
        for (size_t r = 0; r < rows; r++)
            scale[r] = soften(scores + r * wide, bias + n - 1 - (i + r), n, wide, job->round);
        job->product(out, scores, wide, values, deep, n);
        for (size_t r = 0; r < rows; r++) {
            float *to = job->o + (i + r) * stride + column;
            for (size_t k = 0; k < d; k++)
                to[k] = job->round ? bf16_round(out[r * deep + k] * scale[r]) : out[r * deep + k];
        }
    }
}

static float *whole(const struct rows *r, struct err *e)
{
    if (r->at && r->type == DTYPE_F32 && r->where == PLACE_HOST && r->stride == r->cols)
        return r->at;
    err_set(e, ERR_BUG, "text: rows that are not whole fp32 rows of the host");
    return NULL;
}

static size_t attend_scratch(int n, int n_heads, int dim)
{
    (void)n_heads;
    return (size_t)threads_count() * worker_scratch(n, dim) * sizeof(float);
}

static int attend(struct device *d, const struct text_attention *a, void *scratch, struct err *e)
{
    struct job job = {.n = (int)a->q.n,
                      .n_heads = a->n_heads,
                      .dim = (int)(a->q.cols / a->n_heads),
                      .q = whole(&a->q, e),
                      .k = whole(&a->k, e),
                      .v = whole(&a->v, e),
                      .bias = a->bias,
                      .o = whole(&a->o, e),
                      .scratch = scratch,
                      .round = a->round,
                      .product = product_pick()};
    if (!job.q || !job.k || !job.v || !job.o) return -1;
    device_did(d, OP_TEXT);
    threads_run(a->n_heads, attend_head, &job);
    return 0;
}

struct rows_job {
    float *y;
    const float *x, *weight;
    size_t n; /* row length */
    size_t total; /* rows or elements */
    double eps;
    bool round;
};

#define ROW_CHUNK 8
#define ELEMENT_CHUNK 65536

static void norm_task(void *ctx, int task, int worker)
{
    const struct rows_job *j = ctx;
    (void)worker;
    size_t first = (size_t)task * ROW_CHUNK,
           end = first + ROW_CHUNK < j->total ? first + ROW_CHUNK : j->total;
    for (size_t r = first; r < end; r++) {
        const float *x = j->x + r * j->n;
        float *y = j->y + r * j->n;
        double sum = 0;
        for (size_t i = 0; i < j->n; i++)
            sum += (double)x[i] * (double)x[i];
        float scale = (float)(1 / sqrt(sum / (double)j->n + j->eps));
        for (size_t i = 0; i < j->n; i++)
            y[i] = j->round ? bf16_round(bf16_round(x[i] * scale) * j->weight[i])
                            : x[i] * scale * j->weight[i];
    }
}

static int norm(struct device *d, const struct rows *y, const struct rows *x, const float *weight,
                double eps, bool round, struct err *e)
{
    struct rows_job j = {.y = whole(y, e),
                         .x = whole(x, e),
                         .weight = weight,
                         .n = (size_t)x->cols,
                         .total = (size_t)x->n,
                         .eps = eps,
                         .round = round};
    if (!j.y || !j.x) return -1;
    device_did(d, OP_TEXT);
    threads_run((int)((x->n + ROW_CHUNK - 1) / ROW_CHUNK), norm_task, &j);
    return 0;
}

static void multiply_task(void *ctx, int task, int worker)
{
    const struct rows_job *j = ctx;
    (void)worker;
    size_t first = (size_t)task * ELEMENT_CHUNK;
    size_t end = first + ELEMENT_CHUNK < j->total ? first + ELEMENT_CHUNK : j->total;
    for (size_t i = first; i < end; i++)
        j->y[i] *= j->x[i];
    if (j->round)
        for (size_t i = first; i < end; i++)
            j->y[i] = bf16_round(j->y[i]);
}

static int multiply(struct device *d, const struct rows *y, const struct rows *x, bool round,
                    struct err *e)
{
    struct rows_job j = {.y = whole(y, e),
                         .x = whole(x, e),
                         .total = (size_t)x->n * (size_t)x->cols,
                         .round = round};
    if (!j.y || !j.x) return -1;
    device_did(d, OP_TEXT);
    threads_run((int)((j.total + ELEMENT_CHUNK - 1) / ELEMENT_CHUNK), multiply_task, &j);
    return 0;
}

static int spread_bias(struct device *d, float *bias, const float *table, const int *bucket,
                       int n_heads, int span, struct err *e)
{
    size_t heads = (size_t)n_heads, n = (size_t)span;
    (void)e;
    device_did(d, OP_TEXT);
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < n; i++)
            bias[h * n + i] = table[(size_t)bucket[i] * heads + h];
    return 0;
}

const struct text_ops text_ops_cpu = {
    .norm = norm,
    .multiply = multiply,
    .spread_bias = spread_bias,
    .attend_scratch = attend_scratch,
    .attend = attend,
};
