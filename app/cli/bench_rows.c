/* Rows from the registries; see bench_rows.h. */
#include "app/cli/bench_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS 3

static const struct by {
    const char *method, *option, *values[SETTINGS];
} by_option[] = {
#define BY(m, o, ...) {#m, o, {__VA_ARGS__}},
#define STACK(...)
#include "app/cli/bench_rows.def"
#undef BY
#undef STACK
};
static const char *const stacks[][SETTINGS] = {
#define BY(...)
#define STACK(...) {__VA_ARGS__},
#include "app/cli/bench_rows.def"
#undef BY
#undef STACK
};

int bench_rows_add(struct bench_rows *r, enum row_kind kind, int setting, const char *group,
                   const char *text, struct err *e)
{
    if (r->n == r->room) {
        int room = r->room ? 2 * r->room : 64;
        struct bench_row *more = realloc(r->at, (size_t)room * sizeof *more);
        if (!more) return err_set(e, ERR_RESOURCE, "no memory for %d rows", room);
        r->at = more;
        r->room = room;
    }
    struct bench_row *to = &r->at[r->n++];
    *to = (struct bench_row){.kind = kind, .setting = setting};
    snprintf(to->group, sizeof to->group, "%s", group);
    snprintf(to->text, sizeof to->text, "%s", text);
    return 0;
}

void bench_rows_free(struct bench_rows *r)
{
    free(r->at);
    memset(r, 0, sizeof *r);
}

/* The option of a method that says how much it keeps, and three values of it. */
static struct by knob_of(const struct attn_method_info *m)
{
    for (size_t i = 0; i < ARRAY_LEN(by_option); i++)
        if (strcmp(by_option[i].method, m->name) == 0) return by_option[i];
    if (m->options && option_find(m->options, "density"))
        return (struct by){m->name, "density", {".5", ".25", ".12"}};
    if (m->options && option_find(m->options, "mass"))
        return (struct by){m->name, "mass", {".95", ".85", ".7"}};
    return (struct by){.method = m->name};
}

static bool in_stacks(const char *method)
{
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++)
        for (int k = 0; k < SETTINGS; k++)
            if (strcmp(method, stacks[i][k]) == 0) return true;
    return false;
}

static int add_methods(struct bench_rows *r, struct trials *t, const char *prompt, bool quick,
                       struct err *e)
{
    for (int i = 0; i < attn_methods(); i++) {
        struct attn_method_info m = attn_method_info(i);
        struct by by = knob_of(&m);
        if (m.exact || in_stacks(m.name)) continue;
        for (int k = 0; k < SETTINGS; k++) {
            char text[256];
            struct err refused;
            double ignored;
            if ((quick || !by.option) && k != 1) continue;
            if (by.option)
                snprintf(text, sizeof text, "attention=%s:%s=%s", m.name, by.option, by.values[k]);
            else
                snprintf(text, sizeof text, "attention=%s", m.name);
            /* some say nothing alone (an order, a scorer), some want a checkpoint of their own */
            struct trial_what w = {.prompt = prompt, .row = text};
            if (trials_predict(t, &w, &ignored, &refused) < 0) continue;
            if (bench_rows_add(r, ROW_METHOD, k, m.name, text, e) < 0) return -1;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++)
        for (int k = 0; k < SETTINGS; k++) {
            char text[256];
            if (quick && k != 1) continue;
            snprintf(text, sizeof text, "attention=%s", stacks[i][k]);
            if (bench_rows_add(r, ROW_METHOD, k, i ? "with resid" : "resid", text, e) < 0)
                return -1;
        }
    return 0;
}

static int add_caches(struct bench_rows *r, struct trials *t, const char *prompt, bool quick,
                      struct err *e)
{
    static const double times[SETTINGS] = {1, 2, 4};
    for (int i = 0; i < dit_caches(); i++) {
        struct dit_cache_info c = dit_cache_info(i);
        const struct option *o = option_find(c.options, "threshold");
        for (int k = 0; o && k < SETTINGS; k++) {
            char text[256];
            struct err refused;
            double ignored;
            if (quick && k != 1) continue;
            snprintf(text, sizeof text, "step-cache=%s:threshold=%g", c.name, o->def * times[k]);
            struct trial_what w = {.prompt = prompt, .row = text};
            if (trials_predict(t, &w, &ignored, &refused) < 0) {
                if (k == (quick ? 1 : 0)) progress_say(t->progress, "left out: %s", refused.msg);
                continue;
            }
            if (bench_rows_add(r, ROW_CACHE, k, c.name, text, e) < 0) return -1;
        }
    }
    return 0;
}

/* What a user would do instead. */
static int add_steps(struct bench_rows *r, const struct trials *t, struct err *e)
{
    static const int of_six[] = {5, 4, 3, 2};
    int steps = settings_int(t->base, SET_STEPS), before = steps;
    for (size_t i = 0; i < ARRAY_LEN(of_six); i++) {
        char text[64];
        int fewer = (steps * of_six[i] + 3) / 6;
        if (fewer < 1 || fewer >= before) continue;
        snprintf(text, sizeof text, "steps=%d", before = fewer);
        if (bench_rows_add(r, ROW_STEPS, (int)i, "steps", text, e) < 0) return -1;
    }
    return 0;
}

static int add_kernel(struct bench_rows *r, struct trials *t, const char *prompt, struct err *e)
{
    struct trial_what w = {.prompt = prompt, .row = ""};
    struct ditgen_settings *s = NULL;
    struct run run;
    if (trial_settings(&s, t, &w, e) < 0) return -1;
    int rc = run_init(&run, t->d, s, NULL, e);
    settings_close(s);
    if (rc < 0) return -1;
    const char *used = run.forecast.kernel;
    for (int i = 0; i < attn_kernel_count(); i++) {
        struct attn_kernel_info k = attn_kernel_at(i);
        char text[64];
        struct err refused;
        double ignored;
        if (strcmp(k.name, used) == 0 || strcmp(k.name, "ref") == 0) continue;
        snprintf(text, sizeof text, "kernel=%s", k.name);
        w.row = text;
        if (trials_predict(t, &w, &ignored, &refused) < 0) continue;
        rc = bench_rows_add(r, ROW_KERNEL, 0, "another kernel", text, e);
        break;
    }
    run_fini(&run);
    return rc;
}

int bench_rows_make(struct bench_rows *r, struct trials *t, const char *prompt, bool quick,
                    struct err *e)
{
    memset(r, 0, sizeof *r);
    if (add_kernel(r, t, prompt, e) == 0 && add_steps(r, t, e) == 0 &&
        add_methods(r, t, prompt, quick, e) == 0 && add_caches(r, t, prompt, quick, e) == 0)
        return 0;
    bench_rows_free(r);
    return -1;
}
