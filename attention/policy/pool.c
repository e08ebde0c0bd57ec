/* Means, maxima and likeness of blocks. */
#include "attention/policy/pool.h"

#include <math.h>
#include <string.h>

#define POOL_DIM 256 /* the widest head a kernel takes */

static void mean_of(float *restrict mean, const struct blocks *b, int p0, int p1)
{
    memset(mean, 0, (size_t)b->dim * sizeof *mean);
    for (int p = p0; p < p1; p++) {
        const float *restrict x = blocks_row(b, p);
        for (int c = 0; c < b->dim; c++)
            mean[c] += x[c];
    }
    if (p1 <= p0) return;
    float part = 1.0f / (float)(p1 - p0);
    for (int c = 0; c < b->dim; c++)
        mean[c] *= part;
}

void pool_mean(float *mean, const struct blocks *b)
{
    for (int i = 0; i < b->n; i++)
        mean_of(mean + (size_t)i * (size_t)b->dim, b, blocks_begin(b, i), blocks_begin(b, i + 1));
}

void pool_max(float *max, const struct blocks *b)
{
    for (int i = 0; i < b->n; i++) {
        float *restrict m = max + (size_t)i * (size_t)b->dim;
        int p0 = blocks_begin(b, i), p1 = blocks_begin(b, i + 1);
        memset(m, 0, (size_t)b->dim * sizeof *m);
        for (int p = p0; p < p1; p++) {
            const float *restrict x = blocks_row(b, p);
            for (int c = 0; c < b->dim; c++)
                m[c] = p == p0 || x[c] > m[c] ? x[c] : m[c];
        }
    }
}

void pool_runs(float *mean, int *count, const struct blocks *b, int runs)
{
    for (int i = 0; i < b->n; i++) {
        int p0 = blocks_begin(b, i), len = blocks_count(b, i);
        for (int r = 0; r < runs; r++) {
            size_t at = (size_t)i * (size_t)runs + (size_t)r;
            int a = p0 + (int)((int64_t)len * r / runs);
            int z = p0 + (int)((int64_t)len * (r + 1) / runs);
            mean_of(mean + at * (size_t)b->dim, b, a, z);
            count[at] = z - a;
        }
    }
}

void pool_likeness(float *like, const struct blocks *b)
{
    for (int i = 0; i < b->n; i++) {
        double sum[POOL_DIM], all = 0;
        int n = blocks_count(b, i), dim = b->dim < POOL_DIM ? b->dim : POOL_DIM;
        memset(sum, 0, sizeof sum);
        for (int p = blocks_begin(b, i); p < blocks_begin(b, i + 1); p++) {
            const float *x = blocks_row(b, p);
            double square = 0;
            for (int c = 0; c < dim; c++)
                square += (double)x[c] * (double)x[c];
            if (!(square > 0)) continue;
            for (int c = 0; c < dim; c++)
                sum[c] += (double)x[c] / sqrt(square);
        }
        for (int c = 0; c < dim; c++)
            all += sum[c] * sum[c];
        like[i] = n > 0 ? (float)(all / ((double)n * n)) : 0;
    }
}

void pool_all(float *mean, const struct blocks *b) { mean_of(mean, b, 0, b->len); }
