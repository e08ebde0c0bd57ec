/* The table of settings and what finds its way in it; see setting.h. */
#include "app/lib/setting.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "model/base/device.h"
#include "model/model.h"
#include "sched/sched.h"

/* --- checks that rows name ---------------------------------------------------------------------- */

int setting_parse_size(const char *text, int *width, int *height, struct err *e)
{
    char w[16];
    size_t n = strcspn(text, "xX*");
    if (n > 0 && n < sizeof w && text[n]) {
        memcpy(w, text, n);
        w[n] = 0;
        if (parse_int(w, 1, 16384, width) == 0 && parse_int(text + n + 1, 1, 16384, height) == 0)
            return 0;
    }
    return err_set(e, ERR_USAGE, "size is '%.100s', wanted WIDTHxHEIGHT such as 832x480", text);
}

static int setting_is_size(const char *value, struct err *e)
{
    int w, h;
    return setting_parse_size(value, &w, &h, e);
}

int setting_parse_bytes(const char *text, size_t *bytes, struct err *e)
{
    static const char units[] = "KMG";
    char *end = NULL;
    /* no sign, blank, name or hexadecimal, which strtod() would take */
    size_t n = strspn(text, "0123456789.");
    double value = n && n < 32 ? strtod(text, &end) : 0;
    bool number = n && n < 32 && end == text + n;
    const char *unit = number && *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) value *= (double)((size_t)1024 << (10 * (unit - units))), end++;
    if (!number || *end || value < 1 || value > 1e15)
        return err_set(e, ERR_USAGE,
                       "'%.60s' is no size of memory, wanted bytes such as 16G, 900M or 524288K",
                       text);
    *bytes = (size_t)value;
    return 0;
}

static int setting_is_bytes(const char *value, struct err *e)
{
    size_t bytes;
    return setting_parse_bytes(value, &bytes, e);
}

int setting_parse_budget(const char *text, double *db, struct err *e)
{
    static const struct {
        const char *name;
        double db;
    } levels[] = {{"none", 0}, {"near", 45}, {"good", 40}, {"rough", 33}};
    char number[16];
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (strcmp(text, levels[i].name) == 0) {
            *db = levels[i].db;
            return 0;
        }
    size_t n = strspn(text, "0123456789.");
    const char *unit = text + n + strspn(text + n, " ");
    if (n > 0 && n < sizeof number && (!*unit || strcasecmp(unit, "dB") == 0)) {
        memcpy(number, text, n);
        number[n] = 0;
        if (parse_double(number, 10, 90, db) == 0) return 0;
    }
    return err_set(
        e, ERR_USAGE,
        "error-budget is '%.40s', wanted dB from 10 to 90 as 40dB, or near, good, rough, none",
        text);
}

static int setting_is_budget(const char *value, struct err *e)
{
    double db;
    return setting_parse_budget(value, &db, e);
}

static int setting_is_device(const char *value, struct err *e)
{
    char all[160] = "auto, cpu, cuda, cuda:N";
    if (device_name_is_known(value)) return 0;
    for (int i = CPU_REF; i <= CPU_AMX; i++) {
        const char *level = cpu_level_name((enum cpu_level)i);
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, ", cpu:%s", level);
    }
    return err_set(e, ERR_USAGE, "device is '%.60s', wanted one of %s", value, all);
}

static int setting_is_solver(const char *value, struct err *e)
{
    char all[256] = "";
    if (solver_find(value)) return 0;
    for (int i = 0; i < solver_count(); i++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", solver_at(i)->name);
    }
    return err_set(e, ERR_USAGE, "solver is '%.100s', wanted one of %s", value, all);
}

int setting_parse_compat(const char *list, struct setting_compat *c, struct err *e)
{
    *c = (struct setting_compat){0};
    bool new = false;
    while (list && *(list += strspn(list, ", "))) {
        size_t n = strcspn(list, ", ");
        if (n == 14 && memcmp(list, "diffusers-0.36", n) == 0)
            c->diffusers_036 = true;
        else if (n == 14 && memcmp(list, "diffusers-0.37", n) == 0)
            new = true;
        else if (n == 8 && memcmp(list, "truncate", n) == 0)
            c->truncate = true;
        else
            return err_set(e, ERR_USAGE,
                           "compat has '%.*s', wanted a comma list of diffusers-0.36, "
                           "diffusers-0.37, truncate",
                           (int)(n < 40 ? n : 40), list);
        list += n;
    }
    if (c->diffusers_036 && new)
        return err_set(e, ERR_USAGE,
                       "compat: diffusers-0.36 and diffusers-0.37 exclude each other");
    return 0;
}

static int setting_is_compat(const char *value, struct err *e)
{
    struct setting_compat c;
    return setting_parse_compat(value, &c, e);
}

/* --- the table ---------------------------------------------------------------------------------- */

/* What nobody said is below the range (INT, REAL), NULL, 0 or off. */
#define TEXT .option.type = OPTION_STRING
#define INT_OR(otherwise, from, to)                                                                \
    .option.type = OPTION_INT, .option.lo = from, .option.hi = to, .option.def = otherwise
#define INT(from, to) INT_OR((from)-1, from, to)
#define REAL(from, to)                                                                             \
    .option.type = OPTION_DOUBLE, .option.lo = from, .option.hi = to, .option.def = (from)-1
#define SEED .option.type = OPTION_U64
#define SWITCH .option.type = OPTION_BOOL
#define CHOICE(words) .option.type = OPTION_ENUM, .option.choices = words
#define HELP(text) .option.help = text
static const struct setting rows[] = {
#define SETTING(id, part, flag, ...) {.section = SECTION_##part, .option.name = flag, __VA_ARGS__},
#include "app/lib/settings.def"
#ifdef DITGEN_MORE_SETTINGS /* a test links a table with rows of its own: they come last */
#include DITGEN_MORE_SETTINGS
#endif
#undef SETTING
};

int setting_count(void) { return (int)ARRAY_LEN(rows); }

const struct setting *setting_at(int id) { return &rows[id]; }

const char *setting_section_title(enum setting_section s)
{
    static const char *const titles[SECTIONS] = {"What to make", "How to sample", "What it runs on",
                                                 "How it is written", "Compatibility"};
    return titles[s];
}

const char *setting_word(const struct setting *s)
{
    static const char *const words[] = {
        [OPTION_BOOL] = "", [OPTION_DOUBLE] = "X",  [OPTION_INT] = "N",
        [OPTION_U64] = "N", [OPTION_ENUM] = "NAME", [OPTION_STRING] = "NAME"};
    return s->word ? s->word : words[s->option.type];
}

/* --- names -------------------------------------------------------------------------------------- */

/* b[n] is the whole of a, '-' and '_' being equal. */
static bool same_name(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!a[i] || (a[i] == '_' ? '-' : a[i]) != (b[i] == '_' ? '-' : b[i])) return false;
    return !a[n];
}

bool setting_named(const struct setting *s, const char *name)
{
    if (same_name(name, s->option.name, strlen(s->option.name))) return true;
    for (const char *p = s->alias; p && *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (same_name(name, p, n)) return true;
        p += n;
    }
    return false;
}

int setting_find(const char *name)
{
    for (int i = 0; i < setting_count(); i++)
        if (setting_named(&rows[i], name)) return i;
    return -1;
}

bool setting_find_method(const char *name, struct setting_method *m)
{
    size_t longest = 0; /* of two methods whose names begin alike, the longer one */
    for (int i = 0; i < attn_methods(); i++) {
        struct attn_method_info a = attn_method_info(i);
        size_t n = strlen(a.name);
        if (n <= longest || strlen(name) < n + 2 || (name[n] != '-' && name[n] != '_')) continue;
        if (strncmp(name, a.name, n) != 0) continue;
        const struct option *o = option_find(a.options, name + n + 1);
        if (o) *m = (struct setting_method){a, o}, longest = n;
    }
    return longest > 0;
}

int setting_method_name(const struct setting_method *m, char *buf, size_t n)
{
    return snprintf(buf, n, "%s-%s", m->method.name, m->option->name);
}

const char *setting_nearest(const char *name, char *buf, size_t n)
{
    const char *best = NULL;
    int distance = OPTION_FAR;
    for (int i = 0; i < setting_count(); i++) {
        int d = option_distance(rows[i].option.name, name);
        if (d < distance) distance = d, best = rows[i].option.name;
    }
    for (int i = 0; i < attn_methods(); i++) {
        struct attn_method_info a = attn_method_info(i);
        for (const struct option *o = a.options; o && o->name; o++) {
            char full[128];
            setting_method_name(&(struct setting_method){a, o}, full, sizeof full);
            int d = option_distance(full, name);
            if (d >= distance) continue;
            distance = d, best = buf;
            snprintf(buf, n, "%s", full);
        }
    }
    return best;
}
