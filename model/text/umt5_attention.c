/* softmax(q kᵀ + bias) v without scaling, a head a task. See umt5.h.
 *
 * A worker packs its head's keys as columns and its values as rows, padded to LANE, so that the two
 * products are the same small kernel; four query rows at a time share what they load. Memory: one
 * head's keys and values and four rows of scores, never n x n. */
#include "model/text/umt5.h"

#include "model/base/cpu.h"
#include "model/base/dtype.h"
#include "model/base/threads.h"

#include <math.h>
#include <string.h>

#define LANE 16 /* floats: two AVX2 registers, or one of AVX-512 */
#define ROWS 4

/* GNU C: one AVX2 register, two of SSE; the address may be any float's */
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));

static size_t padded(int n) { return ((size_t)n + LANE - 1) / LANE * LANE; }

size_t umt5_attn_scratch(int n, int d_kv)
{
    /* keys [d_kv, padded n], values [n, padded d_kv], scores and query rows [ROWS, ..], output */
    return (size_t)d_kv * padded(n) + (size_t)n * padded(d_kv) + ROWS * padded(n) +
           2 * ROWS * padded(d_kv);
}

int umt5_bucket(int relative, int buckets, int max_distance)
{
    int half = buckets / 2, exact = half / 2;
    int side = relative > 0 ? half : 0, far = relative < 0 ? -relative : relative;
    if (far < exact) return side + far;
    /* the reference divides a float logarithm by a double one narrowed to float */
    float ratio = logf((float)far / (float)exact) / (float)log((double)max_distance / exact);
    int b = exact + (int)(ratio * (float)(half - exact));
    return side + (b < half - 1 ? b : half - 1);
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
    const struct umt5_attn *a;
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
    const struct umt5_attn *a = job->a;
    size_t n = (size_t)a->n, d = (size_t)a->d_kv, wide = padded(a->n), deep = padded(a->d_kv);
    size_t stride = (size_t)a->n_heads * d, column = (size_t)head * d;
    float *keys = a->scratch + (size_t)worker * umt5_attn_scratch(a->n, a->d_kv);
    float *values = keys + d * wide, *scores = values + n * deep;
    float *query = scores + ROWS * wide, *out = query + ROWS * deep;
    const float *bias = a->bias + (size_t)head * (2 * n - 1);

    for (size_t k = 0; k < d; k++) {
        for (size_t j = 0; j < n; j++)
            keys[k * wide + j] = a->k[j * stride + column + k];
        for (size_t j = n; j < wide; j++)
            keys[k * wide + j] = 0;
    }
    for (size_t j = 0; j < n; j++) {
        memcpy(values + j * deep, a->v + j * stride + column, d * sizeof *values);
        for (size_t k = d; k < deep; k++)
            values[j * deep + k] = 0;
    }
    for (size_t i = 0; i < n; i += ROWS) {
        size_t rows = n - i < ROWS ? n - i : ROWS;
        memset(query, 0, ROWS * deep * sizeof *query);
        for (size_t r = 0; r < rows; r++)
            memcpy(query + r * deep, a->q + (i + r) * stride + column, d * sizeof *query);
        float scale[ROWS];
        job->product(scores, query, deep, keys, wide, d);
        for (size_t r = 0; r < rows; r++)
            scale[r] = soften(scores + r * wide, bias + n - 1 - (i + r), n, wide, a->round);
        job->product(out, scores, wide, values, deep, n);
        for (size_t r = 0; r < rows; r++) {
            float *to = a->o + (i + r) * stride + column;
            for (size_t k = 0; k < d; k++)
                to[k] = a->round ? bf16_round(out[r * deep + k] * scale[r]) : out[r * deep + k];
        }
    }
}

void umt5_attend(const struct umt5_attn *a)
{
    struct job job = {a, product_pick()};
    threads_run(a->n_heads, attend_head, &job);
}
