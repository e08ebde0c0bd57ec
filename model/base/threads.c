/* The pool; see threads.h. */
#include "model/base/threads.h"

#include <stdint.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif

int threads_count(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

void threads_set(int n)
{
#ifdef _OPENMP
    omp_set_dynamic(0);
    omp_set_num_threads(n < 1 ? 1 : n);
#else
    (void)n;
#endif
}

void threads_run(int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx)
{
#ifdef _OPENMP
    if (tasks > 1 && omp_get_max_threads() > 1) {
#pragma omp parallel for schedule(dynamic, 1)
        for (int i = 0; i < tasks; i++)
            fn(ctx, i, omp_get_thread_num());
        return;
    }
#endif
    for (int i = 0; i < tasks; i++)
        fn(ctx, i, 0);
}

/* Independent multiply-add chains, enough of them to fill the units of one core. */
static void burn(void *ctx, int task, int worker)
{
    float *out = ctx;
    float v[64];
    (void)worker;
    for (int j = 0; j < 64; j++)
        v[j] = 1.0f + (float)(j + task) * 1e-6f;
    for (int i = 0; i < 40000; i++)
        for (int j = 0; j < 64; j++)
            v[j] = v[j] * 0.999999f + 1e-7f;
    float s = 0;
    for (int j = 0; j < 64; j++)
        s += v[j];
    out[task] = s;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int threads_probe(void)
{
    int all = threads_count();
    if (all < 2) return 1;
    float sink[256];
    int n = all > 256 ? 256 : all;
    double one = 1e9, many = 1e9;
    for (int r = 0; r < 3; r++) {
        double t0 = now();
        burn(sink, 0, 0);
        double t1 = now();
        threads_run(n, burn, sink);
        double t2 = now();
        if (t1 - t0 < one) one = t1 - t0;
        if (t2 - t1 < many) many = t2 - t1;
    }
    /* n tasks at once: `one` when every processor is a core, n*one when they share one. More than a
     * quarter gained is worth the second thread's cache. */
    double gain = (double)n * one / many;
    return gain >= 1.25 ? all : 1;
}
