/* How far two clips are apart: PSNR and SSIM, as the field measures them.
 *
 * PSNR  10 log10(255^2 / MSE) over R, G and B; of equal frames it is infinite.
 * SSIM  Wang et al. 2004 (IEEE TIP 13(4), eq. 13): luma, 11x11 Gaussian window of sigma 1.5, K1
 * 0.01, K2 0.03, only windows that lie inside the frame. 1 is equal. */
#ifndef DITGEN_APP_WRITERS_QUALITY_H
#define DITGEN_APP_WRITERS_QUALITY_H

#include "model/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define SSIM_WINDOW 11

/* Mean squared difference of n bytes. */
double quality_mse(const uint8_t *a, const uint8_t *b, size_t n);
double quality_psnr(double mse, double peak); /* INFINITY for 0 */
/* Scratch of quality_ssim(), in doubles. */
size_t quality_ssim_scratch(int width, int height);
/* a, b: [H, W, 3] RGB, both sides at least SSIM_WINDOW; NAN for smaller ones. */
double quality_ssim(const uint8_t *a, const uint8_t *b, int width, int height, double *scratch);

struct quality { /* of two clips */
    double psnr, psnr_worst; /* whole clip; the worst frame */
    double ssim, ssim_worst; /* mean over frames; NAN when frames are smaller than the window */
    int worst_frame; /* index of psnr_worst */
    size_t differing; /* bytes that differ; 0: identical */
    int max_difference; /* of one byte */
};
/* frames of [H, W, 3]. ERR_RESOURCE. */
int quality_clips(struct quality *q, const uint8_t *a, const uint8_t *b, int frames, int width,
                  int height, struct err *e);

#endif
