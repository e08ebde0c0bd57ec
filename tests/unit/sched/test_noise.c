/* Noise against torch, bit for bit. */
#include "sched/sched.h"
#include "tests/check.h"
#include "tests/golden/golden.h"

static void check_bits(const char *what, const float *got, const float *want, size_t n)
{
    size_t bad = 0, first = n;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&got[i], &want[i], 4) == 0) continue;
        if (!bad++) first = i;
    }
    CHECK_MSG(bad == 0, "%s: %zu of %zu differ, first at %zu: %.9g, wanted %.9g", what, bad, n,
              first, (double)got[first < n ? first : 0], (double)want[first < n ? first : 0]);
}

static void one_call(const struct golden *g)
{
    static const uint64_t seeds[] = {0, 42, (1ull << 32) + 7, UINT64_MAX};
    static const size_t sizes[] = {1, 3, 15, 16, 17, 31, 33};
    for (size_t s = 0; s < ARRAY_LEN(seeds); s++) {
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
            char name[64];
            float x[64];
            size_t n;
            struct noise_rng r;
            snprintf(name, sizeof name, "noise.%llu.%zu", (unsigned long long)seeds[s], sizes[k]);
            const float *want = golden_f32(g, name, &n);
            CHECK(n == sizes[k]);
            noise_seed(&r, seeds[s]);
            noise_randn(&r, x, n);
            check_bits(name, x, want, n);
        }
    }
}

/* The cached half of a pair outlives calls, also those that draw by blocks. */
static void many_calls(const struct golden *g)
{
    size_t n_calls, n;
    const int32_t *sizes = golden_i32(g, "noise.calls.n", &n_calls);
    const float *want = golden_f32(g, "noise.calls", &n);
    float *x = malloc(n * sizeof *x);
    size_t at = 0;
    struct noise_rng r;
    noise_seed(&r, 7);
    for (size_t i = 0; x && i < n_calls; i++) {
        noise_randn(&r, x + at, (size_t)sizes[i]);
        at += (size_t)sizes[i];
    }
    CHECK(at == n);
    check_bits("noise.calls", x, want, n);
    free(x);
}

static void many_values(const struct golden *g)
{
    size_t one, n_samples;
    size_t n = (size_t)*golden_i32(g, "noise.big.n", &one);
    uint32_t want = (uint32_t)*golden_i32(g, "noise.big.hash", &one), hash = 2166136261u;
    const float *samples = golden_f32(g, "noise.big.samples", &n_samples);
    float *x = malloc(n * sizeof *x);
    struct noise_rng r;
    noise_seed(&r, 42);
    if (!x) return;
    noise_randn(&r, x, n);
    const unsigned char *bytes = (const unsigned char *)x;
    for (size_t i = 0; i < n * sizeof *x; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    CHECK_MSG(hash == want, "checksum of %zu values is %08x, wanted %08x", n, hash, want);
    for (size_t i = 0; i < n_samples; i++)
        CHECK(memcmp(&x[i * 1009], &samples[i], 4) == 0);
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        mean += (double)x[i] / (double)n;
        square += (double)x[i] * (double)x[i] / (double)n;
    }
    CHECK(fabs(mean) < 5 / sqrt((double)n) && fabs(square - 1) < 5 * sqrt(2 / (double)n));
    free(x);
}

int main(void)
{
    struct golden g = golden_open("sched.safetensors");
    one_call(&g);
    many_calls(&g);
    many_values(&g);
    golden_close(&g);
    return TEST_RESULT();
}
