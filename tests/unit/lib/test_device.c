/* A whole clip with a device that only its own operations reach: the host's frames and states, from
 * the start and going on; weights go up once; a device that cannot be is one sentence. */
#include "app/lib/calibrate.h"
#include "app/lib/run.h"
#include "tests/check.h"
#include "tests/fake/fake.h"
#include "tests/products.h"

#include <time.h>

#define STEPS 4

#define FRAMES 5
#define FRAME (32 * 32 * 3)

struct seen {
    uint8_t frames[FRAMES][FRAME];
    bool guard; /* while denoising */
    bool slow; /* enough for a state in between: a device gives one every two seconds */
    int states;
    int step; /* after which the state is wanted */
    struct ditgen_state state; /* that one; .step 0: it was not given */
    float *memory[1 + DITGEN_HISTORY + DITGEN_KEPT];
    char device[16];
    double fp8_error;
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct seen *s = ctx;
    CHECK(index >= 0 && index < FRAMES && width * height * 3 == FRAME);
    memcpy(s->frames[index], rgb, FRAME);
    return 0;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    const struct seen *s = ctx;
    const struct timespec pause = {.tv_sec = 2, .tv_nsec = 100000000};
    if (s->slow && p->phase == DITGEN_DENOISE && p->done == 1) nanosleep(&pause, NULL);
    if (s->guard) fake_guard(p->phase == DITGEN_DENOISE && p->done < STEPS);
    return 0;
}

static float *copy_of(const float *x, size_t n)
{
    float *to = malloc(n * sizeof *to);
    memcpy(to, x, n * sizeof *to);
    return to;
}

static int on_state(void *ctx, const struct ditgen_state *s)
{
    struct seen *seen = ctx;
    size_t n =
        (size_t)s->shape[0] * (size_t)s->shape[1] * (size_t)s->shape[2] * (size_t)s->shape[3];
    seen->states++;
    for (int i = 0; i <= s->n_history; i++)
        for (size_t k = 0; k < n; k++)
            CHECK(isfinite((double)(i ? s->history[i - 1] : s->latents)[k]));
    if (s->step != seen->step) return 0;
    seen->state = *s;
    float **at = seen->memory;
    seen->state.latents = *at++ = copy_of(s->latents, n);
    for (int i = 0; i < s->n_history; i++)
        seen->state.history[i] = *at++ = copy_of(s->history[i], n);
    for (int i = 0; i < s->n_kept; i++)
        seen->state.kept[i] = *at++ = copy_of(s->kept[i], s->kept_len[i]);
    return 0;
}

static void forget(struct seen *s)
{
    for (size_t i = 0; i < ARRAY_LEN(s->memory); i++)
        free(s->memory[i]);
}

static void on_ran(void *ctx, const struct ditgen_ran *r)
{
    struct seen *s = ctx;
    snprintf(s->device, sizeof s->device, "%s", r->device);
    s->fp8_error = r->fp8_error;
}

/* how: an attention, or "cache NAME:..." with dense attention */
static struct ditgen_settings *settings(struct ditgen *d, const char *device, const char *how)
{
    struct ditgen_settings *s;
    struct ditgen_error e;
    const char *cache = strncmp(how, "cache ", 6) == 0 ? how + 6 : NULL;
    const char *const all[][2] = {{"prompt", "a rocket"}, {"size", "32x32"},
                                  {"frames", "5"},        {"steps", "4"},
                                  {"threads", "1"},       {"seed", "3"},
                                  {"device", device},     {"attention", cache ? "dense" : how},
                                  {"precision", "fp32"},  {"step-cache", cache ? cache : "none"},
                                  {"solver", "unipc"},    {"guidance-scale", "4"}};
    CHECK(ditgen_settings_open(&s, d, &e) == 0);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        CHECK_MSG(ditgen_set(s, all[i][0], all[i][1], &e) == 0, "%s", e.message);
    return s;
}

static void clip(struct ditgen *d, const char *device, const char *attention, struct seen *s,
                 const struct ditgen_state *from)
{
    struct ditgen_error e = {0};
    struct ditgen_settings *set = settings(d, device, attention);
    struct ditgen_callbacks c = {.ctx = s,
                                 .frame = on_frame,
                                 .progress = on_progress,
                                 .state = on_state,
                                 .ran = on_ran,
                                 .resume = from};
    CHECK_MSG(ditgen_generate(d, set, &c, &e) == 0, "%s", e.message);
    fake_guard(false);
    ditgen_settings_close(set);
}

/* In levels of 255. */
static int farthest(const struct seen *a, const struct seen *b)
{
    int most = 0;
    for (int f = 0; f < FRAMES; f++)
        for (int i = 0; i < FRAME; i++) {
            int d = abs(a->frames[f][i] - b->frames[f][i]);
            most = d > most ? d : most;
        }
    return most;
}

/* The handle's device, as run_device() would have opened it. */
static struct device *give_fake(struct ditgen *d, bool together)
{
    struct err e = {0};
    run_device_close(d);
    CHECK_OK(fake_open(&d->device, together, &e));
    strcpy(d->device_name, "cuda");
    return d->device;
}

static void same_clip(struct ditgen *d, const char *attention, bool together)
{
    struct seen host = {.step = STEPS - 1}, there = {.guard = true}, second = {.guard = true},
                rest = {.guard = true};
    int bound = products_know_rows() ? 1 : 0; /* rounding may turn a level */
    clip(d, "cpu", attention, &host, NULL);
    CHECK_STR(host.device, "cpu");
    struct device *dev = give_fake(d, together);
    clip(d, "cuda", attention, &there, NULL);
    CHECK_MSG(farthest(&there, &host) <= bound, "attention %s: %d levels from the host's",
              attention, farthest(&there, &host));
    CHECK_STR(there.device, "fake");
    CHECK(fake_replays(dev) > 0);
    CHECK(there.states >= 1); /* every few seconds and at the end */
    size_t held = device_held(dev);
    CHECK(held > 0 && d->store.dit != NULL);
    struct dit *kept = d->store.dit;
    clip(d, "cuda", attention, &second, NULL); /* weights are there */
    CHECK(farthest(&second, &there) == 0);
    CHECK(d->store.dit == kept && device_held(dev) == held);
    clip(d, "cuda", attention, &rest, &host.state); /* what the host began */
    CHECK(farthest(&rest, &host) <= bound);
    forget(&host), forget(&there), forget(&second), forget(&rest);
}

/* What a step cache remembers on a device is in its states, for it and for the host. */
static void same_state(struct ditgen *d)
{
    const char *how = "cache easycache:threshold=9,first=1,last=0";
    struct seen whole = {.guard = true, .step = 2, .slow = true}, rest = {.guard = true},
                home = {0};
    struct device *dev = give_fake(d, false);
    clip(d, "cuda", how, &whole, NULL);
    CHECK(whole.state.step == 2 && whole.state.n_kept == 2);
    long before = fake_replays(dev);
    clip(d, "cuda", how, &rest, &whole.state);
    CHECK(farthest(&rest, &whole) == 0 && fake_replays(dev) > before);
    clip(d, "cpu", how, &home, &whole.state);
    CHECK(farthest(&home, &whole) <= (products_know_rows() ? 1 : 0));
    forget(&whole), forget(&rest), forget(&home);
}

/* Calibrations are taken where the clip is made. */
static void calibrated(struct ditgen *d)
{
    struct seen s = {.guard = true};
    struct calibration of = {0};
    struct calibrate *c;
    struct err e = {0};
    CHECK_OK(calibrate_open(&c, &e));
    give_fake(d, true);
    d->watch = calibrate_watch(c);
    clip(d, "cuda", "dense", &s, NULL);
    clip(d, "cuda", "dense", &s, NULL);
    d->watch = NULL;
    /* steps enough for all but the polynomial, which is the last that it wants */
    CHECK(calibrate_result(&of, c, &e) < 0 && strstr(e.msg, "3 different changes of time"));
    calibrate_close(c);
    calibration_fini(&of);
    forget(&s);
}

/* Memory that runs out anywhere leaves a handle that works again. */
static void no_memory(struct ditgen *d)
{
    struct ditgen_settings *s;
    struct device *dev = give_fake(d, false);
    int failed = 0;
    for (int at = 1; at < 50; at++) {
        struct ditgen_error e = {0};
        s = settings(d, "cuda", "dense");
        model_store_close(&d->store);
        dev->fail_alloc = at;
        int rc = ditgen_generate(d, s, NULL, &e);
        bool reached = dev->fail_alloc == 0;
        dev->fail_alloc = 0;
        ditgen_settings_close(s);
        CHECK_MSG(reached ? rc != 0 && e.code == DITGEN_RESOURCE : rc == 0, "%d: %s", at,
                  e.message);
        if (!reached) break;
        failed++;
    }
    CHECK(failed >= 4);
    model_store_close(&d->store);
    CHECK(device_held(dev) == 0);
}

static void refused(struct ditgen *d)
{
    struct ditgen_error e = {0};
    struct device *dev = give_fake(d, false);
    struct ditgen_settings *s = settings(d, "cuda", "dense");
    CHECK(ditgen_set(s, "device", "cpu:avx2", &e) != 0 && strstr(e.message, "ditgen_device()"));
    CHECK(ditgen_set(s, "device", "tpu", &e) != 0 && strstr(e.message, "cuda"));
    err_set(&dev->lost, ERR_DEVICE, "cuda:0: it fell off the bus");
    for (int i = 0; i < 2; i++)
        CHECK(ditgen_generate(d, s, NULL, &e) != 0 && e.code == DITGEN_DEVICE &&
              strstr(e.message, "fell off"));
    CHECK(ditgen_set(s, "device", "cpu", &e) == 0); /* the way on */
    CHECK_MSG(ditgen_generate(d, s, NULL, &e) == 0, "%s", e.message);
    CHECK(ditgen_set(s, "device", "cuda:99", &e) == 0);
    CHECK(ditgen_generate(d, s, NULL, &e) != 0 && e.code == DITGEN_DEVICE &&
          strstr(e.message, "--device cpu"));
    ditgen_settings_close(s);
}

/* What the plan says of the device is what is taken there. */
static void predicted(struct ditgen *d)
{
    struct ditgen_error e = {0};
    struct ditgen_plan p;
    struct device *dev = give_fake(d, true);
    struct ditgen_settings *s = settings(d, "cuda", "dense");
    CHECK_MSG(ditgen_plan(d, s, &p, &e) == 0, "%s", e.message);
    CHECK(p.device_bytes > 0 && p.device_free == (double)((size_t)1 << 30) && p.fits);
    CHECK(ditgen_set(s, "max-vram", "8M", &e) == 0);
    CHECK_MSG(ditgen_plan(d, s, &p, &e) == 0 && !p.fits, "%s", e.message);
    CHECK(ditgen_generate(d, s, NULL, &e) != 0 && e.code == DITGEN_RESOURCE &&
          strstr(e.message, "fake:0") && strstr(e.message, "--device cpu"));
    CHECK(device_peak(dev) == 0); /* before a weight is read */
    ditgen_settings_close(s);
}

/* Half the memory of weights, a sampled error, other frames, and only where there are such products. */
static void fp8(struct ditgen *d)
{
    struct ditgen_error e = {0};
    struct ditgen_plan p, q;
    struct seen seen = {0}, plain = {0};
    give_fake(d, true);
    struct ditgen_settings *s = settings(d, "cuda", "dense");
    CHECK_MSG(ditgen_plan(d, s, &p, &e) == 0, "%s", e.message);
    CHECK(ditgen_set(s, "precision", "fp8", &e) == 0);
    CHECK_MSG(ditgen_plan(d, s, &q, &e) == 0, "%s", e.message);
    CHECK_STR(q.precision, "fp8 (approximate)");
    CHECK(q.bf16 && q.phase_bytes[DITGEN_DENOISE] < p.phase_bytes[DITGEN_DENOISE] / 2);
    struct ditgen_callbacks c = {.ctx = &seen, .frame = on_frame, .ran = on_ran};
    CHECK_MSG(ditgen_generate(d, s, &c, &e) == 0, "%s", e.message);
    CHECK_MSG(seen.fp8_error > 0.005 && seen.fp8_error < 0.08, "%g", seen.fp8_error);
    CHECK(ditgen_set(s, "precision", "bf16", &e) == 0);
    c.ctx = &plain;
    CHECK_MSG(ditgen_generate(d, s, &c, &e) == 0, "%s", e.message);
    CHECK(plain.fp8_error == 0 && farthest(&plain, &seen) > 0);
    CHECK(ditgen_set(s, "precision", "fp8", &e) == 0 && ditgen_set(s, "device", "cpu", &e) == 0);
    CHECK(ditgen_plan(d, s, &p, &e) != 0 && e.code == DITGEN_DEVICE &&
          strstr(e.message, "--precision fp8: fp8 linear layers are a GPU's"));
    CHECK(ditgen_generate(d, s, NULL, &e) != 0 && e.code == DITGEN_DEVICE);
    ditgen_settings_close(s);
}

int main(void)
{
    struct ditgen *d;
    struct ditgen_error e = {0};
    CHECK_MSG(ditgen_open(&d, TEST_SOURCE_DIR "/assets/emoji", &e) == 0, "%s", e.message);
    same_clip(d, "dense", false);
    same_clip(d, "dense", true);
    same_clip(d, "tile:reach=1x2x2,tile=1x2x2,block=16,first=2", false);
    for (int i = 0; i < dit_caches(); i++) {
        char words[80];
        if (dit_cache_info(i).budgeted) continue; /* wants a calibration */
        snprintf(words, sizeof words, "cache %s:threshold=%s,first=1,last=0",
                 dit_cache_info(i).name, i % 2 ? "9" : ".3");
        same_clip(d, words, i % 2);
    }
    same_state(d);
    calibrated(d);
    no_memory(d);
    refused(d);
    predicted(d);
    fp8(d);
    ditgen_close(d);
    return TEST_RESULT();
}
