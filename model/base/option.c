/* Option tables; see option.h. */
#include "model/base/option.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int parse_int(const char *text, long lo, long hi, int *v)
{
    char *end;
    if (!*text || isspace((unsigned char)*text)) return -1;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || *end || n < lo || n > hi) return -1;
    *v = (int)n;
    return 0;
}

int parse_double(const char *text, double lo, double hi, double *v)
{
    char *end;
    if (!*text || isspace((unsigned char)*text) || strpbrk(text, "xXnN"))
        return -1; /* hex, nan, inf */
    errno = 0;
    double d = strtod(text, &end);
    if (*end || !isfinite(d) || d < lo || d > hi) return -1;
    *v = d;
    return 0;
}

int parse_u64(const char *text, uint64_t *v)
{
    char *end;
    if (!isdigit((unsigned char)*text)) return -1;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || *end) return -1;
    *v = n;
    return 0;
}

int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (*a != *b && !((*a == '-' || *a == '_') && (*b == '-' || *b == '_'))) return false;
    return *a == *b;
}

const struct option *option_find(const struct option *table, const char *name)
{
    for (const struct option *o = table; o && o->name; o++)
        if (same_name(o->name, name)) return o;
    return NULL;
}

#define MAX_WORD 48

static int edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > MAX_WORD || m > MAX_WORD) return MAX_WORD;
    int row[MAX_WORD + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diag = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int sub = diag + (a[i - 1] != b[j - 1]), best = sub;
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diag = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

int option_distance(const char *known, const char *name)
{
    int d = edit_distance(known, name);
    return d < OPTION_FAR && d * 2 <= (int)strlen(name) ? d : OPTION_FAR;
}

const char *option_nearest(const struct option *table, const char *name)
{
    const char *best = NULL;
    int best_d = OPTION_FAR;
    for (const struct option *o = table; o && o->name; o++) {
        int d = option_distance(o->name, name);
        if (d < best_d) best = o->name, best_d = d;
    }
    return best;
}

/* Index of value in "a|b|c", or -1. */
static int choice_index(const char *choices, const char *value)
{
    size_t n = strlen(value);
    int i = 0;
    for (const char *p = choices; p; i++) {
        const char *bar = strchr(p, '|');
        size_t len = bar ? (size_t)(bar - p) : strlen(p);
        if (len == n && memcmp(p, value, n) == 0) return i;
        p = bar ? bar + 1 : NULL;
    }
    return -1;
}

static int parse_bool(const char *v, bool *out)
{
    static const char *const yes[] = {"1", "true", "yes", "on"};
    static const char *const no[] = {"0", "false", "no", "off"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(v, yes[i]) == 0) return *out = true, 0;
        if (strcmp(v, no[i]) == 0) return *out = false, 0;
    }
    return -1;
}

int option_parse(const struct option *o, void *s, const char *value, struct err *e)
{
    void *at = (char *)s + o->offset;
    switch (o->type) {
    case OPTION_INT:
        if (parse_int(value, (long)o->lo, (long)o->hi, at) == 0) return 0;
        return err_set(e, ERR_USAGE, "%s is '%s', wanted a whole number from %.0f to %.0f", o->name,
                       value, o->lo, o->hi);
    case OPTION_DOUBLE:
        if (parse_double(value, o->lo, o->hi, at) == 0) return 0;
        return err_set(e, ERR_USAGE, "%s is '%s', wanted a number from %g to %g", o->name, value,
                       o->lo, o->hi);
    case OPTION_BOOL:
        if (parse_bool(value, at) == 0) return 0;
        return err_set(e, ERR_USAGE, "%s is '%s', wanted true or false", o->name, value);
    case OPTION_ENUM: {
        int i = choice_index(o->choices, value);
        if (i < 0)
            return err_set(e, ERR_USAGE, "%s is '%s', wanted one of %s", o->name, value,
                           o->choices);
        *(int *)at = i;
        return 0;
    }
    case OPTION_U64:
        if (parse_u64(value, at) == 0) return 0;
        return err_set(e, ERR_USAGE,
                       "%s is '%s', wanted a whole number from 0 to 18446744073709551615", o->name,
                       value);
    case OPTION_STRING: {
        char *copy = strdup(value);
        if (!copy) return err_set(e, ERR_RESOURCE, "no memory for %s", o->name);
        free(*(char **)at);
        *(char **)at = copy;
        return 0;
    }
    }
    return err_set(e, ERR_BUG, "option %s has no type", o->name);
}

int option_defaults(const struct option *table, void *s, struct err *e)
{
    for (const struct option *o = table; o && o->name; o++) {
        void *at = (char *)s + o->offset;
        switch (o->type) {
        case OPTION_INT:
        case OPTION_ENUM:
            *(int *)at = (int)o->def;
            break;
        case OPTION_DOUBLE:
            *(double *)at = o->def;
            break;
        case OPTION_BOOL:
            *(bool *)at = o->def != 0;
            break;
        case OPTION_U64:
            *(uint64_t *)at = 0;
            break;
        case OPTION_STRING:
            *(char **)at = NULL;
            if (o->choices && option_parse(o, s, o->choices, e) < 0) return -1;
            break;
        }
    }
    return 0;
}

int option_print(const struct option *o, const void *s, char *buf, size_t n)
{
    const void *at = (const char *)s + o->offset;
    switch (o->type) {
    case OPTION_INT:
        return snprintf(buf, n, "%d", *(const int *)at);
    case OPTION_BOOL:
        return snprintf(buf, n, "%s", *(const bool *)at ? "true" : "false");
    case OPTION_U64:
        return snprintf(buf, n, "%llu", (unsigned long long)*(const uint64_t *)at);
    case OPTION_STRING: {
        const char *v = *(char *const *)at;
        return snprintf(buf, n, "%s", v ? v : "");
    }
    case OPTION_DOUBLE: { /* the shortest text that reads back the same */
        double v = *(const double *)at;
        char t[40];
        for (int digits = 1; digits <= 17; digits++) {
            snprintf(t, sizeof t, "%.*g", digits, v);
            if (strtod(t, NULL) == v) break;
        }
        char *plus = strchr(t, '+'); /* 1e+01: 10; and where + has a meaning, as in stacks, 1e20 */
        if (plus && fabs(v) < 1e15 && v == floor(v))
            snprintf(t, sizeof t, "%.0f", v);
        else if (plus)
            memmove(plus, plus + 1, strlen(plus));
        return snprintf(buf, n, "%s", t);
    }
    case OPTION_ENUM: {
        const char *p = o->choices;
        for (int i = *(const int *)at; i > 0 && p; i--)
            p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL;
        if (!p) p = "";
        return snprintf(buf, n, "%.*s", (int)strcspn(p, "|"), p);
    }
    }
    return 0;
}

int option_default_text(const struct option *o, char *buf, size_t n)
{
    union {
        int i;
        double d;
        bool b;
        uint64_t u;
    } v = {0};
    struct option at = *o;
    if (o->type == OPTION_STRING) return snprintf(buf, n, "%s", o->choices ? o->choices : "");
    at.offset = 0;
    if (o->type == OPTION_DOUBLE)
        v.d = o->def;
    else if (o->type == OPTION_BOOL)
        v.b = o->def != 0;
    else if (o->type != OPTION_U64)
        v.i = (int)o->def;
    return option_print(&at, &v, buf, n);
}

void option_free(const struct option *table, void *s)
{
    for (const struct option *o = table; o && o->name; o++)
        if (o->type == OPTION_STRING) {
            char **at = (char **)(void *)((char *)s + o->offset);
            free(*at);
            *at = NULL;
        }
}
