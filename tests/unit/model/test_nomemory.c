/* Memory that runs out at the Nth allocation, for every N while the parts of a model are opened: the
 * call fails with ERR_RESOURCE and a sentence, and not as if files were broken, or succeeds; nothing
 * leaks (the sanitizer's build says so). Linked so that malloc and its kin of our own objects come
 * here (tests/CMakeLists.txt). */
#include "model/base/file_map.h"
#include "model/dit/lora.h"
#include "model/model.h"
#include "tests/check.h"
#include "tests/golden/tiny.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);

static long calls, fails_at = -1; /* counted from 0; -1: never */

static int fails(void) { return calls++ == fails_at; }

void *__wrap_malloc(size_t n) { return fails() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : __real_realloc(p, n); }
char *__wrap_strdup(const char *s) { return fails() ? NULL : __real_strdup(s); }
void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return fails() ? NULL : __real_aligned_alloc(align, n);
}

#define DATA TEST_SOURCE_DIR "/tests/golden/data/"

/* dir/PART with the config and drawn weights of a tiny one. */
static void tiny_part(const char *dir, const char *part, const char *data, const char *stem)
{
    char from[512], to[512], *text;
    size_t len;
    struct err e;
    snprintf(to, sizeof to, "%s/%s", dir, part);
    CHECK(mkdir(to, 0777) == 0);
    snprintf(from, sizeof from, DATA "%s.json", data);
    CHECK_OK(file_read(&text, &len, from, 1 << 20, &e));
    snprintf(to, sizeof to, "%s/%s/config.json", dir, part);
    tiny_write_text(to, text);
    free(text);
    snprintf(from, sizeof from, DATA "%s.txt", data);
    snprintf(to, sizeof to, "%s/%s/%s.safetensors", dir, part, stem);
    tiny_write_list(to, from);
}

static char transformer[300], vae[300], text_encoder[300];

static int info(struct err *e)
{
    static struct model_info m;
    return model_info_read(&m, TEST_SOURCE_DIR "/assets/emoji", e);
}

static int open_dit(const char *lora, struct err *e)
{
    struct dit *d;
    struct attn_params a = {.method = "window:tiles=1", .threads = 1};
    struct dit_run_params p = {.grid = {2, 4, 4},
                               .n_steps = 2,
                               .n_branches = 2,
                               .max_text_rows = 4,
                               .text_len = 512,
                               .collapse_pads = true,
                               .attn = &a};
    cpu_detect(&a.cpu);
    if (dit_check(transformer, lora, NULL, e) < 0) return -1;
    if (dit_open_lora(&d, transformer, lora, 1, PRECISION_FP32, NULL, e) < 0) return -1;
    int r = dit_prepare(d, &p, e);
    dit_close(d);
    return r;
}

static int dit(struct err *e) { return open_dit(NULL, e); }
static int adapter(struct err *e) { return open_dit(DATA "dit_lora.safetensors", e); }

static int nothing(void *ctx, const float *rgb, int n, int height, int width, struct err *e)
{
    (void)ctx, (void)rgb, (void)n, (void)height, (void)width, (void)e;
    return 0;
}

static int decoder(struct err *e)
{
    struct vae *v;
    float z[16 * 4 * 4] = {0};
    if (vae_check(vae, VAE_DECODER, e) < 0) return -1;
    if (vae_open(&v, NULL, vae, VAE_DECODER, PRECISION_FP32, NULL, e) < 0) return -1;
    int r = vae_decode(v, z, 1, 4, 4, nothing, NULL, e);
    vae_close(v);
    return r;
}

static int encoder(struct err *e)
{
    struct umt5 *u;
    int ids[3] = {5, 6, 1};
    float embeds[3 * 512];
    if (umt5_open(&u, NULL, text_encoder, PRECISION_FP32, NULL, e) < 0) return -1;
    int r = umt5_encode(u, embeds, ids, 3, NULL, NULL, e);
    umt5_close(u);
    return r;
}

static void each(const char *what, int (*call)(struct err *))
{
    struct err e = {0};
    CHECK_MSG(call(&e) == 0, "%s: %s", what, e.msg); /* once for what is made once a process */
    calls = 0;
    CHECK_MSG(call(&e) == 0, "%s: %s", what, e.msg);
    long all = calls, ended = 0;
    CHECK(all > 0);
    for (long n = 0; n < all; n += n < 300 ? 1 : 17) {
        e = (struct err){0};
        calls = 0;
        fails_at = n;
        int r = call(&e);
        fails_at = -1;
        ended += r < 0;
        CHECK_MSG(r == 0 || (e.code == ERR_RESOURCE && e.msg[0]),
                  "%s, allocation %ld of %ld: code %d, \"%s\"", what, n, all, (int)e.code, e.msg);
    }
    CHECK(ended > 0);
    printf("%s: %ld allocations, %ld failures told\n", what, all, ended);
}

int main(void)
{
    char dir[256];
    tiny_temp(dir);
    tiny_part(dir, "transformer", "dit_t2v", "diffusion_pytorch_model");
    tiny_part(dir, "vae", "vae_wan21", "diffusion_pytorch_model");
    tiny_part(dir, "text_encoder", "text_umt5_tiny", "model");
    snprintf(transformer, sizeof transformer, "%s/transformer", dir);
    snprintf(vae, sizeof vae, "%s/vae", dir);
    snprintf(text_encoder, sizeof text_encoder, "%s/text_encoder", dir);
    each("configs", info);
    each("text encoder", encoder);
    each("transformer", dit);
    each("transformer with an adapter", adapter);
    each("vae", decoder);
    tiny_remove(dir);
    return TEST_RESULT();
}
