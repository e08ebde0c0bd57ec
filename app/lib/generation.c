/* One generation from settings to frames, over the doors of model and sched; or the rest of one. */
#include "app/lib/job.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/cost.h"
#include "model/base/clock.h"
#include "model/model.h"
#include "sched/sched.h"

/* What the phase before gave back goes to the system: the allocator would keep about 70 MiB of
 * small pieces of the embedded transformer while the VAE needs its own (peak 167 MiB instead of
 * 102). */
static void give_back(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

static void phase_begin(struct job *j, enum ditgen_phase phase, int total)
{
    give_back();
    j->begin = clock_seconds();
    j->progress = (struct ditgen_progress){.phase = phase, .total = total};
}

/* Nonzero: the caller wants to stop. */
static int report(struct job *j)
{
    if (!j->calls->progress) return 0;
    j->progress.seconds = clock_seconds() - j->begin;
    return j->calls->progress(j->calls->ctx, &j->progress);
}

static void log_write(void *ctx, int level, const char *line)
{
    const struct ditgen_callbacks *c = ctx;
    if (c->log) c->log(c->ctx, level, line);
}

static int text_progress(void *ctx, int done, int total)
{
    struct job *j = ctx;
    int branches = j->run.clip.guided ? 2 : 1;
    j->n_layers = total;
    j->progress.done = j->layers_done + done;
    j->progress.total = total * branches;
    return report(j);
}

static int encode_texts(struct job *j, struct err *e)
{
    const char *texts[2] = {settings_text(j->run.settings, SET_PROMPT),
                            settings_text(j->run.settings, SET_NEGATIVE)};
    static const char *const names[2] = {"prompt", "negative prompt"};
    phase_begin(j, DITGEN_TEXT, 1);
    for (int b = 0; b < (j->run.clip.guided ? 2 : 1); b++) {
        struct model_text info = {0};
        if (model_encode_text(j->model, b, texts[b], &info, text_progress, j, e) < 0) return -1;
        j->layers_done += j->n_layers;
        j->progress.done = j->layers_done;
        if (report(j)) return err_set(e, ERR_CANCELLED, "cancelled while reading the text");
        if (info.truncated)
            log_line(j->run.params.log, 0,
                     "the %s is too long: what follows its first %d tokens is ignored", names[b],
                     info.n_tokens - 1);
    }
    return 0;
}

static int block_progress(void *ctx, int done, int total)
{
    struct job *j = ctx;
    j->progress.blocks = total;
    j->progress.block = done;
    return report(j);
}

static struct model_ask ask_of(struct job *j, const struct denoise_ask *a)
{
    return (struct model_ask){.step = a->step,
                              .n_branches = a->n_branches,
                              .expert = a->expert,
                              .sigma = a->sigma,
                              .timestep = a->timestep,
                              .frame_timesteps = a->frame_timesteps,
                              .progress = block_progress,
                              .ctx = j};
}

static int ask_trace(void *ctx, const struct denoise_ask *a, struct err *e)
{
    struct job *j = ctx;
    struct model_ask m = ask_of(j, a);
    return model_trace(j->model, a->velocity, a->latents, &m, e);
}

static int ask_velocity(void *ctx, const struct denoise_ask *a, struct err *e)
{
    struct job *j = ctx;
    struct model_ask m = ask_of(j, a);
    return model_velocity(j->model, a->velocity, a->latents, &m, e);
}

/* Nonzero: the caller wants to stop. */
static int give_preview(struct job *j, int step, int steps)
{
    struct preview *p = &j->preview;
    double t0 = clock_seconds();
    if (!j->calls->preview || !p->map) return 0;
    if (job_bring_back(j, false) < 0) return -1;
    int rc = 0;
    bool last_chance = !p->any && step == steps - 1; /* of a run of a second: one all the same */
    if ((preview_due(p, t0) || last_chance) && step < steps) {
        const float *sigma = j->run.schedule.sigma;
        preview_make(p, j->latents, sigma[step - 1], sigma[step]);
        struct ditgen_preview now = {.step = step,
                                     .steps = steps,
                                     .frames = j->shape[1],
                                     .width = j->shape[3],
                                     .height = j->shape[2],
                                     .rgb = p->rgb};
        rc = j->calls->preview(j->calls->ctx, &now);
        p->made = clock_seconds();
        p->cost = p->made - t0;
        p->any = true;
    }
    preview_remember(p, j->latents);
    return rc;
}

static int after_step(void *ctx, int step, int num_steps, const float *latents)
{
    struct job *j = ctx;
    (void)latents;
    j->progress.done = step + 1;
    j->progress.total = num_steps;
    j->progress.block = 0;
    if (model_step_done(j->model, &j->failed) < 0) return -1;
    struct attn_stats stats;
    struct dit_cache_stats cache;
    model_attn_stats(j->model, &stats);
    model_cache_stats(j->model, &cache);
    step_meter_step(&j->meter, step, num_steps, &stats, cache.reused, clock_seconds());
    if (step + 1 == num_steps && job_tell_ran(j, &j->failed) < 0) return -1;
    return report(j) || job_give_state(j, step + 1, num_steps) ||
           give_preview(j, step + 1, num_steps);
}

/* Latents, noise or what an earlier run left, to where they are denoised. */
static int take_there(struct job *j, struct err *e)
{
    const struct run *r = &j->run;
    size_t bytes = j->n * sizeof(float);
    if (device_place(r->params.device) == PLACE_HOST) return 0;
    j->device = r->params.device;
    size_t solver = (denoise_bytes(r->solver, j->n, r->clip.guided) + 255) / 256 * 256;
    size_t scratch = solver + 2 * bytes;
    void *at;
    if (device_alloc(j->device, &at, bytes, e) < 0) return -1;
    j->latents_there = at;
    if (device_alloc(j->device, &j->scratch_there, scratch, e) < 0) return -1;
    if (device_zero(j->device, j->scratch_there, scratch, e) < 0) return -1;
    for (int i = 0; i < 2; i++)
        j->before_there[i] =
            (float *)(void *)((char *)j->scratch_there + solver) + (size_t)i * j->n;
    if (device_upload(j->device, j->latents_there, j->latents, bytes, e) < 0) return -1;
    for (int i = 0; j->first_step && i < r->solver->history; i++)
        if (device_upload(
                j->device, denoise_history(r->solver, j->n, r->clip.guided, j->scratch_there, i),
                denoise_history(r->solver, j->n, r->clip.guided, j->scratch, i), bytes, e) < 0)
            return -1;
    return 0;
}

static void leave_there(struct job *j)
{
    free(j->attention);
    j->attention = NULL;
    if (!j->device) return;
    device_free(j->device, j->latents_there);
    device_free(j->device, j->scratch_there);
    j->latents_there = NULL;
    j->scratch_there = NULL;
    j->device = NULL;
}

static int denoise_clip(struct job *j, uint64_t seed, struct err *e)
{
    struct run *r = &j->run;
    struct noise_rng rng;
    noise_seed(&rng, seed);
    if (!j->first_step) noise_randn(&rng, j->latents, j->n);
    struct lincomb_place place = model_place(j->model);
    struct denoise_params p = {.solver = r->solver,
                               .schedule = &r->schedule,
                               .guidance_scale = {(float)r->guidance_scale},
                               .round = r->params.precision != PRECISION_FP32,
                               .n = j->n,
                               .first_step = j->first_step,
                               .place = &place,
                               .after_step = after_step,
                               .ctx = j};
    struct denoise_model m = {.ctx = j, .velocity = ask_velocity, .trace = ask_trace};
    phase_begin(j, DITGEN_DENOISE, r->clip.num_steps);
    j->progress.first = j->progress.done = j->first_step;
    if (report(j)) return err_set(e, ERR_CANCELLED, "cancelled before the first step");
    j->preview.made = j->gave = clock_seconds();
    preview_remember(&j->preview, j->latents);
    step_meter_begin(&j->meter, clock_seconds());
    if (take_there(j, e) < 0) return -1;
    for (int i = 0; i < 2 && j->device; i++)
        p.before[i] = j->before_there[i];
    int rc = denoise(j->device ? j->latents_there : j->latents, &p, &m,
                     j->device ? j->scratch_there : j->scratch, e);
    if (rc == 0) rc = job_bring_back(j, false);
    if (rc < 0 && j->failed.code) *e = j->failed;
    return rc;
}

static int take_frames(void *ctx, const uint8_t *rgb, int n, int height, int width, struct err *e)
{
    struct job *j = ctx;
    size_t len = (size_t)height * (size_t)width * 3;
    for (int i = 0; i < n; i++, j->frame++) {
        j->rgb = rgb + (size_t)i * len;
        job_note_range(j, len);
        preview_fit_frame(&j->preview, j->latents, j->frame, j->rgb, width, height,
                          j->info->vae.scale_temporal);
        if (j->calls->frame && j->calls->frame(j->calls->ctx, j->frame, j->rgb, width, height))
            return err_set(e, ERR_CANCELLED, "cancelled at frame %d", j->frame);
        j->progress.done = j->frame + 1;
        if (report(j)) return err_set(e, ERR_CANCELLED, "cancelled at frame %d", j->frame);
    }
    return 0;
}

/* Text and steps; leaves the denoised latents. */
static int make_latents(struct job *j, struct err *e)
{
    const struct model_clip *clip = &j->run.clip;
    struct cost_text text;
    if (model_check(j->model, e) < 0) return -1;
    if (cost_text(&text, j->model, &j->run, e) < 0) return -1;
    if (cost_check_limits(j->d, &j->run, &text, e) < 0) return -1;
    if (cost_check_device(&j->vram, j->d, &j->run, &text, e) < 0) return -1;
    model_take_plan(j->model, &j->vram);
    device_counts_reset(j->run.params.device);
    device_peak_reset(j->run.params.device);
    if (encode_texts(j, e) < 0) return -1;
    model_text_done(
        j->model); /* before peaks are counted anew: the encoder is no part of the next */
    job_log_device(j, DITGEN_TEXT);
    if (model_denoise_begin(j->model, clip, e) < 0) return -1;
    if (j->calls->resume && job_take_kept(j, j->calls->resume, e) < 0) return -1;
    int rc = denoise_clip(j, settings_seed(j->run.settings), e);
    leave_there(j);
    if (rc < 0) return -1;
    struct attn_stats stats;
    model_denoise_end(j->model, &stats);
    job_log_device(j, DITGEN_DENOISE);
    job_log_attention(j, &stats);
    return 0;
}

static int job_run(struct job *j, struct ditgen *d, struct err *e)
{
    const struct model_clip *clip = &j->run.clip;
    const struct dit_grid g = model_grid(&d->info, clip);
    const int shape[4] = {d->info.dit.out_channels, g.frames, g.height, g.width};
    if (model_open(&j->model, &d->info, &j->run.params, e) < 0) return -1;
    j->d = d;
    j->info = &d->info;
    memcpy(j->shape, shape, sizeof shape);
    j->n = model_latents_len(j->model, clip);
    size_t bytes = denoise_bytes(j->run.solver, j->n, clip->guided);
    j->latents = malloc(j->n * sizeof *j->latents);
    j->scratch = calloc(
        1, bytes ? bytes : 1); /* a state keeps all of the solver's memory, used yet or not */
    if (!j->latents || !j->scratch)
        return err_set(e, ERR_RESOURCE, "no memory for the latents (%zu bytes)",
                       bytes + j->n * sizeof *j->latents);
    struct model_work work;
    model_work(&work, &d->info, clip, MODEL_TEXT_LEN);
    if (step_meter_open(&j->meter, clip->num_steps, d->info.dit.n_layers * (clip->guided ? 2 : 1),
                        &work, j->run.params.log, e) < 0)
        return -1;
    if (preview_open(&j->preview, shape, j->calls->preview ? j->calls->map : NULL,
                     j->calls->fitted != NULL, e) < 0)
        return -1;
    if (j->calls->resume && job_take_state(j, j->calls->resume, e) < 0) return -1;
    if (j->first_step < clip->num_steps && make_latents(j, e) < 0) return -1;
    free(j->scratch);
    j->scratch = NULL;

    if (j->calls->latents && j->calls->latents(j->calls->ctx, j->latents, shape))
        return err_set(e, ERR_CANCELLED, "cancelled before decoding");
    phase_begin(j, DITGEN_DECODE, clip->frames);
    if (report(j)) return err_set(e, ERR_CANCELLED, "cancelled before decoding");
    if (model_decode_pictures(j->model, j->latents, clip, j->run.truncate_frames, take_frames, j,
                              e) < 0)
        return -1;
    job_log_device(j, DITGEN_DECODE);
    job_warn_if_flat(j);
    struct ditgen_preview_map map = {.vae = ditgen_vae_mark(d)};
    if (j->calls->fitted && preview_fit_end(&j->preview, &map))
        j->calls->fitted(j->calls->ctx, &map);
    return 0;
}

int ditgen_generate(struct ditgen *d, const struct ditgen_settings *s,
                    const struct ditgen_callbacks *c, struct ditgen_error *error)
{
    static const struct ditgen_callbacks silent;
    struct err e = {0};
    struct job j = {.calls = c ? c : &silent};
    struct log log = {.level = c && c->log ? c->log_level : -1,
                      .write = log_write,
                      .ctx = (void *)(c ? c : &silent)};
    int rc = -1;
    if (!settings_text(s, SET_PROMPT))
        err_set(&e, ERR_USAGE, "no prompt");
    else
        rc = run_init(&j.run, d, s, &log, &e);
    if (rc == 0) {
        rc = job_run(&j, d, &e);
        model_close(j.model);
        run_fini(&j.run);
    }
    preview_close(&j.preview);
    step_meter_close(&j.meter);
    free(j.latents);
    free(j.scratch);
    return rc < 0 ? give_error(error, &e) : 0;
}
