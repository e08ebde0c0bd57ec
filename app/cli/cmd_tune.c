/* tune: settings that save most at a wanted fidelity, searched on some prompts, verified on others. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/cli.h"
#include "app/cli/cmd.h"
#include "app/cli/output.h"
#include "app/cli/profile.h"
#include "app/cli/stop.h"
#include "app/cli/tune.h"
#include "app/lib/assets.h"
#include "model/base/clock.h"

#define KEEP 10 /* rows that go on from one round to the next */
#define ROUNDS 2 /* of neighbours and pairs */

/* --- searching ---------------------------------------------------------------------------------- */

static bool late(const struct tune *t)
{
    return t->minutes > 0 && clock_seconds() - t->begin > 60 * t->minutes;
}

static struct trial_what what_of(const struct prompts *p, int i, int seed, const char *row)
{
    return (struct trial_what){
        .prompt = p->line[i % p->n], .seed = (uint64_t)(seed + i), .row = row};
}

/* rows from `from` on, with prompts [first, end); says first how long it will take. */
static int make(struct tune *t, const char *what, const struct bench_rows *rows, int from,
                const struct prompts *p, int seed, int first, int end, struct err *e)
{
    double seconds = 0;
    int clips = 0;
    char text[40];
    for (int pass = 0; pass < 2; pass++) {
        for (int i = first; i < end; i++)
            for (int k = from; k < rows->n; k++) {
                struct trial_what w = what_of(p, i, seed, rows->at[k].text);
                struct trial known;
                double one = 0;
                if (pass ? late(t) && seed == TUNE_SEED_SEARCH : trials_known(&t->t, &w, &known))
                    continue;
                if (pass && trials_get(&t->t, &w, &known, e) < 0) return -1;
                if (!pass && trials_predict(&t->t, &w, &one, e) < 0) return -1;
                seconds += one, clips += !pass;
            }
        if (pass) break;
        seconds_text(text, sizeof text, seconds);
        if (clips) progress_say(&t->progress, "%s: %d clips, about %s", what, clips, text);
        trials_plan(&t->t, clips, seconds);
    }
    return 0;
}

static int table_of(struct bench_table *b, const struct tune *t, const struct bench_rows *rows,
                    bool verify, struct err *e)
{
    const struct trial_what size = {0};
    return bench_table_make(b, &t->t, rows, &size, verify ? t->verify.line : t->search.line,
                            verify ? t->n_verify : t->n_search,
                            verify ? TUNE_SEED_VERIFY : TUNE_SEED_SEARCH, t->cpu, e);
}

/* The best of all that was made with `clips` prompts: into `to`, at most n. */
static int best_of(struct bench_rows *to, const struct tune *t, int clips, int n, struct err *e)
{
    struct bench_table b;
    if (table_of(&b, t, &t->rows, false, e) < 0) return -1;
    bool *front = calloc((size_t)b.n + 1, sizeof *front);
    int rc = front ? 0 : err_set(e, ERR_RESOURCE, "no memory for the frontier");
    if (rc == 0) tune_front(front, &b, clips);
    for (int k = 0; rc == 0 && k < n; k++) {
        const struct bench_line *most = NULL;
        for (int i = 0; i < b.n; i++) {
            const struct bench_line *l = &b.at[i];
            bool taken = l->n < clips || !l->n || l->share >= 1 || l->row->kind == ROW_KERNEL;
            for (int j = 0; j < to->n && !taken; j++)
                taken = strcmp(to->at[j].text, l->row->text) == 0;
            if (!taken && (!most || tune_worth(l, &t->target, front[i]) >
                                        tune_worth(most, &t->target, front[most - b.at])))
                most = l;
        }
        if (!most) break;
        rc = bench_rows_add(to, most->row->kind, 0, most->row->group, most->row->text, e);
    }
    free(front);
    bench_table_free(&b);
    return rc;
}

static int search(struct tune *t, struct err *e)
{
    const char *prompt = t->search.line[0];
    if (tune_first(&t->rows, &t->t, prompt, t->quick, t->n_sizes > 1, e) < 0) return -1;
    if (make(t, "searching, each alone", &t->rows, 0, &t->search, TUNE_SEED_SEARCH, 0, 1, e) < 0)
        return -1;
    for (int round = 0; round < (t->quick ? 1 : ROUNDS) && !late(t); round++) {
        struct bench_rows front = {0};
        int from = t->rows.n;
        int rc = best_of(&front, t, 1, KEEP, e);
        if (rc == 0) rc = tune_next(&t->rows, &t->t, prompt, &front, t->quick ? KEEP : 3 * KEEP, e);
        bench_rows_free(&front);
        if (rc < 0) return -1;
        if (t->rows.n == from) break;
        if (make(t, "searching, around the best and both at once", &t->rows, from, &t->search,
                 TUNE_SEED_SEARCH, 0, 1, e) < 0)
            return -1;
    }
    struct bench_rows front = {0};
    int rc = best_of(&front, t, 1, KEEP, e);
    if (rc == 0)
        rc = make(t, "searching, the best with more prompts", &front, 0, &t->search,
                  TUNE_SEED_SEARCH, 1, t->n_search, e);
    bench_rows_free(&front);
    return rc;
}

/* Fewer steps are always among what is verified. */
static int choose_last(struct tune *t, struct err *e)
{
    for (int i = 0; i < t->rows.n; i++)
        if (t->rows.at[i].kind == ROW_STEPS && strcmp(t->rows.at[i].group, "steps") == 0 &&
            bench_rows_add(&t->last, ROW_STEPS, 0, "steps", t->rows.at[i].text, e) < 0)
            return -1;
    return best_of(&t->last, t, late(t) ? 1 : t->n_search, t->quick ? 4 : 6, e);
}

/* --- what is written ---------------------------------------------------------------------------- */

static int write_file(const char *path, char *text, bool yes, struct err *e)
{
    int rc = text ? output_text(path, text, yes, e)
                  : err_set(e, ERR_RESOURCE, "no memory for %.200s", path);
    free(text);
    return rc;
}

static int write_picture(const struct tune *t, const struct cli *c, const struct bench_table *b,
                         const bool *front, struct err *e)
{
    char *text = NULL, title[256];
    size_t n;
    FILE *f = t->svg ? open_memstream(&text, &n) : NULL;
    if (!t->svg) return 0;
    snprintf(title, sizeof title, "%dx%d, %d frames, %d steps, %d prompts", b->width, b->height,
             b->frames, b->steps, b->prompts);
    if (f) tune_svg(f, b, front, title);
    if (f) fclose(f);
    return write_file(t->svg, text, c->yes || t->resume, e);
}

static int write_profile(const struct tune *t, const struct cli *c, const struct tune_found *found,
                         struct err *e)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (f) tune_profile(f, found, c->settings);
    if (f) fclose(f);
    return write_file(c->output, text, c->yes || t->resume, e);
}

/* What was chosen, as long as its table is there. */
static int take_size(struct tune_size *to, const struct tune_found *f,
                     const struct ditgen_settings *base, struct err *e)
{
    const struct bench_table *b = f->verify ? f->verify : f->search;
    size_t n;
    to->tokens = b->tokens, to->steps = b->steps, to->verified = f->verify != NULL;
    to->row[0] = 0;
    if (!f->line) return 0;
    snprintf(to->row, sizeof to->row, "%s", f->line->row->text);
    to->share = f->line->share, to->psnr = f->line->psnr;
    FILE *m = open_memstream(&to->comment, &n);
    if (m) tune_figures(m, f, base);
    if (!m || fclose(m) != 0) return err_set(e, ERR_RESOURCE, "no memory for a profile");
    return 0;
}

/* The verified table, or, broken off, what the search knows. */
/* size: where a profile of several gets it from; NULL: of one, written here. */
static int report(struct tune *t, const struct cli *c, bool verified, struct tune_size *size,
                  struct err *e)
{
    struct bench_table search = {0}, verify = {0}, *b = verified ? &verify : &search;
    struct tune_found found = {.search = &search,
                               .verify = verified ? &verify : NULL,
                               .target = &t->target,
                               .lists = {&t->search, &t->verify},
                               .n_lists = {t->n_search, t->n_verify},
                               .model = t->t.d->info.dir,
                               .command = "ditgen tune"};
    char name[256];
    path_last(name, sizeof name, found.model);
    found.model = name; /* no path of the machine */
    bool *front = NULL;
    int rc = table_of(&search, t, &t->rows, false, e);
    if (rc == 0 && verified) rc = table_of(&verify, t, &t->last, true, e);
    if (rc == 0 && !(front = calloc((size_t)b->n + 1, sizeof *front)))
        rc = err_set(e, ERR_RESOURCE, "no memory for the frontier");
    if (rc == 0) {
        int clips = verified ? t->n_verify : 1;
        tune_front(front, b, clips);
        int best = tune_choose(b, &t->target, clips);
        found.line = best >= 0 ? &b->at[best] : NULL;
        if (t->json)
            tune_json(stdout, &found, front);
        else
            tune_table(stdout, b, front);
        rc = write_picture(t, c, b, front, e);
    }
    if (rc == 0 && size) rc = take_size(size, &found, t->t.base, e);
    if (rc == 0 && found.line) {
        if (!size) rc = write_profile(t, c, &found, e);
        if (rc == 0)
            progress_say(&t->progress, "%s: %s, %.2f of exact's seconds, %.1f dB%s", c->output,
                         found.line->row->text, found.line->share, found.line->psnr,
                         verified ? "" : " (not verified)");
    } else if (rc == 0) {
        progress_say(&t->progress,
                     "no settings meet the target; %s. The table is what there is to choose from",
                     size ? "this size stays exact" : "no profile was written");
    }
    free(front);
    bench_table_free(&search);
    bench_table_free(&verify);
    return rc;
}

/* --- a profile that is there -------------------------------------------------------------------- */

static int print_check(const struct tune *t, const struct bench_rows *rows, struct err *e)
{
    struct bench_table b = {0};
    struct ditgen_settings *s = NULL, *all = NULL;
    struct trial_what w = {.prompt = t->verify.line[0], .row = rows->at[0].text};
    struct tune_clip *clip = calloc((size_t)t->n_verify, sizeof *clip);
    double budget = 0;
    int rc =
        clip ? table_of(&b, t, rows, true, e) : err_set(e, ERR_RESOURCE, "no memory for a table");
    if (rc == 0) rc = trial_settings(&s, &t->t, &w, e);
    if (rc == 0) rc = settings_resolve(&all, s, t->t.d, NULL, e);
    if (rc == 0 && settings_budget(all))
        rc = setting_parse_budget(settings_budget(all), &budget, e);
    int n = rc == 0 ? tune_check_clips(clip, t, rows) : 0;
    if (rc == 0 && t->json) {
        fputs("{\"table\": ", stdout);
        bench_table_json(stdout, &b);
        fputs(", ", stdout);
        tune_check_json(stdout, clip, n, budget);
        fputs("}\n", stdout);
    } else if (rc == 0) {
        bench_table_print(stdout, &b);
        tune_check_print(stdout, clip, n, budget);
    }
    free(clip);
    settings_close(s);
    settings_close(all);
    bench_table_free(&b);
    return rc;
}

static int check(struct tune *t, const struct cli *given, struct err *e)
{
    struct bench_rows rows = {0};
    int rc = tune_check_rows(&rows, t, given->settings, e);
    if (rc == 0) rc = make(t, t->check, &rows, 0, &t->verify, TUNE_SEED_VERIFY, 0, t->n_verify, e);
    if (rc == 0) rc = print_check(t, &rows, e);
    bench_rows_free(&rows);
    return rc;
}

/* --- one size, or several ----------------------------------------------------------------------- */

/* At the size of t->t.base. */
static int one_size(struct tune *t, struct cli *c, struct tune_size *size, struct err *e)
{
    int rc = search(t, e);
    if (rc == 0) rc = choose_last(t, e);
    if (rc == 0)
        rc = make(t, "verifying", &t->last, 0, &t->verify, TUNE_SEED_VERIFY, 0, t->n_verify, e);
    if (rc < 0 && e->code != ERR_CANCELLED) return -1;
    struct err told = {0};
    if (report(t, c, rc == 0, size, &told) < 0) {
        *e = told;
        return -1;
    }
    if (rc < 0)
        err_set(e, ERR_CANCELLED, "cancelled; %.200s keeps what was made, --resume goes on with it",
                t->log);
    return rc;
}

static int write_sizes(struct tune *t, const struct cli *c, struct err *e)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (f) tune_sizes_profile(f, t);
    if (f) fclose(f);
    if (write_file(c->output, text, c->yes || t->resume, e) < 0) return -1;
    progress_say(&t->progress, "%s: settings of %d sizes, by tokens", c->output, t->n_sizes);
    return 0;
}

static int all_sizes(struct tune *t, struct cli *c, const struct cli *given, struct err *e)
{
    const struct ditgen_settings *all = t->t.base;
    int rc = 0, met = 0;
    if (!t->n_sizes) return t->check ? check(t, given, e) : one_size(t, c, NULL, e);
    for (int i = 0; rc == 0 && i < t->n_sizes; i++) {
        struct ditgen_settings *base;
        rc = tune_sizes_base(&base, &t->sizes[i], all, t->t.d, e);
        if (rc < 0) break;
        t->t.base = base;
        t->begin = clock_seconds(); /* --minutes are a size's */
        rc = t->check ? check(t, given, e) : one_size(t, c, &t->sizes[i], e);
        t->t.base = all;
        settings_close(base);
        bench_rows_free(&t->rows);
        bench_rows_free(&t->last);
        met += t->sizes[i].row[0] != 0;
    }
    if (rc < 0 || t->check) return rc;
    return met ? write_sizes(t, c, e) : 0;
}

/* --- the command -------------------------------------------------------------------------------- */

static int run(struct tune *t, struct cli *c, struct err *e)
{
    struct ditgen *d = NULL;
    struct ditgen_error de;
    struct cli given = {0};
    char note[256];
    int rc = -1;
    if (stop_watch(e) < 0) return -1;
    if (ditgen_open(&d, settings_text(c->settings, SET_MODEL), &de) < 0)
        return err_set(e, (enum err_code)de.code, "%s", de.message);
    if (settings_open(&given.settings, e) < 0) goto out;
    if (t->check && profile_load_file(given.settings, LAYER_CONFIG, t->check, e) < 0) goto out;
    if (cli_resolve(c, d, note, e) < 0) goto out;
    progress_init(&t->progress, stderr, c->progress == 1, c->quiet);
    if (prompts_read(&t->search, d->info.dir, "search", NULL, e) < 0) goto out;
    if (prompts_read(&t->verify, d->info.dir, "verify", NULL, e) < 0) goto out;
    if (t->n_search > t->search.n) t->n_search = t->search.n;
    if (t->n_verify > t->verify.n) t->n_verify = t->verify.n;
    if (trials_open(&t->t, d, c->settings, t->log, t->resume, c->yes, e) < 0) goto out;
    t->t.progress = &t->progress;
    t->begin = clock_seconds();
    stop_arm(true);
    rc = all_sizes(t, c, &given, e);
out:
    bench_rows_free(&t->rows);
    bench_rows_free(&t->last);
    tune_sizes_free(t);
    trials_close(&t->t);
    prompts_fini(&t->search);
    prompts_fini(&t->verify);
    settings_close(given.settings);
    ditgen_close(d);
    return rc;
}

int cmd_tune(int argc, char **argv, struct err *e)
{
    struct tune t = {0};
    struct cli c = {0};
    if (tune_flags(&t, &argc, argv, e) < 0) return -1;
    if (t.help) {
        fputs(tune_usage, stdout);
        return 0;
    }
    int rc = cli_parse(&c, argc, argv, CLI_NO_WORD, e);
    const char *flag =
        c.plan                                        ? "--plan"
        : settings_from(c.settings, SET_PROMPT)       ? "--prompt"
        : settings_from(c.settings, SET_ATTENTION)    ? "--attention: it is looked for"
        : settings_from(c.settings, SET_STEP_CACHE)   ? "--step-cache: it is looked for"
        : settings_from(c.settings, SET_ERROR_BUDGET) ? "--error-budget: it is looked for"
        : t.svg && t.n_sizes > 1                      ? "--svg with several sizes"
        : settings_switch(c.settings, SET_TURBO)      ? "--turbo"
                                                      : NULL;
    if (rc == 0 && flag) rc = err_set(e, ERR_USAGE, "tune takes no %s", flag);
    if (rc == 0 && !c.output && !(c.output = strdup("tuned.ini")))
        rc = err_set(e, ERR_RESOURCE, "no memory for a name");
    if (rc == 0 && !t.check) rc = output_check(c.output, c.yes || t.resume, e);
    if (rc == 0 && t.svg) rc = output_check(t.svg, c.yes || t.resume, e);
    if (rc == 0) rc = run(&t, &c, e);
    cli_fini(&c);
    return rc;
}
