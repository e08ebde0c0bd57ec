/* HTML entities; see entities.h. Follows CPython 3.11 Lib/html/__init__.py and ftfy 6.3 fixes.py.
 */
#include "model/text/entities.h"

#include "model/text/unicode.h"

#include <string.h>

struct entity {
    const char *name; /* without "&", with ";" where it has one */
    const char *text; /* UTF-8 */
    unsigned char capitals; /* one of ftfy's, unknown to HTML */
};
#include "model/text/entities.inc"

#define MAX_NAME 33 /* 32 and a ";": the most html.unescape looks at */

static const struct entity *find(const char *name)
{
    size_t lo = 0, hi = ARRAY_LEN(entities);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int d = strcmp(name, entities[mid].name);
        if (d == 0) return &entities[mid];
        if (d > 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int add_text(struct runes *out, const char *text, struct err *e)
{
    for (size_t n = strlen(text), i = 0; i < n;) {
        uint32_t c;
        i += utf8_read(&c, text + i, n - i);
        if (runes_add(out, c, e) < 0) return -1;
    }
    return 0;
}

static bool is_alnum(uint32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static int digit(uint32_t c, int base) /* -1: none */
{
    if (c >= '0' && c <= '9') return (int)(c - '0');
    if (base == 16 && (c | 32) >= 'a' && (c | 32) <= 'f') return (int)((c | 32) - 'a' + 10);
    return -1;
}

/* "#123;" or "#x1F;" at s[n], ";" optional: runes used, 0 when it is none. *value saturates. */
static size_t read_number(const uint32_t *s, size_t n, uint32_t *value)
{
    if (n < 2 || s[0] != '#') return 0;
    int base = s[1] == 'x' || s[1] == 'X' ? 16 : 10;
    size_t first = base == 16 ? 2 : 1, i = first;
    *value = 0;
    for (; i < n && digit(s[i], base) >= 0; i++)
        if (*value <= 0x10FFFF) *value = *value * (uint32_t)base + (uint32_t)digit(s[i], base);
    if (i == first) return 0;
    return i < n && s[i] == ';' ? i + 1 : i;
}

/* What the HTML standard makes of &#v; — windows-1252 for C1, nothing for noncharacters. */
static int add_number(struct runes *out, uint32_t v, struct err *e)
{
    static const uint16_t c1[32] = {
        /* 0x80.. */
        0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
        0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178,
    };
    if (v == 0 || v > 0x10FFFF || (v >= 0xD800 && v < 0xE000))
        return runes_add(out, RUNE_REPLACEMENT, e);
    if (v >= 0x80 && v < 0xA0) return runes_add(out, c1[v - 0x80], e);
    if (v == 0x0D) return runes_add(out, v, e);
    if (v < 0x09 || v == 0x0B || (v >= 0x0E && v < 0x20) || v == 0x7F) return 0;
    if ((v >= 0xFDD0 && v <= 0xFDEF) || (v & 0xFFFE) == 0xFFFE) return 0;
    return runes_add(out, v, e);
}

/* One reference after "&" at s[n]: writes what it means; *used = 0 when it is none. */
static int html_reference(struct runes *out, const uint32_t *s, size_t n, size_t *used,
                          struct err *e)
{
    uint32_t value;
    *used = read_number(s, n, &value);
    if (*used) return add_number(out, value, e);

    char name[MAX_NAME + 1];
    size_t len = 0;
    while (len < n && len < MAX_NAME - 1 && s[len] < 0x80 && s[len] &&
           !strchr("\t\n\f <&#;", (int)s[len])) {
        name[len] = (char)s[len];
        len++;
    }
    if (len < n && s[len] == ';') name[len++] = ';';
    for (; len >= 2; len--) {
        name[len] = 0;
        const struct entity *x = find(name);
        if (!x || x->capitals) continue;
        *used = len;
        return add_text(out, x->text, e);
    }
    return 0;
}

/* ftfy's pattern &#?[0-9A-Za-z]{1,24}; at s[n] after "&": runes used, or 0. */
static size_t ftfy_pattern(const uint32_t *s, size_t n)
{
    size_t first = n && s[0] == '#' ? 1 : 0, i = first;
    while (i < n && i - first < 24 && is_alnum(s[i]))
        i++;
    return i > first && i < n && s[i] == ';' ? i + 1 : 0;
}

static int ftfy_reference(struct runes *out, const uint32_t *s, size_t n, size_t *used,
                          struct err *e)
{
    size_t len = ftfy_pattern(s, n);
    *used = 0;
    if (!len) return 0;
    if (s[0] == '#') {
        uint32_t value;
        /* the whole must be a number, and "&#59;" stays: ftfy takes its ";" for an undecoded rest
         */
        if (read_number(s, n, &value) != len || value == ';') return 0;
        *used = len;
        return add_number(out, value, e);
    }
    char name[MAX_NAME + 1];
    for (size_t i = 0; i < len; i++)
        name[i] = (char)s[i];
    name[len] = 0;
    const struct entity *x = find(name);
    if (!x) return 0;
    *used = len;
    return add_text(out, x->text, e);
}

static int unescape(struct runes *r, struct err *e,
                    int (*reference)(struct runes *, const uint32_t *, size_t, size_t *,
                                     struct err *))
{
    struct runes out = {0};
    size_t i = 0;
    while (i < r->len && r->at[i] != '&')
        i++;
    if (i == r->len) return 0;
    for (i = 0; i < r->len;) {
        size_t used = 0;
        if (r->at[i] == '&' && reference(&out, r->at + i + 1, r->len - i - 1, &used, e) < 0)
            goto fail;
        if (!used && runes_add(&out, r->at[i], e) < 0) goto fail;
        i += used + 1;
    }
    runes_free(r);
    *r = out;
    return 0;
fail:
    runes_free(&out);
    return -1;
}

int html_unescape(struct runes *r, struct err *e) { return unescape(r, e, html_reference); }

int ftfy_unescape(struct runes *r, struct err *e) { return unescape(r, e, ftfy_reference); }
