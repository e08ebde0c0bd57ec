/* Rows that tune looks at; see tune.h. */
#include "app/cli/tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool there(const struct bench_rows *r, const char *text)
{
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->at[i].text, text) == 0) return true;
    return false;
}

/* What is refused (two methods that claim one thing, an option past its bounds) is passed over. */
static int try(struct bench_rows *r, struct trials *t, const char *prompt, enum row_kind kind,
               const char *group, const char *text, struct err *e)
{
    struct trial_what w = {.prompt = prompt, .row = text};
    struct err refused;
    double ignored;
    if (there(r, text) || trials_predict(t, &w, &ignored, &refused) < 0) return 0;
    return bench_rows_add(r, kind, 0, group, text, e);
}

/* When carried attention is renewed, how much is computed between, how much of a run is exact. */
static const char *const carried[] = {
    "resid:every=2,density=.08", "resid:every=4,density=.03", "resid:density=.08",
    "resid:density=0,every=2",   "resid:density=0,every=3",   "resid:density=0,first=.3",
    "resid:density=0,last=.2",   "resid:first=.3,last=.2",    "resid:first=.1",
};

/* Those that are not calibrated here are refused, and so passed over. */
static const char *const budgets[] = {"45dB", "40dB", "36dB", "33dB"};

int tune_first(struct bench_rows *r, struct trials *t, const char *prompt, bool quick, bool by_size,
               struct err *e)
{
    const char *solver = settings_text(t->base, SET_SOLVER);
    char text[256];
    if (bench_rows_make(r, t, prompt, quick, e) < 0) return -1;
    for (size_t i = 0; i < ARRAY_LEN(carried); i++) {
        snprintf(text, sizeof text, "attention=%s", carried[i]);
        if (try(r, t, prompt, ROW_METHOD, "resid", text, e) < 0) goto fail;
    }
    for (size_t i = 0; i < ARRAY_LEN(budgets); i++) {
        snprintf(text, sizeof text, "error-budget=%s", budgets[i]);
        if (try(r, t, prompt, ROW_METHOD, "error budget", text, e) < 0) goto fail;
    }
    for (int i = 0; i < solver_count() && !by_size; i++) {
        snprintf(text, sizeof text, "solver=%s;steps=%d", solver_at(i)->name,
                 settings_int(t->base, SET_STEPS) * 5 / 6);
        if (solver && strcmp(solver_at(i)->name, solver) == 0) continue;
        if (try(r, t, prompt, ROW_STEPS, "solver", text, e) < 0) goto fail;
    }
    if (!by_size && settings_int(t->base, SET_PRECISION) != 2 && model_has_bf16() &&
        try(r, t, prompt, ROW_METHOD, "precision", "precision=bf16", e) < 0)
        goto fail;
    return 0;
fail:
    bench_rows_free(r);
    return -1;
}

/* --- around what did well ----------------------------------------------------------------------- */

/* text with the value of "name=" times `by`; false: it has no such number. */
static bool scaled(char *to, size_t n, const char *text, const char *name, double by)
{
    char find[32], *end;
    snprintf(find, sizeof find, "%s=", name);
    const char *at = strstr(text, find);
    if (!at) return false;
    at += strlen(find);
    double v = strtod(at, &end);
    if (end == at) return false;
    double scaled_v = strchr("et", name[0]) && name[1] != 'h' ? fmax(1, round(v * by)) : v * by;
    snprintf(to, n, "%.*s%.4g%s", (int)(at - text), text, scaled_v, end);
    return true;
}

static int neighbours(struct bench_rows *r, struct trials *t, const char *prompt,
                      const struct bench_row *row, int *room, struct err *e)
{
    static const char *const names[] = {"threshold", "every", "density", "mass", "tiles"};
    static const double by[] = {0.7, 1.4};
    for (size_t i = 0; i < ARRAY_LEN(names) * ARRAY_LEN(by); i++) {
        char text[256];
        int before = r->n;
        if (*room < 1) return 0;
        if (!scaled(text, sizeof text, row->text, names[i / 2], by[i % 2])) continue;
        if (try(r, t, prompt, row->kind, row->group, text, e) < 0) return -1;
        *room -= r->n - before;
    }
    return 0;
}

static int both(struct bench_rows *r, struct trials *t, const char *prompt,
                const struct bench_row *a, const struct bench_row *b, int *room, struct err *e)
{
    char text[256], group[64];
    int before = r->n;
    if (a->kind == b->kind || strchr(a->text, ';') || strchr(b->text, ';')) return 0;
    if (a->kind > b->kind) return both(r, t, prompt, b, a, room, e);
    if (b->kind == ROW_KERNEL ||
        snprintf(text, sizeof text, "%s;%s", a->text, b->text) >= (int)sizeof text)
        return 0;
    snprintf(group, sizeof group, "%.30s and %.28s", a->group, b->group);
    if (try(r, t, prompt, ROW_METHOD, group, text, e) < 0) return -1;
    *room -= r->n - before;
    return 0;
}

int tune_next(struct bench_rows *r, struct trials *t, const char *prompt,
              const struct bench_rows *front, int most, struct err *e)
{
    for (int i = 0; i < front->n && most > 0; i++) {
        for (int k = 0; k < i && most > 0; k++)
            if (both(r, t, prompt, &front->at[i], &front->at[k], &most, e) < 0) return -1;
        if (neighbours(r, t, prompt, &front->at[i], &most, e) < 0) return -1;
    }
    return 0;
}
