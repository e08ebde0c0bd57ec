/* Checking settings and choosing what runs; see run.h. */
#include "app/lib/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/cost.h"
#include "model/base/threads.h"

static int check_near(const struct ditgen *d, const char *flag, int v,
                      void (*near)(const struct model_info *m, int v, int *below, int *above),
                      struct err *e)
{
    int below, above;
    near(&d->info, v, &below, &above);
    if (below == v && above == v) return 0;
    if (below == above)
        return err_set(e, ERR_USAGE, "%s is %d; the nearest this model can do is %d", flag, v,
                       above);
    return err_set(e, ERR_USAGE, "%s is %d; the nearest this model can do are %d and %d", flag, v,
                   below, above);
}

static int choose_clip(struct run *r, const struct ditgen *d, struct err *e)
{
    const struct ditgen_settings *s = r->settings;
    /* the rows' bounds keep every product below 2^63 and every side below 2^15 */
    r->guidance_scale = settings_real(s, SET_GUIDANCE_SCALE);
    r->clip = (struct model_clip){.width = settings_int(s, SET_WIDTH),
                                  .height = settings_int(s, SET_HEIGHT),
                                  .frames = settings_int(s, SET_FRAMES),
                                  .num_steps = settings_int(s, SET_STEPS),
                                  .guided = r->guidance_scale > 1};
    if (check_near(d, "--width", r->clip.width, model_width_near, e) < 0) return -1;
    if (check_near(d, "--height", r->clip.height, model_height_near, e) < 0) return -1;
    return check_near(d, "--frames", r->clip.frames, model_frames_near, e);
}

static int choose_solver(struct run *r, struct err *e)
{
    const struct ditgen_settings *s = r->settings;
    struct setting_compat compat;
    if (setting_parse_compat(settings_text(s, SET_COMPAT), &compat, e) < 0) return -1;
    r->truncate_frames = compat.truncate;
    r->solver = solver_find(settings_text(s, SET_SOLVER)); /* the row's check: it is there */
    r->flow_shift = settings_real(s, SET_FLOW_SHIFT);
    return r->solver->schedule(&r->schedule, r->clip.num_steps, r->flow_shift,
                               compat.diffusers_036 ? COMPAT_DIFFUSERS_036 : COMPAT_DIFFUSERS_037,
                               e);
}

int run_device(struct ditgen *d, const char *name, struct err *e)
{
    if (!name || strncmp(name, "cpu", 3) == 0) name = "cpu"; /* a level is the process's */
    if (d->device && strcmp(name, d->device_name) == 0) return 0;
    run_device_close(d);
    if (device_open(&d->device, name, e) < 0) return err_wrap(e, "--device %s", name);
    snprintf(d->device_name, sizeof d->device_name, "%s", name);
    return 0;
}

void run_device_close(struct ditgen *d)
{
    model_store_close(&d->store);
    device_close(d->device);
    d->device = NULL;
}

/* Of the row precision: auto|fp32|bf16|fp8. */
static enum precision choose_precision(int asked, const struct device *device)
{
    if (asked == 3) return PRECISION_FP8; /* never by auto: it is approximate */
    if (device_place(device) != PLACE_HOST) return asked == 1 ? PRECISION_FP32 : PRECISION_BF16;
    if (asked == 1 || (asked == 0 && !model_has_bf16())) return PRECISION_FP32;
    return model_has_bf16() ? PRECISION_BF16 : PRECISION_BF16_EMULATED;
}

/* What the clip may lose: refused where nothing can be carried, or nobody knows what it costs. */
static int choose_budget(struct run *r, const struct ditgen *d, struct err *e)
{
    const char *text = settings_budget(r->settings);
    const char *cache = settings_text(r->settings, SET_STEP_CACHE);
    if (!text) return 0;
    if (settings_switch(r->settings, SET_TURBO))
        return err_set(
            e, ERR_USAGE,
            "--error-budget and --turbo: between %d steps there is nothing to carry that "
            "a budget could steer; leave one of them out",
            r->clip.num_steps);
    bool steps = settings_budget_steps(r->settings);
    if (cache && strcmp(cache, "none") != 0 && !steps)
        return err_set(
            e, ERR_USAGE,
            "--error-budget and --step-cache %.60s both decide what a step carries; leave one "
            "of them out, or take --step-cache budget",
            cache);
    r->budget = d->budget ? *d->budget : (struct budget){.mode = BUDGET_RENEW};
    *(steps ? &r->params.cache.budget : &r->params.attn.budget) = &r->budget;
    return 0;
}

/* Its calibration: after the stack was found to be one. */
static int find_budget(struct run *r, const struct ditgen *d, struct err *e)
{
    const char *text = settings_budget(r->settings);
    struct budget_key key;
    if (!text || d->budget) return 0;
    r->budget.mode = BUDGET_HOLD;
    if (setting_parse_budget(text, &r->budget.db, e) < 0) return -1;
    budget_key_of(&key, r->settings);
    if (error_budget_find(&r->calibrated, &d->info, &key, r->budget.db, e) < 0) return -1;
    r->budget.table = &r->calibrated.table;
    if (settings_budget_steps(r->settings))
        return model_check_cache(&r->cache, &d->info, &r->params, &r->clip, e);
    return model_check_attention(&r->forecast, &d->info, &r->params, &r->clip, e);
}

static int choose_attention(struct run *r, struct ditgen *d, struct err *e)
{
    struct attn_params *a = &r->params.attn;
    int cache_mem = settings_int(r->settings, SET_CACHE_MEM);
    a->method = settings_text(r->settings, SET_ATTENTION);
    a->cap_cache = cache_mem >= 0;
    a->cache_mem = a->cap_cache ? (size_t)cache_mem << 20 : 0;
    a->kernel = settings_text(r->settings, SET_KERNEL);
    a->cpu = d->cpu;
    a->device = d->device;
    a->precision = precision_beside(r->params.precision);
    a->threads = r->params.threads;
    a->log = r->params.log;
    a->watch = d->attn_watch;

    return model_check_attention(&r->forecast, &d->info, &r->params, &r->clip, e);
}

static int choose_cache(struct run *r, const struct ditgen *d, struct err *e)
{
    struct dit_cache_params *c = &r->params.cache;
    c->watch = d->watch;
    c->words = settings_text(r->settings, SET_STEP_CACHE);
    if (!c->words) return 0;
    if (calibration_of(&r->calibration, &d->info, r->params.turbo || r->params.lora, e) < 0)
        return -1;
    c->calibration = r->calibration.known ? &r->calibration.of : NULL;
    c->why_not = r->calibration.why_not;
    if (model_check_cache(&r->cache, &d->info, &r->params, &r->clip, e) < 0) return -1;
    if (r->cache.name && r->forecast.remembers)
        log_line(
            r->params.log, 0,
            "step cache %s leaves out steps in which attention %.200s would have learned: what "
            "both keep grows older than either of them expects",
            r->cache.name, r->params.attn.method);
    return 0;
}

/* Nothing stands between four steps that could be carried: attention-sparse.md 17.4. */
static void warn_turbo(const struct run *r)
{
    const char *eight_bit = "", *carries = r->cache.name;
    if (r->forecast.remembers) carries = r->params.attn.method;
    if (!settings_switch(r->settings, SET_TURBO) || !carries) return;
    for (int i = 0; i < attn_methods(); i++)
        if (strcmp(attn_method_info(i).name, "sage") == 0) eight_bit = " or sage";
    log_line(r->params.log, 0,
             "--turbo makes %d steps that differ too much for anything to be carried from one to "
             "the next, as %.120s does: use --attention dense%s and no step cache",
             r->clip.num_steps, carries, eight_bit);
}

static int choose_threads(struct ditgen *d, int wanted)
{
    if (wanted > 0) return wanted;
    if (d->probed_threads == 0) d->probed_threads = threads_probe();
    return d->probed_threads;
}

/* Of a GPU's memory; the processor's is the system's to limit. */
static int limit_device(const struct run *r, struct ditgen *d, const struct log *log, struct err *e)
{
    const char *text = settings_text(r->settings, SET_MAX_VRAM);
    size_t bytes = 0;
    if (text && setting_parse_bytes(text, &bytes, e) < 0) return err_wrap(e, "--max-vram");
    if (device_place(d->device) != PLACE_HOST)
        device_limit(d->device, bytes);
    else if (text)
        log_line(log, 0, "--max-vram is of a GPU's memory; this runs on the processor");
    return 0;
}

int run_init(struct run *r, struct ditgen *d, const struct ditgen_settings *s,
             const struct log *log, struct err *e)
{
    memset(r, 0, sizeof *r);
    if (settings_resolve(&r->settings, s, d, NULL, e) < 0) goto fail;
    if (choose_clip(r, d, e) < 0) goto fail;
    if (choose_solver(r, e) < 0) goto fail;
    if (run_device(d, settings_text(r->settings, SET_DEVICE), e) < 0) goto fail;
    if (limit_device(r, d, log, e) < 0) goto fail;
    r->params.device = d->device;
    r->params.store = device_place(d->device) == PLACE_HOST ? NULL : &d->store;
    r->params.precision = choose_precision(settings_int(r->settings, SET_PRECISION), d->device);
    if (model_check_precision(d->device, r->params.precision, e) < 0) {
        err_wrap(e, "--precision fp8");
        goto fail;
    }
    r->params.threads = choose_threads(d, settings_int(r->settings, SET_THREADS));
    threads_set(r->params.threads);
    r->params.log = log;
    r->params.collapse_pads = !settings_switch(r->settings, SET_LONG_TEXT);
    r->params.fix_text = !settings_switch(r->settings, SET_NO_FTFY);
    r->params.turbo = settings_switch(r->settings, SET_TURBO) && d->info.turbo_whole;
    if (settings_switch(r->settings, SET_TURBO) && !d->info.turbo_whole) {
        snprintf(r->lora, sizeof r->lora, "%s/transformer_turbo/pytorch_lora_weights.safetensors",
                 d->info.dir);
        r->params.lora = r->lora;
        r->params.lora_strength = 1;
    }
    if (choose_budget(r, d, e) < 0) goto fail;
    if (choose_attention(r, d, e) < 0) goto fail;
    if (choose_cache(r, d, e) < 0) goto fail;
    if (find_budget(r, d, e) < 0) goto fail;
    r->params.beside = cost_beside(d, r);
    warn_turbo(r);
    return 0;
fail:
    run_fini(r);
    return -1;
}

void run_fini(struct run *r)
{
    settings_close(r->settings);
    calibration_fini(&r->calibration);
    error_budget_fini(&r->calibrated);
    r->settings = NULL;
    r->params.attn.method = NULL;
}
