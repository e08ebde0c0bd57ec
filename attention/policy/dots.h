/* Many dot products: c[i][j] = scale * a_i . b_j, what every scorer and k-means spends its time in.
 *
 * One thread, fp32, each sum in rising channel: a row's values do not depend on its neighbours.
 * Levels of processor differ in the last digit (fused or not). */
#ifndef DITGEN_ATTENTION_POLICY_DOTS_H
#define DITGEN_ATTENTION_POLICY_DOTS_H

#include "model/base/cpu.h"

#include <stdint.h>

/* a: m rows, lda floats apart; b: n rows, ldb apart; k channels; c: m rows of n, ldc apart. */
typedef void dots_fn(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                     int64_t ldb, int m, int n, int k, float scale);

dots_fn dots_ref;
dots_fn dots_avx2;
dots_fn *dots_pick(enum cpu_level level);

#endif
