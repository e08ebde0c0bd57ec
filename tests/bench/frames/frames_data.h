/* Frames of a test on the card: numbers, and the pads behind a pixel's channels. */
#ifndef DITGEN_TESTS_FRAMES_DATA_H
#define DITGEN_TESTS_FRAMES_DATA_H

#include "tests/bench/frames/on_card.h"

static inline int pad8(int c) { return (c + 7) / 8 * 8; }

static inline float *random_numbers(size_t n, float std, bool bf16, struct test_rng *r)
{
    float *x = malloc(n * sizeof *x + 4);
    for (size_t i = 0; i < n; i++) {
        x[i] = std * rng_normal(r);
        if (bf16) x[i] = bf16_round(x[i]);
    }
    return x;
}

/* [n, c] → [n, c padded], zeros behind */
static inline struct card padded_card(const float *x, size_t n, int c, bool bf16)
{
    size_t wide = (size_t)pad8(c);
    float *p = calloc(n * wide + 1, sizeof *p);
    for (size_t i = 0; i < n; i++)
        memcpy(p + i * wide, x + i * (size_t)c, (size_t)c * sizeof *p);
    struct card k = card_of(p, n * wide, bf16);
    free(p);
    return k;
}

/* The way back; what pads a pixel must be 0. */
static inline float *unpadded(const struct card *k, size_t n, int c)
{
    size_t wide = (size_t)pad8(c), bad = 0;
    float *p = card_get(k), *x = malloc(n * (size_t)c * sizeof *x + 4);
    for (size_t i = 0; i < n; i++) {
        memcpy(x + i * (size_t)c, p + i * wide, (size_t)c * sizeof *x);
        for (size_t q = (size_t)c; q < wide; q++)
            bad += !(p[i * wide + q] == 0);
    }
    CHECK_MSG(bad == 0, "%zu of %zu pixels' pads are not 0", bad, n);
    free(p);
    return x;
}

#endif
