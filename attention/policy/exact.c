/* Scores that look at every token: antidiagonal sums, exact mass, probed rows. Streamed: never more
 * than a strip of the map. */
#include "attention/policy/score.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { STRIP = 32 }; /* rows of the map at a time: a strip of 32 x 8,192 floats stays in L2 */

static int min(int a, int b) { return a < b ? a : b; }

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

/* --- exponentials of whole rows: most of what a look at every token costs --- */

typedef float four __attribute__((vector_size(16), aligned(4)));
typedef int32_t four_int __attribute__((vector_size(16)));

/* e^x to 3e-7, x above 87 or below -87 as if there */
static inline four exp4(four x)
{
    const four most = {87, 87, 87, 87}, shift = {0x1.8p23f, 0x1.8p23f, 0x1.8p23f, 0x1.8p23f};
    four_int above = x > most, below = x < -most;
    x = (four)(((four_int)x & ~above) | ((four_int)most & above));
    x = (four)(((four_int)x & ~below) | ((four_int)-most & below));
    four n = x * 1.44269504f + shift; /* to the nearest whole number, in the low bits */
    four_int two = ((four_int)n - (four_int)shift) << 23;
    n -= shift;
    four f = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts */
    four p = f * (1.f / 720) + 1.f / 120;
    p = p * f + 1.f / 24;
    p = p * f + 1.f / 6;
    p = p * f + 0.5f;
    p = p * f + 1;
    p = p * f + 1;
    return (four)((four_int)p + two);
}

/* z[n] becomes exp(z - top) */
static void exp_row(float *z, int n, float top)
{
    int i = 0;
    for (; i + 4 <= n; i += 4)
        *(four *)(z + i) = exp4(*(four *)(z + i) - top);
    for (; i < n; i++) {
        four one = {z[i] - top, 0, 0, 0};
        z[i] = exp4(one)[0];
    }
}

static float sum_of(const float *z, int n)
{
    four sum[2] = {{0}, {0}};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        sum[0] += *(const four *)(z + i), sum[1] += *(const four *)(z + i + 4);
    sum[0] += sum[1];
    float all = (sum[0][0] + sum[0][1]) + (sum[0][2] + sum[0][3]);
    for (; i < n; i++)
        all += z[i];
    return all;
}

static float row_top(const float *z, int wide)
{
    float top = -INFINITY;
    for (int i = 0; i < wide; i++)
        if (z[i] > top) top = z[i];
    return top;
}

/* ---- antidiagonals ---- */

/* Groups of `stride` tokens inside each block: first place and length of each, and its block. */
static int groups(int *first, int *count, int *block, const struct blocks *b, int stride)
{
    int n = 0;
    for (int i = 0; i < b->n; i++)
        for (int p = blocks_begin(b, i), end = blocks_begin(b, i + 1); p < end; p += stride, n++) {
            if (!first) continue;
            first[n] = p;
            count[n] = end - p < stride ? end - p : stride;
            block[n] = i;
        }
    return n;
}

size_t score_antidiagonal_scratch(const struct blocks *q, const struct blocks *k, int stride)
{
    size_t nq = (size_t)groups(NULL, NULL, NULL, q, stride),
           nk = (size_t)groups(NULL, NULL, NULL, k, stride), deep = (size_t)stride * (size_t)k->dim;
    return round64(3 * (nq + nk) * sizeof(int)) + round64(nk * deep * sizeof(float)) +
           round64(STRIP * deep * sizeof(float)) + round64(STRIP * nk * sizeof(float));
}

/* One group as one long row: its tokens one after the other, those of queries last to first, so that
 * the product of two rows is the sum along an antidiagonal; a short group is filled up with zeros. */
static void long_row(float *row, const struct blocks *b, int first, int count, int stride,
                     bool back)
{
    size_t dim = (size_t)b->dim;
    for (int j = 0; j < count; j++)
        memcpy(row + (size_t)j * dim, blocks_row(b, first + (back ? count - 1 - j : j)),
               dim * sizeof *row);
    memset(row + (size_t)count * dim, 0, (size_t)(stride - count) * dim * sizeof *row);
}

void score_antidiagonal(float *mass, const struct blocks *q, const struct blocks *k, int stride,
                        float scale, void *scratch, dots_fn *dots)
{
    int nq = groups(NULL, NULL, NULL, q, stride), nk = groups(NULL, NULL, NULL, k, stride);
    int deep = stride * k->dim;
    int *first = scratch, *count = first + nq + nk, *block = count + nq + nk;
    float *keys = (float *)((char *)scratch + round64(3 * (size_t)(nq + nk) * sizeof(int)));
    float *rows = keys + round64((size_t)nk * (size_t)deep * sizeof(float)) / sizeof(float);
    float *z = rows + round64(STRIP * (size_t)deep * sizeof(float)) / sizeof(float);
    groups(first, count, block, q, stride);
    groups(first + nq, count + nq, block + nq, k, stride);
    memset(mass, 0, (size_t)q->n * (size_t)k->n * sizeof *mass);
    for (int u = 0; u < nk; u++)
        long_row(keys + (size_t)u * (size_t)deep, k, first[nq + u], count[nq + u], stride, false);
    for (int t0 = 0; t0 < nq; t0 += STRIP) {
        int n = nq - t0 < STRIP ? nq - t0 : STRIP;
        for (int t = 0; t < n; t++)
            long_row(rows + (size_t)t * (size_t)deep, q, first[t0 + t], count[t0 + t], stride,
                     true);
        dots(z, nk, rows, deep, keys, deep, n, nk, deep, scale / (float)stride);
        for (int t = 0; t < n; t++) {
            float *s = z + (size_t)t * (size_t)nk;
            for (int u = 0; u < nk; u++) { /* fewer pairs were added: as if there had been all */
                int pairs = min(count[t0 + t], count[nq + u]);
                if (pairs < stride) s[u] *= (float)stride / (float)pairs;
            }
            float top = row_top(s, nk);
            float *to = mass + (size_t)block[t0 + t] * (size_t)k->n;
            if (!(top > -INFINITY)) continue;
            exp_row(s, nk, top);
            float part = 1 / sum_of(s, nk);
            for (int u = 0; u < nk; u++)
                to[block[nq + u]] += s[u] * part;
        }
    }
}

/* ---- exact mass ---- */

size_t score_mass_scratch(const struct blocks *q, const struct blocks *k)
{
    return round64((size_t)k->len * (size_t)k->dim * sizeof(float)) +
           round64(STRIP * (size_t)q->dim * sizeof(float)) +
           round64(STRIP * (size_t)k->len * sizeof(float));
}

static void plain(float *to, const float *x, bool key, const void *dim)
{
    (void)key;
    memcpy(to, x, *(const size_t *)dim * sizeof *to);
}

struct looked { /* a query that is looked at */
    int32_t token;
    int block;
    float weight; /* queries that it stands for */
};

/* One row of scores: its shares of weight go to the blocks of keys. */
static void share_out(float *to, float *s, const struct looked *row, const struct blocks *k,
                      const float *lse, float *lse_out)
{
    float top = lse ? lse[row->token] : row_top(s, k->len);
    double all = 0;
    if (!(top > -INFINITY)) { /* no key: nothing to share out */
        if (lse_out) lse_out[row->token] = top;
        return;
    }
    exp_row(s, k->len, top);
    for (int b = 0; b < k->n; b++)
        all += (double)sum_of(s + blocks_begin(k, b), blocks_count(k, b));
    if (lse_out) lse_out[row->token] = lse ? top : (float)((double)top + log(all));
    float part = lse ? row->weight : (float)((double)row->weight / all);
    for (int b = 0; b < k->n; b++)
        to[b] += sum_of(s + blocks_begin(k, b), blocks_count(k, b)) * part;
}

/* Strips are filled across blocks: few rows at a time would spend the product on turning keys. */
static void mass_of(float *mass, const struct blocks *q, const struct blocks *k, int step,
                    float scale, const float *lse, float *lse_out, const struct score_view *view,
                    void *scratch, dots_fn *dots)
{
    size_t dim = (size_t)view->dim;
    float *keys = scratch, *rows = keys + round64((size_t)k->len * dim * 4) / 4;
    float *z = rows + round64(STRIP * dim * 4) / 4;
    struct looked at[STRIP];
    int n = 0, a = 0, p = 0;
    memset(mass, 0, (size_t)q->n * (size_t)k->n * sizeof *mass);
    for (int i = 0; i < k->len; i++)
        view->see(keys + (size_t)i * dim, blocks_row(k, i), true, view->ctx);
    while (a < q->n) {
        int end = blocks_begin(q, a + 1), len = blocks_count(q, a);
        if (p < end) {
            at[n] = (struct looked){q->order ? q->order[p] : p, a,
                                    (float)len / (float)((len + step - 1) / step)};
            view->see(rows + (size_t)n++ * dim, blocks_row(q, p), false, view->ctx);
            p += step;
        }
        if (p >= end) p = blocks_begin(q, ++a);
        if (n < STRIP && a < q->n) continue;
        dots(z, k->len, rows, view->dim, keys, view->dim, n, k->len, view->dim, scale);
        for (int i = 0; i < n; i++)
            share_out(mass + (size_t)at[i].block * (size_t)k->n, z + (size_t)i * (size_t)k->len,
                      &at[i], k, lse, lse_out);
        n = 0;
    }
}

void score_mass(float *mass, const struct blocks *q, const struct blocks *k, int step, float scale,
                const float *lse, float *lse_out, void *scratch, dots_fn *dots)
{
    size_t dim = (size_t)q->dim;
    struct score_view view = {.dim = q->dim, .see = plain, .ctx = &dim};
    mass_of(mass, q, k, step, scale, lse, lse_out, &view, scratch, dots);
}

void score_mass_seen(float *mass, const struct blocks *q, const struct blocks *k, int step,
                     float scale, const struct score_view *view, void *scratch, dots_fn *dots)
{
    mass_of(mass, q, k, step, scale, NULL, NULL, view, scratch, dots);
}

/* ---- probes ---- */

void score_probe(float *p, const struct blocks *q, const int32_t *token, int n,
                 const struct blocks *k, float scale, dots_fn *dots)
{
    for (int i = 0; i < n; i++) {
        float *row = p + (size_t)i * (size_t)k->len;
        const float *x = q->x + (int64_t)token[i] * q->stride;
        dots(row, k->len, x, q->stride, k->x, k->stride, 1, k->len, q->dim, scale);
    }
    score_softmax(p, n, k->len);
}
