/* The judge of fp8 codes and layers; see fp8.h. */
#include "model/ops/fp8.h"

#include <math.h>
#include <stddef.h>

void ref_codes(uint8_t *q, float *scale, const float *x, int rows, int cols)
{
    for (int r = 0; r < rows; r++) {
        const float *from = x + (size_t)r * (size_t)cols;
        float most = 0;
        for (int c = 0; c < cols; c++)
            most = fmaxf(most, fabsf(from[c]));
        float s = most >= FP8_LEAST ? most / E4M3_MOST : 1, inverse = 1 / s;
        scale[r] = s;
        for (int c = 0; c < cols; c++) {
            float v = from[c] * inverse;
            q[(size_t)r * (size_t)cols + (size_t)c] = e4m3_code(v);
        }
    }
}

void ref_linear_codes(float *y, const uint8_t *xq, const float *x_scale, const uint8_t *wq,
                      const float *w_scale, const float *b, int rows, int in, int out,
                      enum activation act)
{
    float value[256];
    for (int i = 0; i < 256; i++)
        value[i] = e4m3_value((uint8_t)i);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            const uint8_t *x = xq + (size_t)r * (size_t)in, *w = wq + (size_t)o * (size_t)in;
            double s = 0;
            for (int i = 0; i < in; i++)
                s += (double)value[x[i]] * (double)value[w[i]];
            s = s * (double)x_scale[r] * (double)w_scale[o] + (b ? (double)b[o] : 0);
            y[(size_t)r * (size_t)out + (size_t)o] = act_apply(act, (float)s);
        }
}
