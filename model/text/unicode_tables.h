/* Rows of unicode_tables.inc and how to find one. For unicode.c, nfc.c and cluster.c only; each
 * takes the tables it uses and the compiler drops the rest. */
#ifndef DITGEN_TEXT_UNICODE_TABLES_H
#define DITGEN_TEXT_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

struct decomposition {
    uint32_t from, first, second;
};
struct composition {
    uint32_t first, second, to;
};
struct range {
    uint32_t first, last;
    unsigned char value;
};

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-const-variable"
#endif
#include "model/text/unicode_tables.inc"

/* 0: in no range */
static inline unsigned range_value(const struct range *t, size_t n, uint32_t c)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > t[mid].last)
            lo = mid + 1;
        else if (c < t[mid].first)
            hi = mid;
        else
            return t[mid].value;
    }
    return 0;
}

static inline const struct decomposition *decomposition_find(const struct decomposition *t,
                                                             size_t n, uint32_t c)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > t[mid].from)
            lo = mid + 1;
        else if (c < t[mid].from)
            hi = mid;
        else
            return &t[mid];
    }
    return NULL;
}

#endif
