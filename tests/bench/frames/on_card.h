/* Arrays of a test on the card: either type behind fp32 of the host, with guards round what is written.
 * Included by tests of operations alone; a failure of the runtime ends the test. */
#ifndef DITGEN_TESTS_ON_CARD_H
#define DITGEN_TESTS_ON_CARD_H

#include "model/base/dtype.h"
#include "tests/check.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

#define GUARD 64 /* bytes on each side */

struct card { /* an array there */
    char *base, *at;
    size_t n;
    bool bf16;
};

static inline void card_must(cudaError_t r, const char *what)
{
    if (r == cudaSuccess) return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(r));
    exit(1);
}

static inline size_t card_bytes(size_t n, bool bf16) { return n * (bf16 ? 2 : 4); }

/* n numbers that are not set: every bit 1, which is no number in either type */
static inline struct card card_room(size_t n, bool bf16)
{
    struct card c = {.n = n, .bf16 = bf16};
    void *p = NULL;
    size_t bytes = card_bytes(n, bf16) + 2 * GUARD;
    card_must(cudaMalloc(&p, bytes), "memory of the card");
    card_must(cudaMemset(p, 0xff, bytes), "filling it");
    c.base = p;
    c.at = c.base + GUARD;
    return c;
}

static inline struct card card_of(const float *x, size_t n, bool bf16)
{
    struct card c = card_room(n, bf16);
    uint16_t *narrow = malloc(n * 2 + 1);
    for (size_t i = 0; bf16 && i < n; i++) {
        uint32_t u;
        float v = bf16_round(x[i]);
        memcpy(&u, &v, 4);
        narrow[i] = (uint16_t)(u >> 16);
    }
    card_must(cudaMemcpy(c.at, bf16 ? (const void *)narrow : (const void *)x, card_bytes(n, bf16),
                         cudaMemcpyHostToDevice),
              "copy to the card");
    free(narrow);
    return c;
}

/* Waits, checks the guards, and widens; the caller frees. */
static inline float *card_get(const struct card *c)
{
    size_t bytes = card_bytes(c->n, c->bf16);
    unsigned char *raw = malloc(bytes + 2 * GUARD);
    float *x = malloc(c->n * 4 + 4);
    card_must(cudaDeviceSynchronize(), "the kernels");
    card_must(cudaMemcpy(raw, c->base, bytes + 2 * GUARD, cudaMemcpyDeviceToHost), "copy back");
    bool kept = true;
    for (size_t i = 0; i < GUARD; i++)
        kept = kept && raw[i] == 0xff && raw[GUARD + bytes + i] == 0xff;
    CHECK_MSG(kept, "something was written outside an array of %zu numbers", c->n);
    for (size_t i = 0; i < c->n; i++) {
        if (c->bf16) {
            uint16_t half;
            memcpy(&half, raw + GUARD + 2 * i, 2);
            uint32_t u = (uint32_t)half << 16;
            memcpy(&x[i], &u, 4);
        } else {
            memcpy(&x[i], raw + GUARD + 4 * i, 4);
        }
    }
    free(raw);
    return x;
}

static inline void card_free(struct card *c)
{
    card_must(cudaFree(c->base), "freeing");
    *c = (struct card){0};
}

/* |got - want| <= tolerance for each; names the worst */
static inline void card_near(const char *what, const float *got, const double *want,
                             const double *tolerance, size_t n)
{
    size_t worst = 0;
    double most = -1;
    for (size_t i = 0; i < n; i++) {
        double over = fabs((double)got[i] - want[i]) / tolerance[i];
        if (!(over <= most)) most = over, worst = i;
        if (isnan(over)) break;
    }
    CHECK_MSG(most <= 1, "%s: [%zu] is %.9g, wanted %.9g within %.3g (%.2f times that)", what,
              worst, (double)got[worst], want[worst], tolerance[worst], most);
}

#endif
