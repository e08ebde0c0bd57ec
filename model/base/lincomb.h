/* Sums of buffers times numbers: all the arithmetic that solvers and guidance do on latents, done
 * where the latents live.
 *
 * A solver says what to add, in which order; whoever owns the memory adds. Sums go from the left,
 * each product and each sum rounded to fp32, so that the same list gives the same bytes everywhere.
 * Owner: lists are values; buffers are the caller's. Threads: any. Errors: those of a device. */
#ifndef DITGEN_BASE_LINCOMB_H
#define DITGEN_BASE_LINCOMB_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define LINCOMB_TERMS 4

struct lincomb { /* x[to] = c[0] * x[from[0]] + ... + c[n - 1] * x[from[n - 1]] */
    int to, n; /* 1 <= n <= LINCOMB_TERMS; `to` may be one of `from` */
    int from[LINCOMB_TERMS];
    float c[LINCOMB_TERMS]; /* 1 and -1 are exact */
};

/* What a place can do with buffers of n elements. */
struct lincomb_place {
    void *ctx;
    /* Does one list over the buffers x. bf16: every product and every sum is rounded to bf16 too.
     */
    int (*run)(void *ctx, float *const *x, const struct lincomb *l, size_t n, bool bf16,
               struct err *e);
    /* A device: finite() waits for all its work. It is asked in the first and last step alone, and the others
     * are noted: */
    bool waits;
    /* *first: the label (above 0) of the first x that held an infinite number or NaN, this one or one noted before; 0:
     * none did. Forgets it. */
    int (*finite)(void *ctx, const float *x, size_t n, int label, int *first, struct err *e);
    /* Where it waits: has that looked at, and the answer sent here; noted() says it once the work up to there was
     * waited for, without waiting itself. */
    int (*note)(void *ctx, const float *x, size_t n, int label, struct err *e);
    int (*noted)(void *ctx);
};
extern const struct lincomb_place lincomb_host;

#endif
