/* Decode and encode against diffusers (tests/golden/make_vae.py), in every instruction set that
 * runs here and by the library's products; bf16 against fp32; memory that does not grow with the
 * clip; what is refused. */
#include "model/vae/vae_internal.h"

#include "model/base/file_map.h"
#include "model/base/threads.h"
#include "tests/check.h"
#include "tests/golden/golden.h"
#include "tests/golden/tiny.h"

#define TOLERANCE 1e-5 /* relative L2, fp32: the promise of wan.md section 10 */

static const char *const kernel_names[] = {"ref", "avx2", "avx512"};

struct frames {
    float *rgb;
    size_t len, cap;
    int calls, most; /* frames of the largest call */
    int stop_after; /* calls; 0: never */
};

static int collect(void *ctx, const float *rgb, int n, int height, int width, struct err *e)
{
    struct frames *f = ctx;
    size_t len = (size_t)n * (size_t)height * (size_t)width * 3;
    (void)e;
    f->calls++;
    if (n > f->most) f->most = n;
    if (f->len + len > f->cap) {
        f->cap = 2 * (f->len + len);
        f->rgb = realloc(f->rgb, f->cap * sizeof *f->rgb);
    }
    memcpy(f->rgb + f->len, rgb, len * sizeof *rgb);
    f->len += len;
    return f->stop_after && f->calls >= f->stop_after;
}

/* A folder with the tiny VAE `name`; the caller removes it. */
static void tiny_vae(char dir[256], const char *name)
{
    char from[512], to[512], *text;
    size_t len;
    struct err e;
    tiny_temp(dir);
    snprintf(from, sizeof from, "%s/tests/golden/data/vae_%s.txt", TEST_SOURCE_DIR, name);
    snprintf(to, sizeof to, "%s/diffusion_pytorch_model.safetensors", dir);
    tiny_write_list(to, from);
    snprintf(from, sizeof from, "%s/tests/golden/data/vae_%s.json", TEST_SOURCE_DIR, name);
    snprintf(to, sizeof to, "%s/config.json", dir);
    CHECK_OK(file_read(&text, &len, from, 1 << 20, &e));
    tiny_write_text(to, text);
    free(text);
}

static void check_tiny(const struct golden *g, const char *name, int t, int h, int w,
                       const struct vae_choice *k)
{
    char dir[256], key[64], what[128];
    struct err e;
    struct vae *v;
    size_t n;
    tiny_vae(dir, name);
    int rc = vae_open_with(&v, NULL, dir, VAE_DECODER | VAE_ENCODER, PRECISION_FP32, k, NULL, &e);
    CHECK_OK(rc);
    tiny_remove(dir);
    if (rc) return;
    const struct vae_config *c = vae_config_of(v);
    size_t len = (size_t)(c->z_dim * t * h * w);
    float *latents = malloc(len * sizeof *latents);
    tiny_fill(latents, len, "latents", 1.0, 0.0);
    struct frames f = {0};
    CHECK_OK(vae_decode(v, latents, t, h, w, collect, &f, &e));
    snprintf(key, sizeof key, "%s.%dx%dx%d.frames", name, t, h, w);
    snprintf(what, sizeof what, "%s/%d decode %s", k->kernels->name, (int)k->products, key);
    const float *want = golden_f32(g, key, &n);
    CHECK(n == f.len);
    if (n == f.len) check_close(what, f.rgb, want, n, TOLERANCE);

    int height = h * c->scale_spatial, width = w * c->scale_spatial, count = 1 + 4 * (t - 1);
    size_t pixels = (size_t)count * (size_t)height * (size_t)width * 3;
    float *rgb = malloc(pixels * sizeof *rgb);
    tiny_fill(rgb, pixels, "rgb", 0.5, 0.0);
    CHECK_OK(vae_encode(v, latents, rgb, count, height, width, &e));
    snprintf(key, sizeof key, "%s.%dx%dx%d.latents", name, t, h, w);
    snprintf(what, sizeof what, "%s/%d encode %s", k->kernels->name, (int)k->products, key);
    want = golden_f32(g, key, &n);
    CHECK(n == len);
    if (n == len) check_close(what, latents, want, n, TOLERANCE);
    free(f.rgb);
    free(rgb);
    free(latents);
    vae_close(v);
}

/* The pattern of make_vae.py: exact in fp32. */
static float *saw(int frames, int h, int w)
{
    float *p = malloc((size_t)(frames * h * w * 3) * sizeof *p), *q = p;
    for (int f = 0; f < frames; f++)
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                for (int c = 0; c < 3; c++)
                    *q++ = (float)((x * 3 + y * 2 + f * 5 + c * 21) % 64) / 32 - 1;
    return p;
}

static const char emoji_dir[] = TEST_SOURCE_DIR "/assets/emoji/vae";

static void check_emoji(const struct golden *g, const struct vae_choice *k)
{
    struct err e;
    struct vae *v;
    size_t n, n_sample;
    const float *want = golden_f32(g, "emoji.latents", &n),
                *sample = golden_f32(g, "emoji.frames", &n_sample);
    int rc =
        vae_open_with(&v, NULL, emoji_dir, VAE_DECODER | VAE_ENCODER, PRECISION_FP32, k, NULL, &e);
    CHECK_OK(rc);
    if (rc) return;
    float *rgb = saw(9, 64, 64), *latents = malloc(n * sizeof *latents);
    CHECK(n == (size_t)(v->config.z_dim * 3 * 8 * 8));
    CHECK_OK(vae_encode(v, latents, rgb, 9, 64, 64, &e));
    check_close("embedded encode", latents, want, n, TOLERANCE);
    struct frames f = {0};
    CHECK_OK(vae_decode(v, want, 3, 8, 8, collect, &f, &e));
    CHECK(f.len == 9 * 64 * 64 * 3 && n_sample == (f.len + 4) / 5);
    for (size_t i = 0; i * 5 < f.len; i++)
        f.rgb[i] = f.rgb[i * 5];
    check_close("embedded decode", f.rgb, sample, n_sample, TOLERANCE);
    printf("%s, products %d: encode %.2g, decode %.2g\n", k->kernels->name, (int)k->products,
           rel_l2(latents, want, n), rel_l2(f.rgb, sample, n_sample));
    free(f.rgb);
    free(rgb);
    free(latents);
    vae_close(v);
}

/* The same bytes whatever the threads; a long clip begins with the short one. */
static void check_causal(void)
{
    struct err e;
    struct vae *v;
    char dir[256];
    tiny_vae(dir, "wan21");
    int rc = vae_open(&v, NULL, dir, VAE_DECODER, PRECISION_FP32, NULL, &e);
    CHECK_OK(rc);
    tiny_remove(dir);
    if (rc) return;
    enum { Z = 16, T = 11, H = 4, W = 3 };
    float *z = malloc(sizeof(float) * Z * T * H * W), *head = malloc(sizeof(float) * Z * T * H * W);
    tiny_fill(z, (size_t)Z * T * H * W, "latents", 1.0, 0.0);
    struct frames all = {0};
    threads_set(2);
    CHECK_OK(vae_decode(v, z, T, H, W, collect, &all, &e));
    CHECK(all.len == (size_t)(1 + 4 * (T - 1)) * H * 8 * W * 8 * 3);
    for (int t = 1; t <= T; t += 3) {
        for (int c = 0; c < Z; c++)
            memcpy(head + (size_t)c * (size_t)t * H * W, z + (size_t)c * T * H * W,
                   sizeof(float) * (size_t)t * H * W);
        struct frames part = {0};
        threads_set(t % 2 + 1);
        CHECK_OK(vae_decode(v, head, t, H, W, collect, &part, &e));
        CHECK(part.len == (size_t)(1 + 4 * (t - 1)) * H * 8 * W * 8 * 3);
        CHECK(part.len <= all.len && memcmp(part.rgb, all.rgb, part.len * sizeof *part.rgb) == 0);
        free(part.rgb);
    }
    struct frames stopped = {.stop_after = 2};
    CHECK(vae_decode(v, z, T, H, W, collect, &stopped, &e) < 0 && e.code == ERR_CANCELLED);
    CHECK(stopped.calls == 2);
    free(stopped.rgb);
    free(all.rgb);
    free(z);
    free(head);
    vae_close(v);
}

/* choice NULL: what the program takes for the precision */
static void check_bf16(const struct golden *g, enum precision precision,
                       const struct vae_choice *choice, const char *what)
{
    struct err e;
    struct frames f[2] = {{0}, {0}};
    size_t n;
    const float *latents = golden_f32(g, "emoji.latents", &n);
    for (int i = 0; i < 2; i++) {
        struct vae *v;
        enum precision p = i ? precision : PRECISION_FP32;
        int rc = i && choice ? vae_open_with(&v, NULL, emoji_dir, VAE_DECODER, p, choice, NULL, &e)
                             : vae_open(&v, NULL, emoji_dir, VAE_DECODER, p, NULL, &e);
        CHECK_OK(rc);
        if (rc) return;
        CHECK_OK(vae_decode(v, latents, 3, 8, 8, collect, &f[i], &e));
        vae_close(v);
    }
    double sum = 0;
    for (size_t i = 0; i < f[0].len; i++) {
        double d = (double)f[0].rgb[i] - (double)f[1].rgb[i];
        sum += d * d;
    }
    double psnr = 10 * log10(4.0 * (double)f[0].len / sum); /* the range is 2 */
    printf("%s against fp32: %.1f dB\n", what, psnr);
    CHECK_MSG(psnr >= 45 && psnr < 120, "%.1f dB", psnr);
    free(f[0].rgb);
    free(f[1].rgb);
}

static size_t decode_bytes(const struct vae_config *c, int frames, int h, int w)
{
    struct err e;
    size_t bytes = 0;
    CHECK_OK(vae_decode_bytes(&bytes, c, NULL, PRECISION_FP32, frames, h, w, &e));
    return bytes;
}

static void check_memory(void)
{
    struct err e;
    struct vae_config c;
    CHECK_OK(vae_config_read(&c, TEST_SOURCE_DIR "/assets/emoji/vae/config.json", &e));
    threads_set(2);
    size_t short_clip = decode_bytes(&c, 9, 32, 32);
    CHECK(short_clip > 0 && short_clip == decode_bytes(&c, 900, 32, 32));
    CHECK(decode_bytes(&c, 1, 32, 32) < short_clip);
    CHECK(decode_bytes(&c, 9, 64, 64) > short_clip);
    static const int bad[][3] = {{0, 32, 32}, {9, -1, 32}, {9, 1 << 30, 1 << 30}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        size_t bytes;
        e = (struct err){0};
        CHECK(vae_decode_bytes(&bytes, &c, NULL, PRECISION_FP32, bad[i][0], bad[i][1], bad[i][2],
                               &e) == -1);
        CHECK(e.code == ERR_USAGE && strstr(e.msg, "cannot be decoded"));
    }
    printf("256x256: %.1f MiB\n", (double)short_clip / 1048576);
}

static void check_refused(void)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{}", "_class_name"},
        {"[]", "no JSON object"},
        {"{\"_class_name\":\"AutoencoderKL\"}", "wanted AutoencoderKLWan"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"base_dim\":0}", "base_dim"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"base_dim\":1000000000}", "base_dim"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"base_dim\":1024,\"dim_mult\":[1,2,4,64]}",
         "channels"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"z_dim\":0}", "z_dim"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"z_dim\":65}", "z_dim"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"z_dim\":8}", "latents_mean"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"dim_mult\":[]}", "dim_mult"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"dim_mult\":[1,2,3,4,5,6,7]}", "dim_mult"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"dim_mult\":[1,0,4,4]}", "dim_mult"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"base_dim\":3,\"dim_mult\":[1,1,1,1]}", "halves"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"num_res_blocks\":1000}", "num_res_blocks"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"attn_scales\":[0.5]}", "attn_scales"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"temperal_downsample\":[true]}",
         "temperal_downsample"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"scale_factor_spatial\":16}", "scale factors"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"in_channels\":4}", "in_channels"},
        {"{\"_class_name\":\"AutoencoderKLWan\",\"patch_size\":2}", "scale factors"},
    };
    struct vae_config c;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        e.msg[0] = 0;
        CHECK(vae_config_parse(&c, bad[i].text, strlen(bad[i].text), "config.json", &e) < 0);
        CHECK(e.code == ERR_INPUT);
        CHECK_MSG(strstr(e.msg, bad[i].says), "%s → \"%s\", wanted \"%s\" in it", bad[i].text,
                  e.msg, bad[i].says);
    }
    static const char defaults[] = "{\"_class_name\":\"AutoencoderKLWan\"}";
    CHECK_OK(vae_config_parse(&c, defaults, strlen(defaults), "config.json", &e));
    CHECK(c.base_dim == 96 && c.decoder_base_dim == 96 && c.z_dim == 16 && c.num_res_blocks == 2);

    char dir[256], path[512];
    struct vae *v;
    tiny_vae(dir, "wan21");
    CHECK_OK(vae_open(&v, NULL, dir, VAE_DECODER | VAE_ENCODER, PRECISION_FP32, NULL, &e));
    struct frames f = {0};
    float few[64] = {0};
    CHECK(vae_decode(v, few, 0, 1, 1, collect, &f, &e) < 0 && e.code == ERR_USAGE);
    CHECK(vae_decode(v, few, 1, 1, 1 << 20, collect, &f, &e) < 0 && e.code == ERR_USAGE);
    CHECK(vae_encode(v, few, few, 3, 8, 8, &e) < 0 && e.code == ERR_USAGE &&
          strstr(e.msg, "1 or 5"));
    CHECK(vae_encode(v, few, few, 1, 12, 8, &e) < 0 && e.code == ERR_USAGE);
    vae_close(v);
    snprintf(path, sizeof path, "%s/config.json",
             dir); /* another model's config over these weights */
    tiny_write_text(path,
                    "{\"_class_name\":\"AutoencoderKLWan\",\"base_dim\":8,\"num_res_blocks\":2}");
    CHECK(vae_open(&v, NULL, dir, VAE_DECODER, PRECISION_FP32, NULL, &e) < 0 &&
          e.code == ERR_INPUT);
    tiny_write_text(path,
                    "{\"_class_name\":\"AutoencoderKLWan\",\"base_dim\":16,\"num_res_blocks\":1}");
    CHECK(vae_open(&v, NULL, dir, VAE_DECODER, PRECISION_FP32, NULL, &e) < 0 &&
          strstr(e.msg, "the config wants"));
    tiny_remove(dir);
    CHECK(vae_open(&v, NULL, dir, VAE_DECODER, PRECISION_FP32, NULL, &e) < 0 &&
          e.code == ERR_INPUT);
}

int main(void)
{
    struct golden g = golden_open("vae.safetensors");
    struct cpu cpu;
    cpu_detect(&cpu);
    threads_set(2);
    for (size_t i = 0; i < ARRAY_LEN(kernel_names); i++) {
        struct vae_choice k = {vae_kernels_pick(&cpu, kernel_names[i]), PRODUCTS_OWN, 0};
        for (int p = PRODUCTS_OWN; k.kernels && p <= PRODUCTS_LIBRARY_FP32; p++) {
            k.products = (enum products)p;
            if (p != PRODUCTS_OWN && !conv3d_available(false)) continue;
            check_tiny(&g, "wan21", 1, 3, 5, &k);
            check_tiny(&g, "wan21", 2, 3, 2, &k);
            check_tiny(&g, "wan21", 3, 2, 3, &k);
            check_tiny(&g, "wan21", 4, 2, 1, &k);
            check_tiny(&g, "wan21_two", 3, 2, 3, &k);
            check_tiny(&g, "wan22", 1, 2, 1, &k);
            check_tiny(&g, "wan22", 3, 1, 2, &k);
            check_emoji(&g, &k);
        }
    }
    check_causal();
    check_bf16(&g, PRECISION_BF16_EMULATED, NULL, "bf16, emulated,");
    if (conv3d_available(true)) {
        struct vae_choice units = {NULL, PRODUCTS_LIBRARY_BF16, 0};
        check_bf16(&g, PRECISION_BF16, NULL, "bf16");
        check_bf16(&g, PRECISION_BF16, &units, "bf16, all products by the bf16 units,");
    } else {
        printf("native bf16 not tested: this build or processor does not multiply it\n");
    }
    check_memory();
    check_refused();
    golden_close(&g);
    return TEST_RESULT();
}
