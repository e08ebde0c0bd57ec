/* The parts before and after the blocks: sinusoid, time embedding, rotary tables, patches, and what
 * a block leaves in the residual stream. */
#include "tests/unit/dit/fixture.h"

static void check_sinusoid(const struct golden *g)
{
    static const float times[] = {0, 1, 417, 731.25f, 999};
    float freqs[128], got[256];
    size_t n;
    const float *want = golden_f32(g, "sinusoid", &n);
    CHECK(n == ARRAY_LEN(times) * 256);
    time_freqs(freqs, 128);
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        struct rows y = rows_of(NULL, got, DTYPE_F32, 1, 256);
        struct err e;
        CHECK_OK(ops_cpu.sinusoid(NULL, &y, &times[i], freqs, &e));
        /* an argument of 999 whose frequency is off by one ulp moves by 6e-5 */
        double worst = 0;
        for (size_t k = 0; k < 256; k++) { /* gcc 12 for aarch64 does not survive an fmax() here */
            double off = fabs((double)got[k] - (double)want[256 * i + k]);
            if (!(off <= worst)) worst = off;
        }
        CHECK_MSG(worst <= 1e-4, "timestep %g: %g", (double)times[i], worst);
        check_close("sinusoid", got, want + 256 * i, 256, 1e-5);
    }
}

static void check_rope(const struct golden *g, int head_dim)
{
    struct dit_config c = {.n_heads = 1, .head_dim = head_dim};
    size_t len = (size_t)3 * 4 * 5 * (size_t)head_dim / 2, n;
    float *cos_t = calloc(len, sizeof *cos_t), *sin_t = calloc(len, sizeof *sin_t);
    char name[32];
    rope_tables(cos_t, sin_t, &c, 3, 4, 5);
    snprintf(name, sizeof name, "rope%d.cos", head_dim);
    const float *want = golden_f32(g, name, &n);
    CHECK(n == len);
    check_close(name, cos_t, want, n, 1e-7);
    snprintf(name, sizeof name, "rope%d.sin", head_dim);
    want = golden_f32(g, name, &n);
    CHECK(n == len);
    check_close(name, sin_t, want, n, 1e-7);
    free(cos_t), free(sin_t);
}

/* Column k of a token is channel, then row and column of the patch; the way out is the other order.
 */
static void check_patches(void)
{
    struct dit_config c = {.patch_t = 1, .patch_h = 2, .patch_w = 3};
    struct dit_grid grid = {2, 4, 9};
    struct patch_grid g = {3, 2, 4, 9, 2, 3};
    struct err e;
    float latents[3 * 2 * 4 * 9], cols[ARRAY_LEN(latents)], turned[ARRAY_LEN(latents)],
        back[ARRAY_LEN(latents)];
    for (size_t i = 0; i < ARRAY_LEN(latents); i++)
        latents[i] = (float)i;
    CHECK(dit_tokens(&c, &grid) == 2 * 2 * 3);
    struct rows to = rows_of(NULL, cols, DTYPE_F32, 12, 18),
                from = rows_of(NULL, turned, DTYPE_F32, 12, 18);
    CHECK_OK(ops_cpu.patchify(NULL, &to, latents, &g, &e));
    for (int t = 0; t < 12; t++)
        for (int ch = 0; ch < 3; ch++)
            for (int p = 0; p < 6; p++) {
                int a = t / 6, b = t / 3 % 2, x = t % 3;
                float want = latents[((ch * 2 + a) * 4 + 2 * b + p / 3) * 9 + 3 * x + p % 3];
                CHECK(cols[t * 18 + ch * 6 + p] == want);
                turned[t * 18 + p * 3 + ch] = cols[t * 18 + ch * 6 + p];
            }
    CHECK_OK(ops_cpu.unpatchify(NULL, back, &from, &g, &e));
    CHECK(memcmp(back, latents, sizeof latents) == 0);
}

/* After a forward the run still holds the conditioning and the last block's output. */
static void check_inside(const struct golden *g)
{
    struct clip c = {3, 6, 10, 5, 999, 0, NULL, false, 0};
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    size_t n;
    if (!d) return;
    free(velocity_of(d, &c));
    const float *want = golden_f32(g, "t2v.temb", &n);
    check_close("temb", d->run.temb.at, want, n, 1e-5);
    want = golden_f32(g, "t2v.time6", &n);
    check_close("time6", d->run.time6.at, want, n, 1e-5);
    want = golden_f32(g, "t2v.block1", &n);
    check_close("last block", d->run.x.at, want, n, 1e-5);
    /* the first block alone */
    float *latents = drawn("dit.latents", velocity_len(d, &c));
    struct dit_call call = {.branch = 1, .n_branches = 1, .timestep = 999};
    struct err e;
    CHECK_OK(dit_embed_latents(d, latents, 1, &e));
    CHECK_OK(dit_block_run(d, 0, &call, &e));
    want = golden_f32(g, "t2v.block0", &n);
    check_close("first block", d->run.x.at, want, n, 1e-5);
    free(latents);
    dit_close(d);
}

int main(void)
{
    struct golden g = golden_open("dit_golden.safetensors");
    check_sinusoid(&g);
    check_rope(&g, 16);
    check_rope(&g, 128);
    check_patches();
    check_inside(&g);
    golden_close(&g);
    return TEST_RESULT();
}
