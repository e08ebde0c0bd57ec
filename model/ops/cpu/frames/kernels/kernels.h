/* The inner loops of the VAE, one table an instruction set: ref (plain C), avx2, avx512.
 *
 * All activations are fp32, channels last, padded to a multiple of CONV_LANES channels; the extra
 * ones stay 0. Threads: everything here works on the caller's memory only.
 *
 * Convolutions of stride 1 with a 3x3 window run as Winograd F(4x4, 3x3): 4x4 outputs from a 6x6
 * patch by 36 products a channel pair where the plain sum takes 144 (Lavin & Gray, arXiv
 * 1509.09308). Evaluation points 0, +-5/8, +-3/2, infinity: half the rounding error of 0, +-1, +-2
 * (0.8e-6 against 1.9e-6 relative, measured on N(0,1) data through SiLU at 96 channels). On a
 * picture doubled by nearest neighbour the points are 0, +-1, +-2, infinity: a doubled row is (1 +
 * z) x(z^2), which is zero at z = -1, so 25 of the 36 products are left. */
#ifndef DITGEN_OPS_CPU_FRAMES_KERNELS_H
#define DITGEN_OPS_CPU_FRAMES_KERNELS_H

#include "model/base/cpu.h"
#include "model/ops/frame.h"

#include <stddef.h>
#include <stdint.h>

#define CONV_LANES FRAME_LANES
#define WINO_OUT 4 /* outputs a side */
#define WINO_IN 6 /* inputs a side */
#define WINO_POINTS 36
#define WINO_POINTS_UP 25

/* What happens to the finished sums of a row of pixels. Strides count floats; pixels lie `channels`
 * apart, channels being the padded count. */
struct finish {
    int channels; /* padded */
    float sqrt_c; /* root of the real channel count */
    const float *bias; /* [channels] */
    const float *gamma; /* [channels], when norm */
    bool silu; /* after the norm */
    bool round; /* bf16 storage: every stored value and step is rounded (wan.md 4.2) */
};

struct vae_kernels {
    const char *name;
    enum cpu_level needs;
    int lanes, max_vectors; /* of a weight panel: its width is lanes * (1..max_vectors) columns */

    /* c[rows, width] (+)= sum over segments s and k < seg_len of a[r * lda + seg[s] + k] *
     * b[s][k][:]. b: [n_seg, seg_len, width] packed, width = vectors * lanes. accumulate: adds to
     * c. */
    void (*gemm)(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const ptrdiff_t *seg,
                 int n_seg, int seg_len, const float *b, int rows, int vectors, bool accumulate);

    /* One 6x6 patch of `channels` at src (rows `pitch` floats apart) → v[point * stride]. */
    void (*wino_in)(float *v, ptrdiff_t stride, const float *src, ptrdiff_t pitch, int channels);
    /* One 4x4 patch of the undoubled picture → the 25 points of the doubled 6x6 one. */
    void (*wino_in_up)(float *v, ptrdiff_t stride, const float *src, ptrdiff_t pitch, int channels);
    /* m[point * stride] → y [16, channels], row-major 4x4. */
    void (*wino_out)(float *y, const float *m, ptrdiff_t stride, int channels);
    void (*wino_out_up)(float *y, const float *m, ptrdiff_t stride, int channels);

    /* n pixels of sums y, `y_stride` apart: + bias, + residual (or NULL) → x (or NULL); then RMS
     * norm, gamma and SiLU of that → norm (or NULL). residual may be x. */
    void (*finish)(const struct finish *f, const float *y, ptrdiff_t y_stride, int n,
                   const float *residual, float *x, float *norm);

    /* n (a multiple of CONV_LANES) values that are bf16 already, stored as such; others are cut. */
    void (*narrow)(uint16_t *dst, const float *src, size_t n);

    /* In place over a row of scores: exp(scale * (s - max)), returning 1 / sum. */
    float (*softmax)(float *s, int n, float scale);
};

extern const struct vae_kernels vae_kernels_ref, vae_kernels_avx2, vae_kernels_avx512;
/* The best that this processor runs; by name with only != NULL (NULL when it cannot). */
const struct vae_kernels *vae_kernels_pick(const struct cpu *cpu, const char *only);

/* Filter transform of 3x3 taps g (row-major, double) to the points; up: for doubled pictures. */
void wino_filter(double *u, const double *g, bool up);

#endif
