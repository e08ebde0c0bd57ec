/* Seconds of the VAE's convolutions: ours (Winograd in fp32) and the library's plain sums, one
 * program, alternating rounds.
 *
 *   bench_conv [base_dim size threads rounds]     24 256: the embedded model; 96 256: Wan 2.1
 *
 * A call makes 4 frames from 6. "products" is the library alone; the rest of its call narrows the
 * inputs and finishes the sums (bias, norm, SiLU). GFLOP/s are nominal: those of plain sums. */
#include "model/ops/cpu/frames/conv.h"

#include "model/base/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define FRAMES 4
#define MAX_ROUNDS 99

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_value);
    return t[n / 2];
}

struct variant {
    struct direct_set set;
    struct conv c;
    struct arena arena;
    float *src[FRAMES + 2], *x[FRAMES], *norm[FRAMES], *scratch;
    float *y; /* of the products alone, and their scratch */
    void *pad;
    size_t stride;
    double seconds[MAX_ROUNDS], products[MAX_ROUNDS];
};

static void frames(float **list, int n, const struct frame_size *s, struct arena *a)
{
    for (int i = 0; i < n; i++) {
        list[i] = arena_take(a, frame_floats(s) * sizeof(float));
        if (list[i]) frame_clear_border(list[i], s);
    }
}

static void take(struct variant *v, const struct conv_shape *s, const struct vae_kernels *k,
                 struct frame_size in, struct frame_size out, int threads, struct arena *a)
{
    conv_carve(&v->c, s, k, &v->set, a);
    frames(v->src, FRAMES + 2, &in, a);
    frames(v->x, FRAMES, &out, a);
    frames(v->norm, FRAMES, &out, a);
    v->stride = (conv_scratch(&v->c, &out, FRAMES, threads) + 31) / 32 * 32 + 16;
    v->scratch = arena_take(a, v->stride * (size_t)threads * sizeof(float));
    if (v->set.products == PRODUCTS_OWN) return;
    struct conv3d_params p = {s->in, s->out, s->kt, s->ks,
                              1,     out.h,  out.w, v->set.products == PRODUCTS_LIBRARY_BF16};
    p.in = pad_channels(p.in), p.out = out.channels;
    v->y = arena_take(a, (size_t)(out.h * out.w) * (size_t)out.channels * sizeof(float));
    v->pad = arena_take(a, conv3d_scratch_bytes(&p));
}

static int open_variant(struct variant *v, enum products p, const struct conv_shape *s,
                        const struct vae_kernels *k, struct frame_size in, struct frame_size out,
                        int threads, struct err *e)
{
    struct arena count = {0};
    size_t n = (size_t)s->out * (size_t)s->in * (size_t)(s->kt * s->ks * s->ks);
    v->set = (struct direct_set){.products = p};
    take(v, s, k, in, out, threads, &count);
    if (arena_open(&v->arena, count.used, e) < 0) return -1;
    arena_huge_pages(&v->arena);
    take(v, s, k, in, out, threads, &v->arena);
    float *w = malloc(n * sizeof *w);
    if (!w) return err_set(e, ERR_RESOURCE, "no memory for weights");
    for (size_t i = 0; i < n; i++) /* bf16 numbers, so that every variant sums the same */
        w[i] = bf16_round((float)((i * 2654435761u) >> 8 & 0xff) / 2048.0f - 0.0625f);
    for (int f = 0; f < FRAMES + 2; f++)
        for (int y = 0; y < in.h; y++)
            for (int i = 0; i < in.w * in.channels; i++)
                v->src[f][frame_at(&in, y, 0) + i] = (float)((i * 7 + y * 13 + f) % 61) / 32 - 1;
    conv_pack(&v->c, w, w);
    free(w);
    return 0;
}

static int run_round(struct variant *v, struct frame_size in, struct frame_size out, int threads,
                     int round, struct err *e)
{
    struct conv_call call = {.src = (const float *const *)v->src,
                             .in = in,
                             .out = out,
                             .frames = FRAMES,
                             .x = v->x,
                             .norm = v->norm,
                             .gamma = v->c.bias,
                             .silu = true};
    double t0 = now();
    conv_run(&v->c, &call, v->scratch, v->stride, threads);
    double t1 = now();
    if (v->set.error.code != ERR_NONE) {
        *e = v->set.error;
        return -1;
    }
    if (round >= 0) v->seconds[round] = t1 - t0;
    if (v->set.products == PRODUCTS_OWN) return 0;
    t0 = now();
    for (int f = 0; f < FRAMES; f++)
        if (conv3d_run(v->c.direct->conv, v->y, v->scratch, v->pad, e) < 0) return -1;
    if (round >= 0) v->products[round] = now() - t0;
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"ours fp32", "library fp32", "library bf16"};
    int base = argc > 1 ? atoi(argv[1]) : 24, size = argc > 2 ? atoi(argv[2]) : 256;
    int threads = argc > 3 ? atoi(argv[3]) : threads_probe(), rounds = argc > 4 ? atoi(argv[4]) : 5;
    if (base < 1 || size < 64 || threads < 1 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_conv [base_dim size threads rounds]\n");
        return 2;
    }
    struct err e;
    struct cpu cpu;
    cpu_detect(&cpu);
    const struct vae_kernels *k = vae_kernels_pick(&cpu, NULL);
    threads_set(threads);
    setvbuf(stdout, NULL, _IOLBF, 0); /* lines survive a time limit */
    struct {
        struct conv_shape s;
        int size; /* of the output */
    } shapes[] = {
        {{4 * base, 4 * base, 3, 3, 1, 1, false}, size / 8},
        {{4 * base, 2 * base, 1, 3, 1, 1, true}, size / 4},
        {{4 * base, 4 * base, 3, 3, 1, 1, false}, size / 4},
        {{4 * base, 2 * base, 1, 3, 1, 1, true}, size / 2},
        {{2 * base, 2 * base, 3, 3, 1, 1, false}, size / 2},
        {{2 * base, base, 1, 3, 1, 1, true}, size},
        {{base, base, 3, 3, 1, 1, false}, size},
        {{base, 3, 3, 3, 1, 1, false}, size},
        {{4 * base, 4 * base, 3, 1, 1, 1, false}, size / 4},
    };
    printf("%s, %s, %d threads, medians of %d rounds, %d frames a call\n", cpu.name, k->name,
           threads, rounds, FRAMES);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        const struct conv_shape *s = &shapes[i].s;
        int half = s->up ? 2 : 1, side = shapes[i].size;
        struct frame_size in = frame_size(side / half, side / half, s->in),
                          out = frame_size(side, side, s->out);
        struct variant *v[3] = {NULL};
        for (int p = 0; p < 3; p++) {
            if (p != PRODUCTS_OWN && !conv3d_available(p == PRODUCTS_LIBRARY_BF16)) continue;
            v[p] = calloc(1, sizeof *v[p]);
            if (!v[p] || open_variant(v[p], (enum products)p, s, k, in, out, threads, &e) < 0)
                goto fail;
        }
        for (int r = -1; r < rounds; r++)
            for (int p = 0; p < 3; p++)
                if (v[p] && run_round(v[p], in, out, threads, r, &e) < 0) goto fail;
        double flop = 2.0 * FRAMES * side * side * s->in * s->out * s->kt * s->ks * s->ks;
        printf("%3d→%-3d %dx%dx%d%s %dx%d", s->in, s->out, s->kt, s->ks, s->ks,
               s->up ? " doubled" : "", side, side);
        for (int p = 0; p < 3; p++) {
            if (!v[p]) continue;
            double t = median(v[p]->seconds, rounds);
            printf("; %s %.2f ms, %.0f GFLOP/s", names[p], 1e3 * t, flop / t / 1e9);
            if (p) printf(" (products %.2f ms)", 1e3 * median(v[p]->products, rounds));
            direct_set_close(&v[p]->set);
            arena_close(&v[p]->arena);
            free(v[p]);
        }
        printf("\n");
    }
    return 0;
fail:
    fprintf(stderr, "bench_conv: %s\n", e.msg);
    return e.code;
}
