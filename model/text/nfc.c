/* Normalization Form C (UAX 15): decompose, order marks, compose. */
#include "model/text/unicode.h"
#include "model/text/unicode_tables.h"

#include <string.h>

enum { /* Hangul syllables are computed: Unicode 3.12 */
       S_BASE = 0xAC00,
       L_BASE = 0x1100,
       V_BASE = 0x1161,
       T_BASE = 0x11A7,
       L_COUNT = 19,
       V_COUNT = 21,
       T_COUNT = 28,
       S_COUNT = L_COUNT * V_COUNT * T_COUNT,
};

static unsigned class_of(uint32_t c)
{
    return c < 0x300 ? 0 : range_value(combining, ARRAY_LEN(combining), c);
}

/* Longest chain in the table is 3 (a letter, two marks), so recursion is shallow. */
static int decompose(struct runes *out, uint32_t c, struct err *e)
{
    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t s = c - S_BASE, t = s % T_COUNT;
        if (runes_add(out, L_BASE + s / (V_COUNT * T_COUNT), e) < 0) return -1;
        if (runes_add(out, V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT, e) < 0) return -1;
        return t ? runes_add(out, T_BASE + t, e) : 0;
    }
    const struct decomposition *d =
        c < 0xC0 ? NULL : decomposition_find(decompositions, ARRAY_LEN(decompositions), c);
    if (!d) return runes_add(out, c, e);
    if (decompose(out, d->first, e) < 0) return -1;
    return d->second ? decompose(out, d->second, e) : 0;
}

/* Stable order by class inside each run of marks. Counting sort: a run may be a megabyte long. */
static int order_marks(struct runes *r, struct err *e)
{
    struct runes run = {0};
    for (size_t i = 0; i < r->len;) {
        size_t n = 0, start[257] = {0};
        unsigned last = 0;
        bool sorted = true;
        for (; i + n < r->len; n++) {
            unsigned k = class_of(r->at[i + n]);
            if (!k) break;
            if (k < last) sorted = false;
            last = k;
            start[k + 1]++;
        }
        if (!sorted) {
            if (runes_set(&run, r->at + i, n, e) < 0) {
                runes_free(&run);
                return -1;
            }
            for (int k = 0; k < 256; k++)
                start[k + 1] += start[k];
            for (size_t j = 0; j < n; j++)
                r->at[i + start[class_of(run.at[j])]++] = run.at[j];
        }
        i += n ? n : 1;
    }
    runes_free(&run);
    return 0;
}

static uint32_t compose(uint32_t a, uint32_t b) /* 0: they do not */
{
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + b - V_BASE) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE &&
        b < T_BASE + T_COUNT)
        return a + b - T_BASE;
    size_t lo = 0, hi = ARRAY_LEN(compositions);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct composition *p = &compositions[mid];
        if (p->first < a || (p->first == a && p->second < b))
            lo = mid + 1;
        else if (p->first == a && p->second == b)
            return p->to;
        else
            hi = mid;
    }
    return 0;
}

int runes_nfc(struct runes *r, struct err *e)
{
    size_t i = 0;
    while (i < r->len && r->at[i] < 0x300)
        i++;
    if (i == r->len) return 0; /* all below the first mark is in NFC already */

    struct runes d = {0};
    for (i = 0; i < r->len; i++)
        if (decompose(&d, r->at[i], e) < 0) goto fail;
    if (order_marks(&d, e) < 0) goto fail;

    size_t n = 0, starter = SIZE_MAX; /* where in d the last starter was written */
    unsigned last = 0; /* class of the rune before, when not composed away */
    for (i = 0; i < d.len; i++) {
        uint32_t c = d.at[i], whole = 0;
        unsigned k = class_of(c);
        /* blocked: something of the same or a higher class, or a starter, lies between */
        if (starter != SIZE_MAX && (n == starter + 1 || (last < k && last != 0)))
            whole = compose(d.at[starter], c);
        if (whole) {
            d.at[starter] = whole;
            continue;
        }
        if (k == 0) starter = n;
        last = k;
        d.at[n++] = c;
    }
    d.len = n;
    runes_free(r);
    *r = d;
    return 0;
fail:
    runes_free(&d);
    return -1;
}
