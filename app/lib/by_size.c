/* Numbers by size; see by_size.h. */
#include "app/lib/by_size.h"

#include <stdbool.h>
#include <stdio.h>
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
