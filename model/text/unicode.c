/* UTF-8, white space, words and width; see unicode.h. NFC is in nfc.c, clusters in cluster.c. */
#include "model/text/unicode.h"

#include "model/text/unicode_tables.h"

size_t utf8_read(uint32_t *c, const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    *c = u[0];
    if (u[0] < 0x80) return 1;
    *c = RUNE_REPLACEMENT;
    size_t want = u[0] >= 0xC2 && u[0] <= 0xDF ? 2 : (u[0] & 0xF0) == 0xE0 ? 3 : 0;
    if (u[0] >= 0xF0 && u[0] <= 0xF4) want = 4;
    if (!want) return 1;
    uint32_t v = u[0] & (0x7Fu >> want);
    for (size_t i = 1; i < want; i++) {
        unsigned lo = 0x80, hi = 0xBF;
        if (i == 1 && u[0] == 0xE0) lo = 0xA0; /* overlong */
        if (i == 1 && u[0] == 0xF0) lo = 0x90;
        if (i == 1 && u[0] == 0xF4) hi = 0x8F; /* above 10FFFF */
        if (i >= n || u[i] < lo || u[i] > hi) return i;
        v = v << 6 | (u[i] & 0x3Fu);
    }
    *c = v;
    return want;
}

size_t utf8_put(char out[4], uint32_t c)
{
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = RUNE_REPLACEMENT;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00u >> n & 0xFF) | c);
    return n;
}

size_t utf8_fault(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t k = utf8_read(&c, s + i, n - i);
        if (c >= 0xD800 && c < 0xE000) return i;
        if (c == RUNE_REPLACEMENT && (k != 3 || (unsigned char)s[i] != 0xEF)) return i;
        i += k;
    }
    return n;
}

bool utf8_valid(const char *s, size_t n) { return utf8_fault(s, n) == n; }

bool rune_is_white_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool rune_is_space(uint32_t c) { return (c >= 0x1C && c <= 0x1F) || rune_is_white_space(c); }

bool rune_is_word(uint32_t c) { return range_value(words, ARRAY_LEN(words), c) != 0; }

int rune_fold_width(uint32_t c, uint32_t out[2])
{
    if (c < 0xFF01 || c > 0xFFEF) return 0;
    const struct decomposition *d = decomposition_find(widths, ARRAY_LEN(widths), c);
    if (!d) return 0;
    out[0] = d->first;
    out[1] = d->second;
    return d->second ? 2 : 1;
}
