/* One run of the command; see generate.h. */
#include "app/cli/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/clips/aside.h"
#include "app/lib/assets.h"
#include "app/cli/device.h"
#include "app/cli/output.h"
#include "app/cli/plan_print.h"
#include "app/cli/preview.h"
#include "app/cli/progress.h"
#include "app/cli/state.h"
#include "app/cli/stop.h"
#include "model/base/clock.h"
#include "model/model.h"

struct work { /* what the library's callbacks need */
    struct cli *cli;
    struct progress *progress;
    struct writer *writer;
    const struct writer_params *params;
    const char *stored; /* settings, as the clip carries them */
    struct ran ran;
    struct ditgen_ran did; /* kernel NULL: no step was made */
    char *text; /* stored, and what is known of the run: heap */
    bool kept; /* latents are in c->latents */
    struct err failed; /* of the writer: ends the run */
    struct err late; /* of what stands beside the clip: told when the clip is written */
    struct state_keep keep; /* path NULL: no states */
    double state_time; /* when the last was written, or the run began */
    int state_step; /* of the last that was written, or gone on from; 0: none */
    bool state_failed; /* told once */
    const struct state *from;
    struct preview_show preview;
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct work *w = ctx;
    (void)index, (void)width, (void)height;
    return w->failed.code ? -1 : writer_frame(w->writer, rgb, &w->failed);
}

/* The writer was opened before, so that what cannot be written is known at once; now it is known what
 * the clip says of its run. */
static void on_ran(void *ctx, const struct ditgen_ran *r)
{
    struct work *w = ctx;
    struct writer_params p = *w->params;
    ran_of(&w->ran, r);
    w->did = *r;
    w->did.device = w->ran.device;
    w->did.kernel = w->ran.kernel;
    if (!(w->text = ran_text(w->stored, &w->ran))) {
        err_set(&w->failed, ERR_RESOURCE, "no memory for the settings");
        return;
    }
    w->keep.stored = w->text;
    p.settings = w->text; /* a failure ends the run at the first frame */
    if (w->writer)
        writer_carry(&w->writer, w->text, &w->failed);
    else
        writer_open(&w->writer, &p, &w->failed);
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct work *w = ctx;
    progress_update(w->progress, p);
    return stop_asked();
}

static int on_latents(void *ctx, const float *latents, const int shape[4])
{
    struct work *w = ctx;
    struct err *e = &w->late;
    w->kept = output_latents(w->cli->latents, latents, shape, w->stored, w->cli->yes, e) == 0;
    if (!w->kept)
        progress_say(w->progress, "warning: %s; the clip is decoded all the same", e->msg);
    return 0;
}

/* Now and then while denoising, and always before decoding. A failure costs the state alone. */
static int on_state(void *ctx, const struct ditgen_state *s)
{
    struct work *w = ctx;
    struct err e = {0};
    if (s->step < s->steps && clock_seconds() - w->state_time < w->cli->state_every) return 0;
    if (state_write(&w->keep, s, &e) == 0)
        w->state_step = s->step;
    else if (!w->state_failed)
        progress_say(w->progress, "warning: %s; the run goes on, without this state", e.msg);
    if (e.code) w->state_failed = true;
    w->state_time = clock_seconds();
    return 0;
}

static int on_preview(void *ctx, const struct ditgen_preview *p)
{
    struct work *w = ctx;
    preview_picture(&w->preview, p);
    return 0;
}

static void on_fitted(void *ctx, const struct ditgen_preview_map *map)
{
    struct work *w = ctx;
    preview_keep_map(&w->preview, map);
}

static void on_log(void *ctx, int level, const char *line)
{
    struct work *w = ctx;
    progress_say(w->progress, level == 0 ? "warning: %s" : "%s", line);
}

static int from_library(struct err *e, const struct ditgen_error *de)
{
    return err_set(e, (enum err_code)de->code, "%s", de->message);
}

/* The sentence of a run that ended early: what it left, and how to go on. */
static int ended_early(const struct work *w, const struct ditgen_error *de, struct err *e)
{
    if (w->failed.code)
        *e = w->failed;
    else if (de->code != DITGEN_CANCELLED)
        from_library(e, de);
    else if (!w->state_step && !w->kept)
        err_set(e, ERR_CANCELLED, "cancelled; nothing was written");
    else
        err_set(e, ERR_CANCELLED, "cancelled");
    char text[sizeof e->msg];
    memcpy(text, e->msg, sizeof text);
    if (w->kept) err_set(e, e->code, "%.200s; the latents are in %.200s", text, w->cli->latents);
    memcpy(text, e->msg, sizeof text);
    if (w->state_step)
        err_set(e, e->code, "%.330s; 'ditgen resume %.100s' goes on after step %d", text,
                w->keep.name, w->state_step);
    return -1;
}

/* Frames into the writer; the file appears only when all of them are in. */
static int make_clip(struct work *w, struct ditgen *d, const struct writer_params *wp,
                     struct err *e)
{
    struct ditgen_error de = {0};
    struct ditgen_callbacks calls = {.ctx = w,
                                     .frame = on_frame,
                                     .progress = on_progress,
                                     .ran = on_ran,
                                     .latents = w->cli->latents ? on_latents : NULL,
                                     .log = on_log,
                                     .log_level = w->cli->verbose ? w->cli->verbose + 1 : 0,
                                     .state = w->keep.path ? on_state : NULL,
                                     .resume = w->from ? &w->from->at : NULL};
    if (w->cli->preview) {
        preview_begin(&w->preview, w->cli->preview, d, w->progress);
        calls.preview = on_preview;
        calls.map = w->preview.has_map ? &w->preview.map : NULL;
        calls.fitted = w->preview.has_map ? NULL : on_fitted;
    }
    stop_arm(true);
    w->state_time = clock_seconds();
    w->state_step = w->from && w->keep.path ? w->from->at.step : 0;
    w->params = wp;
    bool decodes = w->from && w->from->at.step == w->from->at.steps;
    /* a pipe takes no second beginning */
    if ((decodes || strcmp(wp->path, "-") != 0) && writer_open(&w->writer, wp, e) < 0) return -1;
    int rc = ditgen_generate(d, w->cli->settings, &calls, &de);
    progress_pause(w->progress);
    if (rc < 0) {
        writer_abort(w->writer);
        return ended_early(w, &de, e);
    }
    if (writer_close(w->writer, e) < 0) {
        w->failed = *e;
        return ended_early(w, &de, e);
    }
    return 0;
}

/* Opens the model and fills in what nobody said. */
static int prepare(struct cli *c, struct ditgen **d, struct progress *p, struct err *e)
{
    struct ditgen_error de;
    char note[256], where[CLI_DEVICE_NOTE];
    if (ditgen_open(d, settings_text(c->settings, SET_MODEL), &de) < 0) return from_library(e, &de);
    if (cli_resolve(c, *d, note, e) < 0) return -1;
    if (c->warning[0]) progress_say(p, "warning: %s", c->warning);
    if (note[0]) progress_say(p, "%s", note);
    if (cli_device(c, where, e) < 0) return -1;
    if (where[0]) progress_say(p, "%s", where);
    return 0;
}

static int make_plan(struct cli *c, struct ditgen *d, struct ditgen_plan *plan, struct progress *p,
                     struct err *e)
{
    char note[CLI_DEVICE_NOTE];
    int rc = cli_plan(c, d, plan, note, e);
    if (rc == 0 && note[0]) progress_say(p, "%s", note);
    return rc;
}

/* precision as it was chosen (plan NULL: as it would be), so that a stored "auto" does not change its meaning elsewhere. */
static int fix_precision(struct cli *c, const struct ditgen_plan *plan, struct err *e)
{
    if (settings_int(c->settings, SET_PRECISION) == 3)
        return 0; /* fp8 is never chosen for anybody */
    const char *device = settings_text(c->settings, SET_DEVICE);
    bool bf16 = plan ? plan->bf16 != 0 : settings_int(c->settings, SET_PRECISION) != 1;
    if (!plan && settings_int(c->settings, SET_PRECISION) == 0)
        bf16 = model_has_bf16() || c->device_picked || (device && strncmp(device, "cuda", 4) == 0);
    return settings_set(c->settings, LAYER_FLAG, "precision", bf16 ? "bf16" : "fp32", e);
}

struct names { /* of one run */
    char made_up[ASSETS_PATH]; /* the output's, when nobody gave one */
    char absolute[STATE_PATH]; /* the output's */
    char state[STATE_PATH];
    char model[STATE_PATH]; /* the folder's, absolute; "": the model built in */
    const char *output;
    char *stored, *used; /* settings as the clip carries them; all */
};

static int write_clip(struct cli *c, struct ditgen *d, struct names *n, const struct state *from,
                      struct progress *p, struct err *e)
{
    struct work w = {.cli = c, .progress = p, .stored = n->stored, .from = from};
    struct writer_params wp;
    if (from && from->stored && from->at.step == from->at.steps && *ran_section(from->stored) &&
        asprintf(&w.text, "%s%s", n->stored, ran_section(from->stored)) < 0)
        return err_set(e, ERR_RESOURCE, "no memory for the settings");
    output_params(&wp, c->settings, n->output, w.text ? w.text : n->stored, c->yes);
    if (c->state_every > 0 && n->state[0])
        w.keep = (struct state_keep){.path = n->state,
                                     .name = n->output,
                                     .stored = n->stored,
                                     .used = n->used,
                                     .output = n->absolute,
                                     .model_dir = n->model,
                                     .latents = c->latents,
                                     .overwrite = c->yes};
    int rc = make_clip(&w, d, &wp, e);
    free(w.text);
    if (rc < 0) return -1;
    char differs[400];
    ran_compare(differs, sizeof differs, &c->ran, &w.ran);
    if (differs[0]) progress_say(p, "%s", differs);
    if (w.did.kernel) plan_print_ran(p, &w.did);
    plan_print_done(p, n->output, c->settings);
    if (!w.late.code) {
        if (w.state_step) state_remove(n->state);
        return 0;
    }
    return err_set(e, w.late.code, "%.300s; the clip is %.80s%s%.80s", w.late.msg, n->output,
                   w.state_step ? "; the latents are in " : "", w.state_step ? n->state : "");
}

/* path from anywhere: its folder's real name and its own last part. False: too long, no folder. */
static bool make_absolute(char to[STATE_PATH], const char *path)
{
    size_t len = strlen(path);
    bool slash = len > 1 && path[len - 1] == '/';
    char *plain = strndup(path, len - slash), *folder = plain ? path_folder(plain) : NULL;
    char *real = folder ? realpath(folder, NULL) : NULL;
    bool fits = real && snprintf(to, STATE_PATH, "%s/%s%s", real, path_name(plain),
                                 slash ? "/" : "") < STATE_PATH;
    free(plain);
    free(folder);
    free(real);
    if (!fits) to[0] = 0;
    return fits;
}

static void fill_names(struct names *n, const struct cli *c)
{
    struct err ignored;
    char model[ASSETS_PATH];
    const char *name = settings_text(c->settings, SET_MODEL);
    if (!make_absolute(n->absolute, n->output) || !state_path(n->state, n->output)) n->state[0] = 0;
    if (!name || strcmp(name, ASSETS_MODEL) == 0 || assets_model(model, name, &ignored) < 0 ||
        !make_absolute(n->model, model))
        n->model[0] = 0;
}

static int dump_settings(struct names *n, const struct cli *c, struct err *e)
{
    free(n->stored);
    free(n->used);
    n->used = settings_dump(c->settings, false);
    n->stored = settings_dump(c->settings, true);
    if (n->stored && n->used) return 0;
    return err_set(e, ERR_RESOURCE, "no memory for the settings");
}

/* A state of these settings that an earlier run left for this output; with a made-up name, for any
 * output here. A seed that was drawn is the state's. 1: found, and n and c are its. */
static int find_state(struct state *s, struct cli *c, struct names *n, struct progress *p,
                      struct err *e)
{
    char path[STATE_PATH];
    struct err ignored;
    bool any_name = !c->output;
    for (int i = 0; any_name ? state_at(path, "", i) : i == 0 && n->state[0]; i++) {
        if (!any_name) snprintf(path, sizeof path, "%s", n->state);
        if (access(path, F_OK) != 0) continue;
        if (state_read(s, path, &ignored) < 0) continue;
        if (!state_same_settings(s->stored, n->stored, c->seed_drawn)) {
            if (!any_name)
                progress_say(p, "note: %s is of other settings; it is replaced by this run's",
                             path);
            state_fini(s);
            continue;
        }
        const char *seed = strstr(s->stored, "\nseed = ");
        char value[24] = "";
        if (seed) snprintf(value, sizeof value, "%.*s", (int)strcspn(seed + 8, "\n"), seed + 8);
        if (value[0] && settings_set(c->settings, LAYER_FLAG, "seed", value, e) < 0) return -1;
        if (any_name) {
            bool folder = s->output[strlen(s->output) - 1] == '/';
            char *plain = strndup(s->output, strlen(s->output) - folder);
            if (!plain) return err_set(e, ERR_RESOURCE, "no memory for a name");
            snprintf(n->made_up, sizeof n->made_up, "%s%s", path_name(plain), folder ? "/" : "");
            free(plain);
            n->output = n->made_up;
        }
        fill_names(n, c);
        return dump_settings(n, c, e) < 0 ? -1 : 1;
    }
    return 0;
}

/* The output may be written; and what lies beside it. */
static int check_outputs(const struct cli *c, const char *path, struct err *e)
{
    struct writer_params wp;
    if (strcmp(path, "-") == 0 && !c->plan && isatty(STDOUT_FILENO))
        return err_set(e, ERR_USAGE, "--output - is for a pipe, standard output is a terminal");
    output_params(&wp, c->settings, path, NULL, c->yes || c->plan);
    if (writer_check(&wp, e) < 0) return -1;
    if (c->latents && output_check(c->latents, c->yes || c->plan, e) < 0) return -1;
    if (c->preview && preview_check(c->preview, c->yes || c->plan, e) < 0) return -1;
    return c->dump_config ? output_check(c->dump_config, c->yes, e) : 0;
}

/* Denoises where that is not done, and decodes. from NULL: looks for a state first. */
static int run_clip(struct cli *c, struct ditgen *d, struct names *n,
                    const struct ditgen_plan *plan, const struct state *from, struct progress *p,
                    struct err *e)
{
    struct state found = {0};
    int rc = -1;
    if (from && from->stored && !state_same_settings(from->stored, n->stored, false))
        return err_set(e, ERR_USAGE,
                       "these flags make another clip; resume goes on with the settings that were "
                       "given first");
    if (!from) {
        int is = find_state(&found, c, n, p, e);
        if (is < 0 || (is && check_outputs(c, n->output, e) < 0)) goto out;
        if (is) from = &found;
    }
    if (plan) plan_print_short(p, plan, c, d, n->output);
    struct writer_params wp;
    char note[400];
    output_params(&wp, c->settings, n->output, NULL, c->yes);
    writer_note(note, sizeof note, &wp);
    if (note[0]) progress_say(p, "warning: %s", note);
    if (from && from->at.step < from->at.steps)
        progress_say(p, "going on after step %d of %d, which an earlier run left", from->at.step,
                     from->at.steps);
    else if (from)
        progress_say(p, "the steps are done: decoding to %s", n->output);
    rc = write_clip(c, d, n, from, p, e);
out:
    state_fini(&found);
    return rc;
}

int generate_run(struct cli *c, const char *suffix, const struct state *from, struct err *e)
{
    struct ditgen *d = NULL;
    struct ditgen_plan plan;
    struct progress p;
    struct names n = {.output = c->output};
    bool denoised = from && from->at.step == from->at.steps;
    int rc = -1;

    progress_init(&p, stderr, c->progress == 1, c->quiet || (c->plan && c->progress == 0));
    if (stop_watch(e) < 0) return -1;
    if (prepare(c, &d, &p, e) < 0) goto out;
    if (!n.output) {
        output_name(n.made_up, sizeof n.made_up, settings_text(c->settings, SET_PROMPT),
                    settings_seed(c->settings), suffix);
        n.output = n.made_up;
    }
    if (denoised && c->plan) {
        err_set(e, ERR_USAGE, "--plan: the steps are done, only decoding is left");
        goto out;
    }
    /* The model first: an encoder's advice on sizes is of no use where the model cannot make them.
     * A decoding alone wants neither transformer nor text. */
    if (!denoised && make_plan(c, d, &plan, &p, e) < 0) goto out;
    if (check_outputs(c, n.output, e) < 0) goto out;
    fill_names(&n, c);
    if (fix_precision(c, denoised ? NULL : &plan, e) < 0) goto out;
    if (dump_settings(&n, c, e) < 0) goto out;
    if (c->dump_config && output_text(c->dump_config, n.used, c->yes, e) < 0) goto out;
    if (!c->plan) {
        rc = run_clip(c, d, &n, denoised ? NULL : &plan, from, &p, e);
    } else {
        plan_print(stdout, c->progress == 1, &plan, c->settings, d);
        if (!plan.fits) e->code = ERR_RESOURCE; /* the plan has said it all */
        rc = 0;
    }
out:
    free(n.used);
    free(n.stored);
    ditgen_close(d);
    return rc;
}
