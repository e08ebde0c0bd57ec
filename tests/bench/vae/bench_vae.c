/* Seconds of a VAE decode on random latents, by level of the decoder.
 *
 *   bench_vae DIR [latent_frames height width threads repeats products]    sizes in latents
 *
 * products: own (ours, fp32), library (oneDNN's, fp32), bf16 (oneDNN's in bf16 where they are
 * faster), bf16-all (all oneDNN's, bf16).
 *
 * Prints one line a level and the total of the fastest repeat, with median and spread. */
#include "model/vae/vae_internal.h"

#include "model/base/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double level_seconds[VAE_MAX_LEVELS + 1];

static void watch(void *ctx, int level, double seconds)
{
    (void)ctx;
    level_seconds[level + 1] += seconds;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* of all threads: what is left to compare by on a machine that others use */
static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int drop(void *ctx, const float *rgb, int n, int h, int w, struct err *e)
{
    (void)rgb, (void)h, (void)w, (void)e;
    *(int *)ctx += n;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int number(int argc, char **argv, int i, int absent)
{
    return i < argc ? (int)strtol(argv[i], NULL, 10) : absent;
}

int main(int argc, char **argv)
{
    struct err e;
    struct vae *v;
    if (argc < 2) {
        fprintf(stderr,
                "usage: bench_vae DIR [latent_frames height width threads repeats products]\n");
        return 2;
    }
    int t = number(argc, argv, 2, 9), h = number(argc, argv, 3, 32), w = number(argc, argv, 4, 32);
    int threads = number(argc, argv, 5, threads_probe()), repeats = number(argc, argv, 6, 3);
    const char *products = argc > 7 ? argv[7] : "own";
    bool bf16 = strncmp(products, "bf16", 4) == 0;
    enum precision precision = bf16 ? PRECISION_BF16 : PRECISION_FP32;
    struct vae_choice choice = {
        .products = bf16                               ? PRODUCTS_LIBRARY_BF16
                    : strcmp(products, "library") == 0 ? PRODUCTS_LIBRARY_FP32
                                                       : PRODUCTS_OWN,
        .least = strcmp(products, "bf16") == 0 ? DIRECT_LEAST : 0,
    };
    threads_set(threads);
    if (repeats < 1 || repeats > 99) repeats = 3;
    setvbuf(stdout, NULL, _IOLBF, 0); /* lines survive a time limit */
    double t0 = now();
    size_t predicted;
    if (vae_open_with(&v, NULL, argv[1], VAE_DECODER, precision, &choice, NULL, &e) < 0) goto fail;
    if (vae_decode_bytes(&predicted, &v->config, NULL, precision, t, h, w, &e) < 0) goto fail;
    printf("%s, %s, products %s, %d threads: opened in %.2f s, %.1f MiB packed; %.1f MiB predicted "
           "in all\n",
           argv[1], v->on.kernels->name, products, threads, now() - t0,
           (double)v->weights.size / 1048576, (double)predicted / 1048576);
    size_t n = (size_t)v->config.z_dim * (size_t)t * (size_t)h * (size_t)w;
    float *z = malloc(n * sizeof *z);
    if (!z) return 4;
    for (size_t i = 0; i < n; i++)
        z[i] = (float)((i * 2654435761u) >> 8 & 0xffff) / 32768.0f - 1.0f;
    v->watch = watch;
    double all[99], best_levels[VAE_MAX_LEVELS + 1] = {0}, cpu = 1e9;
    int frames = 0;
    for (int r = 0; r < repeats; r++) {
        memset(level_seconds, 0, sizeof level_seconds);
        frames = 0;
        t0 = now();
        double c0 = cpu_now();
        if (vae_decode(v, z, t, h, w, drop, &frames, &e) < 0) goto fail;
        all[r] = now() - t0;
        cpu = cpu_now() - c0 < cpu ? cpu_now() - c0 : cpu;
        bool best = true;
        for (int i = 0; i < r; i++)
            best = best && all[r] <= all[i];
        if (best) memcpy(best_levels, level_seconds, sizeof best_levels);
    }
    qsort(all, (size_t)repeats, sizeof all[0], by_value);
    for (int i = 0; i <= v->config.n_levels; i++)
        printf("%-7s %d  %8.3f s\n", i ? "level" : "latents", i ? i - 1 : 0, best_levels[i]);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%d frames of %dx%d: median %.3f s, fastest %.3f, slowest %.3f, n = %d; %.3f processor "
           "seconds at best; peak %.1f MiB "
           "resident\n",
           frames, w * v->config.scale_spatial, h * v->config.scale_spatial, all[repeats / 2],
           all[0], all[repeats - 1], repeats, cpu, (double)usage.ru_maxrss / 1024);
    free(z);
    vae_close(v);
    return 0;
fail:
    fprintf(stderr, "bench_vae: %s\n", e.msg);
    return e.code;
}
