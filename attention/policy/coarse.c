/* Tokens by fewer channels or fewer digits: what cheap looks at every token are made of. */
#include "attention/policy/score.h"

#include <math.h>
#include <string.h>

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

size_t score_basis_scratch(int rank, int dim)
{
    return round64((size_t)dim * (size_t)dim * sizeof(double)) +
           round64((2 * (size_t)rank + 1) * (size_t)dim * sizeof(double));
}

enum { SEEN = 1024 }; /* keys that directions are made from, spread evenly: eight of each channel */

/* How keys vary: c[dim, dim], their mean taken away. */
static void covariance(double *c, double *mean, const struct blocks *k)
{
    int dim = k->dim, step = (k->len + SEEN - 1) / SEEN, n = (k->len + step - 1) / step;
    memset(mean, 0, (size_t)dim * sizeof *mean);
    memset(c, 0, (size_t)dim * (size_t)dim * sizeof *c);
    for (int t = 0; t < k->len; t += step)
        for (int i = 0; i < dim; i++)
            mean[i] += (double)k->x[t * k->stride + i] / n;
    for (int t = 0; t < k->len; t += step) {
        const float *x = k->x + t * k->stride;
        for (int i = 0; i < dim; i++) {
            double d = (double)x[i] - mean[i];
            for (int j = 0; j < dim; j++)
                c[i * dim + j] += d * ((double)x[j] - mean[j]);
        }
    }
}

static double along(const double *a, const double *b, int dim)
{
    double sum = 0;
    for (int i = 0; i < dim; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Rows made orthonormal, one after the other, twice for the rounding of the first time. */
static void orthonormal(double *b, int rank, int dim)
{
    for (int r = 0; r < rank; r++) {
        double *row = b + (size_t)r * (size_t)dim, before = sqrt(along(row, row, dim));
        for (int twice = 0; twice < 2; twice++)
            for (int s = 0; s < r; s++) {
                const double *other = b + (size_t)s * (size_t)dim;
                double part = along(row, other, dim);
                for (int i = 0; i < dim; i++)
                    row[i] -= part * other[i];
            }
        double left = sqrt(along(row, row, dim));
        bool some = left > 1e-9 * before && left > 0; /* else it was in the others already */
        for (int i = 0; i < dim; i++)
            row[i] = some ? row[i] / left : 0;
    }
}

void score_basis(float *basis, int rank, const struct blocks *k, int iterations, void *scratch)
{
    int dim = k->dim;
    double *c = scratch, *b = c + round64((size_t)dim * (size_t)dim * 8) / 8,
           *next = b + (size_t)rank * (size_t)dim, *mean = next + (size_t)rank * (size_t)dim;
    covariance(c, mean, k);
    memset(b, 0, (size_t)rank * (size_t)dim * sizeof *b);
    for (int i = 0; i < dim; i++) { /* the channels that vary most; equals by number */
        int before = 0;
        for (int j = 0; j < dim; j++)
            before +=
                c[j * dim + j] > c[i * dim + i] || (!(c[j * dim + j] < c[i * dim + i]) && j < i);
        if (before < rank) b[(size_t)before * (size_t)dim + (size_t)i] = 1;
    }
    for (int it = 0; it < iterations; it++) {
        for (int r = 0; r < rank; r++)
            for (int i = 0; i < dim; i++)
                next[r * dim + i] =
                    along(c + (size_t)i * (size_t)dim, b + (size_t)r * (size_t)dim, dim);
        orthonormal(next, rank, dim);
        memcpy(b, next, (size_t)rank * (size_t)dim * sizeof *b);
    }
    for (int i = 0; i < rank * dim; i++)
        basis[i] = (float)b[i];
}

void score_codes(float *to, const float *x, const float *mean, int dim)
{
    float most = 0;
    for (int i = 0; i < dim; i++) {
        to[i] = mean ? x[i] - mean[i] : x[i];
        if (fabsf(to[i]) > most) most = fabsf(to[i]);
    }
    float step = most / 7;
    for (int i = 0; most > 0 && i < dim; i++)
        to[i] = rintf(to[i] / step) * step;
}
