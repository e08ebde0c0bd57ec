/* One run of the command; see generate.h. */
#include "app/cli/generate.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/lib/assets.h"
#include "app/cli/output.h"
#include "app/cli/plan_print.h"
#include "app/cli/progress.h"
#include "app/cli/stop.h"

struct work { /* what the library's callbacks need */
    struct cli *cli;
    struct progress *progress;
    struct writer *writer;
    const char *stored; /* settings, as the clip carries them */
    bool kept; /* latents are in c->latents */
    struct err failed; /* of the writer: ends the run */
    struct err late; /* of what stands beside the clip: told when the clip is written */
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct work *w = ctx;
    (void)index, (void)width, (void)height;
    return writer_frame(w->writer, rgb, &w->failed);
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

static void on_log(void *ctx, int level, const char *line)
{
    struct work *w = ctx;
    progress_say(w->progress, level == 0 ? "warning: %s" : "%s", line);
}

static int from_library(struct err *e, const struct ditgen_error *de)
{
    return err_set(e, (enum err_code)de->code, "%s", de->message);
}

/* Frames into the writer; the file appears only when all of them are in. */
static int make_clip(struct work *w, struct ditgen *d, const struct writer_params *wp,
                     struct err *e)
{
    struct ditgen_error de;
    struct ditgen_callbacks calls = {.ctx = w,
                                     .frame = on_frame,
                                     .progress = on_progress,
                                     .latents = w->cli->latents ? on_latents : NULL,
                                     .log = on_log,
                                     .log_level = w->cli->verbose};
    stop_arm(true);
    if (writer_open(&w->writer, wp, e) < 0) return -1;
    int rc = ditgen_generate(d, w->cli->settings, &calls, &de);
    progress_pause(w->progress);
    if (rc < 0) {
        writer_abort(w->writer);
        if (w->failed.code) {
            *e = w->failed;
            return -1;
        }
        if (de.code != DITGEN_CANCELLED) return from_library(e, &de);
        if (w->kept)
            return err_set(e, ERR_CANCELLED, "cancelled; the latents are in %s", w->cli->latents);
        return err_set(e, ERR_CANCELLED, "cancelled; nothing was written");
    }
    return writer_close(w->writer, e);
}

/* Opens the model and fills in what nobody said. */
static int prepare(struct cli *c, struct ditgen **d, struct progress *p, struct err *e)
{
    struct ditgen_error de;
    char note[256];
    if (ditgen_open(d, settings_text(c->settings, SET_MODEL), &de) < 0) return from_library(e, &de);
    if (cli_resolve(c, *d, note, e) < 0) return -1;
    if (note[0]) progress_say(p, "%s", note);
    return 0;
}

/* precision as it was chosen, so that a stored "auto" does not change its meaning elsewhere. */
static int fix_precision(struct cli *c, const struct ditgen_plan *plan, struct err *e)
{
    return settings_set(c->settings, LAYER_FLAG, "precision", plan->bf16 ? "bf16" : "fp32", e);
}

static int write_clip(struct cli *c, struct ditgen *d, const char *path, const char *text,
                      struct progress *p, struct err *e)
{
    struct work w = {.cli = c, .progress = p, .stored = text};
    struct writer_params wp;
    output_params(&wp, c->settings, path, text, c->yes);
    if (make_clip(&w, d, &wp, e) < 0) return -1;
    plan_print_done(p, path, c->settings);
    if (!w.late.code) return 0;
    return err_set(e, w.late.code, "%.400s; the clip is %.80s", w.late.msg, path);
}

int generate_run(struct cli *c, const char *suffix, struct err *e)
{
    struct ditgen *d = NULL;
    struct ditgen_error de;
    struct ditgen_plan plan;
    struct progress p;
    struct writer_params wp;
    char name[ASSETS_PATH];
    const char *path = c->output;
    char *stored = NULL, *used = NULL;
    int rc = -1;

    progress_init(&p, stderr, c->progress == 1, c->quiet || (c->plan && c->progress == 0));
    if (stop_watch(e) < 0) return -1;
    if (prepare(c, &d, &p, e) < 0) goto out;
    if (!path) {
        output_name(name, sizeof name, settings_text(c->settings, SET_PROMPT),
                    settings_seed(c->settings), suffix);
        path = name;
    }
    if (strcmp(path, "-") == 0 && !c->plan && isatty(STDOUT_FILENO)) {
        err_set(e, ERR_USAGE, "--output - is for a pipe, standard output is a terminal");
        goto out;
    }
    output_params(&wp, c->settings, path, NULL, c->yes || c->plan);
    if (writer_check(&wp, e) < 0) goto out;
    if (c->latents && output_check(c->latents, c->yes || c->plan, e) < 0) goto out;
    if (c->dump_config && output_check(c->dump_config, c->yes, e) < 0) goto out;
    if (ditgen_plan(d, c->settings, &plan, &de) < 0) {
        from_library(e, &de);
        goto out;
    }
    if (fix_precision(c, &plan, e) < 0) goto out;
    used = settings_dump(c->settings, false);
    stored = settings_dump(c->settings, true);
    if (!used || !stored) {
        err_set(e, ERR_RESOURCE, "no memory for the settings");
        goto out;
    }
    if (c->dump_config && output_text(c->dump_config, used, c->yes, e) < 0) goto out;
    if (c->plan) {
        plan_print(stdout, c->progress == 1, &plan, c->settings, d);
        if (!plan.fits) e->code = ERR_RESOURCE; /* the plan has said it all */
        rc = 0;
        goto out;
    }
    plan_print_short(&p, &plan, c, d, path);
    rc = write_clip(c, d, path, stored, &p, e);
out:
    free(used);
    free(stored);
    ditgen_close(d);
    return rc;
}
