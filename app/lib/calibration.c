/* Calibrations of step caches on disk; see calibration.h. */
#include "app/lib/calibration.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app/lib/assets.h"
#include "app/lib/ini.h"
#include "model/base/file_map.h"
#include "model/base/option.h"

#define MOST ((size_t)1 << 20) /* bytes of a file: a thousand steps of two branches are 20 KB */

/* --- which weights ------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static int mark_file(uint64_t *h, const char *path, struct err *e)
{
    enum { SAMPLES = 64, BYTES = 64 }; /* spread evenly: trained weights differ everywhere */
    struct file_map m;
    if (file_map_open(&m, path, e) < 0) return -1;
    *h = mix(*h, &m.size, sizeof m.size);
    for (size_t i = 0; i < SAMPLES && m.size > BYTES; i++)
        *h = mix(*h, (const char *)m.data + (m.size - BYTES) / SAMPLES * i, BYTES);
    file_map_close(&m);
    return 0;
}

static int is_weights(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 12 && strcmp(d->d_name + n - 12, ".safetensors") == 0;
}

int calibration_mark(uint64_t *mark, const struct model_info *m, struct err *e)
{
    char dir[CALIBRATION_PATH], path[8192];
    struct dirent **found;
    snprintf(dir, sizeof dir, "%s/transformer", m->dir);
    *mark = 14695981039346656037u;
    int n = scandir(dir, &found, is_weights, alphasort), rc = 0;
    if (n < 0) return err_set(e, ERR_INPUT, "%s: no such folder", dir);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%.255s", dir, found[i]->d_name);
        if (rc == 0) rc = mark_file(mark, path, e);
        free(found[i]);
    }
    free(found);
    return rc;
}

void calibration_path(char path[CALIBRATION_PATH], const struct model_info *m)
{
    char name[256], profiles[ASSETS_PATH], builtin[ASSETS_PATH];
    struct err ignored;
    struct stat a, b;
    snprintf(path, CALIBRATION_PATH, "%s/step-caches.ini", m->dir);
    path_last(name, sizeof name, m->dir);
    if (path_exists(path) || assets_find(builtin, name, &ignored) < 0 ||
        assets_find(profiles, "profiles", &ignored) < 0)
        return;
    if (stat(builtin, &a) == 0 && stat(m->dir, &b) == 0 && a.st_ino == b.st_ino &&
        a.st_dev == b.st_dev)
        snprintf(path, CALIBRATION_PATH, "%s/step-caches/%s.ini", profiles, name);
}

/* --- reading ------------------------------------------------------------------------------------ */

/* "a/b/c" into v[most]; returns how many, -1 when one is none. */
static int read_numbers(double *v, int most, const char *text)
{
    int n = 0;
    for (const char *at = text; n < most; n++) {
        char word[64];
        size_t len = strcspn(at, "/");
        if (len >= sizeof word) return -1;
        memcpy(word, at, len);
        word[len] = 0;
        if (parse_double(word, -1e12, 1e12, &v[n]) < 0) return -1;
        if (!at[len]) return n + 1;
        at += len + 1;
    }
    return -1;
}

static int take_ratio(struct calibration *c, const char *value, struct err *e)
{
    int wanted = c->of.n_steps * c->of.n_branches;
    if (!wanted) return err_set(e, ERR_INPUT, "steps and branches must stand before ratio");
    double *v = malloc((size_t)wanted * sizeof *v);
    free(c->ratio);
    c->of.ratio = c->ratio = malloc((size_t)wanted * sizeof *c->ratio);
    int n = v && c->ratio ? read_numbers(v, wanted, value) : 0;
    for (int i = 0; n == wanted && i < n; i++) {
        c->ratio[i] = (float)v[i];
        if (!(v[i] > 0 && v[i] < 1e6)) n = -1;
    }
    bool memory = v && c->ratio;
    free(v);
    if (!memory) return err_set(e, ERR_RESOURCE, "no memory for a calibration");
    if (n == wanted) return 0;
    return err_set(e, ERR_INPUT, "ratio is no list of %d numbers from 0 to 1e6: steps x branches",
                   wanted);
}

static int take(void *ctx, const char *section, const char *key, const char *value, struct err *e)
{
    struct calibration *c = ctx;
    if (!key) return 0;
    if (strcmp(section, "model") == 0 && strcmp(key, "mark") == 0)
        return parse_u64(value, &c->mark) == 0
                   ? 0
                   : err_set(e, ERR_INPUT, "mark is '%.40s', wanted a whole number", value);
    if (strcmp(section, "teacache") == 0 &&
        (strcmp(key, "modulation") == 0 || strcmp(key, "time") == 0)) {
        c->of.has_poly = true;
        if (read_numbers(c->of.poly[key[0] == 't'], DIT_POLY, value) == DIT_POLY) return 0;
        return err_set(e, ERR_INPUT, "%s is '%.60s', wanted %d numbers with / between", key, value,
                       DIT_POLY);
    }
    if (strcmp(section, "magcache") == 0 && strcmp(key, "ratio") == 0)
        return take_ratio(c, value, e);
    bool steps = strcmp(key, "steps") == 0;
    if (strcmp(section, "magcache") == 0 && (steps || strcmp(key, "branches") == 0)) {
        if (c->ratio) return err_set(e, ERR_INPUT, "%s stands behind ratio", key);
        int *to = steps ? &c->of.n_steps : &c->of.n_branches, most = steps ? 1000 : 2;
        if (parse_int(value, 1, most, to) == 0) return 0;
        return err_set(e, ERR_INPUT, "%s is '%.40s', wanted 1 to %d", key, value, most);
    }
    return err_set(e, ERR_INPUT, "unknown key '%.60s' of [%.60s]", key, section);
}

int calibration_parse(struct calibration *c, const char *text, size_t len, const char *name,
                      struct err *e)
{
    if (ini_parse(text, len, name, take, c, e) < 0) return -1;
    if (!c->of.has_poly && !c->of.ratio)
        return err_set(e, ERR_INPUT, "%s: calibrates nothing", name);
    c->known = true;
    return 0;
}

void calibration_fini(struct calibration *c)
{
    free(c->ratio);
    memset(c, 0, sizeof *c);
}

int calibration_of(struct calibration *c, const struct model_info *m, bool few_step, struct err *e)
{
    char *text = NULL;
    size_t len;
    uint64_t mark;
    memset(c, 0, sizeof *c);
    calibration_path(c->path, m);
    if (few_step) {
        snprintf(c->why_not, sizeof c->why_not, "the few-step transformer never is");
        return 0;
    }
    if (!path_exists(c->path)) {
        snprintf(c->why_not, sizeof c->why_not, "there is no %.300s", c->path);
        return 0;
    }
    if (text_read(&text, &len, c->path, MOST, e) < 0) return -1;
    int rc = calibration_parse(c, text, len, c->path, e);
    free(text);
    if (rc == 0) rc = calibration_mark(&mark, m, e);
    if (rc < 0) {
        calibration_fini(c);
        return -1;
    }
    if (mark == c->mark) return 0;
    c->known = false;
    snprintf(c->why_not, sizeof c->why_not, "%.300s is of other weights", c->path);
    return 0;
}

/* --- writing ------------------------------------------------------------------------------------ */

char *calibration_text(const struct calibration *c, const char *how)
{
    static const char *const names[] = {"modulation", "time"};
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    fprintf(f, "# %s\n[model]\nmark = %llu\n", how, (unsigned long long)c->mark);
    if (c->of.has_poly) fputs("[teacache]\n", f);
    for (int i = 0; c->of.has_poly && i < 2; i++) {
        fprintf(f, "%s = ", names[i]);
        for (int k = 0; k < DIT_POLY; k++)
            fprintf(f, "%s%.9g", k ? "/" : "", c->of.poly[i][k]);
        fputc('\n', f);
    }
    if (c->of.ratio) {
        fprintf(f, "[magcache]\nsteps = %d\nbranches = %d\nratio = ", c->of.n_steps,
                c->of.n_branches);
        for (int i = 0; i < c->of.n_steps * c->of.n_branches; i++)
            fprintf(f, "%s%.5f", i ? "/" : "", (double)c->of.ratio[i]);
        fputc('\n', f);
    }
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}
