/* Tiny transformers on disk, and one call of them with drawn inputs, for the tests of this folder.
 */
#ifndef DITGEN_TESTS_DIT_FIXTURE_H
#define DITGEN_TESTS_DIT_FIXTURE_H

#include "model/base/file_map.h"
#include "model/base/threads.h"
#include "model/dit/dit_internal.h"
#include "tests/check.h"
#include "tests/golden/golden.h"
#include "tests/golden/tiny.h"

#define TEXT_LEN 512

static inline void data_path(char *path, size_t n, const char *name, const char *suffix)
{
    snprintf(path, n, "%s/tests/golden/data/dit_%s%s", TEST_SOURCE_DIR, name, suffix);
}

/* dir/config.json and dir/diffusion_pytorch_model.safetensors of a config of make_dit.py. */
static inline void write_tiny(const char *dir, const char *config)
{
    char path[1024], list[1024];
    char *text;
    size_t len;
    struct err e;
    data_path(list, sizeof list, config, ".json");
    if (file_read(&text, &len, list, 1 << 20, &e) < 0) tiny_die(e.msg, list);
    snprintf(path, sizeof path, "%s/config.json", dir);
    tiny_write_text(path, text);
    free(text);
    data_path(list, sizeof list, config, ".txt");
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", dir);
    tiny_write_list(path, list);
}

/* DITGEN_TEST_DEVICE=cuda runs a test on the GPU instead; else NULL, the host. Opened once. */
static inline struct device *test_device(void)
{
    static struct device *d;
    const char *name = getenv("DITGEN_TEST_DEVICE");
    struct err e = {0};
    if (d || !name || strncmp(name, "cuda", 4) != 0) return d;
    if (device_open(&d, name, &e) < 0) tiny_die(e.msg, name);
    return d;
}
static inline bool on_gpu(void) { return device_kind(test_device()) == DEVICE_CUDA; }

/* Opens a tiny model; NULL after a failed check. */
static inline struct dit *open_tiny(const char *config, enum precision precision)
{
    char dir[256];
    struct err e;
    struct dit *d = NULL;
    tiny_temp(dir);
    write_tiny(dir, config);
    CHECK_OK(dit_open_on(&d, test_device(), NULL, dir, NULL, 1, precision, NULL, &e));
    tiny_remove(dir); /* whatever is kept is packed or mapped */
    return d;
}

static inline float *drawn(const char *name, size_t n)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    if (!x) abort();
    tiny_fill(x, n, name, 1, 0);
    return x;
}

struct clip { /* one forward of make_dit.py */
    int frames, height, width, rows;
    float timestep;
    int image_rows;
    const float *frame_timesteps;
    bool long_form; /* all pad rows as keys */
    int max_text_rows; /* 0: rows */
};

static inline struct attn_params cpu_attention(enum precision precision)
{
    struct attn_params a = {
        .precision = precision, .threads = threads_count(), .device = test_device()};
    cpu_detect(&a.cpu);
    return a;
}

static inline struct dit_run_params run_params(const struct clip *c, const struct attn_params *attn)
{
    return (struct dit_run_params){.grid = {c->frames, c->height, c->width},
                                   .n_steps = 2,
                                   .n_branches = 2,
                                   .max_text_rows = c->max_text_rows ? c->max_text_rows : c->rows,
                                   .text_len = TEXT_LEN,
                                   .image_rows = c->image_rows,
                                   .collapse_pads = !c->long_form,
                                   .attn = attn};
}

static inline size_t velocity_len(const struct dit *d, const struct clip *c)
{
    return (size_t)dit_config_of(d)->out_channels * (size_t)(c->frames * c->height * c->width);
}

/* One velocity of latents of the host. */
static inline void ask_velocity(struct dit *d, float *velocity, size_t n, const float *latents,
                                size_t n_latents, const struct dit_call *call)
{
    struct device *dev = test_device();
    struct err e = {0};
    void *in, *out;
    if (!dev) {
        CHECK_OK(dit_velocity(d, &velocity, latents, call, &e));
        return;
    }
    CHECK_OK(device_alloc(dev, &in, n_latents * sizeof(float), &e));
    CHECK_OK(device_alloc(dev, &out, n * sizeof(float), &e));
    float *there = out;
    CHECK_OK(device_upload(dev, in, latents, n_latents * sizeof(float), &e));
    CHECK_OK(dit_velocity(d, &there, in, call, &e));
    CHECK_OK(device_download(dev, velocity, there, n * sizeof(float), &e));
    device_free(dev, in), device_free(dev, out);
}

/* Prepares, sets the context of branch 1 and asks once; caller frees. Failures are checks. */
static inline float *velocity_of(struct dit *d, const struct clip *c)
{
    const struct dit_config *cfg = dit_config_of(d);
    struct err e = {0};
    struct attn_params attn = cpu_attention(d->precision);
    struct dit_run_params p = run_params(c, &attn);
    size_t n = (size_t)cfg->in_channels * (size_t)(c->frames * c->height * c->width);
    float *latents = drawn("dit.latents", n);
    float *text = drawn("dit.text", (size_t)c->rows * (size_t)cfg->text_dim);
    float *image =
        c->image_rows ? drawn("dit.image", (size_t)c->image_rows * (size_t)cfg->image_dim) : NULL;
    float *velocity = calloc(velocity_len(d, c), sizeof *velocity);
    struct dit_call call = {.branch = 1,
                            .n_branches = 1,
                            .timestep = c->timestep,
                            .frame_timesteps = c->frame_timesteps};
    CHECK_OK(dit_prepare(d, &p, &e));
    CHECK_OK(dit_set_context(d, 1, text, c->rows, image, &e));
    ask_velocity(d, velocity, velocity_len(d, c), latents, n, &call);
    free(latents);
    free(text);
    free(image);
    return velocity;
}

#endif
