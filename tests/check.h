/* Checks for plain test executables. A failed check prints where and what, and the test goes on;
 * main returns TEST_RESULT(). Numeric reports name the worst index and both values. */
#ifndef DITGEN_TESTS_CHECK_H
#define DITGEN_TESTS_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks_failed, checks_done;

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        checks_done++;                                                                             \
        if (!(cond)) {                                                                             \
            checks_failed++;                                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #cond);               \
        }                                                                                          \
    } while (0)
#define CHECK_MSG(cond, ...)                                                                       \
    do {                                                                                           \
        checks_done++;                                                                             \
        if (!(cond)) {                                                                             \
            checks_failed++;                                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s) failed: ", __FILE__, __LINE__, #cond);               \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)
#define CHECK_STR(a, b)                                                                            \
    do {                                                                                           \
        const char *a_ = (a), *b_ = (b);                                                           \
        checks_done++;                                                                             \
        if (!a_ || !b_ || strcmp(a_, b_) != 0) {                                                   \
            checks_failed++;                                                                       \
            fprintf(stderr, "%s:%d: %s is \"%s\", wanted \"%s\"\n", __FILE__, __LINE__, #a,        \
                    a_ ? a_ : "(null)", b_ ? b_ : "(null)");                                       \
        }                                                                                          \
    } while (0)
/* the call returns 0; e is a struct err in scope */
#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        checks_done++;                                                                             \
        if ((call) != 0) {                                                                         \
            checks_failed++;                                                                       \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, e.msg);                  \
        }                                                                                          \
    } while (0)
#define TEST_RESULT()                                                                              \
    (printf("%d checks, %d failed\n", checks_done, checks_failed), checks_failed || !checks_done)

/* ||a - b|| / ||b||, in double; any NaN gives infinity */
static inline double rel_l2(const float *a, const float *b, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        double x = (double)a[i] - (double)b[i];
        d += x * x;
        s += (double)b[i] * (double)b[i];
    }
    if (!isfinite(d) || !isfinite(s)) return (double)INFINITY;
    return s > 0 ? sqrt(d / s) : sqrt(d);
}

/* relative L2 of got against want at most tol */
static inline void check_close(const char *what, const float *got, const float *want, size_t n,
                               double tol)
{
    double r = rel_l2(got, want, n);
    checks_done++;
    if (r <= tol) return;
    size_t worst = 0;
    double most = -1;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= most)) most = d, worst = i;
        if (isnan(d)) break;
    }
    checks_failed++;
    fprintf(stderr,
            "%s: relative L2 %.3g, at most %.3g wanted; worst at %zu of %zu: %.9g, wanted %.9g\n",
            what, r, tol, worst, n, (double)got[worst], (double)want[worst]);
}

/* splitmix64; --seed N on the command line repeats a run */
struct test_rng {
    uint64_t s;
};
static inline struct test_rng test_seed(int argc, char **argv)
{
    struct test_rng r = {1};
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--seed") == 0) r.s = strtoull(argv[i + 1], NULL, 10);
    printf("seed %llu\n", (unsigned long long)r.s);
    return r;
}
static inline uint64_t rng_u64(struct test_rng *r)
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static inline int rng_int(struct test_rng *r, int lo, int hi) /* both ends included */
{
    return lo + (int)(rng_u64(r) % (uint64_t)(hi - lo + 1));
}
static inline double rng_unit(struct test_rng *r) /* [0, 1) */
{
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}
static inline float rng_normal(struct test_rng *r)
{
    double u = 1 - rng_unit(r), v = rng_unit(r);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

#endif
