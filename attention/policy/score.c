/* Scores of pairs of blocks from what stands for the blocks. */
#include "attention/policy/score.h"

#include <math.h>
#include <string.h>

void score_softmax(float *scores, int rows, int cols)
{
    for (int r = 0; r < rows; r++) {
        float *s = scores + (size_t)r * (size_t)cols, top = -INFINITY;
        double sum = 0;
        for (int c = 0; c < cols; c++)
            if (s[c] > top) top = s[c];
        if (top == -INFINITY) {
            memset(s, 0, (size_t)cols * sizeof *s);
            continue;
        }
        for (int c = 0; c < cols; c++) {
            s[c] = expf(s[c] - top);
            sum += (double)s[c];
        }
        float part = (float)(1 / sum);
        for (int c = 0; c < cols; c++)
            s[c] *= part;
    }
}

void score_pooled(float *scores, const float *qp, const float *kp, const int *count, int rows,
                  int cols, int dim, float scale, dots_fn *dots)
{
    dots(scores, cols, qp, dim, kp, dim, rows, cols, dim, scale);
    for (int c = 0; count && c < cols; c++) {
        float more = count[c] > 0 ? logf((float)count[c]) : -INFINITY;
        for (int r = 0; r < rows; r++)
            scores[(size_t)r * (size_t)cols + (size_t)c] += more;
    }
}

/* ln sum over the runs of one pair; z[runs, stride] are its scaled scores. */
static float pair_of_runs(const float *z, int64_t stride, const int *q_count, const int *k_count,
                          int runs)
{
    float top = -INFINITY;
    double sum = 0;
    for (int u = 0; u < runs; u++)
        for (int v = 0; v < runs; v++)
            if (q_count[u] > 0 && k_count[v] > 0 && z[u * stride + v] > top)
                top = z[u * stride + v];
    if (top == -INFINITY) return top;
    for (int u = 0; u < runs; u++)
        for (int v = 0; v < runs; v++)
            if (q_count[u] > 0 && k_count[v] > 0)
                sum += (double)q_count[u] * k_count[v] * (double)expf(z[u * stride + v] - top);
    return top + (float)log(sum);
}

void score_runs(float *scores, const float *qm, const int *q_count, const float *km,
                const int *k_count, int rows, int cols, int runs, int dim, float scale,
                float *scratch, dots_fn *dots)
{
    int64_t wide = (int64_t)cols * runs;
    for (int r = 0; r < rows; r++) {
        dots(scratch, wide, qm + (size_t)r * (size_t)runs * (size_t)dim, dim, km, dim, runs,
             (int)wide, dim, scale);
        for (int c = 0; c < cols; c++)
            scores[(size_t)r * (size_t)cols + (size_t)c] =
                pair_of_runs(scratch + (int64_t)c * runs, wide, q_count + (size_t)r * (size_t)runs,
                             k_count + (size_t)c * (size_t)runs, runs);
    }
}
