/* Clip after clip for the calibration of an error budget; see calibrate_budget.h. */
#include "app/cli/calibrate_budget.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/stop.h"
#include "app/clips/quality.h"
#include "app/lib/budget_fit.h"
#include "app/lib/run.h"
#include "model/base/clock.h"

#define GROUPS 4 /* that layers are cut into */
/* Renewed in whole clips. Below a fifth clips are other clips: their loss no longer grows, and a line
 * through them tells too much of those between. */
static const double shares[] = {.85, .7, .5, .3};
#define SHARES ((int)ARRAY_LEN(shares))

struct exact { /* of a prompt */
    uint8_t *rgb;
    size_t bytes;
};

struct work {
    const struct calibrate_budget *c;
    struct budget_fit *fit;
    struct exact *exact; /* [prompts] */
    /* the clip under way */
    bool frames, whole, no_memory;
    float *latents;
    size_t n_latents;
    uint8_t *rgb;
    size_t bytes;
    int width, height, n_frames;
    double *moved; /* [steps, units]; -1: nothing was renewed */
    int units;
    struct budget_spent spent;
    /* told meanwhile */
    int done, total;
    double begin;
};

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct work *w = ctx;
    progress_update(w->c->progress, p);
    return stop_asked();
}

static int on_latents(void *ctx, const float *latents, const int shape[4])
{
    struct work *w = ctx;
    size_t n = (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3];
    free(w->latents);
    w->latents = malloc(n * sizeof *w->latents);
    w->no_memory = !w->latents;
    if (w->latents) memcpy(w->latents, latents, n * sizeof *latents);
    w->n_latents = n;
    w->whole = !w->frames && w->latents;
    return !w->frames || !w->latents; /* frames are not looked at */
}

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct work *w = ctx;
    size_t n = (size_t)width * (size_t)height * 3;
    uint8_t *more = realloc(w->rgb, n * ((size_t)index + 1));
    w->no_memory = !more;
    if (!more) return 1;
    memcpy(more + n * (size_t)index, rgb, n);
    w->rgb = more;
    w->bytes = n * ((size_t)index + 1);
    w->width = width, w->height = height, w->n_frames = index + 1;
    return 0;
}

static void on_moved(void *ctx, int step, int unit, double moved)
{
    struct work *w = ctx;
    double *to = &w->moved[(size_t)step * (size_t)w->units + (size_t)unit];
    *to = moved + (*to > 0 ? *to : 0); /* branches */
}

/* b NULL: exactly. Leaves latents, or frames as well. */
static int clip(struct work *w, const struct budget *b, int prompt, bool frames, struct err *e)
{
    const struct calibrate_budget *c = w->c;
    struct ditgen_settings *s = NULL;
    struct ditgen_error de;
    struct ditgen_callbacks calls = {
        .ctx = w, .progress = on_progress, .latents = on_latents, .frame = on_frame};
    char seed[24];
    snprintf(seed, sizeof seed, "%d", c->seed + prompt);
    if (settings_copy(&s, c->settings, e) < 0) return -1;
    int rc = settings_set(s, LAYER_CALL, "prompt", c->prompt[prompt], e);
    if (rc == 0) rc = settings_set(s, LAYER_CALL, "seed", seed, e);
    if (rc == 0 && !b) rc = settings_unset(s, "error-budget", e);
    if (rc == 0 && !b) rc = settings_set(s, LAYER_CALL, "attention", "dense", e);
    if (rc == 0 && !b) rc = settings_set(s, LAYER_CALL, "step-cache", "none", e);
    w->frames = frames;
    w->whole = w->no_memory = false;
    c->d->budget = b;
    c->d->budget_spent = &w->spent;
    if (rc == 0 && ditgen_generate(c->d, s, &calls, &de) < 0 && !w->whole) {
        rc = w->no_memory ? err_set(e, ERR_RESOURCE, "no memory for a clip")
             : de.code == DITGEN_CANCELLED
                 ? err_set(e, ERR_CANCELLED, "cancelled; nothing was written")
                 : err_set(e, (enum err_code)de.code, "%s", de.message);
    }
    c->d->budget = NULL;
    c->d->budget_spent = NULL;
    settings_close(s);
    progress_pause(c->progress);
    if (rc < 0) return -1;
    char left[40];
    w->done++;
    seconds_text(left, sizeof left, (clock_seconds() - w->begin) / w->done * (w->total - w->done));
    progress_say(c->progress, "clip %d of %d; about %s left", w->done, w->total, left);
    return 0;
}

/* --- steps and layers --- */

/* Layers and heads that are carried on their own: whole steps are one of one. */
static int layers_of(const struct calibrate_budget *c)
{
    return settings_budget_steps(c->settings) ? 1 : c->d->info.dit.n_layers;
}

static int heads_of(const struct calibrate_budget *c)
{
    return settings_budget_steps(c->settings) ? 1 : c->d->info.dit.n_heads;
}

/* Of one unit there is nothing to tell apart. */
static int groups_of(const struct calibrate_budget *c)
{
    int layers = layers_of(c);
    return layers < GROUPS ? layers : GROUPS;
}

/* Which steps carry is seen in the first clip that renews. */
static int open_fit(struct work *w, struct err *e)
{
    struct budget_fit_shape s = {.steps = settings_int(w->c->settings, SET_STEPS),
                                 .layers = layers_of(w->c),
                                 .heads = heads_of(w->c),
                                 .first = -1,
                                 .groups = groups_of(w->c)};
    for (int step = 0; step < s.steps; step++)
        for (int u = 0; u < w->units; u++) {
            if (!(w->moved[(size_t)step * (size_t)w->units + (size_t)u] >= 0)) continue;
            if (s.first < 0) s.first = step - 1;
            s.end = step + 1;
        }
    if (s.first < 0)
        return err_set(e, ERR_USAGE,
                       "calibrate --error-budget: %d steps leave nothing to carry; take more",
                       s.steps);
    int probes = 0;
    if (budget_fit_open(&w->fit, &s, e) < 0) return -1;
    while (budget_fit_probe_at(w->fit, probes) >= 0)
        probes++;
    w->total = w->c->prompts * (2 + probes + (s.groups > 1 ? s.groups : 0) + SHARES);
    return 0;
}

static double mse(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return n ? sum / (double)n : 0;
}

static void nothing_moved(struct work *w)
{
    size_t n = (size_t)settings_int(w->c->settings, SET_STEPS) * (size_t)w->units;
    for (size_t i = 0; i < n; i++)
        w->moved[i] = -1;
}

static int probe(struct work *w, int prompt, const float *whole, int step, int from, int to,
                 double *loss, struct err *e)
{
    struct budget b = {
        .mode = BUDGET_PROBE, .step = step, .from = from, .to = to, .moved = on_moved, .ctx = w};
    nothing_moved(w);
    if (clip(w, &b, prompt, false, e) < 0) return -1;
    *loss = mse(w->latents, whole, w->n_latents);
    return 0;
}

static int probes(struct work *w, int prompt, const float *whole, struct err *e)
{
    int from, to, groups = groups_of(w->c);
    double loss;
    for (int i = 0; budget_fit_probe_at(w->fit, i) >= 0; i++) {
        if (probe(w, prompt, whole, budget_fit_probe_at(w->fit, i), 0, w->units, &loss, e) < 0)
            return -1;
        budget_fit_probe(w->fit, i, loss);
        int next = budget_fit_probe_at(w->fit, i) + 1;
        const double *moved = w->moved + (size_t)next * (size_t)w->units;
        if (next >= settings_int(w->c->settings, SET_STEPS) || moved[0] < 0) continue;
        for (int u = 0; u < w->units; u++)
            budget_fit_twice(w->fit, i, u, moved[u]);
    }
    for (int g = 0; groups > 1 && g < groups; g++) {
        budget_fit_group(w->fit, g, &from, &to);
        if (probe(w, prompt, whole, budget_fit_group_at(w->fit), from, to, &loss, e) < 0) return -1;
        budget_fit_layers(w->fit, g, loss);
    }
    return 0;
}

static int first_clips(struct work *w, int prompt, struct err *e)
{
    struct budget b = {.mode = BUDGET_RENEW, .moved = on_moved, .ctx = w};
    int steps = settings_int(w->c->settings, SET_STEPS);
    if (clip(w, NULL, prompt, true, e) < 0) return -1;
    w->exact[prompt] = (struct exact){w->rgb, w->bytes};
    w->rgb = NULL;
    nothing_moved(w);
    if (clip(w, &b, prompt, false, e) < 0) return -1;
    if (!w->fit && open_fit(w, e) < 0) return -1;
    for (int step = 0; step < steps; step++)
        for (int u = 0; u < w->units; u++) {
            double moved = w->moved[(size_t)step * (size_t)w->units + (size_t)u];
            if (moved >= 0) budget_fit_moved(w->fit, step, u, moved);
        }
    float *whole = w->latents;
    w->latents = NULL;
    int rc = probes(w, prompt, whole, e);
    free(whole);
    return rc;
}

/* --- whole clips --- */

static int whole_clip(struct work *w, int prompt, const struct budget *b, struct err *e)
{
    const struct exact *exact = &w->exact[prompt];
    if (clip(w, b, prompt, true, e) < 0) return -1;
    if (w->bytes != exact->bytes) return err_set(e, ERR_BUG, "a clip of another size");
    double psnr = quality_psnr(quality_mse(exact->rgb, w->rgb, w->bytes), 255);
    return budget_fit_clip(w->fit, prompt, isfinite(psnr) ? psnr : 99, &w->spent, e);
}

static int whole_clips(struct work *w, const struct error_budget *b, struct err *e)
{
    int first = budget_fit_probe_at(w->fit, 0) - 1;
    struct budget at = {.table = &b->table, .mode = BUDGET_PRICE};
    struct budget_run r = {.of = &at, .n_units = w->units, .group = 1, .end = b->of.steps};
    struct budget_state *s = malloc(budget_state_bytes(w->units));
    int rc = s ? 0 : err_set(e, ERR_RESOURCE, "no memory for a calibration");
    for (int i = 0; rc == 0 && i < SHARES; i++) {
        at.price = budget_price_of(&r, s, first, shares[i]);
        for (int p = 0; rc == 0 && p < w->c->prompts; p++)
            rc = whole_clip(w, p, &at, e);
    }
    free(s);
    return rc;
}

static int run(struct error_budget *to, struct work *w, struct err *e)
{
    int steps = settings_int(w->c->settings, SET_STEPS);
    for (int p = 0; p < w->c->prompts; p++)
        if (first_clips(w, p, e) < 0) return -1;
    if (error_budget_alloc(to, steps, layers_of(w->c), heads_of(w->c), e) < 0) return -1;
    budget_fit_costs(to, w->fit);
    if (whole_clips(w, to, e) < 0 || budget_fit_line(to, w->fit, e) < 0) return -1;
    budget_key_of(&to->of, w->c->settings);
    return calibration_mark(&to->mark, &w->c->d->info, e);
}

int calibrate_budget(struct error_budget *to, const struct calibrate_budget *c, struct err *e)
{
    struct work w = {.c = c,
                     .units = layers_of(c) * heads_of(c),
                     .total = c->prompts * (2 + 6 + groups_of(c) + SHARES),
                     .begin = clock_seconds()};
    size_t n = (size_t)settings_int(c->settings, SET_STEPS) * (size_t)w.units;
    w.exact = calloc((size_t)c->prompts, sizeof *w.exact);
    w.moved = malloc(n * sizeof *w.moved);
    int rc = w.exact && w.moved ? run(to, &w, e)
                                : err_set(e, ERR_RESOURCE, "no memory for a calibration");
    for (int p = 0; w.exact && p < c->prompts; p++)
        free(w.exact[p].rgb);
    free(w.exact);
    free(w.moved);
    free(w.rgb);
    free(w.latents);
    budget_fit_close(w.fit);
    return rc;
}
