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
    if (tune_first(&t->rows, &t->t, prompt, t->quick, e) < 0) return -1;
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

/* The verified table, or, broken off, what the search knows. */
static int report(struct tune *t, const struct cli *c, bool verified, struct err *e)
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
    if (rc == 0 && found.line) {
        rc = write_profile(t, c, &found, e);
        if (rc == 0)
            progress_say(&t->progress, "%s: %s, %.2f of exact's seconds, %.1f dB%s", c->output,
                         found.line->row->text, found.line->share, found.line->psnr,
                         verified ? "" : " (not verified)");
    } else if (rc == 0) {
        progress_say(&t->progress,
                     "no settings meet the target; no profile was written. The table is what there "
                     "is to choose from");
    }
    free(front);
    bench_table_free(&search);
    bench_table_free(&verify);
    return rc;
}

/* --check: a profile's settings as one row. */
static int check(struct tune *t, const struct cli *given, struct err *e)
{
    static const int ids[] = {SET_ATTENTION, SET_STEP_CACHE, SET_STEPS, SET_SOLVER, SET_PRECISION};
    char row[1024] = "";
    struct bench_rows rows = {0};
    struct bench_table b = {0};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        if (settings_from(given->settings, (enum setting_id)ids[i]) != LAYER_CONFIG) continue;
        char *value = settings_print(given->settings, ids[i], e);
        size_t at = strlen(row);
        if (value)
            snprintf(row + at, sizeof row - at, "%s%s=%s", at ? ";" : "",
                     setting_at(ids[i])->option.name, value);
        free(value);
    }
    if (!row[0]) return err_set(e, ERR_USAGE, "%.200s says nothing that tune looks at", t->check);
    int rc = bench_rows_add(&rows, ROW_METHOD, 0, "profile", row, e);
    for (int i = 5; rc == 0 && i > 1; i--) {
        char text[32];
        snprintf(text, sizeof text, "steps=%d", settings_int(t->t.base, SET_STEPS) * i / 6);
        rc = bench_rows_add(&rows, ROW_STEPS, 0, "steps", text, e);
    }
    if (rc == 0) rc = make(t, t->check, &rows, 0, &t->verify, TUNE_SEED_VERIFY, 0, t->n_verify, e);
    if (rc == 0) rc = table_of(&b, t, &rows, true, e);
    if (rc == 0 && t->json)
        bench_table_json(stdout, &b);
    else if (rc == 0)
        bench_table_print(stdout, &b);
    bench_table_free(&b);
    bench_rows_free(&rows);
    return rc;
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
    if (t->check) {
        rc = check(t, &given, e);
        goto out;
    }
    rc = search(t, e);
    if (rc == 0) rc = choose_last(t, e);
    if (rc == 0)
        rc = make(t, "verifying", &t->last, 0, &t->verify, TUNE_SEED_VERIFY, 0, t->n_verify, e);
    if (rc < 0 && e->code != ERR_CANCELLED) goto out;
    struct err told = {0};
    if (report(t, c, rc == 0, &told) < 0)
        *e = told, rc = -1;
    else if (rc < 0)
        err_set(e, ERR_CANCELLED, "cancelled; %.200s keeps what was made, --resume goes on with it",
                t->log);
out:
    bench_rows_free(&t->rows);
    bench_rows_free(&t->last);
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
    const char *flag = c.plan                                     ? "--plan"
                       : settings_from(c.settings, SET_PROMPT)    ? "--prompt"
                       : settings_from(c.settings, SET_ATTENTION) ? "--attention: it is looked for"
                       : settings_from(c.settings, SET_STEP_CACHE)
                           ? "--step-cache: it is looked for"
                       : settings_switch(c.settings, SET_TURBO) ? "--turbo"
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
