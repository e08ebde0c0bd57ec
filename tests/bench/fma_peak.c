/* Peak of this machine in fp32: independent fused multiply-adds on every thread, nothing else.
 *     cc -O3 -march=native -ffast-math -fopenmp fma_peak.c && ./a.out THREADS     prints GFLOP/s
 * Best of five short runs, since another program may be running. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 20000000

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define REGS 24
typedef __m512 vec;
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SET(x) _mm512_set1_ps(x)
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
#define REGS 12
typedef __m256 vec;
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SET(x) _mm256_set1_ps(x)
#else
#define LANES 1
#define REGS 8
typedef float vec;
#define FMA(a, b, c) ((a) * (b) + (c))
#define SET(x) (x)
#endif

static float chain(float seed)
{
    vec a[REGS], m = SET(0.999f), c = SET(seed);
    for (int i = 0; i < REGS; i++)
        a[i] = SET(seed + (float)i);
    for (int n = 0; n < ROUNDS; n++) {
#pragma GCC unroll 32
        for (int i = 0; i < REGS; i++)
            a[i] = FMA(a[i], m, c);
    }
    float out[LANES * REGS], sum = 0;
    memcpy(out, a, sizeof out);
    for (int i = 0; i < LANES * REGS; i++)
        sum += out[i];
    return sum;
}

static volatile float results[1024]; /* so that the chains are not optimised away */

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    double best = 0;
    if (threads < 1 || threads > 1024) return 2;
    for (int k = 0; k < 5; k++) {
        double t = seconds();
#pragma omp parallel for num_threads(threads)
        for (int i = 0; i < threads; i++)
            results[i] = chain(1e-3f * (float)(i + 1));
        t = seconds() - t;
        double rate = 2e-9 * LANES * REGS * ROUNDS * threads / t;
        if (rate > best) best = rate;
    }
    printf("%.1f\n", best);
    return 0;
}
