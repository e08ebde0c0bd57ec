/* Products over codes against the kernel that a run without them would take:
 * bench_codes [--kernel NAME] [--threads N] [--seconds S] [--len L] [--heads N] [--dim D].
 *
 * Each repetition times a dense call of both, one after the other, so that both meet the same clock
 * and the same neighbours; the ratio is the median of the pairs. Codes of q, k and v are made within
 * the call that is timed. Also how far o lies from the other's, relative L1, on normal numbers: the
 * pessimistic case (attention-kernels.md 9.1). */
#include "attention/kernels/kernels.h"
#include "model/base/arena.h"
#include "model/base/threads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_REPS 200

/* With one thread its processor time, which neighbours on a shared machine take nothing from. */
static double now(void)
{
    struct timespec t;
    clock_gettime(threads_count() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static float normal(uint64_t *seed)
{
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*seed >> 11) * 0x1p-53;
    }
    return (float)(sum - 6);
}

struct way {
    const char *name;
    enum attn_prec qk, pv;
    unsigned needs;
    struct attn_codes codes;
};
static const struct way ways[] = {
    {"qk int8", ATTN_PREC_INT8, ATTN_PREC_RUN, ATTN_NEED_QK_INT8, {.smooth_k = true}},
    {"qk int8, pv int8",
     ATTN_PREC_INT8,
     ATTN_PREC_INT8,
     ATTN_NEED_QK_INT8 | ATTN_NEED_PV_INT8,
     {.smooth_k = true}},
    {"qk int8 rotated, pv int8",
     ATTN_PREC_INT8,
     ATTN_PREC_INT8,
     ATTN_NEED_QK_INT8 | ATTN_NEED_PV_INT8,
     {.smooth_k = true, .rotate = true}},
    {"qk int4, pv int8",
     ATTN_PREC_INT4,
     ATTN_PREC_INT8,
     ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8,
     {.smooth_k = true}},
    {"qk int4 smooth q, pv int8",
     ATTN_PREC_INT4,
     ATTN_PREC_INT8,
     ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8 | ATTN_NEED_SMOOTH_Q,
     {.smooth_k = true, .smooth_q = true}},
    {"qk int8, pv fp8",
     ATTN_PREC_INT8,
     ATTN_PREC_FP8,
     ATTN_NEED_QK_INT8 | ATTN_NEED_PV_FP8,
     {.smooth_k = true}},
};

struct bench {
    struct attn_size size;
    float *x[5]; /* q k v, o of the rival, o */
    void *scratch, *rival_scratch;
    double seconds;
};

static double one(const struct attn_kernel *k, const struct attn_job *j)
{
    double t = now();
    k->run(j);
    return now() - t;
}

static void bench_way(const struct bench *b, const struct attn_kernel *k,
                      const struct attn_kernel *rival, const struct way *w)
{
    struct attn_plan dense, plan;
    struct err e = {0};
    const struct attn_size *s = &b->size;
    if (attn_plan_dense(&dense, s->len_q, s->len_k, s->n_heads, &e) < 0) exit(e.code);
    plan = dense;
    plan.qk = w->qk;
    plan.pv = w->pv;
    plan.codes = w->codes;
    struct attn_job j = {.q = heads_f32(b->x[0], s->len_q, s->n_heads, s->head_dim),
                         .k = heads_f32(b->x[1], s->len_k, s->n_heads, s->head_dim),
                         .v = heads_f32(b->x[2], s->len_k, s->n_heads, s->head_dim),
                         .o = heads_f32(b->x[4], s->len_q, s->n_heads, s->head_dim),
                         .plan = &plan,
                         .size = s,
                         .scratch = b->scratch};
    struct attn_job other = j;
    other.plan = &dense;
    other.o.at = b->x[3];
    other.scratch = b->rival_scratch;
    double ratio[MAX_REPS], mine[MAX_REPS], theirs[MAX_REPS], off = 0, all = 0;
    int n = 0;
    k->run(&j); /* first touch of scratch */
    rival->run(&other);
    for (double end = now() + b->seconds; n < MAX_REPS && (n < 5 || now() < end); n++) {
        mine[n] = one(k, &j);
        theirs[n] = one(rival, &other);
        ratio[n] = theirs[n] / mine[n];
    }
    qsort(ratio, (size_t)n, sizeof *ratio, by_value);
    qsort(mine, (size_t)n, sizeof *mine, by_value);
    qsort(theirs, (size_t)n, sizeof *theirs, by_value);
    for (size_t i = 0; i < (size_t)s->len_q * (size_t)(s->n_heads * s->head_dim); i++) {
        off += fabs((double)b->x[4][i] - (double)b->x[3][i]);
        all += fabs((double)b->x[3][i]);
    }
    printf("%-12s %5d x %d x %-4d %-5s %-26s %9.2f ms, %-11s %9.2f ms: %.2f x (%.2f to %.2f, n "
           "%d), relative L1 %.4f\n",
           k->name, s->len_k, s->n_heads, s->head_dim, precision_name(s->precision), w->name,
           mine[n / 2] * 1e3, rival->name, theirs[n / 2] * 1e3, ratio[n / 2], ratio[0],
           ratio[n - 1], n, off / all);
    fflush(stdout);
}

static void bench_shape(const struct attn_kernel *k, const struct cpu *cpu,
                        enum precision precision, int len, int heads, int dim, double seconds)
{
    struct bench b = {.size = {.len_q = len,
                               .len_k = len,
                               .n_heads = heads,
                               .head_dim = dim,
                               .threads = threads_count(),
                               .precision = precision,
                               .needs = ATTN_NEED_LOW & k->can},
                      .seconds = seconds};
    struct attn_size plain = b.size;
    struct arena count = {0}, arena = {0};
    struct err e = {0};
    plain.needs = 0;
    const struct attn_kernel *rival = attn_kernel_pick(&plain, cpu, NULL, &e);
    if (!rival || !k->fits(&b.size)) return;
    size_t n = (size_t)len * (size_t)(heads * dim);
    for (struct arena *a = &count; a; a = a == &count ? &arena : NULL) {
        b.scratch = arena_take(a, k->scratch(&b.size));
        b.rival_scratch = arena_take(a, rival->scratch(&plain));
        for (int i = 0; i < 5; i++)
            b.x[i] = arena_take(a, n * sizeof(float));
        if (a == &count && arena_open(&arena, count.used, &e) < 0) {
            printf("%s\n", e.msg);
            exit(e.code);
        }
    }
    uint64_t seed = 1;
    for (int i = 0; i < 3; i++)
        for (size_t at = 0; at < n; at++)
            b.x[i][at] = bf16_round(normal(&seed));
    for (size_t i = 0; i < ARRAY_LEN(ways); i++)
        if (!(ways[i].needs & ~k->can)) bench_way(&b, k, rival, &ways[i]);
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
    const char *only = value_of(argc, argv, "--kernel", NULL);
    double seconds = atof(value_of(argc, argv, "--seconds", "2"));
    int threads = atoi(value_of(argc, argv, "--threads", "0")),
        len = atoi(value_of(argc, argv, "--len", "8192")),
        heads = atoi(value_of(argc, argv, "--heads", "1")),
        only_dim = atoi(value_of(argc, argv, "--dim", "0"));
    struct cpu cpu;
    struct err e = {0};
    if (cpu_cap(value_of(argc, argv, "--device", "cpu"), &e) < 0) {
        printf("%s\n", e.msg);
        return e.code;
    }
    cpu_detect(&cpu);
    threads_set(threads > 0 ? threads : threads_probe());
    printf("%s, level %s, %d of %d processors, %s time; medians of pairs that alternate\n",
           cpu.name, cpu_level_name(cpu.level), threads_count(), cpu.threads,
           threads_count() == 1 ? "processor" : "wall");
    for (int i = 0; i < attn_kernel_rows(); i++) {
        const struct attn_kernel *k = attn_kernel_row(i);
        if (!(k->can & ATTN_NEED_QK_INT8)) continue;
        if (only ? strcmp(only, k->name) != 0 : k->needs == CPU_REF) continue;
        if (k->needs > cpu.level) {
            printf("%s: skipped, needs %s\n", k->name, cpu_level_name(k->needs));
            continue;
        }
        for (int dim = 64; dim <= 128; dim += 64)
            for (int p = 0; p < 2; p++) {
                enum precision precision = p ? PRECISION_BF16 : PRECISION_FP32;
                if (only_dim && dim != only_dim) continue;
                if (p && cpu.level < CPU_AVX512_BF16) continue;
                bench_shape(k, &cpu, precision, len, heads, dim, seconds);
            }
    }
    return 0;
}
