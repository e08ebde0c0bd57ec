/* Attention kernels against the peak of the same run: bench_attention [--kernel NAME] [--threads N]
 * [--seconds S] [--precision fp32|bf16] [--len L --heads N --dim D].
 *
 * Each repetition times a loop of nothing but multiply-adds and then the kernel, so that both see
 * the same clock and the same neighbours; the share is the median of the pairs. Useful work only:
 * 4 * D operations a kept query-key pair. Plans, of tiles of 64 and 128: eta = t_dense * density / t,
 * the median of pairs that alternate; a call that makes a residual: its time over a dense one's. */
#include "attention/kernels/kernels.h"
#include "model/base/arena.h"
#include "model/base/threads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MAX_REPS 400
#define MAX_THREADS 256

/* With one thread its processor time, which neighbours on a shared machine take nothing from. */
static double now(void)
{
    struct timespec t;
    clock_gettime(threads_count() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One unit of peak work for each thread; returns operations done a task. */
struct peak {
    const char *name;
    double flops; /* a task */
    void (*task)(void *ctx, int task, int worker);
};
static volatile float sink[MAX_THREADS];

static void peak_c(void *ctx, int task, int worker)
{
    float x[64];
    (void)ctx;
    (void)task;
    for (int j = 0; j < 64; j++)
        x[j] = (float)j;
    for (int i = 0; i < 20000; i++)
        for (int j = 0; j < 64; j++)
            x[j] = x[j] * .999f + .001f;
    for (int j = 1; j < 64; j++)
        x[0] += x[j];
    sink[worker] = x[0];
}
static const struct peak plain = {"C loop", 20000. * 64 * 2, peak_c};

#if defined(__x86_64__)
#define CHAINS 12 /* more than 4 cycles of latency at two a cycle; all in registers */
#define ROUNDS 40000
#define CHAIN_EACH _Pragma("GCC unroll 12") for (int j = 0; j < CHAINS; j++)
#define PEAK(fn, isa, vec, set, step, store, lanes)                                                \
    __attribute__((target(isa))) static void fn(void *ctx, int task, int worker)                   \
    {                                                                                              \
        vec x[CHAINS], a = set(.999f), b = set(.001f);                                             \
        float out[lanes];                                                                          \
        (void)ctx;                                                                                 \
        (void)task;                                                                                \
        CHAIN_EACH x[j] = set((float)j);                                                           \
        for (int i = 0; i < ROUNDS; i++) {                                                         \
            CHAIN_EACH x[j] = step(x[j], a, b);                                                    \
            __asm__ volatile("" : : "v"(x[0]));                                                    \
        }                                                                                          \
        CHAIN_EACH                                                                                 \
        {                                                                                          \
            store(out, x[j]);                                                                      \
            sink[worker] = sink[worker] + out[0];                                                  \
        }                                                                                          \
    }
#define STEP_DOT(x, a, b) _mm512_dpbf16_ps(x, (__m512bh)(a), (__m512bh)(b))
PEAK(peak_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps, 8)
PEAK(peak_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps, 16)
PEAK(peak_bf16, "avx512f,avx512bf16", __m512, _mm512_set1_ps, STEP_DOT, _mm512_storeu_ps, 16)
static const struct peak peaks_x86[] = {
    {"AVX2 FMA", (double)ROUNDS *CHAINS * 16, peak_avx2},
    {"AVX-512 FMA", (double)ROUNDS *CHAINS * 32, peak_avx512},
    {"vdpbf16ps", (double)ROUNDS *CHAINS * 64, peak_bf16},
};

__attribute__((target("amx-tile,amx-bf16"))) static void peak_amx_task(void *ctx, int task,
                                                                       int worker)
{
    static const unsigned char config[64] = {
        [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64,
        [26] = 64, [28] = 64, [30] = 64, [48] = 16, [49] = 16, [50] = 16,
        [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};
    (void)ctx;
    (void)task;
    (void)worker;
    _tile_loadconfig(config);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int i = 0; i < ROUNDS; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}
static const struct peak peak_amx = {"TDPBF16PS", (double)ROUNDS * 4 * 16 * 16 * 64, peak_amx_task};
#endif

static const struct peak *peak_of(const struct attn_kernel *k)
{
#if defined(__x86_64__)
    if (k->needs == CPU_AVX2) return &peaks_x86[0];
    if (k->needs == CPU_AVX512) return &peaks_x86[1];
    if (k->needs == CPU_AVX512_BF16) return &peaks_x86[2];
    if (k->needs == CPU_AMX) return &peak_amx;
#endif
    (void)k;
    return &plain;
}

static double peak_rate(const struct peak *p)
{
    int n = threads_count();
    double t = now();
    threads_run(n, p->task, NULL);
    return (double)n * p->flops / (now() - t);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct figures {
    double median, fastest, slowest, share, peak;
    int n;
};

static struct figures measure(const struct attn_kernel *k, const struct attn_job *w, double flops,
                              double seconds)
{
    double t[MAX_REPS], share[MAX_REPS], rate[MAX_REPS];
    const struct peak *p = peak_of(k);
    int n = 0;
    k->run(w); /* first touch of scratch */
    for (double end = now() + seconds; n < MAX_REPS && (n < 3 || now() < end); n++) {
        rate[n] = peak_rate(p);
        t[n] = now();
        k->run(w);
        t[n] = now() - t[n];
        share[n] = flops / t[n] / rate[n];
    }
    qsort(t, (size_t)n, sizeof *t, by_value);
    qsort(share, (size_t)n, sizeof *share, by_value);
    qsort(rate, (size_t)n, sizeof *rate, by_value);
    return (struct figures){t[n / 2], t[0], t[n - 1], share[n / 2], rate[n / 2], n};
}

struct shape {
    int len_q, len_k, heads, dim;
};

/* Random tiles and the diagonal, or a band. */
static void fill_plane(uint32_t *kept, const struct attn_plan *p, bool band, double density)
{
    int words = attn_words(p->k.n);
    uint64_t seed = 7;
    attn_plane_band(kept, p, band ? (int)(density * p->k.n / 2) : 0);
    for (int i = 0; !band && i < p->q.n * p->k.n; i++) {
        int tile = i % p->k.n;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        if ((double)(seed >> 11) * 0x1p-53 < density)
            kept[i / p->k.n * words + tile / 32] |= (uint32_t)1 << (tile % 32);
    }
}

struct bench {
    const struct attn_kernel *k;
    const struct shape *s;
    struct attn_job job;
    struct attn_plan plan; /* of job */
    uint32_t *kept;
    double flops, seconds, dense_share, dense_ms;
};

static void print_row(const struct bench *b, const char *what, int tile, double density,
                      const struct figures *f)
{
    char name[40];
    snprintf(name, sizeof name, tile ? "%s %d, %.3f" : "%s", what, tile, density);
    printf("%-11s %6d x %-6d %3d x %-4d %-22s %9.2f ms (%.2f to %.2f, n %d), %.3f of %s %.1f",
           b->k->name, b->s->len_q, b->s->len_k, b->s->heads, b->s->dim, name, f->median * 1e3,
           f->fastest * 1e3, f->slowest * 1e3, f->n, f->share, peak_of(b->k)->name, f->peak * 1e-9);
    fflush(stdout);
}

/* eta: both of pairs that alternate, so that both meet the same clock and neighbours. */
static void bench_plan(struct bench *b, const char *what, int tile, double density,
                       enum attn_out rule)
{
    struct attn_plan dense;
    struct err e = {0};
    if (attn_plan_dense(&dense, b->s->len_q, b->s->len_k, b->s->heads, &e) < 0 ||
        attn_blocks_equal(&b->plan.q, b->s->len_q, tile, &e) < 0 ||
        attn_blocks_equal(&b->plan.k, b->s->len_k, tile, &e) < 0)
        exit(e.code);
    fill_plane(b->kept, &b->plan, strcmp(what, "band") == 0, density);
    b->plan.rule = rule;
    density = attn_plan_density(&b->plan, b->s->len_k);
    struct attn_job whole = b->job;
    whole.plan = &dense;
    struct figures f = measure(b->k, &b->job, b->flops * density, b->seconds / 2);
    double ratio[MAX_REPS], end = now() + b->seconds / 2;
    int n = 0;
    for (; n < MAX_REPS && (n < 3 || now() < end); n++) {
        double t = now(), mine;
        b->k->run(&b->job);
        mine = now() - t;
        t = now();
        b->k->run(&whole);
        ratio[n] = mine / (now() - t);
    }
    qsort(ratio, (size_t)n, sizeof *ratio, by_value);
    print_row(b, what, tile, rule == ATTN_COMPUTE ? density : 1, &f);
    printf(rule == ATTN_COMPUTE ? ", eta %.3f\n" : ", %.3f of dense\n",
           rule == ATTN_COMPUTE ? density / ratio[n / 2] : ratio[n / 2]);
    b->plan.rule = ATTN_COMPUTE;
}

static void bench_shape(const struct attn_kernel *k, const struct shape *s,
                        enum precision precision, double seconds, bool sparse)
{
    struct attn_size size = {.len_q = s->len_q,
                             .len_k = s->len_k,
                             .n_heads = s->heads,
                             .head_dim = s->dim,
                             .rows = (s->len_q + 63) / 64,
                             .cols = (s->len_k + 63) / 64,
                             .threads = threads_count(),
                             .precision = precision,
                             .needs = ATTN_NEED_PLANES | ATTN_NEED_MAKE_RESIDUAL};
    struct arena count = {0}, arena = {0};
    struct err e = {0};
    struct bench b = {.k = k, .s = s, .seconds = seconds};
    if (!k->fits(&size)) return;
    float *x[5] = {0};
    void *scratch = NULL;
    for (struct arena *a = &count; a; a = a == &count ? &arena : NULL) {
        scratch = arena_take(a, k->scratch(&size));
        b.kept = arena_take(a, (size_t)size.rows * (size_t)attn_words(size.cols) * 4);
        for (int i = 0; i < 5; i++)
            x[i] = arena_take(a, (size_t)(i == 1 || i == 2 ? s->len_k : s->len_q) *
                                     (size_t)(s->heads * s->dim) * sizeof(float));
        if (a == &count && arena_open(&arena, count.used, &e) < 0) {
            printf("%s\n", e.msg);
            exit(e.code);
        }
    }
    uint64_t seed = 1;
    for (int i = 0; i < 3; i++)
        for (size_t n = 0; n < (size_t)(i ? s->len_k : s->len_q) * (size_t)(s->heads * s->dim);
             n++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            x[i][n] = bf16_round((float)(seed >> 40) * 0x1p-22f - 2);
        }
    if (attn_plan_dense(&b.plan, s->len_q, s->len_k, s->heads, &e) < 0) exit(e.code);
    b.job = (struct attn_job){.q = heads_f32(x[0], s->len_q, s->heads, s->dim),
                              .k = heads_f32(x[1], s->len_k, s->heads, s->dim),
                              .v = heads_f32(x[2], s->len_k, s->heads, s->dim),
                              .o = heads_f32(x[3], s->len_q, s->heads, s->dim),
                              .residual = heads_f32(x[4], s->len_q, s->heads, s->dim),
                              .plan = &b.plan,
                              .size = &size,
                              .scratch = scratch};
    b.flops = 4. * s->dim * s->heads * (double)s->len_q * s->len_k;
    struct figures dense = measure(k, &b.job, b.flops, seconds);
    print_row(&b, "dense", 0, 1, &dense);
    printf(", %.1f GFLOP/s\n", b.flops / dense.median * 1e-9);
    b.plan.all = false;
    b.plan.kept = b.kept;
    static const double densities[] = {.3, .1};
    for (int tile = 64; sparse && tile <= 128; tile += 64) {
        for (size_t i = 0; i < ARRAY_LEN(densities); i++)
            bench_plan(&b, "random", tile, densities[i], ATTN_COMPUTE);
        bench_plan(&b, "band", tile, .1, ATTN_COMPUTE);
        bench_plan(&b, "residual", tile, .1, ATTN_MAKE_RESIDUAL);
    }
    arena_close(&arena);
}

static const char *value_of(int argc, char **argv, const char *name, const char *fallback)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return fallback;
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {{2304, 2304, 5, 64},
                                          {2304, 2304, 5, 128},
                                          {2304, 13, 5, 64},
                                          {2304, 512, 5, 64},
                                          {1280, 1280, 12, 128}};
    const char *only = value_of(argc, argv, "--kernel", NULL);
    double seconds = atof(value_of(argc, argv, "--seconds", "1"));
    int threads = atoi(value_of(argc, argv, "--threads", "0")),
        len = atoi(value_of(argc, argv, "--len", "0"));
    enum precision precision = strcmp(value_of(argc, argv, "--precision", "fp32"), "bf16")
                                   ? PRECISION_FP32
                                   : PRECISION_BF16;
    struct cpu cpu;
    cpu_detect(&cpu);
    threads_set(threads > 0 ? threads : threads_probe());
    printf("%s, level %s, %d of %d processors, %s time; median (fastest to slowest); share of "
           "the peak of the same run\n",
           cpu.name, cpu_level_name(cpu.level), threads_count(), cpu.threads,
           threads_count() == 1 ? "processor" : "wall");
    for (int i = 0; i < attn_kernel_rows(); i++) {
        const struct attn_kernel *k = attn_kernel_row(i);
        if (only ? strcmp(only, k->name) != 0 : k->needs == CPU_REF) continue;
        if (k->needs > cpu.level) {
            printf("%s: skipped, needs %s\n", k->name, cpu_level_name(k->needs));
            continue;
        }
        struct shape own = {len, len, atoi(value_of(argc, argv, "--heads", "5")),
                            atoi(value_of(argc, argv, "--dim", "64"))};
        enum precision p = k->needs >= CPU_AVX512_BF16 ? PRECISION_BF16 : precision;
        if (len > 0) bench_shape(k, &own, p, seconds, true);
        for (size_t s = 0; len <= 0 && s < ARRAY_LEN(shapes); s++)
            bench_shape(k, &shapes[s], p, seconds, s == 0);
    }
    return 0;
}
