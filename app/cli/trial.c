/* One clip after another, measured and kept; see trial.h. */
#include "app/cli/trial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "app/cli/stop.h"
#include "app/cli/trial_log.h"
#include "app/clips/quality.h"
#include "app/lib/calibration.h"
#include "app/lib/cost.h"
#include "model/base/clock.h"

int trials_open(struct trials *t, struct ditgen *d, const struct ditgen_settings *base,
                const char *log, bool resume, bool replace, struct err *e)
{
    *t = (struct trials){.d = d, .base = base, .path = log};
    if (calibration_mark(&t->mark, &d->info, e) < 0) return -1;
    return log ? trial_log_open(t, resume, replace, e) : 0;
}

void trials_close(struct trials *t)
{
    for (int i = 0; i < t->n_known; i++)
        free(t->known[i].key);
    free(t->known);
    free(t->exact_key);
    free(t->exact);
    memset(t, 0, sizeof *t);
}

/* --- settings ----------------------------------------------------------------------------------- */

static int put(struct ditgen_settings *s, const char *name, const char *value, struct err *e)
{
    return settings_set(s, LAYER_CALL, name, value, e);
}

static int put_row(struct ditgen_settings *s, const char *row, struct err *e)
{
    char *copy = strdup(row), *at = copy;
    int rc = copy ? 0 : err_set(e, ERR_RESOURCE, "no memory for a row");
    while (rc == 0 && at && *at) {
        char *end = strchr(at, ';'), *value = strchr(at, '=');
        if (end) *end = 0;
        if (!value || (end && value > end)) {
            rc = err_set(e, ERR_USAGE, "row '%.100s': wanted NAME=VALUE;...", row);
            break;
        }
        *value++ = 0;
        rc = put(s, at, value, e);
        at = end ? end + 1 : NULL;
    }
    free(copy);
    return rc;
}

int trial_settings(struct ditgen_settings **out, const struct trials *t, const struct trial_what *w,
                   struct err *e)
{
    struct ditgen_settings *s = NULL;
    char number[24];
    *out = NULL;
    if (settings_copy(&s, t->base, e) < 0) return -1;
    const struct {
        const char *name;
        int value;
    } sizes[] = {{"width", w->width}, {"height", w->height}, {"frames", w->frames}};
    int rc = 0;
    for (int i = 0; rc == 0 && i < 3; i++) {
        snprintf(number, sizeof number, "%d", sizes[i].value);
        if (sizes[i].value) rc = put(s, sizes[i].name, number, e);
    }
    snprintf(number, sizeof number, "%llu", (unsigned long long)w->seed);
    if (rc == 0) rc = put(s, "seed", number, e);
    if (rc == 0) rc = put(s, "prompt", w->prompt, e);
    if (rc == 0) rc = put(s, "attention", "dense", e);
    if (rc == 0) rc = put(s, "step-cache", "none", e);
    if (rc == 0) rc = settings_unset(s, "error-budget", e);
    if (rc == 0) rc = put_row(s, w->row, e);
    if (rc == 0) {
        *out = s;
        return 0;
    }
    settings_close(s);
    return -1;
}

/* All that decides about the clip and the machine's part in its seconds; heap, NULL: no memory. */
static char *key_of(const struct trials *t, const struct trial_what *w)
{
    const struct ditgen_settings *b = t->base;
    struct ditgen_settings *all = NULL, *s = NULL;
    struct err ignored;
    char *text = NULL;
    if (trial_settings(&s, t, w, &ignored) == 0 &&
        settings_resolve(&all, s, t->d, NULL, &ignored) == 0) {
        char *dump = settings_dump(all, true);
        for (char *p = dump; p && *p; p++)
            if (*p == '\n') *p = ' ';
        char budget[40] = ""; /* a new calibration makes another clip of the same settings */
        uint64_t stamp = error_budget_stamp(&t->d->info, all);
        if (stamp) snprintf(budget, sizeof budget, "budget %016llx ", (unsigned long long)stamp);
        if (dump && asprintf(&text, "%016llx threads %d %s%s", (unsigned long long)t->mark,
                             settings_int(b, SET_THREADS), budget, dump) < 0)
            text = NULL;
        free(dump);
    }
    settings_close(all);
    settings_close(s);
    return text;
}

bool trials_known(const struct trials *t, const struct trial_what *w, struct trial *out)
{
    char *key = key_of(t, w);
    bool found = false;
    for (int i = t->n_known; key && !found && i-- > 0;) /* the last one stands */
        if (strcmp(t->known[i].key, key) == 0) *out = t->known[i].t, found = true;
    free(key);
    return found;
}

/* --- a clip ------------------------------------------------------------------------------------- */

struct clip { /* under way */
    struct trials *t;
    uint8_t *rgb;
    size_t frame, len; /* bytes of a frame, room */
    int width, height, frames;
    double wall, cpu, cpu_begin;
    struct ditgen_ran ran;
    bool no_memory;
};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct clip *c = ctx;
    size_t n = (size_t)width * (size_t)height * 3;
    uint8_t *more = realloc(c->rgb, n * ((size_t)index + 1));
    c->no_memory = !more;
    if (!more) return 1;
    c->rgb = more;
    memcpy(c->rgb + n * (size_t)index, rgb, n);
    c->width = width, c->height = height, c->frames = index + 1;
    return 0;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct clip *c = ctx;
    if (p->phase == DITGEN_DENOISE) {
        if (p->done == 0 && p->block == 0) c->cpu_begin = cpu_seconds();
        if (p->done == p->total) c->wall = p->seconds, c->cpu = cpu_seconds() - c->cpu_begin;
    }
    return stop_asked();
}

static void on_ran(void *ctx, const struct ditgen_ran *r)
{
    struct clip *c = ctx;
    c->ran = *r;
}

static int make(struct trials *t, const struct trial_what *w, struct clip *c, struct err *e)
{
    struct ditgen_settings *s = NULL;
    struct ditgen_error de;
    struct ditgen_callbacks calls = {
        .ctx = c, .frame = on_frame, .progress = on_progress, .ran = on_ran};
    *c = (struct clip){.t = t};
    if (trial_settings(&s, t, w, e) < 0) return -1;
    int rc = ditgen_generate(t->d, s, &calls, &de);
    settings_close(s);
    if (rc == 0) return 0;
    free(c->rgb);
    if (c->no_memory) return err_set(e, ERR_RESOURCE, "no memory for the frames of a clip");
    return err_set(e, (enum err_code)de.code, "%s", de.message);
}

static struct trial figures(const struct clip *c)
{
    const struct ditgen_ran *r = &c->ran;
    return (struct trial){.wall = c->wall,
                          .cpu = c->cpu,
                          .share = 1,
                          .cpu_share = 1,
                          .computed = r->density,
                          .copied = r->copied,
                          .reused = r->steps > 0 ? r->reused_steps / r->steps : 0,
                          .error = r->sampled ? r->error : -1,
                          .recall = r->sampled ? r->recall : -1,
                          .planning = r->planning,
                          .estimate = r->error_budget > 0 ? r->budget_estimate : 0,
                          .psnr = TRIAL_EQUAL,
                          .ssim = 1};
}

/* The exact clip of the same prompt, seed and size, as frames: made anew when another is held. */
static int hold_exact(struct trials *t, const struct trial_what *w, struct err *e)
{
    struct trial_what exact = *w;
    struct clip c;
    exact.row = "";
    char *key = key_of(t, &exact);
    if (!key) return err_set(e, ERR_RESOURCE, "no memory for a key");
    if (t->exact_key && strcmp(t->exact_key, key) == 0) {
        free(key);
        return 0;
    }
    free(t->exact_key);
    free(t->exact);
    t->exact_key = NULL, t->exact = NULL;
    if (make(t, &exact, &c, e) < 0) {
        free(key);
        return -1;
    }
    t->exact_key = key;
    t->exact = c.rgb;
    t->exact_len = (size_t)c.width * (size_t)c.height * 3 * (size_t)c.frames;
    t->exact_trial = figures(&c);
    return trial_log_add(t, key, &t->exact_trial, e);
}

static int compare(struct trial *out, const struct trials *t, const struct clip *c, struct err *e)
{
    struct quality q;
    if ((size_t)c->width * (size_t)c->height * 3 * (size_t)c->frames != t->exact_len)
        return err_set(e, ERR_BUG, "a row changed the size of its clip");
    if (quality_clips(&q, t->exact, c->rgb, c->frames, c->width, c->height, e) < 0) return -1;
    out->psnr = isfinite(q.psnr) ? q.psnr : TRIAL_EQUAL;
    out->ssim = isfinite(q.ssim) ? q.ssim : -1; /* frames smaller than its window */
    out->share = out->wall / t->exact_trial.wall;
    out->cpu_share = out->cpu / t->exact_trial.cpu;
    return 0;
}

static void say(struct trials *t, const struct trial_what *w, const struct trial *r)
{
    char left[40] = "", figures_[96] = "";
    double rate = t->spent_work > 0 ? t->spent / t->spent_work : 1;
    seconds_text(left, sizeof left, t->left * rate);
    if (*w->row)
        snprintf(figures_, sizeof figures_, ": %.1f dB, %.2f of exact's seconds (%.2f by CPU time)",
                 r->psnr, r->share, r->cpu_share);
    progress_say(t->progress, "%d of %d, \"%.40s\", %.100s%s; %s left", t->done, t->total,
                 w->prompt, *w->row ? w->row : "exact", figures_, left);
}

int trials_get(struct trials *t, const struct trial_what *w, struct trial *out, struct err *e)
{
    struct clip c = {0};
    double work = 0, begin = clock_seconds();
    if (trials_known(t, w, out)) return 0;
    if (trials_predict(t, w, &work, e) < 0) return -1;
    if (hold_exact(t, w, e) < 0) return -1;
    if (*w->row) {
        if (make(t, w, &c, e) < 0) return -1;
        *out = figures(&c);
        int rc = compare(out, t, &c, e);
        free(c.rgb);
        char *key = rc == 0 ? key_of(t, w) : NULL;
        if (rc == 0)
            rc = key ? trial_log_add(t, key, out, e) : err_set(e, ERR_RESOURCE, "no memory");
        free(key);
        if (rc < 0) return -1;
    } else {
        *out = t->exact_trial;
    }
    t->done++;
    t->spent += clock_seconds() - begin;
    t->spent_work += work;
    t->left = t->left > work ? t->left - work : 0;
    say(t, w, out);
    return 0;
}

#define USUAL_TEXT 32 /* tokens of a prompt */

/* As ditgen_plan(), without looking at the model's parts again. */
int trials_predict(struct trials *t, const struct trial_what *w, double *seconds, struct err *e)
{
    struct ditgen_settings *s = NULL;
    struct ditgen_plan plan;
    struct trial known;
    struct run r;
    *seconds = 0;
    if (trial_settings(&s, t, w, e) < 0) return -1;
    int rc = run_init(&r, t->d, s, NULL, e);
    settings_close(s);
    if (rc < 0) return -1;
    const struct cost_text text = {USUAL_TEXT, USUAL_TEXT * (r.clip.guided ? 2 : 1)};
    rc = cost_plan(&plan, t->d, &r, &text, e);
    run_fini(&r);
    if (rc == 0 && !trials_known(t, w, &known)) *seconds = plan.seconds;
    return rc;
}

void trials_plan(struct trials *t, int clips, double seconds)
{
    t->done = 0;
    t->total = clips;
    t->left = seconds;
    t->spent = t->spent_work = 0;
}
