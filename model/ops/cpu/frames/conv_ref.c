/* The judge of all convolutions: seven plain loops, sums in double. */
#include "model/ops/cpu/frames/conv.h"

void ref_conv(float *y, const float *src, const float *weight, const float *bias,
              const struct conv_shape *s, int frames_in, int h, int w)
{
    int hi = s->up ? 2 * h : h, wi = s->up ? 2 * w : w; /* what the window slides over */
    int ho = s->stride == 2 ? h / 2 : hi, wo = s->stride == 2 ? w / 2 : wi;
    int before = s->kt == 3 && s->step == 1 ? 2 : 0, pad = s->ks == 3 && s->stride == 1 ? 1 : 0;
    int frames = s->kt == 3 && s->step == 2 ? (frames_in - 1) / 2 : frames_in;
    for (int f = 0; f < frames; f++)
        for (int py = 0; py < ho; py++)
            for (int px = 0; px < wo; px++)
                for (int o = 0; o < s->out; o++) {
                    double sum = bias ? (double)bias[o] : 0;
                    for (int t = 0; t < s->kt; t++)
                        for (int dy = 0; dy < s->ks; dy++)
                            for (int dx = 0; dx < s->ks; dx++) {
                                int ft = f * s->step + t - before;
                                int iy = py * s->stride + dy - pad, ix = px * s->stride + dx - pad;
                                if (ft < 0 || iy < 0 || ix < 0 || iy >= hi || ix >= wi) continue;
                                if (s->up) iy /= 2, ix /= 2;
                                const float *p =
                                    src + (((size_t)ft * (size_t)h + (size_t)iy) * (size_t)w +
                                           (size_t)ix) *
                                              (size_t)s->in;
                                for (int i = 0; i < s->in; i++)
                                    sum +=
                                        (double)p[i] *
                                        (double)weight[((((size_t)o * (size_t)s->in + (size_t)i) *
                                                             (size_t)s->kt +
                                                         (size_t)t) *
                                                            (size_t)s->ks +
                                                        (size_t)dy) *
                                                           (size_t)s->ks +
                                                       (size_t)dx];
                            }
                    y[(((size_t)f * (size_t)ho + (size_t)py) * (size_t)wo + (size_t)px) *
                          (size_t)s->out +
                      (size_t)o] = (float)sum;
                }
}
