/* Whether this build's matrix products give a row the same bits however many rows stand beside it. Ours
 * do, and oneDNN's for AVX-512; its fp32 product below that (2.6) sums by the number of rows. Where it
 * is so, code that computes the same rows in other portions agrees within rounding, not to the bit. */
#ifndef DITGEN_TESTS_PRODUCTS_H
#define DITGEN_TESTS_PRODUCTS_H

#include "model/ops/linear.h"
#include "tests/check.h"

#include <stdlib.h>
#include <string.h>

static inline bool products_know_rows(void)
{
    enum { SIDE = 320, FEW = 8, MANY = 16 };
    struct linear_params p = {.out = SIDE, .in = SIDE, .precision = PRECISION_FP32};
    float *w = malloc(sizeof(float) * SIDE * SIDE), *x = malloc(sizeof(float) * MANY * SIDE);
    float *y = malloc(sizeof(float) * (FEW + MANY) * SIDE);
    for (int i = 0; i < SIDE * SIDE; i++)
        w[i] = (float)(i * 7919 % 1009) / 1009 - 0.5f;
    for (int i = 0; i < MANY * SIDE; i++)
        x[i] = (float)(i * 104729 % 997) / 997 - 0.5f;
    struct tensor weight = {.data = w, .dtype = DTYPE_F32, .n_dims = 2, .shape = {SIDE, SIDE}};
    struct linear *l = NULL;
    struct err e = {0};
    CHECK_OK(linear_open(&l, &p, &weight, NULL, &e));
    CHECK_OK(linear_run(l, y, x, FEW, NULL, &e));
    CHECK_OK(linear_run(l, y + FEW * SIDE, x, MANY, NULL, &e));
    bool differ = memcmp(y, y + FEW * SIDE, sizeof(float) * FEW * SIDE) != 0;
    linear_close(l);
    free(w), free(x), free(y);
    return differ;
}

#endif
