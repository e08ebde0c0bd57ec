/* The inner loops of kernels.h over GEMM_LANES and LANES floats a vector (gcc vector types, so that
 * one text serves every instruction set). Included once by each of ref.c, avx2.c, avx512.c, which
 * set GEMM_LANES  floats a vector in gemm, LANES in everything else (at most CONV_LANES) ROWS_1
 * ROWS_2 ROWS_3  rows a register tile, for panels of 1, 2, 3 vectors KERNEL_TABLE, KERNEL_NAME,
 * KERNEL_NEEDS */
#include "model/base/dtype.h"
#include "model/vae/kernels/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vg __attribute__((vector_size(GEMM_LANES * 4)));
typedef float vg_mem __attribute__((vector_size(GEMM_LANES * 4), aligned(4), may_alias));
typedef float vf __attribute__((vector_size(LANES * 4)));
typedef float vf_mem __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));

#define INLINE static inline __attribute__((always_inline))
#define LOAD(p) (*(const vf_mem *)(const void *)(p))
#define STORE(p, v) (*(vf_mem *)(void *)(p) = (v))
#define ZERO ((vf){0})

/* ---- products
 * ------------------------------------------------------------------------------------ */

/* A register tile of `rows` x `vectors`; both are constants where it is called. */
INLINE void gemm_tile(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const ptrdiff_t *seg,
                      int n_seg, int seg_len, const float *b, const int rows, const int vectors,
                      bool accumulate)
{
    vg s[12][3];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++)
            s[i][j] = accumulate
                          ? (vg) * (const vg_mem *)(const void *)(c + i * ldc + j * GEMM_LANES)
                          : (vg){0};
    for (int q = 0; q < n_seg; q++) {
        const float *p = a + seg[q];
#pragma GCC unroll 2
        for (int k = 0; k < seg_len; k++) {
            vg w[3];
#pragma GCC unroll 3
            for (int j = 0; j < vectors; j++)
                w[j] = *(const vg_mem *)(const void *)(b + j * GEMM_LANES);
#pragma GCC unroll 12
            for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
                for (int j = 0; j < vectors; j++)
                    s[i][j] += p[i * lda] * w[j];
            p++;
            b += vectors * GEMM_LANES;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++)
            *(vg_mem *)(void *)(c + i * ldc + j * GEMM_LANES) = s[i][j];
}

#define TILE_ARGS c, ldc, a, lda, seg, n_seg, seg_len, b
#define TAIL(n, v)                                                                                 \
    case n:                                                                                        \
        gemm_tile(TILE_ARGS, n, v, accumulate);                                                    \
        break;
#define GEMM(v, rows_v)                                                                            \
    static void gemm_##v(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda,                   \
                         const ptrdiff_t *seg, int n_seg, int seg_len, const float *b, int rows,   \
                         bool accumulate)                                                          \
    {                                                                                              \
        for (; rows >= rows_v; rows -= rows_v, a += rows_v * lda, c += rows_v * ldc)               \
            gemm_tile(TILE_ARGS, rows_v, v, accumulate);                                           \
        for (int n; rows > 0; rows -= n, a += n * lda, c += n * ldc) {                             \
            n = rows >= 4 && rows_v > 4 ? 4 : rows >= 2 ? 2 : 1;                                   \
            switch (n) {                                                                           \
                TAIL(4, v) TAIL(2, v) TAIL(1, v)                                                   \
            }                                                                                      \
        }                                                                                          \
    }
GEMM(1, ROWS_1)
GEMM(2, ROWS_2)
GEMM(3, ROWS_3)

static void gemm(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const ptrdiff_t *seg,
                 int n_seg, int seg_len, const float *b, int rows, int vectors, bool accumulate)
{
    switch (vectors) {
    case 1:
        gemm_1(TILE_ARGS, rows, accumulate);
        break;
    case 2:
        gemm_2(TILE_ARGS, rows, accumulate);
        break;
    default:
        gemm_3(TILE_ARGS, rows, accumulate);
    }
}

/* ---- Winograd F(4x4, 3x3): points 0, +-A, +-B, infinity
 * --------------------------------------------- */

#define A 0.625f
#define B 1.5f

/* six inputs → six points */
INLINE void in_1d(vf y[6], vf d0, vf d1, vf d2, vf d3, vf d4, vf d5)
{
    const float aa = A * A, bb = B * B;
    vf ea = d4 - bb * d2, oa = A * (d3 - bb * d1);
    vf eb = d4 - aa * d2, ob = B * (d3 - aa * d1);
    y[0] = aa * bb * d0 - (aa + bb) * d2 + d4;
    y[1] = ea + oa;
    y[2] = ea - oa;
    y[3] = eb + ob;
    y[4] = eb - ob;
    y[5] = aa * bb * d1 - (aa + bb) * d3 + d5;
}

/* six points → four outputs */
INLINE void out_1d(vf y[4], vf m0, vf m1, vf m2, vf m3, vf m4, vf m5)
{
    const float aa = A * A, bb = B * B;
    vf sa = m1 + m2, da = m1 - m2, sb = m3 + m4, db = m3 - m4;
    y[0] = m0 + sa + sb;
    y[1] = A * da + B * db;
    y[2] = aa * sa + bb * sb;
    y[3] = aa * A * da + bb * B * db + m5;
}

static void wino_in(float *v, ptrdiff_t stride, const float *src, ptrdiff_t pitch, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[6][6]; /* [column of the patch][row point] */
        for (int x = 0; x < 6; x++) {
            const float *p = src + x * channels + c;
            in_1d(t[x], LOAD(p), LOAD(p + pitch), LOAD(p + 2 * pitch), LOAD(p + 3 * pitch),
                  LOAD(p + 4 * pitch), LOAD(p + 5 * pitch));
        }
        float *o = v + c;
        for (int i = 0; i < 6; i++) {
            vf r[6];
            in_1d(r, t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]);
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++, o += stride)
                STORE(o, r[j]);
        }
    }
}

static void wino_out(float *y, const float *m, ptrdiff_t stride, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[6][4]; /* [column point][output row] */
        for (int j = 0; j < 6; j++) {
            const float *p = m + j * stride + c;
            out_1d(t[j], LOAD(p), LOAD(p + 6 * stride), LOAD(p + 12 * stride),
                   LOAD(p + 18 * stride), LOAD(p + 24 * stride), LOAD(p + 30 * stride));
        }
        for (int i = 0; i < 4; i++) {
            vf r[4];
            out_1d(r, t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                STORE(y + (i * 4 + j) * channels + c, r[j]);
        }
    }
}

/* The same for a doubled picture, points 0, 1, 2, -2, infinity (-1 is always 0). The six inputs are
 * a b b c c d. */
INLINE void in_1d_up(vf y[5], vf a, vf b, vf c, vf d)
{
    vf cb = c - b;
    y[0] = 4.0f * (a - b) + cb;
    y[1] = 2.0f * c - 8.0f * b;
    y[2] = 3.0f * cb;
    y[3] = b - c;
    y[4] = d - c - 4.0f * cb;
}

INLINE void out_1d_up(vf y[4], vf m0, vf m1, vf m2, vf m3, vf m4)
{
    vf s = m2 + m3, d = m2 - m3;
    y[0] = m0 + m1 + s;
    y[1] = m1 + 2.0f * d;
    y[2] = m1 + 4.0f * s;
    y[3] = m1 + 8.0f * d + m4;
}

static void wino_in_up(float *v, ptrdiff_t stride, const float *src, ptrdiff_t pitch, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[4][5];
        for (int x = 0; x < 4; x++) {
            const float *p = src + x * channels + c;
            in_1d_up(t[x], LOAD(p), LOAD(p + pitch), LOAD(p + 2 * pitch), LOAD(p + 3 * pitch));
        }
        float *o = v + c;
        for (int i = 0; i < 5; i++) {
            vf r[5];
            in_1d_up(r, t[0][i], t[1][i], t[2][i], t[3][i]);
#pragma GCC unroll 5
            for (int j = 0; j < 5; j++, o += stride)
                STORE(o, r[j]);
        }
    }
}

static void wino_out_up(float *y, const float *m, ptrdiff_t stride, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[5][4];
        for (int j = 0; j < 5; j++) {
            const float *p = m + j * stride + c;
            out_1d_up(t[j], LOAD(p), LOAD(p + 5 * stride), LOAD(p + 10 * stride),
                      LOAD(p + 15 * stride), LOAD(p + 20 * stride));
        }
        for (int i = 0; i < 4; i++) {
            vf r[4];
            out_1d_up(r, t[0][i], t[1][i], t[2][i], t[3][i], t[4][i]);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                STORE(y + (i * 4 + j) * channels + c, r[j]);
        }
    }
}

/* ---- element-wise
 * --------------------------------------------------------------------------------- */

INLINE vf select_vf(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

#ifndef MAX_VF /* set where one instruction does it */
#define MAX_VF(a, b) select_vf((a) > (b), a, b)
#define MIN_VF(a, b) select_vf((a) < (b), a, b)
#endif

/* e^x by 2^n * e^r, |r| <= ln2/2, degree 6 (Cephes expf); within 2 ulp. Clamped to [-87, 88]. */
INLINE vf exp_vf(vf x)
{
    const vf hi = ZERO + 88.0f, lo = ZERO - 87.0f, magic = ZERO + 12582912.0f; /* 1.5 * 2^23 */
    x = MAX_VF(MIN_VF(x, hi), lo);
    vf n = x * 1.44269504f + magic;
    vi bits = (vi)n << 23;
    n -= magic;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (vf)((vi)p + bits);
}

INLINE float sum_vf(vf v)
{
    float s[LANES];
    STORE(s, v);
    for (int w = LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++)
            s[i] += s[i + w];
    return s[0];
}

/* to bf16 and back, nearest even; finite values */
INLINE vf round_vf(vf v)
{
    vu u = (vu)v;
    u += 0x7fffu + ((u >> 16) & 1u);
    return (vf)(u & 0xffff0000u);
}

INLINE vf silu_vf(vf v) { return v / (1.0f + exp_vf(-v)); }

/* Sums of a pixel and what is kept of them; returns the lanes' squares. */
INLINE vf finish_sums(const struct finish *f, const float *y, const float *add, float *keep,
                      const bool round)
{
    const float *bias = f->bias; /* in locals: a store through keep could change *f otherwise */
    const int channels = f->channels;
    vf squares = ZERO;
    for (int c = 0; c < channels; c += LANES) {
        vf v = LOAD(y + c) + LOAD(bias + c);
        if (round) v = round_vf(v);
        if (add) v += LOAD(add + c);
        if (round && add) v = round_vf(v);
        squares += v * v;
        STORE(keep + c, v);
    }
    return squares;
}

INLINE void finish_norm(const struct finish *f, const float *kept, float *norm, float scale,
                        const bool round)
{
    const float *gamma = f->gamma;
    const int channels = f->channels;
    const float sqrt_c = f->sqrt_c;
    const bool silu = f->silu;
    for (int c = 0; c < channels; c += LANES) {
        vf v = LOAD(kept + c) * scale;
        if (round) v = round_vf(round_vf(v) * sqrt_c);
        v *= LOAD(gamma + c);
        if (round) v = round_vf(v);
        if (silu) v = silu_vf(v);
        if (round) v = round_vf(v);
        STORE(norm + c, v);
    }
}

/* Four pixels at a time: the root and the division of one wait for nothing of the next. */
INLINE void finish_pixels(const struct finish *f, const float *y, ptrdiff_t y_stride, int n,
                          const float *residual, float *x, float *norm, const bool round)
{
    ptrdiff_t channels = f->channels;
    float *keep = x ? x : norm;
    for (int i = 0; i < n; i += 4) {
        int some = n - i < 4 ? n - i : 4;
        float squares[4][LANES], scale[4];
        for (int p = 0; p < some; p++)
            STORE(squares[p], finish_sums(f, y + (i + p) * y_stride,
                                          residual ? residual + (i + p) * channels : NULL,
                                          keep + (i + p) * channels, round));
        if (!norm) continue;
        for (int p = 0; p < some; p++) {
            for (int w = LANES / 2; w; w /= 2)
                for (int l = 0; l < w; l++)
                    squares[p][l] += squares[p][l + w];
            float len = sqrtf(squares[p][0]);
            len = len > 1e-12f ? len : 1e-12f;
            scale[p] = (round ? 1.0f : f->sqrt_c) / len;
        }
        for (int p = 0; p < some; p++)
            finish_norm(f, keep + (i + p) * channels, norm + (i + p) * channels, scale[p], round);
    }
}

static void finish(const struct finish *f, const float *y, ptrdiff_t y_stride, int n,
                   const float *residual, float *x, float *norm)
{
    if (f->round)
        finish_pixels(f, y, y_stride, n, residual, x, norm, true);
    else
        finish_pixels(f, y, y_stride, n, residual, x, norm, false);
}

static void narrow(uint16_t *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        vh h = __builtin_convertvector((vu)LOAD(src + i) >> 16, vh);
        memcpy(dst + i, &h, sizeof h);
    }
}

static float softmax(float *s, int n, float scale)
{
    float top = -INFINITY, total = 0;
    int i = 0;
    if (n >= LANES) {
        vf m = LOAD(s);
        for (i = LANES; i + LANES <= n; i += LANES) {
            vf v = LOAD(s + i);
            m = select_vf(v > m, v, m);
        }
        float lane[LANES];
        STORE(lane, m);
        for (int j = 0; j < LANES; j++)
            top = lane[j] > top ? lane[j] : top;
    }
    for (; i < n; i++)
        top = s[i] > top ? s[i] : top;
    vf sum = ZERO;
    for (i = 0; i + LANES <= n; i += LANES) {
        vf v = exp_vf((LOAD(s + i) - top) * scale);
        sum += v;
        STORE(s + i, v);
    }
    total = sum_vf(sum);
    for (; i < n; i++) {
        s[i] = expf((s[i] - top) * scale);
        total += s[i];
    }
    return 1.0f / total;
}

const struct vae_kernels KERNEL_TABLE = {
    .name = KERNEL_NAME,
    .needs = KERNEL_NEEDS,
    .lanes = GEMM_LANES,
    .max_vectors = 3,
    .gemm = gemm,
    .wino_in = wino_in,
    .wino_in_up = wino_in_up,
    .wino_out = wino_out,
    .wino_out_up = wino_out_up,
    .finish = finish,
    .narrow = narrow,
    .softmax = softmax,
};
