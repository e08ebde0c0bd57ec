/* The VAE on a device that nobody else can compute for: the host's numbers to the bit, pictures as bytes,
 * the memory that was predicted, layers named where numbers end, memory that runs out at every
 * allocation. */
#include "model/vae/vae_internal.h"

#include "tests/check.h"
#include "tests/fake/fake.h"
#include "tests/golden/tiny.h"

#define CHECK_ERR(call) CHECK_MSG((call) == 0, "%s", e->msg)

enum { T = 3, H = 4, W = 6, PICTURES = 9 };

struct kept {
    float *rgb;
    uint8_t *bytes;
    size_t n;
    int calls;
};

static int keep(void *ctx, const float *rgb, int n, int h, int w, struct err *e)
{
    struct kept *k = ctx;
    size_t len = (size_t)n * (size_t)h * (size_t)w * 3;
    (void)e;
    memcpy(k->rgb + k->n, rgb, len * sizeof *rgb);
    k->n += len;
    k->calls++;
    return 0;
}

static int keep_bytes(void *ctx, const uint8_t *rgb, int n, int h, int w, struct err *e)
{
    struct kept *k = ctx;
    size_t len = (size_t)n * (size_t)h * (size_t)w * 3;
    (void)e;
    memcpy(k->bytes + k->n, rgb, len);
    k->n += len;
    k->calls++;
    return 0;
}

static int stop(void *ctx, const uint8_t *rgb, int n, int h, int w, struct err *e)
{
    (void)rgb, (void)n, (void)h, (void)w, (void)e;
    return ++*(int *)ctx;
}

static const char *dir_of(const char *name)
{
    static char dir[1024];
    snprintf(dir, sizeof dir, "%s/assets/%s/vae", TEST_SOURCE_DIR, name);
    return dir;
}

static struct vae *open_on(struct device *d, enum precision p, struct err *e)
{
    struct vae *v = NULL;
    struct vae_choice own = {NULL, PRODUCTS_OWN, 0};
    int parts = VAE_DECODER | VAE_ENCODER;
    CHECK_ERR(vae_open_with(&v, d, dir_of("emoji"), parts, p, &own, NULL, e));
    return v;
}

static void same_as_host(struct device *d, enum precision p, struct err *e)
{
    struct vae *host = open_on(NULL, p, e), *away = open_on(d, p, e);
    if (!host || !away) goto done;
    const struct vae_config *c = vae_config_of(host);
    int h = H * c->scale_spatial, w = W * c->scale_spatial;
    size_t n_z = (size_t)(c->z_dim * T * H * W), n = (size_t)(PICTURES * h * w * 3), bytes;
    float *z = malloc(n_z * 4), *back[2] = {malloc(n_z * 4), malloc(n_z * 4)};
    struct kept a = {malloc(n * 4), malloc(n), 0, 0}, b = {malloc(n * 4), malloc(n), 0, 0};
    tiny_fill(z, n_z, "latents", 1.0, 0.0);
    CHECK_ERR(vae_decode(host, z, T, H, W, keep, &a, e));
    CHECK_ERR(vae_encode(host, back[0], a.rgb, PICTURES, h, w, e));
    fake_guard(true);
    CHECK_ERR(vae_decode(away, z, T, H, W, keep, &b, e));
    CHECK_ERR(vae_encode(away, back[1], a.rgb, PICTURES, h, w, e));
    fake_guard(false);
    CHECK(a.n == n && b.n == n && memcmp(a.rgb, b.rgb, n * 4) == 0);
    CHECK(memcmp(back[0], back[1], n_z * 4) == 0);
    for (int truncate = 0; truncate < 2; truncate++) {
        a.n = b.n = 0;
        device_peak_reset(d);
        size_t before = device_held(d);
        CHECK_ERR(vae_decode_pictures(host, z, T, H, W, truncate, keep_bytes, &a, e));
        fake_guard(true);
        CHECK_ERR(vae_decode_pictures(away, z, T, H, W, truncate, keep_bytes, &b, e));
        fake_guard(false);
        CHECK(a.n == n && b.n == n && memcmp(a.bytes, b.bytes, n) == 0);
        int bad = 0;
        for (size_t i = 0; i < n; i++) {
            float y = a.rgb[i] * 0.5f + 0.5f;
            bad += a.bytes[i] != (uint8_t)(truncate ? y * 255.0f : nearbyintf(y * 255.0f));
        }
        CHECK_MSG(bad == 0, "%d bytes are not the numbers'", bad);
        /* the peak of a decode, beside what both halves keep; the decoder's weights are in both */
        struct vae_config only = *c;
        CHECK_ERR(vae_decode_bytes(&bytes, &only, d, p, T, H, W, e));
        CHECK_MSG(device_peak(d) > before && device_peak(d) - before < bytes &&
                      bytes < device_peak(d),
                  "%zu bytes predicted, %zu beside %zu taken", bytes, device_peak(d), before);
    }
    int seen = 0;
    CHECK(vae_decode_pictures(away, z, T, H, W, false, stop, &seen, e) < 0 &&
          e->code == ERR_CANCELLED && seen == 1);
    long counts[DEVICE_OPS];
    device_counts(d, counts);
    CHECK(counts[OP_FRAMES] > 0);
    free(z), free(back[0]), free(back[1]);
    free(a.rgb), free(a.bytes), free(b.rgb), free(b.bytes);
done:
    vae_close(host);
    vae_close(away);
}

/* A weight that is no number: the layer is named, and where it was computed. */
static void named(struct device *d, struct err *e)
{
    char said[2][sizeof e->msg];
    for (int i = 0; i < 2; i++) {
        struct vae *v = open_on(i ? d : NULL, PRECISION_FP32, e);
        float z[16 * T * H * W], nan = NAN, *gamma = v->decoder->levels[1].resnets[0].gamma2;
        struct kept k = {malloc((size_t)(PICTURES * 8 * H * 8 * W * 3) * 4), NULL, 0, 0};
        tiny_fill(z, ARRAY_LEN(z), "latents", 1.0, 0.0);
        v->on.ops->put(&v->on, gamma + 3, &nan, 1);
        CHECK(vae_decode(v, z, T, H, W, keep, &k, e) < 0 && e->code == ERR_INPUT);
        memcpy(said[i], e->msg, sizeof e->msg);
        free(k.rgb);
        vae_close(v);
    }
    for (int i = 0; i < 2; i++)
        CHECK(strstr(said[i], "decoder.up_blocks.1.resnets.0 gives values that are no numbers") &&
              strstr(said[i], i ? "(on fake:0)" : "(on cpu)"));
}

/* Each allocation of the device in turn: a sentence, nothing left behind. */
static void out_of_memory(struct device *d, struct err *e)
{
    struct vae_choice own = {NULL, PRODUCTS_OWN, 0};
    float z[16 * T * H * W];
    struct kept k = {malloc((size_t)(PICTURES * 8 * H * 8 * W * 3) * 4), NULL, 0, 0};
    int fails = 0, n = 1;
    tiny_fill(z, ARRAY_LEN(z), "latents", 1.0, 0.0);
    for (bool done = false; !done && n < 20; n++) {
        struct vae *v = NULL;
        size_t before = device_held(d);
        d->fail_alloc = n;
        int rc = vae_open_with(&v, d, dir_of("emoji"), VAE_DECODER, PRECISION_FP32, &own, NULL, e);
        k.n = 0;
        if (rc == 0) rc = vae_decode(v, z, T, H, W, keep, &k, e);
        done = d->fail_alloc > 0;
        d->fail_alloc = 0;
        CHECK(done == (rc == 0) && (done || e->code == ERR_RESOURCE));
        fails += rc < 0;
        vae_close(v);
        CHECK(device_held(d) == before);
    }
    CHECK_MSG(fails >= 2, "%d allocations failed", fails);
    free(k.rgb);
}

int main(void)
{
    struct device *d;
    struct err e = {0};
    CHECK_OK(fake_open(&d, false, &e));
    same_as_host(d, PRECISION_FP32, &e);
    same_as_host(d, PRECISION_BF16_EMULATED, &e);
    named(d, &e);
    out_of_memory(d, &e);
    CHECK(device_held(d) == 0);
    device_close(d);
    return TEST_RESULT();
}
