/* Extended grapheme clusters (UAX 29, rules GB3 to GB13). */
#include "model/text/unicode.h"
#include "model/text/unicode_tables.h"

enum kind { OTHER, CR, LF, CONTROL, EXTEND, ZWJ, REGIONAL, PREPEND, SPACING, L, V, T, LV, LVT };
enum conjunct { NO_CONJUNCT, CONSONANT, LINKER, CONJUNCT_EXTEND };

struct props {
    enum kind kind;
    enum conjunct conjunct;
    bool pictographic;
};

static struct props props_of(uint32_t c)
{
    if (c >= 0xAC00 && c < 0xAC00 + 11172)
        return (struct props){(c - 0xAC00) % 28 ? LVT : LV, NO_CONJUNCT, false};
    unsigned v = range_value(breaks, ARRAY_LEN(breaks), c);
    return (struct props){(enum kind)(v & 15), (enum conjunct)(v >> 4 & 3), v & 0x40};
}

/* What the cluster so far ends in, for the rules that look back further than one rune. */
struct context {
    struct props last;
    int regionals; /* in a row up to here */
    bool pictograph; /* Extended_Pictographic Extend*, GB11; still true after the ZWJ */
    bool linked; /* a consonant, then extends of which one is a linker, GB9c */
    bool consonant; /* a consonant, then extends */
};

static bool joins(const struct context *x, struct props next)
{
    enum kind a = x->last.kind, b = next.kind;
    if (a == CR && b == LF) return true; /* GB3 */
    if (a == CR || a == LF || a == CONTROL || b == CR || b == LF || b == CONTROL) /* GB4, 5 */
        return false;
    if (a == L && (b == L || b == V || b == LV || b == LVT)) return true; /* GB6 */
    if ((a == LV || a == V) && (b == V || b == T)) return true; /* GB7 */
    if ((a == LVT || a == T) && b == T) return true; /* GB8 */
    if (b == EXTEND || b == ZWJ || b == SPACING || a == PREPEND) return true; /* GB9, 9a, 9b */
    if (x->linked && next.conjunct == CONSONANT) return true; /* GB9c */
    if (a == ZWJ && x->pictograph && next.pictographic) return true; /* GB11 */
    return a == REGIONAL && b == REGIONAL && x->regionals % 2 == 1; /* GB12, 13 */
}

static void step(struct context *x, struct props next)
{
    bool extends = next.conjunct == LINKER || next.conjunct == CONJUNCT_EXTEND;
    if (next.pictographic)
        x->pictograph = true;
    else if (next.kind == ZWJ)
        x->pictograph = x->pictograph && x->last.kind != ZWJ;
    else if (next.kind != EXTEND)
        x->pictograph = false;
    else if (x->last.kind == ZWJ)
        x->pictograph = false;
    x->linked = x->consonant && (next.conjunct == LINKER || (x->linked && extends));
    x->consonant = next.conjunct == CONSONANT || (x->consonant && extends);
    x->regionals = next.kind == REGIONAL ? x->regionals + 1 : 0;
    x->last = next;
}

size_t cluster_len(const char *s, size_t n)
{
    struct context x = {0};
    uint32_t c;
    size_t len = utf8_read(&c, s, n);
    step(&x, props_of(c));
    while (len < n) {
        size_t k = utf8_read(&c, s + len, n - len);
        struct props next = props_of(c);
        if (!joins(&x, next)) break;
        step(&x, next);
        len += k;
    }
    return len;
}
