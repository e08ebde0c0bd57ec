/* Checks of a GPU's operations against the host's: device memory with guards, every run done twice for
 * equal bytes, errors held against a bound that each check derives from its own roundings.
 *
 * A check gives for each number what it should be and how far off it may be; what is printed is the
 * worst share of that bound (1: all of it), so that a bound that is too wide shows as well. */
#ifndef DITGEN_TESTS_BENCH_OPS_CHECK_OPS_H
#define DITGEN_TESTS_BENCH_OPS_CHECK_OPS_H

#include "model/base/dtype.h"
#include "model/base/err.h"
#include "tests/bench/kernels/gpu.h"
#include "tests/check.h"

#include <stdbool.h>

#define U_BF16 0x1p-8 /* half a unit in the last place, relative */
#define U_F32 0x1p-24

static inline void gpu_free(void *at) { GPU(cudaFree(at)); }

/* Numbers on both sides: host as float (bf16 values when type is BF16), device as type, with guards
 * before and after. */
struct numbers {
    enum dtype type;
    size_t n;
    float *host;
    void *device;
    unsigned char *base; /* of the allocation */
};
struct numbers numbers_new(enum dtype type, size_t n);
void numbers_free(struct numbers *x);
void numbers_normal(struct numbers *x, struct test_rng *r, double mean, double deviation);
void numbers_up(const struct numbers *x); /* host to device, rounding host to the type first */
float *numbers_down(const struct numbers *x); /* a new array */
void numbers_dirty(const struct numbers *x); /* 0xff everywhere: NaN */

/* What one operation's checks have come to. */
struct verdict {
    const char *what;
    int cases, failed;
    double worst; /* share of the bound */
    double largest; /* error itself, relative to the largest wanted number of its case */
};
void verdict_begin(const char *what);
void verdict_case(const char *fmt, ...) PRINTF_LIKE(1, 2); /* the shape, for messages */
/* y was filled by run(ctx), which is called again: same bytes, no guard touched, and
 * |y - want| <= bound everywhere. bound NULL: exactly the same. */
void verdict_check(struct numbers *y, int (*run)(void *ctx, struct err *e), void *ctx,
                   const double *want, const double *bound);
void verdict_that(bool ok, const char *what); /* anything else about the case */
/* Another share of a bound, and error, for the table. */
void verdict_note(double share, double error);
void verdict_table(void); /* prints all */
int verdict_failures(void);

/* the parts, each a file; small: shapes that compute-sanitizer gets through in seconds */
void check_rows(struct test_rng *r, bool small);
void check_numbers(struct test_rng *r, bool small);
void check_linear(struct test_rng *r, bool small);
void check_fp8(struct test_rng *r, bool small);
void check_parts(struct test_rng *r, bool small);
void check_attention(struct test_rng *r, bool small);
void check_distance(struct test_rng *r, bool small);
void check_table(struct test_rng *r, bool small);
int time_ops(void);

#endif
