/* Error budgets' calibrations on disk; see error_budget.h. */
#include "app/lib/error_budget.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app/lib/assets.h"
#include "app/lib/ini.h"
#include "model/base/file_map.h"
#include "model/base/option.h"

#define MOST ((size_t)1 << 22) /* bytes of a file: 50 steps of 40 layers of 40 heads are 40 KB */
#define MOST_STEPS 1000
#define MOST_SIDE 256 /* layers, heads */
#define MOST_NUMBERS ((size_t)1 << 22) /* steps x layers x heads */

void budget_key_of(struct budget_key *k, const struct ditgen_settings *s)
{
    *k = (struct budget_key){.width = settings_int(s, SET_WIDTH),
                             .height = settings_int(s, SET_HEIGHT),
                             .frames = settings_int(s, SET_FRAMES),
                             .steps = settings_int(s, SET_STEPS),
                             .guidance_scale = settings_real(s, SET_GUIDANCE_SCALE),
                             .flow_shift = settings_real(s, SET_FLOW_SHIFT)};
    snprintf(k->solver, sizeof k->solver, "%s", settings_text(s, SET_SOLVER));
    snprintf(k->attention, sizeof k->attention, "%s", settings_text(s, SET_ATTENTION));
    snprintf(k->step_cache, sizeof k->step_cache, "%s",
             settings_budget_steps(s) ? settings_text(s, SET_STEP_CACHE) : "none");
}

static bool of_steps(const struct budget_key *k)
{
    return k->step_cache[0] && strcmp(k->step_cache, "none") != 0;
}

void error_budget_path(char path[CALIBRATION_PATH], const struct model_info *m,
                       const struct budget_key *k)
{
    char name[256], profiles[ASSETS_PATH], builtin[ASSETS_PATH], folder[CALIBRATION_PATH - 300];
    struct err ignored;
    struct stat a, b;
    snprintf(folder, sizeof folder, "%.4200s/error-budgets", m->dir);
    path_last(name, sizeof name, m->dir);
    if (assets_find(builtin, name, &ignored) == 0 && stat(builtin, &a) == 0 &&
        stat(m->dir, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev &&
        assets_find(profiles, "profiles", &ignored) == 0)
        snprintf(folder, sizeof folder, "%.4000s/error-budgets/%.255s", profiles, name);
    snprintf(path, CALIBRATION_PATH, "%s/%dx%dx%d-%s-%d%s.ini", folder, k->width, k->height,
             k->frames, k->solver, k->steps, of_steps(k) ? "-steps" : "");
}

/* --- memory ------------------------------------------------------------------------------------- */

void error_budget_fini(struct error_budget *b)
{
    free(b->weight);
    free(b->gain);
    free(b->drift);
    free(b->head);
    free(b->units);
    memset(b, 0, sizeof *b);
}

int error_budget_alloc(struct error_budget *b, int steps, int layers, int heads, struct err *e)
{
    size_t s = (size_t)steps, l = (size_t)layers, h = (size_t)heads;
    b->of.steps = steps, b->layers = layers, b->heads = heads;
    b->weight = calloc(l, sizeof *b->weight);
    b->gain = calloc(s, sizeof *b->gain);
    b->drift = calloc(s * l, sizeof *b->drift);
    b->head = calloc(l * h, sizeof *b->head);
    b->units = calloc((s + 1) * l * h, sizeof *b->units);
    if (b->weight && b->gain && b->drift && b->head && b->units) return 0;
    return err_set(e, ERR_RESOURCE, "no memory for the calibration of an error budget");
}

void error_budget_spread(struct error_budget *b)
{
    size_t units = (size_t)b->layers * (size_t)b->heads;
    float *drift = b->units + units;
    for (size_t u = 0; u < units; u++) {
        size_t layer = u / (size_t)b->heads;
        b->units[u] = b->weight[layer];
        for (size_t s = 0; s < (size_t)b->of.steps; s++)
            drift[s * units + u] =
                powf(b->drift[s * (size_t)b->layers + layer] * b->head[u], (float)b->table.power);
    }
    b->table.n_steps = b->of.steps;
    b->table.n_units = (int)units;
    b->table.gain = b->gain;
    b->table.weight = b->units;
    b->table.drift = drift;
}

/* --- reading ------------------------------------------------------------------------------------ */

/* "a/b/c" of exactly n numbers from 0 on. */
static int read_list(float *to, size_t n, const char *key, const char *value, struct err *e)
{
    const char *at = value;
    for (size_t i = 0; i < n && at; i++) {
        char word[40];
        double v;
        size_t len = strcspn(at, "/");
        if (len >= sizeof word) break;
        memcpy(word, at, len);
        word[len] = 0;
        if (parse_double(word, 0, 1e12, &v) < 0) break;
        to[i] = (float)v;
        if (i + 1 == n && !at[len]) return 0;
        at = at[len] ? at + len + 1 : NULL;
    }
    return err_set(e, ERR_INPUT, "%s is no list of %zu numbers from 0 to 1e12", key, n);
}

struct number {
    const char *section, *key;
    int *whole;
    double *real;
    double lo, hi;
};

static int take_number(const struct number *n, const char *value, struct err *e)
{
    int rc = n->whole ? parse_int(value, (long)n->lo, (long)n->hi, n->whole)
                      : parse_double(value, n->lo, n->hi, n->real);
    return rc == 0 ? 0
                   : err_set(e, ERR_INPUT, "%s is '%.40s', wanted %g to %g", n->key, value, n->lo,
                             n->hi);
}

static int take_text(char *to, size_t n, const char *key, const char *value, struct err *e)
{
    if (strlen(value) >= n) return err_set(e, ERR_INPUT, "%s is longer than %zu bytes", key, n - 1);
    memcpy(to, value, strlen(value) + 1);
    return 0;
}

static int take_costs(struct error_budget *b, const char *key, const char *value, struct err *e)
{
    size_t s = (size_t)b->of.steps, l = (size_t)b->layers, h = (size_t)b->heads;
    if (!s || !l || !h)
        return err_set(e, ERR_INPUT, "steps, layers and heads must stand before %s", key);
    if (s * l * h > MOST_NUMBERS)
        return err_set(e, ERR_INPUT,
                       "%zu steps of %zu layers of %zu heads are more than any model has", s, l, h);
    if (!b->units && error_budget_alloc(b, (int)s, (int)l, (int)h, e) < 0) return -1;
    if (strcmp(key, "gain") == 0) return read_list(b->gain, s, key, value, e);
    if (strcmp(key, "weight") == 0) return read_list(b->weight, l, key, value, e);
    if (strcmp(key, "drift") == 0) return read_list(b->drift, s * l, key, value, e);
    if (strcmp(key, "head") == 0) return read_list(b->head, l * h, key, value, e);
    return err_set(e, ERR_INPUT, "unknown key '%.60s' of [costs]", key);
}

static int take(void *ctx, const char *section, const char *key, const char *value, struct err *e)
{
    struct error_budget *b = ctx;
    struct budget_key *k = &b->of;
    struct budget_table *t = &b->table;
    const struct number numbers[] = {
        {"of", "width", &k->width, NULL, 1, 16384},
        {"of", "height", &k->height, NULL, 1, 16384},
        {"of", "frames", &k->frames, NULL, 1, 100000},
        {"of", "steps", &k->steps, NULL, 1, MOST_STEPS},
        {"of", "layers", &b->layers, NULL, 1, MOST_SIDE},
        {"of", "heads", &b->heads, NULL, 1, MOST_SIDE},
        {"of", "guidance-scale", NULL, &k->guidance_scale, 0, 1000},
        {"of", "flow-shift", NULL, &k->flow_shift, 0.001, 1000},
        {"clip", "power", NULL, &t->power, 1, 4},
        {"clip", "at", NULL, &t->at, -1000, 1000},
        {"clip", "slope", NULL, &t->slope, 0.1, 10},
        {"clip", "margin", NULL, &t->margin, 0, 100},
        {"clip", "usual", NULL, &t->usual, 1e-6, 1e6},
        {"clip", "least", NULL, &t->least, -100, 100},
        {"clip", "most", NULL, &t->most, -100, 100},
    };
    if (!key) return 0;
    if (strcmp(section, "costs") == 0) return take_costs(b, key, value, e);
    if (strcmp(section, "of") == 0 && strcmp(key, "mark") == 0)
        return parse_u64(value, &b->mark) == 0
                   ? 0
                   : err_set(e, ERR_INPUT, "mark is '%.40s', wanted a whole number", value);
    if (strcmp(section, "of") == 0 && strcmp(key, "solver") == 0)
        return take_text(k->solver, sizeof k->solver, key, value, e);
    if (strcmp(section, "of") == 0 && strcmp(key, "step-cache") == 0)
        return take_text(k->step_cache, sizeof k->step_cache, key, value, e);
    if (strcmp(section, "of") == 0 && strcmp(key, "attention") == 0)
        return take_text(k->attention, sizeof k->attention, key, value, e);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (strcmp(section, numbers[i].section) != 0 || strcmp(key, numbers[i].key) != 0) continue;
        if (b->units && numbers[i].whole)
            return err_set(e, ERR_INPUT, "%s stands behind the costs", key);
        return take_number(&numbers[i], value, e);
    }
    return err_set(e, ERR_INPUT, "unknown key '%.60s' of [%.60s]", key, section);
}

int error_budget_parse(struct error_budget *b, const char *text, size_t len, const char *name,
                       struct err *e)
{
    memset(b, 0, sizeof *b);
    memcpy(b->of.step_cache, "none", sizeof "none");
    int rc = ini_parse(text, len, name, take, b, e);
    if (rc == 0 &&
        (!b->units || !(b->table.slope > 0) || !(b->table.usual > 0) || !(b->table.power >= 1)))
        rc = err_set(e, ERR_INPUT, "%s: calibrates no error budget", name);
    if (rc < 0) {
        error_budget_fini(b);
        return -1;
    }
    error_budget_spread(b);
    return 0;
}

/* --- finding ------------------------------------------------------------------------------------ */

/* "there is none for ...": what is missing, and what makes it. */
static int missing(const struct model_info *m, const struct budget_key *k, const char *why,
                   struct err *e)
{
    char builtin[ASSETS_PATH], model[300] = "", name[256];
    struct err ignored;
    struct stat a, b;
    path_last(name, sizeof name, m->dir);
    bool own = assets_find(builtin, name, &ignored) < 0 || stat(builtin, &a) < 0 ||
               stat(m->dir, &b) < 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev;
    if (own) snprintf(model, sizeof model, " -m %.255s", name);
    return err_set(
        e, ERR_USAGE,
        "--error-budget wants to know what carrying costs at %dx%d, %d frames, %s %d "
        "steps, and %.160s; make it with 'ditgen calibrate --error-budget%s --size %dx%d "
        "--frames %d --steps %d%s' and what else this run says",
        k->width, k->height, k->frames, k->solver, k->steps, why, model, k->width, k->height,
        k->frames, k->steps, of_steps(k) ? " --step-cache budget" : "");
}

/* What differs from what the file is of; false: nothing. */
static bool differs(char *why, size_t n, const struct budget_key *is, const struct budget_key *key)
{
    if (strcmp(is->attention, key->attention) != 0)
        snprintf(why, n, "the calibration is of another --attention: %.100s", is->attention);
    else if (strcmp(is->step_cache, key->step_cache) != 0)
        snprintf(why, n, "the calibration is of another --step-cache: %.100s", is->step_cache);
    else if (is->guidance_scale != key->guidance_scale)
        snprintf(why, n, "the calibration is of --guidance-scale %g, this is %g",
                 is->guidance_scale, key->guidance_scale);
    else if (is->flow_shift != key->flow_shift)
        snprintf(why, n, "the calibration is of --flow-shift %g, this is %g", is->flow_shift,
                 key->flow_shift);
    else if (is->width != key->width || is->height != key->height || is->frames != key->frames ||
             is->steps != key->steps || strcmp(is->solver, key->solver) != 0)
        snprintf(why, n, "the file of that name is of another size, solver or number of steps");
    else
        return false;
    return true;
}

int error_budget_find(struct error_budget *b, const struct model_info *m,
                      const struct budget_key *key, double db, struct err *e)
{
    char path[CALIBRATION_PATH], name[256], why[200], *text = NULL;
    size_t len;
    uint64_t mark;
    memset(b, 0, sizeof *b);
    error_budget_path(path, m, key);
    path_last(name, sizeof name, path);
    snprintf(why, sizeof why, "there is no error-budgets/%.100s", name);
    if (!path_exists(path)) return missing(m, key, why, e);
    if (text_read(&text, &len, path, MOST, e) < 0) return -1;
    int rc = error_budget_parse(b, text, len, path, e);
    free(text);
    if (rc < 0 || calibration_mark(&mark, m, e) < 0) return -1;
    if (mark != b->mark) return missing(m, key, "the calibration is of other weights", e);
    if (differs(why, sizeof why, &b->of, key)) return missing(m, key, why, e);
    if (db >= b->table.least && db <= b->table.most) return 0;
    return err_set(e, ERR_USAGE,
                   "--error-budget %g dB is outside of what was calibrated here, %.1f to %.1f dB%s",
                   db, b->table.least, b->table.most,
                   db > b->table.most ? "; without it the clip is exact" : "");
}

uint64_t error_budget_stamp(const struct model_info *m, const struct ditgen_settings *resolved)
{
    struct budget_key key;
    struct err ignored;
    char path[CALIBRATION_PATH], *text = NULL;
    size_t len;
    uint64_t h = 14695981039346656037u;
    if (!settings_budget(resolved)) return 0;
    budget_key_of(&key, resolved);
    error_budget_path(path, m, &key);
    if (!path_exists(path) || text_read(&text, &len, path, MOST, &ignored) < 0) return 0;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 1099511628211u;
    free(text);
    return h;
}

/* --- writing ------------------------------------------------------------------------------------ */

static void put_list(FILE *f, const char *key, const float *v, size_t n, const char *form)
{
    fprintf(f, "%s = ", key);
    for (size_t i = 0; i < n; i++) {
        if (i) fputc('/', f);
        if (form[1] == 'g')
            fprintf(f, "%.5g", (double)v[i]);
        else
            fprintf(f, "%.4f", (double)v[i]);
    }
    fputc('\n', f);
}

char *error_budget_text(const struct error_budget *b, const char *how)
{
    const struct budget_key *k = &b->of;
    const struct budget_table *t = &b->table;
    size_t s = (size_t)k->steps, l = (size_t)b->layers, h = (size_t)b->heads, n;
    char *text = NULL;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    fprintf(f,
            "# %s\n[of]\nmark = %llu\nwidth = %d\nheight = %d\nframes = %d\nsolver = %s\nsteps = "
            "%d\nguidance-scale = %.9g\nflow-shift = %.9g\nattention = \"%s\"\nstep-cache = "
            "\"%s\"\nlayers = %d\nheads = "
            "%d\n",
            how, (unsigned long long)b->mark, k->width, k->height, k->frames, k->solver, k->steps,
            k->guidance_scale, k->flow_shift, k->attention, k->step_cache, b->layers, b->heads);
    fprintf(f,
            "[clip]\npower = %.6g\nat = %.9g\nslope = %.9g\nmargin = %.6g\nusual = %.9g\nleast = "
            "%.6g\nmost = "
            "%.6g\n[costs]\n",
            t->power, t->at, t->slope, t->margin, t->usual, t->least, t->most);
    put_list(f, "gain", b->gain, s, "%g");
    put_list(f, "weight", b->weight, l, "%g");
    put_list(f, "drift", b->drift, s * l, "%f");
    put_list(f, "head", b->head, l * h, "%f");
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}
