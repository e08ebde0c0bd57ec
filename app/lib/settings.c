/* The table of settings, its layers and its text; see settings.h. */
#include "app/lib/settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "app/lib/assets.h"
#include "app/lib/ini.h"
#include "sched/sched.h"

static const struct option clip_rows[] = {
    OPT_STRING(struct settings, prompt, "prompt", NULL,
               "what to show; also as the first word without a flag"),
    OPT_STRING(struct settings, negative, "negative", NULL, "what to stay away from"),
    OPT_INT(struct settings, width, "width", 0, 1, 16384, "pixels across"),
    OPT_INT(struct settings, height, "height", 0, 1, 16384, "pixels down"),
    OPT_STRING(struct settings, size, "size", NULL, "both at once: 832x480"),
    OPT_INT(struct settings, frames, "frames", 0, 1, 100000, "frames of the clip"),
    OPT_DOUBLE(struct settings, seconds, "seconds", 0, 0.001, 100000,
               "instead of --frames: the nearest count the model can do"),
    OPT_DOUBLE(struct settings, fps, "fps", 0, 0.01, 1000, "frames per second"),
    OPT_U64(struct settings, seed, "seed", "same seed, same clip; random without"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};
static const struct option sampling_rows[] = {
    OPT_INT(struct settings, steps, "steps", 0, 1, MAX_STEPS,
            "times the model is asked: more is finer, slower"),
    OPT_DOUBLE(struct settings, guidance_scale, "guidance-scale", 0, 0, 1000,
               "how hard to push towards the prompt; 1: half the work"),
    OPT_DOUBLE(struct settings, flow_shift, "flow-shift", 0, 0.001, 1000,
               "more than 1: more steps at high noise"),
    OPT_STRING(struct settings, solver, "solver", NULL,
               "unipc, euler, dpmpp ... (see: ditgen list solvers)"),
    OPT_BOOL(struct settings, turbo, "turbo", 0, "the model's few-step transformer, if it has one"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};
static const struct option compute_rows[] = {
    OPT_STRING(struct settings, model, "model", NULL,
               "a pipeline folder (diffusers layout); without: the one built in"),
    OPT_INT(struct settings, threads, "threads", 0, 0, 1024, "threads; 0: by a short probe"),
    OPT_ENUM(struct settings, precision, "precision", 0, "auto|fp32|bf16",
             "auto, fp32, bf16; auto: bf16 where the processor has it"),
    OPT_STRING(struct settings, attention, "attention", NULL,
               "which parts of attention to compute (see: ditgen list methods)"),
    OPT_STRING(struct settings, kernel, "kernel", NULL,
               "the code that computes them (see: ditgen list kernels)"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};
static const struct option video_rows[] = {
    OPT_STRING(struct settings, codec, "codec", NULL, "video codec; H.264 for mp4"),
    OPT_INT(struct settings, crf, "crf", -1, 0, 63, "quality: lower is better and larger"),
    OPT_STRING(struct settings, preset, "preset", NULL, "encoder effort: ultrafast ... veryslow"),
    OPT_STRING(struct settings, pix_fmt, "pix_fmt", NULL, "pixel format: yuv420p plays everywhere"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};
static const struct option expert_rows[] = {
    OPT_STRING(
        struct settings, compat, "compat", NULL,
        "match another program, a comma list: diffusers-0.36 or diffusers-0.37 (noise levels), "
        "truncate (frames to bytes)"),
    OPT_BOOL(struct settings, no_ftfy, "no-ftfy", 0, "leave broken Unicode in prompts as it is"),
    OPT_BOOL(struct settings, long_text, "long-text", 0,
             "attend to each pad of the text one by one: same clip, slower"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};
const struct settings_group settings_groups[] = {
    {"What to make", clip_rows},       {"How to sample", sampling_rows},
    {"What it runs on", compute_rows}, {"How it is written", video_rows},
    {"Compatibility", expert_rows},    {NULL, NULL},
};

/* Names that mean another row, in flags and files. */
static const struct {
    const char *name, *row;
} aliases[] = {
    {"negative-prompt", "negative"},
    {"num-frames", "frames"},
    {"num-steps", "steps"},
    {"pix-fmt", "pix_fmt"},
};

/* Row number over all groups, for from[]. */
static int row_index(const struct option *o)
{
    int n = 0;
    for (const struct settings_group *g = settings_groups; g->title; g++)
        for (const struct option *r = g->options; r->name; r++, n++)
            if (r == o) return n;
    return -1;
}

const struct option *settings_row(const char *key)
{
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++) {
        const struct option one[] = {{aliases[i].name, 0, 0, 0, 0, 0, NULL, NULL},
                                     {NULL, 0, 0, 0, 0, 0, NULL, NULL}};
        if (option_find(one, key)) key = aliases[i].row;
    }
    for (const struct settings_group *g = settings_groups; g->title; g++) {
        const struct option *o = option_find(g->options, key);
        if (o) return o;
    }
    return NULL;
}

const struct option *settings_method_option(const char *key, const struct attn_method **method)
{
    for (int i = 0; i < attn_method_count(); i++) {
        *method = attn_method_at(i);
        const struct option *o = option_find((*method)->options, key);
        if (o) return o;
    }
    *method = NULL;
    return NULL;
}

const char *settings_nearest(const char *key)
{
    struct option all[128] = {{0}}; /* names only; ends in a row without one */
    size_t n = 0;
    for (const struct settings_group *g = settings_groups; g->title; g++)
        for (const struct option *o = g->options; o->name && n + 1 < ARRAY_LEN(all); o++)
            all[n++].name = o->name;
    for (int i = 0; i < attn_method_count(); i++)
        for (const struct option *o = attn_method_at(i)->options;
             o && o->name && n + 1 < ARRAY_LEN(all); o++)
            all[n++].name = o->name;
    return option_nearest(all, key);
}

int settings_init(struct settings *s, struct err *e)
{
    memset(s, 0, sizeof *s);
    for (const struct settings_group *g = settings_groups; g->title; g++)
        if (option_defaults(g->options, s, e) < 0) return -1;
    return 0;
}

void settings_fini(struct settings *s)
{
    for (const struct settings_group *g = settings_groups; g->title; g++)
        option_free(g->options, s);
    memset(s, 0, sizeof *s);
}

static enum layer *from_of(struct settings *s, const char *key)
{
    return &s->from[row_index(settings_row(key))];
}

enum layer settings_from(const struct settings *s, const char *key)
{
    return s->from[row_index(settings_row(key))];
}

static int set_method_option(struct settings *s, enum layer layer, const struct attn_method *m,
                             const struct option *o, const char *value, struct err *e)
{
    void *scratch = calloc(1, m->options_size);
    if (!scratch) return err_set(e, ERR_RESOURCE, "no memory for the options of %s", m->name);
    int rc = option_parse(o, scratch, value, e);
    option_free(m->options, scratch);
    free(scratch);
    if (rc < 0) return -1;
    struct method_option *at = NULL;
    for (int i = 0; i < s->n_method_options; i++)
        if (s->method_options[i].option == o) at = &s->method_options[i];
    if (!at) {
        if (s->n_method_options == SETTINGS_MAX_METHOD_OPTIONS)
            return err_set(e, ERR_USAGE, "more than %d options of attention methods",
                           SETTINGS_MAX_METHOD_OPTIONS);
        at = &s->method_options[s->n_method_options++];
    } else if (at->layer > layer) {
        return 0;
    }
    if (strlen(value) >= sizeof at->value || strpbrk(value, " ,="))
        return err_set(e, ERR_USAGE,
                       "%s is '%s', wanted fewer than %zu bytes without blank , =", o->name, value,
                       sizeof at->value);
    at->method = m, at->option = o, at->layer = layer;
    strcpy(at->value, value);
    return 0;
}

/* "832x480", also with X or * between. */
static int parse_size(const char *text, int *width, int *height, struct err *e)
{
    char w[16];
    size_t n = strcspn(text, "xX*");
    if (n > 0 && n < sizeof w && text[n]) {
        memcpy(w, text, n);
        w[n] = 0;
        if (parse_int(w, 1, 16384, width) == 0 && parse_int(text + n + 1, 1, 16384, height) == 0)
            return 0;
    }
    return err_set(e, ERR_USAGE, "size is '%s', wanted WIDTHxHEIGHT such as 832x480", text);
}

/* Two rows of the same layer that say the same thing. */
static int refuse_pair(struct settings *s, enum layer layer, const char *key, const char *other,
                       struct err *e)
{
    if (*from_of(s, other) != layer) return 0;
    return err_set(e, ERR_USAGE, "%s and %s contradict each other, give one", key, other);
}

static int set_size(struct settings *s, enum layer layer, const char *value, struct err *e)
{
    int w, h;
    if (parse_size(value, &w, &h, e) < 0) return -1;
    if (*from_of(s, "size") != layer) { /* given twice: the last one stands */
        if (refuse_pair(s, layer, "size", "width", e) < 0) return -1;
        if (refuse_pair(s, layer, "size", "height", e) < 0) return -1;
    }
    if (*from_of(s, "width") <= layer) s->width = w, *from_of(s, "width") = layer;
    if (*from_of(s, "height") <= layer) s->height = h, *from_of(s, "height") = layer;
    if (*from_of(s, "size") < layer) *from_of(s, "size") = layer;
    return 0;
}

static int check_name(const struct option *o, const char *value, struct err *e)
{
    if (strcmp(o->name, "solver") == 0 && !solver_find(value)) {
        char all[128] = "";
        for (int i = 0; i < solver_count(); i++)
            snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "",
                     solver_at(i)->name);
        return err_set(e, ERR_USAGE, "solver is '%s', wanted one of %s", value, all);
    }
    if (strcmp(o->name, "attention") == 0 && !attn_method_find(value)) {
        char all[256] = "";
        for (int i = 0; i < attn_method_count(); i++)
            snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "",
                     attn_method_at(i)->name);
        return err_set(e, ERR_USAGE, "attention is '%s', wanted one of %s", value, all);
    }
    if (strcmp(o->name, "compat") == 0) {
        struct ditgen_settings ignored;
        return settings_compat(&ignored, value, e);
    }
    return 0;
}

int settings_compat(struct ditgen_settings *g, const char *list, struct err *e)
{
    g->sigma_grid_036 = g->truncate_frames = 0;
    bool old = false, new = false;
    while (list && *(list += strspn(list, ", "))) {
        size_t n = strcspn(list, ", ");
        if (n == 14 && memcmp(list, "diffusers-0.36", n) == 0)
            g->sigma_grid_036 = old = true;
        else if (n == 14 && memcmp(list, "diffusers-0.37", n) == 0)
            new = true;
        else if (n == 8 && memcmp(list, "truncate", n) == 0)
            g->truncate_frames = 1;
        else
            return err_set(e, ERR_USAGE,
                           "compat has '%.*s', wanted a comma list of diffusers-0.36, "
                           "diffusers-0.37, truncate",
                           (int)(n < 40 ? n : 40), list);
        list += n;
    }
    if (old && new)
        return err_set(e, ERR_USAGE,
                       "compat: diffusers-0.36 and diffusers-0.37 exclude each other");
    return 0;
}

int settings_set(struct settings *s, enum layer layer, const char *key, const char *value,
                 struct err *e)
{
    const struct option *o = settings_row(key);
    if (!o) {
        const struct attn_method *m;
        const struct option *mo = settings_method_option(key, &m);
        if (mo) return set_method_option(s, layer, m, mo, value, e);
        const char *near = settings_nearest(key);
        if (near) return err_set(e, ERR_USAGE, "unknown key '%s', did you mean '%s'?", key, near);
        return err_set(e, ERR_USAGE, "unknown key '%s'", key);
    }
    if (strcmp(o->name, "size") == 0) return set_size(s, layer, value, e);
    if (check_name(o, value, e) < 0) return -1;
    if (strcmp(o->name, "frames") == 0 && refuse_pair(s, layer, "frames", "seconds", e) < 0)
        return -1;
    if (strcmp(o->name, "seconds") == 0 && refuse_pair(s, layer, "seconds", "frames", e) < 0)
        return -1;
    if ((strcmp(o->name, "width") == 0 || strcmp(o->name, "height") == 0) &&
        refuse_pair(s, layer, o->name, "size", e) < 0)
        return -1;

    struct settings probe = {0}; /* a bad value is refused also where a higher layer wins */
    if (option_parse(o, &probe, value, e) < 0) return -1;
    for (const struct settings_group *g = settings_groups; g->title; g++)
        option_free(g->options, &probe);
    enum layer *from = &s->from[row_index(o)];
    if (*from > layer) return 0;
    if (option_parse(o, s, value, e) < 0) return -1;
    *from = layer;
    return 0;
}

/* --- filling in
 * ------------------------------------------------------------------------------------ */

static int keep_string(char **at, const char *value, struct err *e)
{
    char *copy = strdup(value);
    if (!copy) return err_set(e, ERR_RESOURCE, "no memory for the settings");
    free(*at);
    *at = copy;
    return 0;
}

/* 32 bits: all that the noise takes of a seed, and short to read. */
static uint64_t random_seed(void)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed) return seed;
    return (uint32_t)time(NULL);
}

static void frames_from_seconds(struct settings *s, const struct ditgen *d, char *note)
{
    double exact = s->seconds * s->fps;
    int below, above, wanted = exact < 1 ? 1 : exact > 100000 ? 100000 : (int)lrint(exact);
    ditgen_frames_near(d, wanted, &below, &above);
    s->frames = below >= 1 && fabs(exact - below) <= fabs(above - exact) ? below : above;
    double made = s->frames / s->fps;
    if (fabs(made - s->seconds) > 0.0005)
        snprintf(note, 256,
                 "%g seconds at %g fps: the nearest this model can do is %d frames, %.3g seconds",
                 s->seconds, s->fps, s->frames, made);
}

int settings_method_text(const struct settings *s, char *buf, size_t n, struct err *e)
{
    enum layer chosen = settings_from(s, "attention");
    const char *name = s->attention ? s->attention : "dense";
    size_t len = 0;
    if (n) buf[0] = 0;
    for (int i = 0; i < s->n_method_options; i++) {
        const struct method_option *m = &s->method_options[i];
        if (strcmp(m->method->name, name) != 0) {
            if (m->layer < chosen) continue; /* a higher layer chose another method */
            return err_set(e, ERR_USAGE, "%s belongs to --attention %s, but the method is %s",
                           m->option->name, m->method->name, name);
        }
        int k = snprintf(buf + len, n - len, "%s%s=%s", len ? " " : "", m->option->name, m->value);
        if (k < 0 || len + (size_t)k >= n)
            return err_set(e, ERR_USAGE, "the options of --attention %s are longer than %zu bytes",
                           name, n);
        len += (size_t)k;
    }
    return 0;
}

/* What nobody said is what the model says. */
static int fill(struct settings *s, const struct ditgen_settings *g, struct err *e)
{
    if (!settings_from(s, "negative") && keep_string(&s->negative, g->negative_prompt, e) < 0)
        return -1;
    if (!settings_from(s, "width")) s->width = g->width;
    if (!settings_from(s, "height")) s->height = g->height;
    if (!settings_from(s, "fps")) s->fps = g->fps;
    if (!settings_from(s, "steps")) s->steps = g->steps;
    if (!settings_from(s, "guidance-scale")) s->guidance_scale = g->guidance_scale;
    if (!settings_from(s, "flow-shift")) s->flow_shift = g->flow_shift;
    if (!settings_from(s, "solver") && keep_string(&s->solver, g->solver, e) < 0) return -1;
    if (!settings_from(s, "attention") && keep_string(&s->attention, g->attention, e) < 0)
        return -1;
    if (!settings_from(s, "seed")) s->seed = random_seed();
    return 0;
}

int settings_resolve(struct settings *s, struct ditgen *d, struct ditgen_settings *g, char *note,
                     struct err *e)
{
    static const char *const precisions[] = {"auto", "fp32", "bf16"};
    struct ditgen_error de;
    note[0] = 0;
    ditgen_defaults(d, g);
    if (s->turbo && ditgen_turbo(d, g, &de) < 0)
        return err_set(e, (enum err_code)de.code, "%s", de.message);
    int model_frames = g->frames;
    if (fill(s, g, e) < 0) return -1;
    if (settings_from(s, "seconds") > settings_from(s, "frames"))
        frames_from_seconds(s, d, note);
    else if (!settings_from(s, "frames"))
        s->frames = model_frames;

    g->prompt = s->prompt;
    g->negative_prompt = s->negative;
    g->width = s->width, g->height = s->height, g->frames = s->frames;
    g->fps = s->fps;
    g->steps = s->steps;
    g->guidance_scale = s->guidance_scale;
    g->flow_shift = s->flow_shift;
    g->solver = s->solver;
    g->seed = s->seed;
    g->precision = precisions[s->precision];
    g->threads = s->threads;
    g->attention = s->attention;
    g->kernel = s->kernel;
    g->raw_text = s->no_ftfy;
    g->long_text = s->long_text;
    return settings_compat(g, s->compat, e);
}

/* --- as text
 * ---------------------------------------------------------------------------------------- */

/* Rows that a clip does not carry: they change no byte of it, or are another row's other spelling.
 */
static bool in_text(const struct settings *s, const struct option *o, bool clip)
{
    if (strcmp(o->name, "size") == 0 || strcmp(o->name, "seconds") == 0) return false;
    if (clip && strcmp(o->name, "threads") == 0) return false;
    if (o->type == OPTION_STRING) return *(char *const *)((const char *)s + o->offset) != NULL;
    if (strcmp(o->name, "crf") == 0) return s->crf >= 0;
    if (o->type == OPTION_BOOL) return *(const bool *)((const char *)s + o->offset);
    return true;
}

static void print_row(FILE *f, const struct settings *s, const struct option *o, bool clip)
{
    char plain[64], name[256];
    if (o->type != OPTION_STRING) {
        option_print(o, s, plain, sizeof plain);
        fprintf(f, "%s = %s\n", o->name, plain);
        return;
    }
    const char *value = *(char *const *)((const char *)s + o->offset);
    if (clip && strcmp(o->name, "model") == 0) path_last(name, sizeof name, value), value = name;
    size_t n = (size_t)ini_quote(NULL, 0, value) + 1;
    char *quoted = malloc(n);
    if (!quoted) return;
    ini_quote(quoted, n, value);
    fprintf(f, "%s = %s\n", o->name, quoted);
    free(quoted);
}

char *settings_text(const struct settings *s, bool clip)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) return NULL;
    fputs("[ditgen]\n", f);
    for (const struct settings_group *g = settings_groups; g->title; g++)
        for (const struct option *o = g->options; o->name; o++)
            if (in_text(s, o, clip)) print_row(f, s, o, clip);
    for (int i = 0; i < s->n_method_options; i++) {
        const struct method_option *m = &s->method_options[i];
        if (s->attention && strcmp(m->method->name, s->attention) == 0)
            fprintf(f, "%s = %s\n", m->option->name, m->value);
    }
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
