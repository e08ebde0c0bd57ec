/* Sorted strings; see pieces.h. */
#include "model/text/pieces.h"

#include <stdlib.h>
#include <string.h>

static int by_text(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    uint32_t n = x->len < y->len ? x->len : y->len;
    int d = n > 8 ? memcmp(x->text + 8, y->text + 8, n - 8) : 0;
    if (d) return d;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool same(const struct piece *x, const struct piece *y)
{
    return x->len == y->len && memcmp(x->text, y->text, x->len) == 0;
}

void pieces_build(struct pieces *p, struct piece *items, int n)
{
    memset(p, 0, sizeof *p);
    p->at = items;
    for (int i = 0; i < n; i++) {
        uint64_t h = 0;
        for (uint32_t k = 0; k < 8; k++)
            h = h << 8 | (k < items[i].len ? (unsigned char)items[i].text[k] : 0);
        items[i].head = h;
    }
    if (n) qsort(items, (size_t)n, sizeof *items, by_text);
    for (int i = 0; i < n; i++) {
        if (p->n && same(&items[p->n - 1], &items[i])) p->n--;
        items[p->n++] = items[i];
    }
    for (int b = 0, i = 0; b < 256; b++) {
        while (i < p->n && (unsigned char)items[i].text[0] == b)
            i++;
        p->first[b + 1] = i;
    }
}

void pieces_free(struct pieces *p)
{
    free(p->at);
    memset(p, 0, sizeof *p);
}

/* First of [lo, hi) whose byte at depth is at least `byte`; one that ends before counts as less. */
static int lower(const struct pieces *p, int lo, int hi, uint32_t depth, int byte)
{
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        const struct piece *x = &p->at[mid];
        int b = x->len > depth ? (unsigned char)x->text[depth] : -1;
        if (b < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool pieces_step(const struct pieces *p, struct pieces_walk *w, unsigned char byte)
{
    if (w->depth == 0) {
        w->lo = p->first[byte];
        w->hi = p->first[byte + 1];
    } else {
        w->lo = lower(p, w->lo, w->hi, w->depth, byte);
        w->hi = lower(p, w->lo, w->hi, w->depth, byte + 1);
    }
    w->depth++;
    return w->lo < w->hi;
}

int pieces_here(const struct pieces *p, const struct pieces_walk *w)
{
    if (w->lo >= w->hi || p->at[w->lo].len != w->depth) return -1;
    return p->at[w->lo].id;
}

int pieces_find(const struct pieces *p, const char *s, size_t n)
{
    struct pieces_walk w = {0};
    for (size_t i = 0; i < n; i++)
        if (!pieces_step(p, &w, (unsigned char)s[i])) return -1;
    return n ? pieces_here(p, &w) : -1;
}

int pieces_longest(const struct pieces *p, const char *s, size_t n, size_t *len)
{
    struct pieces_walk w = {0};
    int best = -1;
    for (size_t i = 0; i < n && pieces_step(p, &w, (unsigned char)s[i]); i++) {
        int id = pieces_here(p, &w);
        if (id < 0) continue;
        best = id;
        *len = i + 1;
    }
    return best;
}
