/* Row steps in C that a compiler turns into vectors: no branches, sums in lanes. Included by one
 * file a processor level, built with that level's flags; ROWS_TABLE names the table it defines.
 * Accuracy: exp to 2 ulp, sums of 32 lanes; compared with rows_ref.c by tests. */
#include "model/ops/cpu/row_ops.h"

#include <math.h>

/* four 8-wide or two 16-wide accumulators: enough to hide the latency of an add */
#define LANES 32

/* x in [-87, 88] after clamping: n = round(x / ln 2), e^x = 2^n * p(x - n ln 2), Cephes'
 * polynomial. */
static inline float exp_lane(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to nearest */
    int32_t i;
    memcpy(&i, &n, 4);
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &p, 4);
    bits += (int32_t)((uint32_t)i << 23);
    memcpy(&p, &bits, 4);
    return p;
}

static inline float round_lane(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t r = (u + 0x7fffu + ((u >> 16) & 1)) & 0xffff0000u;
    u = (u & 0x7fffffffu) > 0x7f800000u ? u : r;
    memcpy(&f, &u, 4);
    return f;
}

static double sum_row(const float *x, int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += x[i + k];
    double s = 0;
    for (int k = 0; k < LANES; k++)
        s += (double)lane[k];
    for (; i < n; i++)
        s += (double)x[i];
    return s;
}

/* sum of (x - mean)² */
static double square_row(const float *x, float mean, int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += (x[i + k] - mean) * (x[i + k] - mean);
    double s = 0;
    for (int k = 0; k < LANES; k++)
        s += (double)lane[k];
    for (; i < n; i++)
        s += (double)(x[i] - mean) * (double)(x[i] - mean);
    return s;
}

static void round_row(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = round_lane(x[i]);
}

static void norm_row(float *y, const float *x, int n, float eps, const float *weight,
                     const float *bias, const float *scale, const float *shift, bool round)
{
    float mean = (float)(sum_row(x, n) / n);
    float r = (float)(1 / sqrt(square_row(x, mean, n) / n + (double)eps));
    if (weight && scale) {
        for (int i = 0; i < n; i++)
            y[i] = ((x[i] - mean) * r * weight[i] + bias[i]) * (1 + scale[i]) + shift[i];
    } else if (weight) {
        for (int i = 0; i < n; i++)
            y[i] = (x[i] - mean) * r * weight[i] + bias[i];
    } else if (scale) {
        for (int i = 0; i < n; i++)
            y[i] = (x[i] - mean) * r * (1 + scale[i]) + shift[i];
    } else {
        for (int i = 0; i < n; i++)
            y[i] = (x[i] - mean) * r;
    }
    if (round) round_row(y, n);
}

static void rms_rope_row(float *x, int n, const float *weight, float eps, const float *cos_t,
                         const float *sin_t, int head_dim, bool round)
{
    if (round) round_row(x, n);
    float r = (float)(1 / sqrt(square_row(x, 0, n) / n + (double)eps));
    for (int i = 0; i < n; i++)
        x[i] = x[i] * r * weight[i];
    if (round) round_row(x, n);
    if (!cos_t) return;
    for (int h = 0; h < n; h += head_dim)
        for (int i = 0; i < head_dim / 2; i++) {
            float a = x[h + 2 * i], b = x[h + 2 * i + 1];
            x[h + 2 * i] = a * cos_t[i] - b * sin_t[i];
            x[h + 2 * i + 1] = a * sin_t[i] + b * cos_t[i];
        }
    if (round) round_row(x, n);
}

static void residual_row(float *x, const float *y, const float *gate, int n, bool round)
{
    if (round && gate)
        for (int i = 0; i < n; i++)
            x[i] = round_lane(x[i] + round_lane(y[i]) * gate[i]);
    else if (round)
        for (int i = 0; i < n; i++)
            x[i] = round_lane(x[i] + round_lane(y[i]));
    else if (gate)
        for (int i = 0; i < n; i++)
            x[i] += y[i] * gate[i];
    else
        for (int i = 0; i < n; i++)
            x[i] += y[i];
}

static void act_row(float *x, int n, enum activation act, bool round)
{
    if (round) round_row(x, n);
    if (act == ACT_GELU_TANH) { /* 0.5 (1 + tanh u) = 1 / (1 + e^-2u) */
        for (int i = 0; i < n; i++) {
            float u = 1.5957691216f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
            x[i] = x[i] / (1 + exp_lane(-u));
        }
    } else if (act == ACT_SILU) {
        for (int i = 0; i < n; i++)
            x[i] = x[i] / (1 + exp_lane(-x[i]));
    } else if (act == ACT_GELU_ERF) { /* image rows only: not worth a polynomial */
        for (int i = 0; i < n; i++)
            x[i] = act_apply(act, x[i]);
    }
    if (round && act != ACT_NONE) round_row(x, n);
}

static void to_bf16(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float f = round_lane(x[i]);
        uint32_t u;
        memcpy(&u, &f, 4);
        u |= (u & 0x7fffffffu) > 0x7f800000u ? 0x400000u : 0;
        y[i] = (uint16_t)(u >> 16);
    }
}

const struct row_ops ROWS_TABLE = {norm_row, rms_rope_row, residual_row, act_row, to_bf16};
