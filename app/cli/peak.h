/* The floating-point peak of this machine, measured now: what timings of the same run are judged
 * by.
 *
 * Registers only: independent multiply-adds, as many in flight as the processor needs, on all
 * threads of the pool, best of a few bursts of some milliseconds. Two users (cmd_bench.c and
 * tests/bench/fma_peak.c), so it lives in a header. Threads: from the main thread. */
#ifndef DITGEN_APP_PEAK_H
#define DITGEN_APP_PEAK_H

#include "model/base/clock.h"
#include "model/base/cpu.h"
#include "model/base/threads.h"

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PEAK_LANES 12 /* chains: latency 4 x 2 units, and some slack */
#define PEAK_BURSTS 8 /* the best counts: others may run */
#define PEAK_TASK 60000 /* rounds a task: a few hundred microseconds */

struct peak {
    double fp32, bf16; /* operations (2 a multiply-add) a second; 0: not on this processor */
    const char *fp32_by, *bf16_by;
};

/* A burst: rounds of multiply-adds that end in a number nobody can foresee. */
typedef float (*peak_burst)(int rounds);

static inline float peak_ref(int rounds)
{
    volatile float grow = 0.999f;
    float x[PEAK_LANES] = {0}, g = grow;
    for (int i = 0; i < rounds; i++)
        for (int k = 0; k < PEAK_LANES; k++)
            x[k] = x[k] * g + g;
    for (int k = 1; k < PEAK_LANES; k++)
        x[0] += x[k];
    return x[0];
}

#if defined(__x86_64__)
/* The lanes are named one by one: an array would go to memory without optimisation of its index. */
#define PEAK_EACH(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)

__attribute__((target("avx2,fma"))) static inline float peak_avx2(int rounds)
{
    volatile float grow = 0.999f;
    __m256 g = _mm256_set1_ps(grow);
#define START(k) __m256 x##k = _mm256_set1_ps((float)k);
#define STEP(k) x##k = _mm256_fmadd_ps(x##k, g, g);
#define SUM(k) g = _mm256_add_ps(g, x##k);
    PEAK_EACH(START)
    for (int i = 0; i < rounds; i++) {
        PEAK_EACH(STEP)
    }
    PEAK_EACH(SUM)
#undef START
#undef STEP
#undef SUM
    return _mm256_cvtss_f32(g);
}

__attribute__((target("avx512f"))) static inline float peak_avx512(int rounds)
{
    volatile float grow = 0.999f;
    __m512 g = _mm512_set1_ps(grow);
#define START(k) __m512 x##k = _mm512_set1_ps((float)k);
#define STEP(k) x##k = _mm512_fmadd_ps(x##k, g, g);
#define SUM(k) g = _mm512_add_ps(g, x##k);
    PEAK_EACH(START)
    for (int i = 0; i < rounds; i++) {
        PEAK_EACH(STEP)
    }
    PEAK_EACH(SUM)
#undef START
#undef STEP
#undef SUM
    return _mm512_cvtss_f32(g);
}

__attribute__((target("avx512f,avx512bf16"))) static inline float peak_avx512_bf16(int rounds)
{
    volatile float grow = 0.999f;
    __m512 g = _mm512_set1_ps(grow);
    __m512bh b = _mm512_cvtne2ps_pbh(g, g);
#define START(k) __m512 x##k = _mm512_set1_ps((float)k);
#define STEP(k) x##k = _mm512_dpbf16_ps(x##k, b, b);
#define SUM(k) g = _mm512_add_ps(g, x##k);
    PEAK_EACH(START)
    for (int i = 0; i < rounds; i++) {
        PEAK_EACH(STEP)
    }
    PEAK_EACH(SUM)
#undef START
#undef STEP
#undef SUM
    return _mm512_cvtss_f32(g);
}

/* Four tiles of sums, two of each side; 16x16x32 multiply-adds an instruction. */
__attribute__((target("avx512f,amx-tile,amx-bf16"))) static inline float peak_amx(int rounds)
{
    _Alignas(64) struct {
        uint8_t palette, start, zero[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    _Alignas(64) uint16_t side[16][32];
    _Alignas(64) float sums[16][16];
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = 16;
    }
    memset(side, 0x3c, sizeof side); /* 0x3c3c: about 0.011 */
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, side, 64);
    _tile_loadd(5, side, 64);
    _tile_loadd(6, side, 64);
    _tile_loadd(7, side, 64);
    for (int i = 0; i < rounds; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_release();
    return sums[0][0];
}
#endif

struct peak_job {
    peak_burst burst;
    int rounds;
    volatile float sink;
};

static inline void peak_task(void *ctx, int task, int worker)
{
    struct peak_job *j = ctx;
    (void)task, (void)worker;
    j->sink = j->burst(j->rounds);
}

/* flops: operations of one round on one thread. */
static inline double peak_rate(peak_burst burst, double flops, int rounds)
{
    struct peak_job job = {.burst = burst, .rounds = rounds};
    int threads = threads_count();
    double best = 0;
    for (int i = 0; i < PEAK_BURSTS; i++) {
        double begin = clock_seconds();
        threads_run(4 * threads, peak_task, &job); /* four each: threads that wake late even out */
        double rate = 4 * threads * flops * rounds / (clock_seconds() - begin);
        if (rate > best) best = rate;
    }
    return best;
}

static inline void peak_measure(struct peak *p, enum cpu_level level)
{
    memset(p, 0, sizeof *p);
    p->fp32_by = "plain C";
#if defined(__x86_64__)
    if (level >= CPU_AVX512) {
        p->fp32 = peak_rate(peak_avx512, 2.0 * 16 * PEAK_LANES, PEAK_TASK);
        p->fp32_by = "avx512";
    } else if (level >= CPU_AVX2) {
        p->fp32 = peak_rate(peak_avx2, 2.0 * 8 * PEAK_LANES, PEAK_TASK);
        p->fp32_by = "avx2";
    }
    if (level >= CPU_AMX) {
        p->bf16 = peak_rate(peak_amx, 2.0 * 16 * 16 * 32 * 4, PEAK_TASK / 8);
        p->bf16_by = "amx";
    } else if (level >= CPU_AVX512_BF16) {
        p->bf16 = peak_rate(peak_avx512_bf16, 2.0 * 32 * PEAK_LANES, PEAK_TASK);
        p->bf16_by = "avx512bf16";
    }
#else
    (void)level;
#endif
    if (p->fp32 == 0) p->fp32 = peak_rate(peak_ref, 2.0 * PEAK_LANES, PEAK_TASK);
}

#endif
