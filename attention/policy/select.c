/* Kept sets from scores, and from places. */
#include "attention/policy/select.h"

#include <math.h>
#include <stdlib.h>

/* A heap of block numbers, worst on top: scores rising, the higher index first among equals. */
static bool worse(const float *s, int a, int b) { return s[a] < s[b] || (s[a] == s[b] && a > b); }

static void sink(int *heap, int n, int at, const float *s)
{
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && worse(s, heap[child + 1], heap[child])) child++;
        if (!worse(s, heap[child], heap[at])) return;
        int swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
    }
}

int select_best(int *index, const float *s, int cols, int n)
{
    int have = 0;
    for (int c = 0; c < cols; c++) {
        if (!(s[c] > -INFINITY)) continue;
        if (have < n) {
            index[have++] = c;
            if (have == n)
                for (int i = n / 2 - 1; i >= 0; i--)
                    sink(index, n, i, s);
        } else if (n > 0 && worse(s, index[0], c)) {
            index[0] = c;
            sink(index, n, 0, s);
        }
    }
    if (have < n)
        for (int i = have / 2 - 1; i >= 0; i--)
            sink(index, have, i, s);
    for (int end = have - 1; end > 0; end--) { /* worst to the back */
        int swap = index[0];
        index[0] = index[end];
        index[end] = swap;
        sink(index, end, 0, s);
    }
    return have;
}

void select_top_k(uint32_t *bits, const float *scores, int rows, int cols, int k, int *index)
{
    int words = select_words(cols);
    for (int r = 0; r < rows; r++) {
        const float *s = scores + (size_t)r * (size_t)cols;
        int n = select_best(index, s, cols, k < cols ? k : cols);
        for (int i = 0; i < n; i++)
            select_add(bits + (size_t)r * (size_t)words, index[i]);
    }
}

void select_top_p(uint32_t *bits, const float *mass, int rows, int cols, double p, int least,
                  int *index)
{
    int words = select_words(cols);
    for (int r = 0; r < rows; r++) {
        const float *s = mass + (size_t)r * (size_t)cols;
        double sum = 0, before = 0;
        for (int c = 0; c < cols; c++)
            sum += (double)s[c];
        int n = select_best(index, s, cols, cols);
        for (int i = 0; i < n && (i == 0 || i < least || before < p * sum); i++) {
            select_add(bits + (size_t)r * (size_t)words, index[i]);
            before += (double)s[index[i]];
        }
    }
}

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void select_percentile(uint32_t *bits, const float *scores, int rows, int cols, double share,
                       float *all)
{
    size_t n = (size_t)rows * (size_t)cols, below = (size_t)((1 - share) * (double)n);
    int words = select_words(cols);
    if (below >= n) return;
    for (size_t i = 0; i < n; i++)
        all[i] = scores[i];
    qsort(all, n, sizeof *all, rising);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            float s = scores[(size_t)r * (size_t)cols + (size_t)c];
            if (s > -INFINITY && (below == 0 || s >= all[below]))
                select_add(bits + (size_t)r * (size_t)words, c);
        }
}

void select_threshold(uint32_t *bits, const float *scores, int rows, int cols, float tau)
{
    int words = select_words(cols);
    for (int r = 0; r < rows; r++) {
        const float *s = scores + (size_t)r * (size_t)cols;
        double sum = 0, square = 0;
        int n = 0;
        for (int c = 0; c < cols; c++) {
            if (!(s[c] > -INFINITY)) continue;
            sum += (double)s[c];
            square += (double)s[c] * (double)s[c];
            n++;
        }
        if (!n) continue;
        double mean = sum / n, spread = square / n - mean * mean;
        double cut = mean + (double)tau * sqrt((spread > 0 ? spread : 0) + 1e-6);
        for (int c = 0; c < cols; c++)
            if (s[c] > -INFINITY && (double)s[c] > cut)
                select_add(bits + (size_t)r * (size_t)words, c);
    }
}

void select_band(uint32_t *bits, int rows, int cols, double share)
{
    int words = select_words(cols);
    double half = share >= 1 ? 2 : 1 - sqrt(1 - share); /* 1 - (1 - half)^2 of a square is kept */
    for (int r = 0; r < rows; r++) {
        /* places of the row as shares of the whole, met by those of the columns */
        double middle = (r + 0.5) / rows;
        int own0 = (int)((int64_t)r * cols / rows),
            own1 = (int)(((int64_t)(r + 1) * cols - 1) / rows);
        for (int c = 0; c < cols; c++)
            if ((c >= own0 && c <= own1) || fabs((c + 0.5) / cols - middle) < half)
                select_add(bits + (size_t)r * (size_t)words, c);
    }
}

void select_column(uint32_t *bits, int rows, int cols, int col)
{
    int words = select_words(cols);
    for (int r = 0; r < rows; r++)
        select_add(bits + (size_t)r * (size_t)words, col);
}

void select_row(uint32_t *bits, int cols, int row)
{
    int words = select_words(cols);
    for (int c = 0; c < cols; c++)
        select_add(bits + (size_t)row * (size_t)words, c);
}

int select_fill(uint32_t *bits, int rows, int cols)
{
    int words = select_words(cols), empty = 0;
    for (int r = 0; r < rows; r++) {
        uint32_t *row = bits + (size_t)r * (size_t)words, any = 0;
        for (int w = 0; w < words; w++)
            any |= row[w];
        if (any) continue;
        select_add(row, (int)((int64_t)r * cols / rows));
        empty++;
    }
    return empty;
}

int select_count(const uint32_t *bits, int rows, int cols)
{
    int n = 0;
    for (size_t w = 0; w < (size_t)rows * (size_t)select_words(cols); w++)
        n += __builtin_popcount(bits[w]);
    return n;
}
