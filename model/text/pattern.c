/* Small regular expressions in linear time; see pattern.h. */
#include "model/text/pattern.h"

#include "model/text/unicode.h"

#include <stdlib.h>
#include <string.h>

#define MAX_WORK                                                                                   \
    ((size_t)1 << 30) /* atoms times bytes: a second or two; real ones take 0.1 % of it */

static int refuse(const char *regex, struct err *e)
{
    return err_set(e, ERR_INPUT,
                   "the regular expression \"%.60s\" is beyond what ditgen reads (runes, "
                   "\\s, \\A, \\z, + * ? {n,m} and |, never matching nothing)",
                   regex);
}

/* {n} {n,} {n,m} + * ? at *s, which moves on; once when there is none. max -1: no end. -1: broken */
static int read_times(const char **s, int *min, int *max)
{
    const char *p = *s;
    *min = *max = 1;
    if (*p == '+' || *p == '*' || *p == '?') {
        *min = *p == '+';
        *max = *p == '?' ? 1 : -1;
        *s = p + 1;
    } else if (*p == '{') {
        char *end;
        long lo = strtol(p + 1, &end, 10), hi = lo;
        if (end == p + 1 || lo < 0 || lo > PATTERN_MAX_ATOMS) return -1;
        if (*end == ',') {
            p = end + 1;
            hi = *p == '}' ? -1 : strtol(p, &end, 10);
            if (*p == '}') end++;
            if (hi != -1 && (hi < lo || hi > PATTERN_MAX_ATOMS)) return -1;
        }
        if (*end != '}') return -1;
        *min = (int)lo;
        *max = (int)hi;
        *s = end + 1;
    }
    return strchr("+*?{", **s) && **s ? -1 : 0; /* possessive and lazy forms */
}

static int add(struct pattern *p, struct pattern_atom a)
{
    if (p->n == PATTERN_MAX_ATOMS) return -1;
    p->atoms[p->n++] = a;
    return 0;
}

/* x{2,4} as x x x? x?, x{2,} as x x x*: the same matches in the same order */
static int add_times(struct pattern *p, struct pattern_atom a, int min, int max)
{
    for (int i = 0; i < min; i++)
        if (add(p, a) < 0) return -1;
    a.times = max < 0 ? TIMES_ANY : TIMES_OPTIONAL;
    for (int i = min; i < (max < 0 ? min + 1 : max); i++)
        if (add(p, a) < 0) return -1;
    return 0;
}

int pattern_regex(struct pattern *p, const char *regex, struct err *e)
{
    int least = 0; /* runes the current alternative takes at least */
    size_t left = strlen(regex);
    p->n = 0;
    for (const char *s = regex; *s;) {
        struct pattern_atom a = {ATOM_RUNE, 0, TIMES_ONE};
        int min = 1, max = 1;
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
            if (read_times(&s, &min, &max) < 0) return refuse(regex, e);
            least += min;
        }
        if (add_times(p, a, min, max) < 0)
            return err_set(e, ERR_INPUT,
                           "the regular expression \"%.60s\" has more than %d parts once its "
                           "repetitions are written out",
                           regex, PATTERN_MAX_ATOMS);
    }
    if (!least) return refuse(regex, e);
    p->atoms[p->n++] = (struct pattern_atom){ATOM_DONE, 0, TIMES_ONE};
    return 0;
}

int pattern_string(struct pattern *p, const char *literal, struct err *e)
{
    size_t len = strlen(literal);
    p->n = 0;
    for (size_t i = 0; i < len;) {
        struct pattern_atom a = {ATOM_RUNE, 0, TIMES_ONE};
        i += utf8_read(&a.rune, literal + i, len - i);
        if (add(p, a) < 0)
            return err_set(e, ERR_INPUT,
                           "the string to replace \"%.40s\" has more than %d characters", literal,
                           PATTERN_MAX_ATOMS);
    }
    if (!p->n) return err_set(e, ERR_INPUT, "the string to replace has no characters");
    p->atoms[p->n++] = (struct pattern_atom){ATOM_DONE, 0, TIMES_ONE};
    return 0;
}

#define NOWHERE SIZE_MAX

/* end[a]: where the rest of an alternative from atom a on ends when it begins at byte i; NOWHERE:
 * nowhere. next: the same of the rune after this one, c (which is none at the text's end). */
static void step(const struct pattern *p, size_t *end, const size_t *next, size_t i, size_t n,
                 const uint32_t *c)
{
    for (int a = p->n - 1; a >= 0; a--) {
        const struct pattern_atom *x = &p->atoms[a];
        switch (x->type) {
        case ATOM_DONE:
        case ATOM_OR:
            end[a] = i;
            break;
        case ATOM_START:
            end[a] = i == 0 ? end[a + 1] : NOWHERE;
            break;
        case ATOM_END:
            end[a] = i == n ? end[a + 1] : NOWHERE;
            break;
        case ATOM_RUNE:
        case ATOM_SPACE: {
            bool here = c && (x->type == ATOM_SPACE ? rune_is_white_space(*c) : *c == x->rune);
            end[a] = !here ? NOWHERE : x->times == TIMES_ANY ? next[a] : next[a + 1];
            if (end[a] == NOWHERE && x->times != TIMES_ONE) end[a] = end[a + 1];
            break;
        }
        }
    }
}

int pattern_matches(const struct pattern *p, uint32_t *len, const char *s, size_t n, struct err *e)
{
    size_t rows[2][PATTERN_MAX_ATOMS + 1], *end = rows[0], *next = rows[1];
    if (n > UINT32_MAX || n > MAX_WORK / (size_t)p->n)
        return err_set(e, ERR_INPUT,
                       "a pattern of %d parts over a text of %zu bytes: the tokenizer would take "
                       "minutes",
                       p->n - 1, n);
    step(p, next, NULL, n, n, NULL);
    for (size_t i = n; i-- > 0;) {
        uint32_t c;
        len[i] = 0;
        if (((unsigned char)s[i] & 0xC0) == 0x80) continue;
        utf8_read(&c, s + i, n - i);
        step(p, end, next, i, n, &c);
        for (int a = 0; !len[i] && a < p->n; a++) {
            if (end[a] != NOWHERE && end[a] > i) len[i] = (uint32_t)(end[a] - i);
            while (p->atoms[a].type != ATOM_OR && p->atoms[a].type != ATOM_DONE)
                a++;
        }
        size_t *done = next;
        next = end;
        end = done;
    }
    return 0;
}
