/* Numbers by size; see by_size.h. */
#include "app/lib/by_size.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads one entry "5@5184"; *list moves behind its comma, or to NULL. -1: it is none. */
static int next(const struct option *o, const char **list, void *value, double *tokens)
{
    char entry[80];
    struct err ignored;
    const char *p = *list + strspn(*list, " \t");
    size_t n = strcspn(p, ",");
    *list = p[n] ? p + n + 1 : NULL;
    while (n && (p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    if (n >= sizeof entry) return -1;
    memcpy(entry, p, n);
    entry[n] = 0;
    char *at = strchr(entry, '@');
    *tokens = 0;
    if (at) {
        *at++ = 0;
        if (parse_double(at, 1, 1e12, tokens) < 0) return -1;
    }
    return option_parse(o, value, entry, &ignored);
}

int by_size_pick(const struct option *o, const char *list, double tokens, void *value,
                 struct err *e)
{
    struct option one = *o;
    double before = -1, from;
    const char *p = list;
    one.offset = 0;
    while (p) {
        union {
            int i;
            double d;
        } v;
        if (next(&one, &p, &v, &from) < 0 || from <= before || (before < 0) != (from == 0))
            return err_set(e, ERR_USAGE,
                           "%s is '%.100s', wanted a number from %g to %g, or such numbers by size "
                           "as in '3, 5@5184': 5 from 5184 tokens on",
                           o->name, list, o->lo, o->hi);
        if (tokens >= from) memcpy(value, &v, o->type == OPTION_INT ? sizeof v.i : sizeof v.d);
        before = from;
    }
    return 0;
}

int by_size_check(const struct option *o, const char *list, struct err *e)
{
    double ignored;
    return by_size_pick(o, list, 0, &ignored, e);
}

/* --- texts -------------------------------------------------------------------------------------- */

bool by_size_is_text(const char *text) { return strchr(text, '|') != NULL; }

/* The next entry of *list, blanks around it gone, n bytes, and its tokens; false: it is none. */
static bool next_text(const char **list, const char **entry, size_t *n, double *tokens)
{
    char number[32];
    const char *p = *list + strspn(*list, " \t");
    size_t len = strcspn(p, "|");
    *list = p[len] ? p + len + 1 : NULL;
    while (len && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        len--;
    *entry = p, *n = len, *tokens = 0;
    const char *at = p + len;
    while (at > p && *at != '@')
        at--;
    if (*at != '@') return len > 0;
    size_t digits = len - (size_t)(at - p) - 1;
    *n = (size_t)(at - p);
    if (digits >= sizeof number) return false;
    memcpy(number, at + 1, digits);
    number[digits] = 0;
    return *n > 0 && parse_double(number, 1, 1e12, tokens) == 0;
}

static int walk(char **found, const char *name, const char *list, double tokens,
                int (*check)(const char *text, struct err *e), struct err *e)
{
    double before = -1, from;
    *found = NULL;
    for (const char *at = list, *entry; at;) {
        size_t n;
        bool good =
            next_text(&at, &entry, &n, &from) && from > before && (before < 0) == (from == 0);
        char *text = good ? strndup(entry, n) : NULL;
        if (good && !text) err_set(e, ERR_RESOURCE, "no memory for the settings");
        if (!good)
            err_set(e, ERR_USAGE,
                    "%s is '%.100s', wanted a text, or texts by size as in 'A | B@5184': B from "
                    "5184 tokens on",
                    name, list);
        if (!text || (check && check(text, e) < 0)) {
            free(text);
            free(*found);
            *found = NULL;
            return -1;
        }
        if (tokens >= from) {
            free(*found);
            *found = text;
        } else {
            free(text);
        }
        before = from;
    }
    return 0;
}

int by_size_text_check(const char *name, const char *list,
                       int (*check)(const char *text, struct err *e), struct err *e)
{
    char *text;
    int rc = walk(&text, name, list, 0, check, e);
    free(text);
    return rc;
}

int by_size_text_pick(char **text, const char *name, const char *list, double tokens, struct err *e)
{
    return walk(text, name, list, tokens, NULL, e);
}
