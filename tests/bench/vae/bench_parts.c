/* Text encoder and VAE on a device: the same as on the host, and how fast.
 *
 *   bench_parts DEVICE check TEXT_DIR VAE_DIR                      against the host, fp32 and bf16
 *   bench_parts DEVICE decode|encode VAE_DIR frames height width [repeats precision]   sizes in latents
 *   bench_parts DEVICE text TEXT_DIR tokens [repeats precision]
 *
 * Times are the caller's, pictures as bytes in its memory; peak is of the device's memory, beside what was
 * predicted for it. Exit 1 where a check fails. */
#include "model/text/text.h"
#include "model/vae/vae.h"

#include "model/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct err e;

static int fail(void)
{
    fprintf(stderr, "bench_parts: %s\n", e.msg);
    return (int)e.code;
}

static float *latents_of(const struct vae_config *c, int t, int h, int w)
{
    size_t n = (size_t)c->z_dim * (size_t)t * (size_t)h * (size_t)w;
    float *z = malloc(n * sizeof *z);
    for (size_t i = 0; z && i < n; i++)
        z[i] = (float)((i * 2654435761u) >> 8 & 0xffff) / 32768.0f - 1.0f;
    return z;
}

struct kept {
    float *rgb;
    size_t n, room;
    int frames;
};

static int keep(void *ctx, const float *rgb, int n, int h, int w, struct err *why)
{
    struct kept *k = ctx;
    size_t len = (size_t)n * (size_t)h * (size_t)w * 3;
    (void)why;
    if (k->n + len <= k->room) memcpy(k->rgb + k->n, rgb, len * sizeof *rgb);
    k->n += len;
    k->frames += n;
    return 0;
}

static int drop(void *ctx, const uint8_t *rgb, int n, int h, int w, struct err *why)
{
    (void)h, (void)w, (void)why;
    *(unsigned *)ctx = *(unsigned *)ctx * 31 + rgb[0];
    return n < 0;
}

/* 10 log10(range² / mean square), of numbers whose range is 2 */
static double decibels(const float *a, const float *b, size_t n, double range)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += pow((double)a[i] - (double)b[i], 2);
    return 10 * log10(range * range * (double)n / (sum + 1e-300));
}

static bool wanted(const char *what, double got, double least)
{
    printf("%-44s %7.1f dB, wanted %.0f: %s\n", what, got, least, got >= least ? "met" : "MISSED");
    return got >= least;
}

enum { T = 3, H = 10, W = 14 };

/* Decodes and encodes, each on both; the host's fp32 is the judge. */
static bool check_vae(struct device *d, const char *dir, enum precision p)
{
    struct vae *host, *away;
    const char *name = precision_name(p);
    int parts = VAE_DECODER | VAE_ENCODER;
    char what[96];
    if (vae_open(&host, NULL, dir, parts, PRECISION_FP32, NULL, &e) < 0 ||
        vae_open(&away, d, dir, parts, p, NULL, &e) < 0)
        return fail(), false;
    const struct vae_config *c = vae_config_of(host);
    int frames = 1 + (T - 1) * c->scale_temporal, h = H * c->scale_spatial,
        w = W * c->scale_spatial;
    size_t n = (size_t)frames * (size_t)h * (size_t)w * 3, n_z = (size_t)c->z_dim * T * H * W;
    float *z = latents_of(c, T, H, W), *back[2] = {malloc(n_z * 4), malloc(n_z * 4)};
    struct kept k[2] = {{malloc(n * 4), 0, n, 0}, {malloc(n * 4), 0, n, 0}};
    bool fine = false;
    if (vae_decode(host, z, T, H, W, keep, &k[0], &e) < 0 ||
        vae_decode(away, z, T, H, W, keep, &k[1], &e) < 0 ||
        vae_encode(host, back[0], k[0].rgb, frames, h, w, &e) < 0 ||
        vae_encode(away, back[1], k[0].rgb, frames, h, w, &e) < 0) {
        fail();
        goto done;
    }
    double most = 0;
    for (size_t i = 0; i < n_z; i++)
        most = fmax(most, fabs((double)back[0][i]));
    snprintf(what, sizeof what, "%s: decoded %dx%d, %d frames", name, w, h, k[1].frames);
    fine = k[1].n == n &&
           wanted(what, decibels(k[1].rgb, k[0].rgb, n, 2), p == PRECISION_FP32 ? 90 : 45);
    snprintf(what, sizeof what, "%s: encoded", name);
    fine &= wanted(what, decibels(back[1], back[0], n_z, 2 * most), p == PRECISION_FP32 ? 90 : 40);
done:
    vae_close(host);
    vae_close(away);
    free(z), free(back[0]), free(back[1]), free(k[0].rgb), free(k[1].rgb);
    return fine;
}

static bool check_text(struct device *d, const char *dir, enum precision p)
{
    enum { TOKENS = 37 };
    struct umt5_config c;
    struct umt5 *host, *away;
    int ids[TOKENS];
    char path[4096], what[96];
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (umt5_config_read(&c, path, &e) < 0 ||
        umt5_open(&host, NULL, dir, PRECISION_FP32, NULL, &e) < 0 ||
        umt5_open(&away, d, dir, p, NULL, &e) < 0)
        return fail(), false;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 97 + 5) % c.vocab_size;
    size_t n = TOKENS * (size_t)c.d_model;
    float *a = malloc(n * 4), *b = malloc(n * 4);
    bool fine = false;
    double most = 0;
    if (umt5_encode(host, a, ids, TOKENS, NULL, NULL, &e) < 0 ||
        umt5_encode(away, b, ids, TOKENS, NULL, NULL, &e) < 0)
        fail();
    else {
        for (size_t i = 0; i < n; i++)
            most = fmax(most, fabs((double)a[i]));
        snprintf(what, sizeof what, "%s: text, %d tokens", precision_name(p), TOKENS);
        fine = wanted(what, decibels(b, a, n, 2 * most), p == PRECISION_FP32 ? 90 : 40);
    }
    umt5_close(host);
    umt5_close(away);
    free(a), free(b);
    return fine;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(struct device *d, const char *what, double *t, int n, size_t predicted)
{
    qsort(t, (size_t)n, sizeof *t, by_value);
    printf("%s: median %.4f s, fastest %.4f, slowest %.4f, n = %d; peak %.1f MiB, predicted %.1f\n",
           what, t[n / 2], t[0], t[n - 1], n, (double)device_peak(d) / 1048576,
           (double)predicted / 1048576);
}

static int time_vae(struct device *d, bool decoding, char **a, int repeats, enum precision p)
{
    struct vae *v;
    int t = atoi(a[1]), h = atoi(a[2]), w = atoi(a[3]);
    size_t predicted;
    unsigned sum = 0;
    double took[99];
    if (vae_open(&v, d, a[0], decoding ? VAE_DECODER : VAE_ENCODER, p, NULL, &e) < 0) return fail();
    const struct vae_config *c = vae_config_of(v);
    int frames = 1 + (t - 1) * c->scale_temporal, height = h * c->scale_spatial,
        width = w * c->scale_spatial;
    float *z = latents_of(c, t, h, w);
    float *rgb = decoding ? NULL : calloc((size_t)frames * (size_t)height * (size_t)width * 3, 4);
    int rc = decoding ? vae_decode_bytes(&predicted, c, d, p, t, h, w, &e)
                      : vae_encode_bytes(&predicted, c, d, p, frames, height, width, &e);
    for (int i = 0; i < repeats && rc == 0; i++) {
        double t0 = clock_seconds();
        rc = decoding ? vae_decode_pictures(v, z, t, h, w, false, drop, &sum, &e)
                      : vae_encode(v, z, rgb, frames, height, width, &e);
        took[i] = clock_seconds() - t0;
    }
    if (rc == 0) report(d, decoding ? "decode" : "encode", took, repeats, predicted);
    vae_close(v);
    free(z), free(rgb);
    return rc < 0 ? fail() : 0;
}

static int time_text(struct device *d, char **a, int repeats, enum precision p)
{
    struct umt5_config c;
    struct umt5 *u;
    char path[4096];
    double took[99], t0 = clock_seconds();
    int n = atoi(a[1]), rc = 0, *ids = calloc((size_t)n, sizeof *ids);
    snprintf(path, sizeof path, "%s/config.json", a[0]);
    if (umt5_config_read(&c, path, &e) < 0 || umt5_open(&u, d, a[0], p, NULL, &e) < 0)
        return fail();
    printf("opened in %.2f s\n", clock_seconds() - t0);
    float *embeds = malloc((size_t)n * (size_t)c.d_model * sizeof *embeds);
    for (int i = 0; i < n; i++)
        ids[i] = (i * 97 + 5) % c.vocab_size;
    for (int i = 0; i < repeats && rc == 0; i++) {
        t0 = clock_seconds();
        rc = umt5_encode(u, embeds, ids, n, NULL, NULL, &e);
        took[i] = clock_seconds() - t0;
    }
    if (rc == 0) report(d, "text", took, repeats, umt5_bytes(&c, d, p, n));
    umt5_close(u);
    free(embeds), free(ids);
    return rc < 0 ? fail() : 0;
}

int main(int argc, char **argv)
{
    struct device *d;
    const char *what = argc > 3 ? argv[2] : "";
    int least = strcmp(what, "check") == 0 ? 5 : strcmp(what, "text") == 0 ? 5 : 7;
    if (argc < least) {
        fprintf(stderr, "usage: bench_parts DEVICE check TEXT_DIR VAE_DIR | DEVICE decode|encode "
                        "VAE_DIR frames height width [repeats precision] | DEVICE text TEXT_DIR "
                        "tokens [repeats precision]\n");
        return 2;
    }
    int repeats = argc > least ? atoi(argv[least]) : 5, rc = 0;
    enum precision p =
        argc > least + 1 && strcmp(argv[least + 1], "fp32") == 0 ? PRECISION_FP32 : PRECISION_BF16;
    if (repeats < 1 || repeats > 99) repeats = 5;
    if (device_open(&d, argv[1], &e) < 0) return fail();
    if (strcmp(what, "check") == 0) {
        for (int i = 0; i < 2; i++) {
            enum precision each = i ? PRECISION_BF16 : PRECISION_FP32;
            if (!check_text(d, argv[3], each)) rc = 1;
            if (!check_vae(d, argv[4], each)) rc = 1;
        }
    } else if (strcmp(what, "text") == 0) {
        rc = time_text(d, argv + 3, repeats, p);
    } else {
        rc = time_vae(d, strcmp(what, "decode") == 0, argv + 3, repeats, p);
    }
    device_close(d);
    return rc;
}
