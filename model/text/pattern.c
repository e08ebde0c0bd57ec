/* Small regular expressions, greedy with backtracking; see pattern.h. */
#include "model/text/pattern.h"

#include "model/text/unicode.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TIMES 1000

static int refuse(const char *regex, struct err *e)
{
    return err_set(e, ERR_INPUT,
                   "the regular expression \"%.60s\" is beyond what ditgen reads (runes, "
                   "\\s, \\A, \\z, + * ? {n,m} and |, never matching nothing)",
                   regex);
}

/* {n} {n,} {n,m} + * ? at *s, which moves on; once when there is none. -1: broken */
static int read_times(const char **s, struct pattern_atom *a)
{
    a->min = a->max = 1;
    const char *p = *s;
    if (*p == '+' || *p == '*' || *p == '?') {
        a->min = *p == '+';
        a->max = *p == '?' ? 1 : -1;
        *s = p + 1;
    } else if (*p == '{') {
        char *end;
        long lo = strtol(p + 1, &end, 10), hi = lo;
        if (end == p + 1 || lo < 0 || lo > MAX_TIMES) return -1;
        if (*end == ',') {
            p = end + 1;
            hi = *p == '}' ? -1 : strtol(p, &end, 10);
            if (*p == '}') end++;
            if (hi != -1 && (hi < lo || hi > MAX_TIMES)) return -1;
        }
        if (*end != '}') return -1;
        a->min = (int)lo;
        a->max = (int)hi;
        *s = end + 1;
    }
    return strchr("+*?{", **s) && **s ? -1 : 0; /* possessive and lazy forms */
}

int pattern_regex(struct pattern *p, const char *regex, struct err *e)
{
    int n = 0, least = 0; /* atoms; runes the current alternative takes at least */
    size_t left = strlen(regex);
    for (const char *s = regex; *s;) {
        struct pattern_atom a = {ATOM_RUNE, 0, 1, 1};
        if (n == PATTERN_MAX_ATOMS) return refuse(regex, e);
        if (*s == '|') {
            if (!least) return refuse(regex, e);
            least = 0;
            a.type = ATOM_OR;
            s++;
        } else if (*s == '\\' && (s[1] == 'A' || s[1] == 'z')) {
            a.type = s[1] == 'A' ? ATOM_START : ATOM_END;
            s += 2;
        } else {
            if (strchr("^$.[](){}+*?", *s)) return refuse(regex, e);
            if (*s == '\\') {
                s++;
                if (*s == 's')
                    a.type = ATOM_SPACE;
                else if (!*s || !strchr("^$.[](){}+*?|\\ -", *s))
                    return refuse(regex, e);
            }
            s += utf8_read(&a.rune, s, left - (size_t)(s - regex));
            if (read_times(&s, &a) < 0) return refuse(regex, e);
            least += a.min;
        }
        p->atoms[n++] = a;
    }
    if (!least) return refuse(regex, e);
    p->atoms[n] = (struct pattern_atom){ATOM_DONE, 0, 0, 0};
    return 0;
}

int pattern_string(struct pattern *p, const char *literal, struct err *e)
{
    int n = 0;
    size_t len = strlen(literal);
    for (size_t i = 0; i < len; n++) {
        struct pattern_atom a = {ATOM_RUNE, 0, 1, 1};
        if (n == PATTERN_MAX_ATOMS) break;
        i += utf8_read(&a.rune, literal + i, len - i);
        p->atoms[n] = a;
    }
    if (!n || n == PATTERN_MAX_ATOMS)
        return err_set(e, ERR_INPUT, "the string to replace \"%.40s\" has %s", literal,
                       n ? "more than 47 characters" : "no characters");
    p->atoms[n] = (struct pattern_atom){ATOM_DONE, 0, 0, 0};
    return 0;
}

/* Where the rest of the alternative from a on ends when it begins at s[i]; -1: nowhere. */
static ptrdiff_t match_from(const struct pattern_atom *a, const char *s, size_t n, size_t i)
{
    for (; a->type == ATOM_START || a->type == ATOM_END; a++)
        if (i != (a->type == ATOM_START ? 0 : n)) return -1;
    if (a->type == ATOM_OR || a->type == ATOM_DONE) return (ptrdiff_t)i;

    int times = 0;
    size_t end = i;
    while ((a->max < 0 || times < a->max) && end < n) {
        uint32_t c;
        size_t k = utf8_read(&c, s + end, n - end);
        if (a->type == ATOM_SPACE ? !rune_is_white_space(c) : c != a->rune) break;
        end += k;
        times++;
    }
    for (;; times--) { /* as many as there are, then fewer */
        if (times < a->min) return -1;
        ptrdiff_t r = match_from(a + 1, s, n, end);
        if (r >= 0) return r;
        if (times == 0) return -1;
        do
            end--;
        while (end > i && ((unsigned char)s[end] & 0xC0) == 0x80);
    }
}

size_t pattern_match(const struct pattern *p, const char *s, size_t n, size_t at)
{
    for (const struct pattern_atom *a = p->atoms;;) {
        ptrdiff_t end = match_from(a, s, n, at);
        if (end > (ptrdiff_t)at) return (size_t)end - at;
        while (a->type != ATOM_OR && a->type != ATOM_DONE)
            a++;
        if (a->type == ATOM_DONE) return 0;
        a++;
    }
}
