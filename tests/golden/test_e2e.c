/* The embedded model, from prompt to frames, against the reference pipeline: runs of make_e2e.py,
 * one of them with the few-step adapter. fp32 must give the reference's frames at 60 dB or better.
 *
 * bf16 (emulated, and multiplied where the processor does) is judged by its mean over the twelve
 * clips that were made for it, against the mean of the reference's own bf16. What that may be below
 * follows from the reference: rounded in two ways it differs from itself, and two standard errors of
 * that difference's mean are allowed, 1 dB at least; a clip alone may be three deviations below the
 * worse of the two ways.
 *
 * DITGEN_TEST_DEVICE=cuda asks the same of a GPU, whose bf16 is not emulated. */
#include "app/clips/png.h"
#include "model/base/device.h"
#include "model/base/threads.h"
#include "model/model.h"
#include "sched/sched.h"
#include "tests/check.h"
#include "tests/golden/golden.h"

#define MODEL TEST_SOURCE_DIR "/assets/emoji"
#define FEW_STEPS MODEL "/transformer_turbo/pytorch_lora_weights.safetensors"

enum { MAX_CASES = 32 };

struct golden_run {
    struct model *model;
    struct device *device; /* NULL: the host */
    struct model_clip clip;
    int seed, stride, at; /* at: frames seen */
    float guidance_scale;
    uint8_t *want; /* every stride-th frame, [H, W, 3]; malloc */
    size_t want_bytes;
    double square, count, off; /* sum of squares; bytes; bytes that differ */
};

static int velocity(void *ctx, const struct denoise_ask *a, struct err *e)
{
    struct golden_run *r = ctx;
    struct model_ask m = {
        .step = a->step, .n_branches = a->n_branches, .sigma = a->sigma, .timestep = a->timestep};
    return model_velocity(r->model, a->velocity, a->latents, &m, e);
}

static int take_frames(void *ctx, const float *rgb, int n, int height, int width, struct err *e)
{
    struct golden_run *r = ctx;
    size_t frame = (size_t)height * (size_t)width * 3;
    for (int i = 0; i < n; i++, r->at++) {
        if (r->at % r->stride) continue;
        size_t from = (size_t)(r->at / r->stride) * frame;
        if (from + frame > r->want_bytes)
            return err_set(e, ERR_BUG, "frame %d is one too many", r->at);
        for (size_t k = 0; k < frame; k++) {
            float y = rgb[(size_t)i * frame + k] * 0.5f + 0.5f;
            double byte = rint((double)(y < 0 ? 0 : y > 1 ? 1 : y) * 255);
            double d = byte - r->want[from + k];
            r->square += d * d;
            r->off += d != 0;
            r->count++;
        }
    }
    return 0;
}

/* The frames stand one under the other in one picture. */
static void take_want(struct golden_run *r, const struct golden *g, const char *key)
{
    size_t n;
    int width = 0, height = 0;
    const unsigned char *png = golden_u8(g, key, &n);
    CHECK(png_decode(&r->want, &width, &height, png, n) == 0 && width == r->clip.width);
    r->want_bytes = r->want ? (size_t)width * (size_t)height * 3 : 0;
}

/* Noise, and what the solver keeps, in the device's memory; and back. */
static int denoise_there(struct golden_run *r, float *latents, size_t bytes,
                         struct denoise_params *p, const struct denoise_model *m, struct err *e)
{
    void *at = NULL, *scratch = NULL;
    size_t room = denoise_bytes(p->solver, p->n, true);
    struct lincomb_place place = model_place(r->model);
    p->place = &place;
    int rc = device_alloc(r->device, &at, bytes, e);
    if (rc == 0) rc = device_alloc(r->device, &scratch, room, e);
    if (rc == 0) rc = device_zero(r->device, scratch, room, e);
    if (rc == 0) rc = device_upload(r->device, at, latents, bytes, e);
    if (rc == 0) rc = denoise(at, p, m, scratch, e);
    if (rc == 0) rc = device_download(r->device, latents, at, bytes, e);
    device_free(r->device, scratch);
    device_free(r->device, at);
    return rc;
}

static int denoise_run(struct golden_run *r, float *latents, size_t n,
                       const struct sched_config *config, int num_steps, bool round, struct err *e)
{
    static struct schedule schedule;
    const struct solver *solver = solver_find(config->solver);
    void *scratch = r->device ? NULL : malloc(denoise_bytes(solver, n, true));
    struct noise_rng rng;
    struct denoise_params p = {
        .solver = solver,
        .schedule = &schedule,
        .guidance_scale = {r->guidance_scale},
        .round = round,
        .n = n,
    };
    struct denoise_model m = {.ctx = r, .velocity = velocity};
    noise_seed(&rng, (uint64_t)r->seed);
    noise_randn(&rng, latents, n);
    int rc = solver->schedule(&schedule, num_steps, config->flow_shift, COMPAT_DIFFUSERS_037, e);
    if (rc == 0) rc = model_denoise_begin(r->model, &r->clip, e);
    if (rc == 0)
        rc = r->device ? denoise_there(r, latents, n * sizeof *latents, &p, &m, e)
                       : denoise(latents, &p, &m, scratch, e);
    model_denoise_end(r->model, NULL);
    free(scratch);
    return rc;
}

enum { MAX_CLIPS = 16 };

struct rough { /* bf16 over the clips that judge it, dB */
    int n;
    double ours[MAX_CLIPS], way[2][MAX_CLIPS]; /* the reference, rounded in two ways */
};

static double mean_of(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return sum / n;
}

static void judge(const struct rough *r, enum precision p)
{
    double apart = 0, ours = mean_of(r->ours, r->n), half = mean_of(r->way[0], r->n),
           mixed = mean_of(r->way[1], r->n);
    for (int i = 0; i < r->n; i++) {
        double d = r->way[0][i] - r->way[1][i] - (half - mixed);
        apart += d * d;
    }
    apart = sqrt(apart / (r->n - 1));
    double allowed = fmax(1, 2 * apart / sqrt(r->n));
    printf("%s: mean of %d clips %.2f dB; the reference %.2f and %.2f, %.1f dB apart a clip\n",
           precision_name(p), r->n, ours, half, mixed, apart);
    CHECK_MSG(ours >= half - allowed, "%.2f dB, at least %.2f wanted", ours, half - allowed);
    for (int i = 0; i < r->n; i++) {
        double least = fmin(r->way[0][i], r->way[1][i]) - 3 * apart;
        CHECK_MSG(r->ours[i] >= least, "clip %d: %.1f dB, at least %.1f wanted", i, r->ours[i],
                  least);
    }
}

static void one_case(const struct golden *g, int k, struct device *device,
                     const struct model_info *info, const struct sched_config *config,
                     enum precision precision, struct rough *m)
{
    char key[32];
    struct err e = {0};
    size_t n, n_latents;
    snprintf(key, sizeof key, "%d.settings", k);
    const int32_t *s = golden_i32(g, key, &n);
    snprintf(key, sizeof key, "%d.latents", k);
    const float *want = golden_f32(g, key, &n_latents);
    struct golden_run r = {
        .clip = {.width = s[0],
                 .height = s[1],
                 .frames = s[2],
                 .num_steps = s[3],
                 .guided = s[6] != 1000},
        .seed = s[4],
        .stride = s[5],
        .device = device,
        .guidance_scale = (float)s[6] / 1000,
    };
    snprintf(key, sizeof key, "%d.png", k);
    take_want(&r, g, key);
    struct model_params p = {
        .precision = precision,
        .device = device,
        .threads = 2,
        .collapse_pads = true,
        .fix_text = true,
        .lora = s[7] ? FEW_STEPS : NULL,
        .lora_strength = 1,
    };
    cpu_detect(&p.attn.cpu);
    threads_set(p.threads);
    struct model_text text;
    snprintf(key, sizeof key, "%d.prompt", k);
    const char *prompt = golden_text(g, key);
    snprintf(key, sizeof key, "%d.negative", k);
    const char *negative = golden_text(g, key);

    CHECK_OK(model_open(&r.model, info, &p, &e));
    if (!r.model) {
        free(r.want);
        return;
    }
    CHECK_OK(model_encode_text(r.model, 0, prompt, &text, NULL, NULL, &e));
    if (r.clip.guided) CHECK_OK(model_encode_text(r.model, 1, negative, &text, NULL, NULL, &e));
    n = model_latents_len(r.model, &r.clip);
    CHECK(n == n_latents);
    float *latents = malloc(n * sizeof *latents);
    if (latents && n == n_latents) {
        CHECK_OK(denoise_run(&r, latents, n, config, s[3], precision != PRECISION_FP32, &e));
        double apart = rel_l2(latents, want, n);
        CHECK_OK(model_decode(r.model, latents, &r.clip, take_frames, &r, &e));
        CHECK(r.at == s[2] && r.count == (double)r.want_bytes);
        double psnr = 10 * log10(255.0 * 255 / (r.square / r.count + 1e-12));
        bool exact = precision == PRECISION_FP32;
        printf("%s %dx%dx%d, %d steps%s: latents apart by %.2g, frames %.1f dB, %.3f %% of bytes "
               "differ\n",
               precision_name(precision), s[0], s[1], s[2], s[3], s[7] ? ", adapter" : "", apart,
               psnr, 100 * r.off / r.count);
        if (exact) CHECK_MSG(psnr >= 60, "%.1f dB, at least 60 wanted", psnr);
        if (exact) CHECK_MSG(apart <= 1e-4, "latents apart by %.3g", apart);
        snprintf(key, sizeof key, "%d.bf16_db", k);
        if (!exact && m->n < MAX_CLIPS) {
            const float *db = golden_f32(g, key, &n);
            m->ours[m->n] = psnr;
            m->way[0][m->n] = (double)db[0];
            m->way[1][m->n++] = (double)db[1];
        }
    }
    free(latents);
    free(r.want);
    model_close(r.model);
}

/* NULL: the host. */
static struct device *asked_device(void)
{
    const char *name = getenv("DITGEN_TEST_DEVICE");
    struct device *d = NULL;
    struct err e = {0};
    if (name && strncmp(name, "cuda", 4) == 0) CHECK_OK(device_open(&d, name, &e));
    return d;
}

int main(void)
{
    struct device *device = asked_device();
    struct golden g = golden_open("e2e.safetensors");
    static struct model_info info;
    struct sched_config config;
    struct err e = {0};
    CHECK_OK(model_info_read(&info, MODEL, &e));
    CHECK_OK(sched_config_read(&config, MODEL "/scheduler/scheduler_config.json", &e));
    if (checks_failed) return TEST_RESULT();
    int cases = 0;
    enum precision all[] = {PRECISION_FP32, PRECISION_BF16_EMULATED, PRECISION_BF16};
    int precisions = !device && model_has_bf16() ? 3 : 2;
    if (device) all[1] = PRECISION_BF16;
    static struct rough rough[3];
    for (char key[32]; cases < MAX_CASES; cases++) {
        snprintf(key, sizeof key, "%d.settings", cases);
        if (!golden_has(&g, key)) break;
        snprintf(key, sizeof key, "%d.bf16_db", cases);
        for (int i = 0; i < (golden_has(&g, key) ? precisions : 1); i++)
            one_case(&g, cases, device, &info, &config, all[i], &rough[i]);
    }
    for (int i = 1; i < precisions; i++) {
        CHECK(rough[i].n == 12);
        judge(&rough[i], all[i]);
    }
    CHECK(cases >= 15);
    golden_close(&g);
    device_close(device);
    return TEST_RESULT();
}
