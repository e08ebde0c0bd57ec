/* Thompson's construction, run on sets of states. See regex.h. */
#include "model/base/regex.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_STEPS = 2000, /* of a program, repetitions written out */
    MAX_DEPTH = 40, /* groups inside groups */
    MAX_TEXT = 1000,
};

struct step {
    enum { STEP_SET, STEP_SPLIT, STEP_JUMP, STEP_START, STEP_END, STEP_DONE } op;
    int a, b; /* where SPLIT goes, JUMP: a; counted from the step itself */
    unsigned char set[16]; /* a bit a character */
};

struct regex {
    int n;
    struct step steps[MAX_STEPS];
};

struct parser {
    struct regex *r;
    const char *all, *at;
    int depth, ways; /* groups open; alternatives before this one */
    struct err *e;
};

static int refuse(const struct parser *p, const char *what)
{
    return err_set(p->e, ERR_INPUT,
                   "the pattern \"%.100s\" has %s at character %d, which is not read", p->all, what,
                   (int)(p->at - p->all) + 1);
}

static bool has(const unsigned char *set, unsigned c)
{
    return c < 128 && (set[c / 8] >> c % 8 & 1);
}

static void put(unsigned char *set, int lo, int hi)
{
    for (int c = lo; c <= hi; c++)
        set[c / 8] = (unsigned char)(set[c / 8] | 1 << c % 8);
}

static void turn(unsigned char *set)
{
    for (int i = 0; i < 16; i++)
        set[i] = (unsigned char)~set[i];
}

/* Room for one step at `where`, what stands there moves up. */
static struct step *insert(struct parser *p, int where)
{
    struct regex *r = p->r;
    if (r->n == MAX_STEPS - 1) {
        err_set(p->e, ERR_INPUT, "the pattern \"%.100s\" is too large", p->all);
        return NULL;
    }
    memmove(r->steps + where + 1, r->steps + where, (size_t)(r->n - where) * sizeof *r->steps);
    memset(&r->steps[where], 0, sizeof *r->steps);
    r->n++;
    return &r->steps[where];
}

/* \d and its kin into set; false when c is none of them. */
static bool class_of(unsigned char *set, char c)
{
    unsigned char s[16] = {0};
    switch (c | 32) {
    case 'd':
        put(s, '0', '9');
        break;
    case 'w':
        put(s, '0', '9'), put(s, 'a', 'z'), put(s, 'A', 'Z'), put(s, '_', '_');
        break;
    case 's':
        put(s, '\t', '\r'), put(s, ' ', ' '), put(s, 0x1C, 0x1F);
        break;
    default:
        return false;
    }
    if (!(c & 32)) turn(s);
    for (int i = 0; i < 16; i++)
        set[i] |= s[i];
    return true;
}

/* One character of a set, or an escaped one anywhere; -1: a class, which is put; -2: refused */
static int character(struct parser *p, unsigned char *set)
{
    char c = *p->at;
    if (c != '\\') {
        p->at++;
        return (unsigned char)c;
    }
    c = p->at[1];
    if (class_of(set, c)) {
        p->at += 2;
        return -1;
    }
    if (!c || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        refuse(p, "an escape");
        return -2;
    }
    p->at += 2;
    return (unsigned char)c;
}

static int read_set(struct parser *p, unsigned char *set)
{
    bool negated = *++p->at == '^';
    if (negated) p->at++;
    for (bool first = true; *p->at && (*p->at != ']' || first); first = false) {
        int lo = character(p, set), hi = lo;
        if (lo == -2) return -1;
        if (lo >= 0 && *p->at == '-' && p->at[1] && p->at[1] != ']') {
            p->at++;
            hi = character(p, set);
            if (hi < lo) return refuse(p, "a range");
        }
        if (lo >= 0) put(set, lo, hi);
    }
    if (*p->at != ']') return refuse(p, "a set without end");
    p->at++;
    if (negated) turn(set);
    return 0;
}

static int read_either(struct parser *p);

static int read_atom(struct parser *p)
{
    if (*p->at == '(') {
        p->at++;
        if (*p->at == '?' && p->at[1] != ':') return refuse(p, "a group of a special kind");
        if (*p->at == '?') p->at += 2;
        if (++p->depth > MAX_DEPTH) return refuse(p, "too many groups");
        if (read_either(p) < 0) return -1;
        p->depth--;
        if (*p->at != ')') return refuse(p, "a group without end");
        p->at++;
        return 0;
    }
    struct step *s = insert(p, p->r->n);
    if (!s) return -1;
    if (*p->at == '^' || *p->at == '$') {
        s->op = *p->at++ == '^' ? STEP_START : STEP_END;
        return 0;
    }
    if (*p->at == '[') return read_set(p, s->set);
    if (*p->at == '.') {
        put(s->set, '\n', '\n');
        turn(s->set);
        p->at++;
        return 0;
    }
    if (strchr("*+?{)", *p->at)) return refuse(p, "a repetition of nothing");
    int c = character(p, s->set);
    if (c >= 0) put(s->set, c, c);
    return c == -2 ? -1 : 0;
}

/* x? : split over x */
static int optional(struct parser *p, int from)
{
    int n = p->r->n - from;
    struct step *s = insert(p, from);
    if (!s) return -1;
    s->op = STEP_SPLIT, s->a = 1, s->b = n + 1;
    return 0;
}

/* x* : split over x and the jump back */
static int any(struct parser *p, int from)
{
    int n = p->r->n - from;
    if (optional(p, from) < 0) return -1;
    p->r->steps[from].b = n + 2;
    struct step *s = insert(p, p->r->n);
    if (!s) return -1;
    s->op = STEP_JUMP, s->a = -(n + 1);
    return 0;
}

/* {n} {n,} {,m} {n,m}; a brace that is none of them is a character, as in Python: refused here */
static int read_braces(struct parser *p, int *lo, int *hi)
{
    char *end;
    const char *s = p->at + 1;
    *lo = (int)strtol(s, &end, 10);
    *hi = *lo;
    bool none = end == s;
    if (*end == ',') {
        s = end + 1;
        *hi = (int)strtol(s, &end, 10);
        if (end == s) *hi = -1;
        none = false;
    }
    if (none || *end != '}' || *lo < 0 || *lo > MAX_STEPS || *hi > MAX_STEPS ||
        (*hi >= 0 && *hi < *lo))
        return refuse(p, "a repetition");
    p->at = end + 1;
    return 0;
}

static int read_repeated(struct parser *p)
{
    int from = p->r->n, lo = 1, hi = 1;
    if (read_atom(p) < 0) return -1;
    if (*p->at == '{') {
        if (read_braces(p, &lo, &hi) < 0) return -1;
    } else if (*p->at && strchr("*+?", *p->at)) {
        lo = *p->at == '+';
        hi = *p->at == '?' ? 1 : -1;
        p->at++;
    } else {
        return 0;
    }
    if (*p->at == '?') p->at++; /* lazy: another match, not another answer */
    if (*p->at && strchr("*+{", *p->at)) return refuse(p, "a repetition of a repetition");
    int n = p->r->n - from;
    struct step *copy = malloc(((size_t)n + 1) * sizeof *copy);
    if (!copy) return err_set(p->e, ERR_RESOURCE, "no memory for a pattern");
    memcpy(copy, p->r->steps + from, (size_t)n * sizeof *copy);
    int status = 0, times = hi < 0 ? lo + 1 : hi;
    p->r->n = from;
    for (int i = 0; i < times && status == 0; i++) {
        int at = p->r->n;
        if (at + n > MAX_STEPS - 1) {
            status = err_set(p->e, ERR_INPUT, "the pattern \"%.100s\" is too large", p->all);
            break;
        }
        memcpy(p->r->steps + at, copy, (size_t)n * sizeof *copy);
        p->r->n += n;
        if (i >= lo) status = hi < 0 ? any(p, at) : optional(p, at);
    }
    free(copy);
    return status;
}

/* Alternatives: split over each but the last, and a jump past the rest behind it. */
static int read_either(struct parser *p)
{
    int from = p->r->n;
    while (*p->at && *p->at != ')' && *p->at != '|')
        if (read_repeated(p) < 0) return -1;
    if (*p->at != '|') return 0;
    p->at++;
    int n = p->r->n - from;
    if (optional(p, from) < 0) return -1;
    p->r->steps[from].b = n + 2;
    int jump = p->r->n;
    if (!insert(p, jump)) return -1;
    if (++p->ways > MAX_STEPS / 4) return refuse(p, "too many alternatives");
    if (read_either(p) < 0) return -1;
    p->ways--;
    p->r->steps[jump].op = STEP_JUMP;
    p->r->steps[jump].a = p->r->n - jump;
    return 0;
}

int regex_open(struct regex **out, const char *pattern, struct err *e)
{
    *out = NULL;
    struct regex *r = calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_RESOURCE, "no memory for a pattern");
    struct parser p = {r, pattern, pattern, 0, 0, e};
    int status = 0;
    for (const char *s = pattern; *s && status == 0; s++)
        if (*s & 128) {
            p.at = s;
            status = refuse(&p, "a letter outside ASCII");
        }
    if (status == 0) status = read_either(&p);
    if (status == 0 && *p.at) status = refuse(&p, "a bracket too many");
    if (status < 0) {
        free(r);
        return -1;
    }
    r->steps[r->n++].op = STEP_DONE;
    *out = r;
    return 0;
}

void regex_close(struct regex *r) { free(r); }

struct states {
    int n, at[MAX_STEPS];
    bool in[MAX_STEPS];
};

static void empty(const struct regex *r, struct states *s)
{
    memset(s->in, 0, (size_t)r->n * sizeof *s->in);
    s->n = 0;
}

/* State s and all that it reaches without a character, at text[i]. */
static void enter(const struct regex *r, struct states *to, int s, size_t i, size_t len)
{
    int stack[MAX_STEPS + 1], n = 0;
    stack[n++] = s;
    while (n) {
        s = stack[--n];
        if (to->in[s]) continue;
        to->in[s] = true;
        to->at[to->n++] = s;
        const struct step *x = &r->steps[s];
        bool through = x->op == STEP_JUMP || x->op == STEP_SPLIT ||
                       (x->op == STEP_START && i == 0) || (x->op == STEP_END && i == len);
        if (!through) continue;
        int a = x->op == STEP_START || x->op == STEP_END ? s + 1 : s + x->a;
        if (!to->in[a]) stack[n++] = a;
        if (x->op == STEP_SPLIT && !to->in[s + x->b]) stack[n++] = s + x->b;
    }
}

bool regex_is_tail(const struct regex *r, const char *text)
{
    struct states sets[2], *now = &sets[0], *next = &sets[1];
    size_t len = strlen(text);
    if (len > MAX_TEXT) return false;
    empty(r, now);
    for (size_t i = 0;; i++) {
        if (i == 0 || text[i - 1] == '.') enter(r, now, 0, i, len);
        if (i == len) return now->in[r->n - 1];
        empty(r, next);
        for (int k = 0; k < now->n; k++) {
            const struct step *x = &r->steps[now->at[k]];
            if (x->op == STEP_SET && has(x->set, (unsigned char)text[i]))
                enter(r, next, now->at[k] + 1, i + 1, len);
        }
        struct states *done = now;
        now = next;
        next = done;
    }
}
