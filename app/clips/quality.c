/* PSNR and SSIM; see quality.h. */
#include "app/clips/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double quality_mse(const uint8_t *a, const uint8_t *b, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        int d = a[i] - b[i];
        sum += (uint64_t)(d * d);
    }
    return n ? (double)sum / (double)n : 0;
}

double quality_psnr(double mse, double peak)
{
    return mse > 0 ? 10 * log10(peak * peak / mse) : (double)INFINITY;
}

/* Two frames of luma, five fields filtered along rows. */
size_t quality_ssim_scratch(int width, int height) { return 7 * (size_t)width * (size_t)height; }

static void luma(double *y, const uint8_t *rgb, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = 0.299 * rgb[3 * i] + 0.587 * rgb[3 * i + 1] + 0.114 * rgb[3 * i + 2];
}

static void gaussian(double g[SSIM_WINDOW])
{
    double sum = 0;
    for (int i = 0; i < SSIM_WINDOW; i++) {
        double d = i - SSIM_WINDOW / 2;
        sum += g[i] = exp(-d * d / (2 * 1.5 * 1.5));
    }
    for (int i = 0; i < SSIM_WINDOW; i++)
        g[i] /= sum;
}

/* The five moments of one row, filtered along it: m[5][w - 10]. */
static void filter_row(double *const m[5], const double *x, const double *y, int out,
                       const double *g)
{
    for (int i = 0; i < out; i++) {
        double sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
        for (int k = 0; k < SSIM_WINDOW; k++) {
            double a = x[i + k], b = y[i + k];
            sx += g[k] * a;
            sy += g[k] * b;
            sxx += g[k] * a * a;
            syy += g[k] * b * b;
            sxy += g[k] * a * b;
        }
        m[0][i] = sx;
        m[1][i] = sy;
        m[2][i] = sxx;
        m[3][i] = syy;
        m[4][i] = sxy;
    }
}

double quality_ssim(const uint8_t *a, const uint8_t *b, int width, int height, double *scratch)
{
    if (width < SSIM_WINDOW || height < SSIM_WINDOW) return (double)NAN;
    const double c1 = 0.01 * 255 * (0.01 * 255), c2 = 0.03 * 255 * (0.03 * 255);
    size_t n = (size_t)width * (size_t)height, w = (size_t)width;
    int cols = width - SSIM_WINDOW + 1, rows = height - SSIM_WINDOW + 1;
    double g[SSIM_WINDOW], *x = scratch, *y = scratch + n, *field[5], sum = 0;
    gaussian(g);
    luma(x, a, n);
    luma(y, b, n);
    for (int f = 0; f < 5; f++)
        field[f] = scratch + (size_t)(2 + f) * n;
    for (size_t r = 0; r < (size_t)height; r++) {
        double *row[5];
        for (int f = 0; f < 5; f++)
            row[f] = field[f] + r * w;
        filter_row(row, x + r * w, y + r * w, cols, g);
    }
    for (size_t r = 0; r < (size_t)rows; r++)
        for (size_t i = 0; i < (size_t)cols; i++) {
            double m[5] = {0};
            for (int f = 0; f < 5; f++)
                for (size_t k = 0; k < SSIM_WINDOW; k++)
                    m[f] += g[k] * field[f][(r + k) * w + i];
            double mx = m[0], my = m[1], vx = m[2] - mx * mx, vy = m[3] - my * my,
                   cov = m[4] - mx * my;
            sum +=
                (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2));
        }
    return sum / ((double)rows * cols);
}

static void count_differences(struct quality *q, const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int d = abs(a[i] - b[i]);
        q->differing += d != 0;
        if (d > q->max_difference) q->max_difference = d;
    }
}

int quality_clips(struct quality *q, const uint8_t *a, const uint8_t *b, int frames, int width,
                  int height, struct err *e)
{
    memset(q, 0, sizeof *q);
    size_t n = 3 * (size_t)width * (size_t)height,
           bytes = quality_ssim_scratch(width, height) * sizeof(double);
    double *scratch = malloc(bytes), mse = 0, worst = -1;
    if (!scratch)
        return err_set(e, ERR_RESOURCE, "no memory to compare %dx%d frames (%zu bytes)", width,
                       height, bytes);
    q->ssim_worst = (double)INFINITY;
    for (int f = 0; f < frames; f++) {
        const uint8_t *x = a + (size_t)f * n, *y = b + (size_t)f * n;
        double m = quality_mse(x, y, n), s = quality_ssim(x, y, width, height, scratch);
        count_differences(q, x, y, n);
        mse += m;
        q->ssim += s;
        if (!(s >= q->ssim_worst)) q->ssim_worst = s;
        if (m > worst) {
            worst = m;
            q->worst_frame = f;
        }
    }
    free(scratch);
    q->ssim /= frames;
    q->psnr = quality_psnr(mse / frames, 255);
    q->psnr_worst = quality_psnr(worst, 255);
    return 0;
}
