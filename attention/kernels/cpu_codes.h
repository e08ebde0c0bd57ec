/* Codes of q, k and v on a CPU, in plain C and fp32: what attn_plan.qk, pv and codes mean, one row
 * at a time. SageAttention (2410.02367, 2411.10958) as of attention-kernels.md 1.2, with a scale a
 * row instead of one for the rows that a tensor core's lane holds: here it costs nothing, and codes
 * do not depend on how a plan is cut.
 *
 * Every kernel and the judge include this, so that all multiply the same codes; the compiler turns
 * the loops into vectors, which changes no value (no contraction, no reordering). */
#ifndef DITGEN_ATTENTION_KERNELS_CPU_CODES_H
#define DITGEN_ATTENTION_KERNELS_CPU_CODES_H

#include "attention/plan/plan.h"

#include <math.h>
#include <string.h>

#define CODES_LEAST 1e-7f /* of a group's largest magnitude: no division by zero */
#define CODES_E4M3 448.0f /* the largest e4m3 */

/* Largest code of a product. */
static inline int codes_most(enum attn_prec p) { return p == ATTN_PREC_INT4 ? 7 : 127; }

static inline uint32_t codes_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float codes_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Nearest integer, ties to even, in the low byte: |x| < 2^22. */
static inline int8_t codes_near(float x)
{
    uint8_t low = (uint8_t)codes_bits(x + 12582912.0f); /* 1.5 * 2^23 */
    return (int8_t)(low < 128 ? low : low - 256);
}

/* Scale of a group whose largest magnitude has these bits; NaN and infinity stay, and poison every
 * product. */
static inline float codes_scale(uint32_t bits, float most)
{
    float x = codes_float(bits);
    return (x < CODES_LEAST ? CODES_LEAST : x) / most;
}

/* Walsh-Hadamard / sqrt(dim), in place. */
static inline void codes_rotate(float *x, int dim)
{
    for (int h = 1; h < dim; h *= 2)
        for (int i = 0; i < dim; i += 2 * h)
            for (int j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
    float norm = (float)(1 / sqrt((double)dim));
    for (int i = 0; i < dim; i++)
        x[i] *= norm;
}

/* code [dim] of x less `less` (NULL: 0); tmp [dim]. Returns the scale. */
static inline float codes_row(int8_t *code, float *tmp, const float *x, const float *less, int dim,
                              int most, bool rotate)
{
    uint32_t top = 0;
    for (int c = 0; c < dim; c++)
        tmp[c] = less ? x[c] - less[c] : x[c];
    if (rotate) codes_rotate(tmp, dim);
    for (int c = 0; c < dim; c++) {
        uint32_t u = codes_bits(tmp[c]) & 0x7fffffffu; /* as integers, NaN is the largest */
        top = u > top ? u : top;
    }
    float scale = codes_scale(top, (float)most), inverse = 1 / scale;
    for (int c = 0; c < dim; c++)
        code[c] = codes_near(tmp[c] * inverse);
    return scale;
}

/* What smooth_q takes off: mean [dim] of n positions' sums. */
static inline void codes_mean(float *mean, const double *sum, int n, int dim)
{
    for (int c = 0; c < dim; c++)
        mean[c] = (float)(sum[c] / n);
}

/* To e4m3 and back: nearest even, at most 448; NaN stays. */
static inline float codes_e4m3(float x)
{
    float a = fabsf(x), least = a + 24576.0f - 24576.0f; /* steps of 2^-9 below 2^-6 */
    uint32_t u = codes_bits(a);
    float r = codes_float((u + 0x7ffffu + (u >> 20 & 1)) & 0xfff00000u);
    r = a < 0x1p-6f ? least : r > CODES_E4M3 ? CODES_E4M3 : r;
    return copysignf(r, x);
}

/* What a head's keys have in common, and its values: sums [dim], largest magnitudes as bits [dim]. */
static inline void codes_add(double *sum, uint32_t *top, const float *k, const float *v, int dim)
{
    for (int c = 0; k && c < dim; c++)
        sum[c] += (double)k[c];
    for (int c = 0; v && c < dim; c++) {
        uint32_t u = codes_bits(v[c]) & 0x7fffffffu;
        top[c] = u > top[c] ? u : top[c];
    }
}

/* less [dim]: taken off keys; scale [dim]: of values under pv. */
static inline void codes_head(float *less, float *scale, const double *sum, const uint32_t *top,
                              int dim, int len, const struct attn_plan *p)
{
    for (int c = 0; c < dim; c++) {
        less[c] = p->codes.smooth_k ? (float)(sum[c] / len) : 0.0f;
        scale[c] = p->pv == ATTN_PREC_INT8  ? codes_scale(top[c], 127.0f)
                   : p->pv == ATTN_PREC_FP8 ? codes_scale(top[c], CODES_E4M3)
                                            : 1.0f;
    }
}

/* A value under its scale: a code of INT8, or what FP8 leaves of it. */
static inline int8_t codes_value(float v, float scale) { return codes_near(v * (1 / scale)); }
static inline float codes_value_fp8(float v, float scale) { return codes_e4m3(v * (1 / scale)); }

#endif
