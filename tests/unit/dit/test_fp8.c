/* The transformer in fp8, on a device of tests whose products are the judge's: what is codes and what is not, the step
 * that is held against bf16 has the bytes of one that is not, memory as predicted, refusals. */
#include "tests/fake/fake.h"
#include "tests/unit/dit/fixture.h"

#define STEPS 3

static const struct clip clip = {2, 6, 4, 20, 500, 0, NULL, false, 0};

static struct dit *open_with(const char *config, struct device *dev, enum precision p,
                             struct err *e)
{
    char dir[256];
    struct dit *d = NULL;
    tiny_temp(dir);
    write_tiny(dir, config);
    int rc = dit_open_on(&d, dev, NULL, dir, NULL, 1, p, NULL, e);
    tiny_remove(dir);
    CHECK((rc == 0) == (d != NULL));
    return d;
}

/* Velocities of both branches of STEPS steps at the same latents; watch: the first is held against bf16. */
static float *velocities(struct device *dev, enum precision precision, bool watch, double *error,
                         long *products, size_t *n)
{
    struct err e = {0};
    struct dit *d = open_with("wide", dev, precision, &e);
    const struct dit_config *c = dit_config_of(d);
    struct attn_params attn = cpu_attention(precision_beside(precision));
    attn.device = dev;
    struct dit_run_params p = run_params(&clip, &attn);
    p.n_steps = STEPS;
    size_t each = velocity_len(d, &clip);
    size_t in = (size_t)c->in_channels * (each / (size_t)c->out_channels);
    float *latents = drawn("dit.latents", in), *out = calloc(2 * STEPS * each, sizeof *out);
    float *text = drawn("dit.text", (size_t)clip.rows * (size_t)c->text_dim);
    void *at[3];
    CHECK_OK(dit_prepare(d, &p, &e));
    for (int b = 0; b < 2; b++)
        CHECK_OK(dit_set_context(d, b, text, clip.rows - b, NULL, &e));
    for (int i = 0; i < 3; i++)
        CHECK_OK(device_alloc(dev, &at[i], (i ? each : in) * sizeof(float), &e));
    CHECK_OK(device_upload(dev, at[0], latents, in * sizeof(float), &e));
    d->run.watched = !watch;
    for (int step = 0; step < STEPS; step++) {
        struct dit_call call = {.step = step, .n_branches = 2, .timestep = 500};
        float *v[2] = {at[1], at[2]};
        CHECK_OK(dit_velocity(d, v, at[0], &call, &e));
        for (int b = 0; b < 2; b++)
            CHECK_OK(device_download(dev, out + (size_t)(2 * step + b) * each, at[b + 1],
                                     each * sizeof(float), &e));
    }
    if (watch) CHECK_OK(dit_fp8_error(d, error, products, &e));
    for (int i = 0; i < 3; i++)
        device_free(dev, at[i]);
    free(latents), free(text);
    *n = 2 * STEPS * each;
    dit_close(d);
    return out;
}

static void runs(bool together)
{
    struct device *dev;
    struct err e = {0};
    double error = 0, none = 1;
    long products = 0, no_products = 1;
    size_t n;
    CHECK_OK(fake_open(&dev, together, &e));
    float *watched = velocities(dev, PRECISION_FP8, true, &error, &products, &n);
    float *plain = velocities(dev, PRECISION_FP8, false, &none, &no_products, &n);
    float *bf16 = velocities(dev, PRECISION_BF16, true, &none, &no_products, &n);
    CHECK(memcmp(watched, plain, n * sizeof *plain) == 0);
    for (int step = 1; step < STEPS; step++) /* first, recorded, replayed */
        CHECK(memcmp(plain, plain + (size_t)step * n / STEPS, n / STEPS * sizeof *plain) == 0);
    CHECK(fake_replays(dev) == 3 * (STEPS - 1));
    double apart = rel_l2(plain, bf16, n);
    printf("fp8 beside bf16: velocity %.3g, products %.3g (%ld)\n", apart, error, products);
    CHECK(apart > 1e-4 && apart < 0.2);
    CHECK(error > 1e-3 && error < 0.1);
    CHECK(no_products == 0 && none == 0);
    CHECK(products % (2 * (together ? 1 : 2)) ==
          0); /* two layers, both branches; 8 products each */
    CHECK_MSG(products == (together ? 1 : 2) * 2 * 8, "%ld products", products);
    CHECK(device_held(dev) == 0);
    device_close(dev);
    free(watched), free(plain), free(bf16);
}

static void layers(void)
{
    struct dit_config c = {.n_heads = 2,
                           .head_dim = 32,
                           .ffn_dim = 128,
                           .text_dim = 48,
                           .n_layers = 1,
                           .in_channels = 4,
                           .out_channels = 4,
                           .patch_t = 1,
                           .patch_h = 2,
                           .patch_w = 2,
                           .freq_dim = 16,
                           .added_kv_proj_dim = 64};
    struct layer_row rows[DIT_MAX_ROWS];
    int codes = 0;
    for (int i = dit_block_layers(&c, rows); i-- > 0;) {
        enum precision p = dit_linear_params(&rows[i], PRECISION_FP8).precision;
        bool tokens = rows[i].kind == ROWS_TOKENS || rows[i].kind == ROWS_CHAIN;
        CHECK_MSG(p == (tokens ? PRECISION_FP8 : PRECISION_BF16), "%s", rows[i].name);
        CHECK(dit_linear_params(&rows[i], PRECISION_FP32).precision == PRECISION_FP32);
        codes += p == PRECISION_FP8;
    }
    CHECK(codes == 8);
    for (int i = dit_top_layers(&c, rows); i-- > 0;)
        CHECK_MSG(dit_linear_params(&rows[i], PRECISION_FP8).precision ==
                      (rows[i].fp32 ? PRECISION_FP32 : PRECISION_BF16),
                  "%s", rows[i].name);
}

static void predicted(void)
{
    struct device *dev;
    struct err e = {0};
    size_t bytes;
    const struct clip large = {3, 10, 8, 20, 500, 0, NULL, false, 0}; /* more than opening takes */
    CHECK_OK(fake_open(&dev, true, &e));
    struct dit *d = open_with("wide", dev, PRECISION_FP8, &e);
    struct attn_params attn = cpu_attention(PRECISION_BF16);
    attn.device = dev;
    struct dit_run_params p = run_params(&large, &attn);
    CHECK_OK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP8, &p, &e));
    size_t weights = device_held(dev);
    CHECK(weights == dit_weight_bytes(dit_config_of(d), dev, PRECISION_FP8, 0));
    CHECK(weights < dit_weight_bytes(dit_config_of(d), dev, PRECISION_FP32, 0));
    CHECK_OK(dit_prepare(d, &p, &e));
    CHECK_MSG(bytes == device_held(dev), "%zu predicted, %zu taken", bytes, device_held(dev));
    dit_close(d);
    device_close(dev);
}

static void refused(void)
{
    struct device *dev;
    struct err e = {0};
    size_t bytes;
    struct attn_params attn = cpu_attention(PRECISION_BF16);
    struct dit_run_params p = run_params(&clip, &attn);
    struct dit *d = open_with("t2v", NULL, PRECISION_FP32, &e);
    CHECK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP8, &p, &e) < 0 && e.code == ERR_DEVICE &&
          strstr(e.msg, "--device cuda"));
    struct dit_config odd = /* a middle of 56 */
        *dit_config_of(d);
    dit_close(d);
    e = (struct err){0};
    CHECK(!open_with("t2v", NULL, PRECISION_FP8, &e) && e.code == ERR_DEVICE);
    CHECK_OK(fake_open(&dev, true, &e));
    attn.device = dev;
    CHECK(dit_bytes(&bytes, &odd, PRECISION_FP8, &p, &e) < 0 && e.code == ERR_USAGE &&
          strstr(e.msg, "multiples of 16"));
    device_close(dev);
}

int main(void)
{
    threads_set(2);
    layers();
    runs(false);
    runs(true);
    predicted();
    refused();
    return TEST_RESULT();
}
