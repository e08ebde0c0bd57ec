/* A problem in device memory, what a kernel made of it, and the comparison with the judge. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_ON_DEVICE_H
#define DITGEN_TESTS_BENCH_KERNELS_ON_DEVICE_H

#include "tests/bench/kernels/gpu.h"
#include "tests/bench/kernels/kernels_under_test.h"
#include "tests/bench/kernels/problem.h"

#define GUARD 4096 /* bytes before and after o */

struct on_device {
    struct attn_cuda call; /* device pointers; lists in host memory with device arrays */
    struct attn_lists lists;
    char *o; /* guards included */
    size_t o_bytes, lse_count, alive_count;
    void *owned[16];
    int n_owned;
};

struct output {
    unsigned char *o; /* guards included */
    float *lse;
    uint32_t *alive;
};

/* p belongs to d from now on. */
void *own(struct on_device *d, void *p);
void upload(struct on_device *d, const struct problem *p);
void release(struct on_device *d);

struct output run(const struct kernel_under_test *k, struct on_device *d, const char *what);
void output_free(struct output *o);

/* Largest |q||k| / sqrt(D) and |v| of a call: what rounding errors are relative to. */
void extremes(const struct problem *p, double *score, double *value);
/* Errors against the judge, and bytes outside o. */
void compare(const char *name, const struct problem *p, const struct output *got, const float *want,
             const float *want_lse);

/* Adds the number of 32-bit words that differ to *count, all in device memory (differ.cu). */
void gpu_differ(unsigned *count, const void *a, const void *b, size_t bytes);

#endif
