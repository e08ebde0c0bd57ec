/* Colours of latents; see preview.h. */
#include "app/lib/preview.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t cells(const struct preview *p) /* of a frame */
{
    return (size_t)p->shape[2] * (size_t)p->shape[3];
}

int preview_open(struct preview *p, const int shape[4], const struct ditgen_preview_map *map,
                 bool fit, struct err *e)
{
    *p = (struct preview){.cost = 0.005}; /* a guess, until one was made */
    memcpy(p->shape, shape, sizeof p->shape);
    if (shape[0] > DITGEN_PREVIEW_CHANNELS) return 0;
    size_t n = cells(p) * (size_t)shape[1], rows = (size_t)shape[0] + 1;
    if (map && map->channels == shape[0]) {
        p->map = map;
        p->before = malloc(n * (size_t)shape[0] * sizeof(float));
        p->rgb = malloc(n * 3);
    }
    if (fit) {
        p->ata = calloc(rows * rows, sizeof(double));
        p->atb = calloc(rows * 3, sizeof(double));
        p->sums = calloc(cells(p) * 3, sizeof(float));
    }
    if ((!p->map || (p->before && p->rgb)) && (!fit || (p->ata && p->atb && p->sums))) return 0;
    preview_close(p);
    return err_set(e, ERR_RESOURCE, "no memory for previews");
}

void preview_close(struct preview *p)
{
    free(p->before);
    free(p->rgb);
    free(p->ata);
    free(p->atb);
    free(p->sums);
    memset(p, 0, sizeof *p);
}

bool preview_due(const struct preview *p, double now)
{
    return p->map && now - p->made >= 100 * p->cost;
}

void preview_remember(struct preview *p, const float *latents)
{
    if (p->map)
        memcpy(p->before, latents,
               cells(p) * (size_t)p->shape[1] * (size_t)p->shape[0] * sizeof(float));
}

void preview_make(struct preview *p, const float *latents, float sigma_before, float sigma)
{
    size_t n = cells(p) * (size_t)p->shape[1];
    int channels = p->shape[0];
    float ahead = sigma_before > sigma ? sigma / (sigma_before - sigma) : 0;
    for (size_t i = 0; i < n; i++) {
        float c[3];
        memcpy(c, p->map->to_rgb[channels], sizeof c);
        for (int z = 0; z < channels; z++) {
            float x = latents[(size_t)z * n + i];
            x += ahead * (x - p->before[(size_t)z * n + i]);
            for (int k = 0; k < 3; k++)
                c[k] += x * p->map->to_rgb[z][k];
        }
        for (int k = 0; k < 3; k++)
            p->rgb[3 * i + (size_t)k] = (uint8_t)lrintf(255 * (c[k] > 0 ? c[k] < 1 ? c[k] : 1 : 0));
    }
}

/* --- the fit ------------------------------------------------------------------------------------ */

/* Mean colours of latent frame t are whole: into the normal equations. */
static void take_cells(struct preview *p, const float *latents, int t, double pixels)
{
    int rows = p->shape[0] + 1;
    size_t n = cells(p) * (size_t)p->shape[1];
    double x[DITGEN_PREVIEW_CHANNELS + 1];
    for (size_t i = 0; i < cells(p); i++) {
        for (int z = 0; z < p->shape[0]; z++)
            x[z] = (double)latents[(size_t)z * n + (size_t)t * cells(p) + i];
        x[rows - 1] = 1;
        for (int a = 0; a < rows; a++) {
            for (int b = 0; b <= a; b++)
                p->ata[a * rows + b] += x[a] * x[b];
            for (int k = 0; k < 3; k++)
                p->atb[a * 3 + k] += x[a] * (double)p->sums[3 * i + (size_t)k] / pixels / 255;
        }
    }
    memset(p->sums, 0, cells(p) * 3 * sizeof(float));
    p->summed = 0;
}

void preview_fit_frame(struct preview *p, const float *latents, int frame, const uint8_t *rgb,
                       int width, int height, int temporal)
{
    int sx = width / p->shape[3], sy = height / p->shape[2];
    if (!p->ata || sx < 1 || sy < 1) return;
    for (int y = 0; y < p->shape[2] * sy; y++)
        for (int x = 0; x < p->shape[3] * sx; x++) {
            float *sum = p->sums + 3 * ((size_t)(y / sy) * (size_t)p->shape[3] + (size_t)(x / sx));
            const uint8_t *from = rgb + 3 * ((size_t)y * (size_t)width + (size_t)x);
            for (int k = 0; k < 3; k++)
                sum[k] += from[k];
        }
    p->summed++;
    int t = frame == 0 ? 0 : 1 + (frame - 1) / temporal;
    bool last = frame == 0 || frame % temporal == 0;
    if (last && t < p->shape[1]) take_cells(p, latents, t, (double)sx * sy * p->summed);
}

/* Cholesky of A in place (lower half); false: not positive. */
static bool factor(double *a, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double s = a[i * n + j];
            for (int k = 0; k < j; k++)
                s -= a[i * n + k] * a[j * n + k];
            if (i == j && !(s > 0)) return false;
            a[i * n + j] = i == j ? sqrt(s) : s / a[j * n + j];
        }
    return true;
}

bool preview_fit_end(const struct preview *p, struct ditgen_preview_map *map)
{
    double a[(DITGEN_PREVIEW_CHANNELS + 1) * (DITGEN_PREVIEW_CHANNELS + 1)];
    double x[DITGEN_PREVIEW_CHANNELS + 1];
    int n = p->shape[0] + 1;
    if (!p->ata) return false;
    memcpy(a, p->ata, (size_t)(n * n) * sizeof *a);
    double count = a[n * n - 1]; /* cells: the sum of ones */
    for (int i = 0; i < n - 1; i++)
        a[i * n + i] += 1e-3 * count; /* a ridge, small beside latents of variance 1 */
    if (count < 2 * n || !factor(a, n)) return false;
    map->channels = p->shape[0];
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < n; i++) {
            x[i] = p->atb[i * 3 + k];
            for (int j = 0; j < i; j++)
                x[i] -= a[i * n + j] * x[j];
            x[i] /= a[i * n + i];
        }
        for (int i = n - 1; i >= 0; i--) {
            for (int j = i + 1; j < n; j++)
                x[i] -= a[j * n + i] * x[j];
            x[i] /= a[i * n + i];
            if (!isfinite(x[i])) return false;
            map->to_rgb[i][k] = (float)x[i];
        }
    }
    return true;
}
