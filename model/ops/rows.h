/* Steps that work on each row by itself, as a DiT block has them between its products: norms with
 * modulation, norms with rotary positions, gated residuals, activations.
 *
 * fp32 [rows, features] in and out, several threads, y may be x. round: results are narrowed to bf16,
 * as the reference stores them (wan.md 3.2). The arithmetic is picked once by processor level
 * (cpu/); plain C with double sums (ref.c) is the judge. */
#ifndef DITGEN_OPS_ROWS_H
#define DITGEN_OPS_ROWS_H

#include "model/base/dtype.h"

#include <stdbool.h>

enum activation { ACT_NONE, ACT_GELU_TANH, ACT_GELU_ERF, ACT_SILU };
float act_apply(enum activation a, float x); /* in double */

/* y = LN(x) * (1 + scale) + shift. eps inside the root; mean and variance in fp32 (double sums).
 * wan.md 3.5 */
struct norm_params {
    float eps;
    const float *weight, *bias; /* [features] affine, or NULL */
    const float *scale, *shift; /* [features] modulation, or NULL */
    /* row r uses scale + (r / rows_per_mod) * mod_stride; rows_per_mod 0: one for all */
    int mod_stride, rows_per_mod;
    int period; /* rows after which modulation begins again (another branch); 0: never */
    bool round;
};
void layer_norm(float *y, const float *x, int rows, int features, const struct norm_params *p);

/* x = x * rsqrt(mean(x²) + eps) * weight over the whole row; then, if cos_t is not NULL, rotary over
 * adjacent pairs in each head. In place. round: x is rounded first, so it may be sums that were not.
 * wan.md 3.5, 3.7 */
struct rms_rope_params {
    float eps;
    const float *weight; /* [features] */
    const float *cos_t, *sin_t; /* [rows, head_dim / 2], or NULL: no rotary */
    int head_dim;
    int period; /* rows after which positions begin again: cos_t is [period, ...]; 0: never */
    bool round;
};
void rms_norm_rope(float *x, int rows, int features, const struct rms_rope_params *p);

/* x = x + y * gate. round: y is rounded first, too. */
struct gate_params {
    const float *gate; /* [features], or NULL: 1 */
    int mod_stride, rows_per_mod, period; /* as in norm_params */
    bool round;
};
void residual_gate(float *x, const float *y, int rows, int features, const struct gate_params *p);

void round_rows(float *x, size_t n); /* to bf16 */

#endif
