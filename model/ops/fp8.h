/* Linear layers whose products read eight-bit codes (PRECISION_FP8): a row of x, and a row of W, is its own
 * scale times e4m3 values, so that y[r, o] = act(x_scale[r] * w_scale[o] * sum(value(x) * value(W)) + b[o]).
 *
 * Here is the judge, in plain C: codes bit by bit, sums in double. Layers: ops.h, on devices that have
 * such products. Threads: any. */
#ifndef DITGEN_OPS_FP8_H
#define DITGEN_OPS_FP8_H

#include "model/base/e4m3.h"
#include "model/ops/rows.h"

/* A row whose largest number is below this is one of zeros, of scale 1: scales and their inverses are normal. */
#define FP8_LEAST 0x1p-100f

/* scale[r] = max |x[r, .]| / 448, q[r, c] = e4m3(x[r, c] * (1 / scale[r])), each operation rounded to fp32. What is
 * no number stays none, and makes no scale. x [rows, cols] */
void ref_codes(uint8_t *q, float *scale, const float *x, int rows, int cols);
/* xq [rows, in], wq [out, in], b [out] or NULL, y [rows, out] */
void ref_linear_codes(float *y, const uint8_t *xq, const float *x_scale, const uint8_t *wq,
                      const float *w_scale, const float *b, int rows, int in, int out,
                      enum activation act);

#endif
