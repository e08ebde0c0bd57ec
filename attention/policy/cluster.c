/* k-means, hashing, counting sort. */
#include "attention/policy/cluster.h"

#include "attention/policy/pool.h"

#include <string.h>

enum { STRIP = 64 }; /* tokens whose distances are made at a time */

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

void cluster_seed(float *centroid, int n, const struct blocks *tokens)
{
    for (int i = 0; i < n; i++)
        memcpy(centroid + (size_t)i * (size_t)tokens->dim,
               tokens->x + (int64_t)i * tokens->len / n * tokens->stride,
               (size_t)tokens->dim * sizeof *centroid);
}

size_t cluster_scratch(int n, const struct blocks *tokens)
{
    size_t dim = (size_t)tokens->dim;
    return round64((size_t)n * dim * sizeof(double)) + round64((size_t)n * sizeof(float)) +
           round64(STRIP * (size_t)n * sizeof(float)) + round64((65 * dim + 64) * sizeof(float));
}

/* |x - c|^2 falls as x.c - |c|^2 / 2 rises. */
static void assign(int32_t *label, int *count, const float *centroid, int n,
                   const struct blocks *tokens, float *half, float *z, dots_fn *dots)
{
    int dim = tokens->dim;
    memset(count, 0, (size_t)n * sizeof *count);
    for (int c = 0; c < n; c++) {
        const float *x = centroid + (size_t)c * (size_t)dim;
        half[c] = 0;
        for (int i = 0; i < dim; i++)
            half[c] += x[i] * x[i] / 2;
    }
    for (int t = 0; t < tokens->len; t += STRIP) {
        int rows = tokens->len - t < STRIP ? tokens->len - t : STRIP;
        dots(z, n, tokens->x + (int64_t)t * tokens->stride, tokens->stride, centroid, dim, rows, n,
             dim, 1);
        for (int i = 0; i < rows; i++) {
            const float *s = z + (size_t)i * (size_t)n;
            int at = 0;
            for (int c = 1; c < n; c++)
                if (s[c] - half[c] > s[at] - half[at]) at = c;
            label[t + i] = at;
            count[at]++;
        }
    }
}

void cluster_means(float *centroid, int32_t *label, int *count, int n, const struct blocks *tokens,
                   int iterations, void *scratch, dots_fn *dots)
{
    size_t dim = (size_t)tokens->dim;
    double *sum = scratch;
    float *half = (float *)((char *)scratch + round64((size_t)n * dim * sizeof *sum));
    float *z = half + round64((size_t)n * sizeof *half) / sizeof *half;
    for (int it = 0; it < iterations; it++) {
        assign(label, count, centroid, n, tokens, half, z, dots);
        memset(sum, 0, (size_t)n * dim * sizeof *sum);
        for (int t = 0; t < tokens->len; t++) {
            const float *x = tokens->x + t * tokens->stride;
            double *to = sum + (size_t)label[t] * dim;
            for (size_t i = 0; i < dim; i++)
                to[i] += (double)x[i];
        }
        for (int c = 0; c < n; c++)
            for (size_t i = 0; count[c] && i < dim; i++)
                centroid[(size_t)c * dim + i] = (float)(sum[(size_t)c * dim + i] / count[c]);
    }
}

/* SplitMix64, whose sums of four uniform halves are normal enough for a direction. */
static float direction(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t z = *state += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        sum += (double)((z ^ z >> 31) >> 11) * 0x1p-53 - 0.5;
    }
    return (float)sum;
}

void cluster_hash(int32_t *label, int *count, int planes, uint64_t seed,
                  const struct blocks *tokens, void *scratch, dots_fn *dots)
{
    size_t dim = (size_t)tokens->dim;
    float *plane = scratch, *mean = plane + round64(64 * dim * sizeof *plane) / sizeof *plane,
          *at = mean + dim, *z = at + 64;
    for (size_t i = 0; i < (size_t)planes * dim; i++)
        plane[i] = direction(&seed);
    pool_all(mean, tokens);
    dots(at, planes, mean, (int64_t)dim, plane, (int64_t)dim, 1, planes, tokens->dim, 1);
    memset(count, 0, sizeof *count << planes);
    for (int t = 0; t < tokens->len; t += STRIP) {
        int rows = tokens->len - t < STRIP ? tokens->len - t : STRIP;
        dots(z, planes, tokens->x + (int64_t)t * tokens->stride, tokens->stride, plane, tokens->dim,
             rows, planes, tokens->dim, 1);
        for (int i = 0; i < rows; i++) {
            int32_t bits = 0;
            for (int p = 0; p < planes; p++)
                bits |= (z[i * planes + p] > at[p]) << p;
            label[t + i] = bits;
            count[bits]++;
        }
    }
}

void cluster_order(int32_t *order, int32_t *offset, const int32_t *label, const int *count, int n,
                   int len)
{
    int32_t at = 0;
    for (int c = 0; c < n; c++) {
        offset[c] = at;
        at += count[c];
    }
    for (int t = 0; t < len; t++)
        order[offset[label[t]]++] = t;
    for (int c = n; c > 0; c--)
        offset[c] = offset[c - 1];
    offset[0] = 0;
}
