/* calibrate: exact clips, from which a model's step caches learn what to expect. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/cli/calibrate_budget.h"
#include "app/cli/cli.h"
#include "app/cli/cmd.h"
#include "app/cli/output.h"
#include "app/cli/progress.h"
#include "app/cli/prompts.h"
#include "app/cli/stop.h"
#include "app/clips/aside.h"
#include "app/lib/calibrate.h"
#include "app/lib/run.h"

#define SEED 7001 /* of the first prompt; each has its own, none of the lists that verify */

static const char USAGE[] =
    "ditgen calibrate [--error-budget] [--prompts N] [--list FILE] [-o FILE] [flags of generate]\n"
    "  --prompts N   exact clips that are measured (1 to 64; default 3), nothing is decoded\n"
    "  --list FILE   the prompts, one a line, instead of the model's prompts/NAME-search.txt\n"
    "  -o FILE       instead of step-caches.ini in the model's folder "
    "(profiles/step-caches/NAME.ini\n"
    "                for models that come with ditgen)\n"
    "  --error-budget   measures what --error-budget wants to know instead, about 16 clips a "
    "prompt: how "
    "far\n"
    "                carried attention moves, what clips lose to it in which step and layer, and "
    "what "
    "whole\n"
    "                clips come to; into error-budgets/SIZE.ini in the model's folder "
    "(profiles/error-budgets/\n"
    "                NAME/...). For one size, solver, number of steps, guidance and --attention;\n"
    "                with --step-cache budget of whole steps instead of attention\n"
    "Without, measures what --step-cache teacache and magcache want to know of a model's weights: "
    "how far "
    "its\n"
    "velocity moves from step to step, and how what its blocks add grows. Size, frames and steps "
    "are\n"
    "the model's defaults unless said: take those that will be used.\n";

struct task {
    int prompts;
    char *list;
    bool help, budget;
    /* of the run under way */
    struct progress *progress;
    bool whole; /* its steps are done */
};

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct task *t = ctx;
    progress_update(t->progress, p);
    return stop_asked();
}

static int on_latents(void *ctx, const float *latents, const int shape[4])
{
    struct task *t = ctx;
    (void)latents, (void)shape;
    t->whole = true;
    return 1; /* frames are not looked at */
}

static int take_own_flags(struct task *t, int *argc, char **argv, struct err *e)
{
    int n = 1;
    t->prompts = 3;
    for (int i = 1; i < *argc; i++) {
        bool count = strcmp(argv[i], "--prompts") == 0, list = strcmp(argv[i], "--list") == 0;
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            t->help = true;
        } else if (strcmp(argv[i], "--error-budget") == 0) {
            t->budget = true;
        } else if (!count && !list) {
            argv[n++] = argv[i];
        } else if (++i >= *argc) {
            return err_set(e, ERR_USAGE, "%s wants a value", argv[i - 1]);
        } else if (list) {
            t->list = argv[i];
        } else if (parse_int(argv[i], 1, 64, &t->prompts) < 0) {
            return err_set(e, ERR_USAGE, "--prompts is %.40s, wanted 1 to 64", argv[i]);
        }
    }
    *argc = n;
    return 0;
}

static int one_clip(struct task *t, struct ditgen *d, struct cli *c, const char *prompt, int i,
                    struct err *e)
{
    struct ditgen_error de;
    struct ditgen_callbacks calls = {.ctx = t, .progress = on_progress, .latents = on_latents};
    char seed[24];
    snprintf(seed, sizeof seed, "%d", SEED + i);
    if (settings_set(c->settings, LAYER_CALL, "prompt", prompt, e) < 0 ||
        settings_set(c->settings, LAYER_CALL, "seed", seed, e) < 0)
        return -1;
    t->whole = false;
    ditgen_generate(d, c->settings, &calls, &de);
    progress_pause(t->progress);
    if (t->whole) return 0;
    if (de.code == DITGEN_CANCELLED)
        return err_set(e, ERR_CANCELLED, "cancelled; nothing was written");
    return err_set(e, (enum err_code)de.code, "%s", de.message);
}

static int write_result(struct calibration *result, const struct cli *c, const struct ditgen *d,
                        int prompts, struct err *e)
{
    char how[400], path[CALIBRATION_PATH];
    const struct ditgen_settings *s = c->settings;
    calibration_path(path, &d->info);
    if (c->output) snprintf(path, sizeof path, "%s", c->output);
    snprintf(how, sizeof how,
             "ditgen calibrate: %d prompts, %dx%d, %d frames, %s %d steps, guidance %g, flow shift "
             "%g",
             prompts, settings_int(s, SET_WIDTH), settings_int(s, SET_HEIGHT),
             settings_int(s, SET_FRAMES), settings_text(s, SET_SOLVER), settings_int(s, SET_STEPS),
             settings_real(s, SET_GUIDANCE_SCALE), settings_real(s, SET_FLOW_SHIFT));
    if (calibration_mark(&result->mark, &d->info, e) < 0) return -1;
    char *text = calibration_text(result, how), *folder = path_folder(path);
    if (folder && !c->output) mkdir(folder, 0777);
    int rc = text ? output_text(path, text, c->yes || !c->output, e)
                  : err_set(e, ERR_RESOURCE, "no memory for the calibration");
    if (rc == 0) printf("%s\n", path);
    free(folder);
    free(text);
    return rc;
}

/* Makes the folders of a default path. */
static void make_folders(const char *path)
{
    char *folder = path_folder(path), *above = folder ? path_folder(folder) : NULL;
    if (above) mkdir(above, 0777); /* profiles/error-budgets of .../NAME */
    if (folder) mkdir(folder, 0777);
    free(above);
    free(folder);
}

static int run_budget(const struct task *t, struct cli *c, struct ditgen *d, struct prompts *list,
                      struct progress *progress, struct err *e)
{
    struct error_budget b = {0};
    struct ditgen_plan plan;
    struct ditgen_error de;
    struct calibrate_budget what = {.d = d,
                                    .settings = c->settings,
                                    .progress = progress,
                                    .prompt = list->line,
                                    .prompts = t->prompts < list->n ? t->prompts : list->n,
                                    .seed = SEED};
    struct budget any = {.mode = BUDGET_RENEW};
    char how[400], path[CALIBRATION_PATH], about[40];
    d->budget = &any; /* a plan wants one */
    int rc = ditgen_plan(d, c->settings, &plan, &de);
    d->budget = NULL;
    if (rc < 0) return err_set(e, (enum err_code)de.code, "%s", de.message);
    seconds_text(about, sizeof about,
                 what.prompts * (16 * plan.phase_seconds[DITGEN_DENOISE] +
                                 5 * plan.phase_seconds[DITGEN_DECODE]));
    progress_say(progress, "about %d clips of %d steps, %d of them decoded: less than %s",
                 16 * what.prompts, settings_int(c->settings, SET_STEPS), 5 * what.prompts, about);
    stop_arm(true);
    rc = calibrate_budget(&b, &what, e);
    error_budget_path(path, &d->info, &b.of);
    if (c->output) snprintf(path, sizeof path, "%s", c->output);
    snprintf(how, sizeof how,
             "ditgen calibrate --error-budget: %d prompts, seeds from %d on; %.1f to %.1f dB, "
             "nine in "
             "ten prompts should keep their estimate less %.1f dB",
             what.prompts, SEED, b.table.least, b.table.most, b.table.margin);
    char *text = rc == 0 ? error_budget_text(&b, how) : NULL;
    if (rc == 0 && !text) rc = err_set(e, ERR_RESOURCE, "no memory for the calibration");
    if (rc == 0 && !c->output) make_folders(path);
    if (rc == 0) rc = output_text(path, text, c->yes || !c->output, e);
    if (rc == 0) printf("%s\n", path);
    if (rc == 0)
        progress_say(progress,
                     "--error-budget %.1f to %.1f dB at this size; %.1f dB are kept back, so that "
                     "nine in ten "
                     "prompts hold it%s",
                     b.table.least, b.table.most, b.table.margin,
                     what.prompts < 2 ? " (of one prompt nothing of the kind is known)" : "");
    free(text);
    error_budget_fini(&b);
    return rc;
}

static int run(struct task *t, struct cli *c, struct err *e)
{
    struct ditgen *d = NULL;
    struct ditgen_error de;
    struct ditgen_plan plan;
    struct progress progress;
    struct prompts list = {0};
    struct calibrate *measure = NULL;
    struct calibration result = {0};
    char note[256], text[40];
    int rc = -1;
    if (stop_watch(e) < 0) return -1;
    if (ditgen_open(&d, settings_text(c->settings, SET_MODEL), &de) < 0) goto library;
    if (cli_resolve(c, d, note, e) < 0) goto out;
    if (prompts_read(&list, d->info.dir, "search", t->list, e) < 0) goto out;
    if (t->budget) {
        progress_init(&progress, stderr, c->progress == 1, c->quiet);
        rc = run_budget(t, c, d, &list, &progress, e);
        goto out;
    }
    if (calibrate_open(&measure, e) < 0) goto out;
    if (ditgen_plan(d, c->settings, &plan, &de) < 0) goto library;
    int n = t->prompts < list.n ? t->prompts : list.n;
    progress_init(&progress, stderr, c->progress == 1, c->quiet);
    t->progress = &progress;
    seconds_text(text, sizeof text,
                 n * (plan.phase_seconds[DITGEN_TEXT] + plan.phase_seconds[DITGEN_DENOISE]));
    progress_say(&progress, "%d exact clips of %d steps, not decoded: about %s", n,
                 settings_int(c->settings, SET_STEPS), text);
    d->watch = calibrate_watch(measure);
    stop_arm(true);
    for (int i = 0; i < n; i++)
        if (one_clip(t, d, c, list.line[i], i, e) < 0) goto out;
    if (calibrate_result(&result, measure, e) < 0) goto out;
    rc = write_result(&result, c, d, n, e);
    goto out;
library:
    err_set(e, (enum err_code)de.code, "%s", de.message);
out:
    calibration_fini(&result);
    calibrate_close(measure);
    prompts_fini(&list);
    ditgen_close(d);
    return rc;
}

int cmd_calibrate(int argc, char **argv, struct err *e)
{
    struct task t = {0};
    struct cli c = {0};
    if (take_own_flags(&t, &argc, argv, e) < 0) return -1;
    if (t.help) {
        fputs(USAGE, stdout);
        return 0;
    }
    int rc = cli_parse(&c, argc, argv, CLI_NO_WORD, e);
    if (rc == 0 && c.plan) rc = err_set(e, ERR_USAGE, "calibrate takes no --plan");
    if (rc == 0 && settings_switch(c.settings, SET_TURBO))
        rc = err_set(e, ERR_USAGE, "calibrate takes no --turbo: a few steps have nothing to carry");
    if (rc == 0 && c.output) rc = output_check(c.output, c.yes, e);
    if (rc == 0 && !(t.budget && settings_budget_steps(c.settings)))
        rc = settings_set(c.settings, LAYER_CALL, "step-cache", "none", e);
    if (rc == 0 && t.budget) rc = settings_set(c.settings, LAYER_CALL, "error-budget", "40dB", e);
    if (rc == 0) rc = run(&t, &c, e);
    cli_fini(&c);
    return rc;
}
