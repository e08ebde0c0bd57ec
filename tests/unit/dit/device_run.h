/* Steps of a tiny transformer on the host or on the fake, for tests that compare them. */
#ifndef DITGEN_TESTS_DEVICE_RUN_H
#define DITGEN_TESTS_DEVICE_RUN_H

#include "tests/fake/fake.h"
#include "tests/unit/dit/fixture.h"

#define STEPS 6

struct setting {
    const char *config, *attention;
    struct clip clip;
    bool frames; /* a timestep a frame */
    bool together;
    enum precision precision;
    struct attn_stats *stats; /* of the run; may be NULL */
    int broken; /* before this step (0: none) all is closed but what attention remembers */
};

static const float frame_times[STEPS][3] = {{0, 900, 900}, {0, 700, 700}, {0, 500, 500},
                                            {0, 300, 300}, {0, 200, 200}, {0, 100, 100}};

static struct dit *open_on(const struct setting *s, struct device *dev, struct err *e)
{
    char dir[256];
    struct dit *d = NULL;
    tiny_temp(dir);
    write_tiny(dir, s->config);
    int rc = dit_open_on(&d, dev, s->attention, dir, NULL, 1, s->precision, NULL, e);
    tiny_remove(dir);
    CHECK((rc == 0) == (d != NULL));
    return d;
}

/* Another transformer of the same run, given what the attention of *d remembers. */
static int again(struct dit **d, const struct setting *s, struct device *dev,
                 const struct dit_run_params *p, const float *text, const float *image,
                 struct err *e)
{
    struct attn_kept was, is;
    dit_attn_kept(*d, &was);
    void *kept = malloc(was.bytes + 1);
    int rc = was.bytes ? dit_attn_kept_read(*d, kept, e) : 0;
    dit_close(*d);
    *d = open_on(s, dev, e);
    if (rc == 0) rc = *d ? dit_prepare(*d, p, e) : -1;
    for (int b = 0; b < 2 && rc == 0; b++)
        rc = dit_set_context(*d, b, text, s->clip.rows - b, image, e);
    if (rc == 0) {
        dit_attn_kept(*d, &is);
        CHECK(is.bytes == was.bytes);
        rc = was.bytes ? dit_attn_kept_write(*d, kept, e) : 0;
    }
    free(kept);
    return rc == 0 ? dit_attn_kept_check(*d, e) : -1;
}

/* Both branches of STEPS steps, [step][branch][n] into out. dev NULL: on the host. */
static int run(const struct setting *s, struct device *dev, float *out, struct err *e)
{
    struct dit *d = open_on(s, dev, e);
    if (!d) return -1;
    const struct dit_config *cfg = dit_config_of(d);
    struct attn_params attn = cpu_attention(s->precision);
    attn.method = s->attention;
    attn.device = dev;
    struct dit_run_params p = run_params(&s->clip, &attn);
    p.n_steps = STEPS;
    size_t n = velocity_len(d, &s->clip);
    size_t in = (size_t)cfg->in_channels * (n / (size_t)cfg->out_channels);
    float *latents = drawn("dit.latents", in);
    float *text = drawn("dit.text", (size_t)s->clip.rows * (size_t)cfg->text_dim);
    float *image = s->clip.image_rows
                       ? drawn("dit.image", (size_t)s->clip.image_rows * (size_t)cfg->image_dim)
                       : NULL;
    void *there[3] = {0};
    int rc = dit_prepare(d, &p, e);
    for (int b = 0; b < 2 && rc == 0; b++)
        rc = dit_set_context(d, b, text, s->clip.rows - b, image, e);
    for (int i = 0; i < 3 && dev && rc == 0; i++)
        rc = device_alloc(dev, &there[i], (i ? n : in) * sizeof(float), e);
    for (int step = 0; step < STEPS && rc == 0; step++) {
        float *v[2] = {out + (size_t)(2 * step) * n, out + (size_t)(2 * step + 1) * n};
        float *v_there[2] = {there[1], there[2]};
        if (step && step == s->broken && again(&d, s, dev, &p, text, image, e) < 0) {
            rc = -1;
            break;
        }
        struct dit_call call = {.step = step,
                                .n_branches = 2,
                                .timestep = 900 - 100 * (float)step,
                                .frame_timesteps = s->frames ? frame_times[step] : NULL};
        if (!dev) {
            rc = dit_velocity(d, v, latents, &call, e);
        } else {
            rc = device_upload(dev, there[0], latents, in * sizeof(float), e);
            if (rc == 0) rc = dit_velocity(d, v_there, there[0], &call, e);
            for (int b = 0; b < 2 && rc == 0; b++)
                rc = device_download(dev, v[b], there[b + 1], n * sizeof(float), e);
        }
        for (size_t i = 0; i < in; i++)
            latents[i] = latents[i] * 0.9f + v[0][i % n] * 0.1f;
    }
    if (s->stats) dit_attn_stats(d, s->stats);
    for (int i = 0; i < 3 && dev; i++)
        if (there[i]) device_free(dev, there[i]);
    free(latents), free(text), free(image);
    dit_close(d);
    return rc;
}

static size_t out_len(const struct setting *s)
{
    struct err e = {0};
    struct dit *d = open_on(s, NULL, &e);
    size_t n = d ? velocity_len(d, &s->clip) : 0;
    dit_close(d);
    return 2 * STEPS * n;
}

#endif
