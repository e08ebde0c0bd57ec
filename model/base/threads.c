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
#pragma omp parallel num_threads(1)
    {
        omp_set_num_threads(1); /* of this region: what a task calls stays on its thread */
        for (int i = 0; i < tasks; i++)
            fn(ctx, i, 0);
    }
#else
    for (int i = 0; i < tasks; i++)
        fn(ctx, i, 0);
#endif
}

/* Independent multiply-add chains that stay in registers (an array on the stack would time its
 * alignment), enough of them to fill the units of one core. */
static void burn(void *ctx, int task, int worker)
{
    float *out = ctx;
    (void)worker;
    const float m = 0.999999f, c = 1e-7f;
    float v0 = 1.0f + (float)task * 1e-6f, v1 = v0 + c, v2 = v1 + c, v3 = v2 + c, v4 = v3 + c;
    float v5 = v4 + c, v6 = v5 + c, v7 = v6 + c, v8 = v7 + c, v9 = v8 + c;
    for (int i = 0; i < 1000000; i++) {
        v0 = v0 * m + c, v1 = v1 * m + c, v2 = v2 * m + c, v3 = v3 * m + c, v4 = v4 * m + c;
        v5 = v5 * m + c, v6 = v6 * m + c, v7 = v7 * m + c, v8 = v8 * m + c, v9 = v9 * m + c;
    }
    out[task] = v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7 + v8 + v9;
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
    /* New threads often start on their maker's processor and are moved some milliseconds later, and
     * a neighbour may be at work: rounds go on until one shows the gain, 12 of about 3 ms a thread
     * at most. n tasks at once take `one` when every processor is a core, n * one when they share
     * one. A quarter gained is worth the second thread's cache. */
    for (int r = 0; r < 12; r++) {
        double t0 = now();
        burn(sink, 0, 0);
        double t1 = now();
        threads_run(n, burn, sink);
        double t2 = now();
        if (t1 - t0 < one) one = t1 - t0;
        if (t2 - t1 < many) many = t2 - t1;
        if (r > 0 && (double)n * one / many >= 1.25) return all;
    }
    return 1;
}
