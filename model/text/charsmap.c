/* SentencePiece's Precompiled normalizer; see charsmap.h. */
#include "model/text/charsmap.h"

#include "model/text/unicode.h"

#include <stdlib.h>
#include <string.h>

#define MAX_OUT ((size_t)16 << 20) /* a hostile map may blow a prompt of 1 MiB up */

static int digit64(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int decode64(unsigned char **out, size_t *len, const char *s, struct err *e)
{
    size_t n = strlen(s);
    while (n && s[n - 1] == '=')
        n--;
    unsigned char *b = malloc(n / 4 * 3 + 4);
    if (!b) return err_set(e, ERR_RESOURCE, "no memory for precompiled_charsmap");
    uint32_t bits = 0;
    int have = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        int d = digit64(s[i]);
        if (d < 0) {
            free(b);
            return err_set(e, ERR_INPUT, "precompiled_charsmap is not base64 at character %zu", i);
        }
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) b[at++] = (unsigned char)(bits >> (have -= 8));
    }
    *out = b;
    *len = at;
    return 0;
}

/* m->bytes [len] is there: what lies where in it. */
static int divide(struct charsmap *m, size_t len, struct err *e)
{
    const unsigned char *b = m->bytes;
    size_t trie =
        len >= 4 ? (size_t)b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24 : 0;
    if (len < 4 || trie % 4 || trie < 4 || trie > len - 4)
        return err_set(e, ERR_INPUT, "precompiled_charsmap has %zu bytes and claims a trie of %zu",
                       len, trie);
    m->units = b + 4;
    m->n_units = trie / 4;
    m->text = (const char *)b + 4 + trie;
    m->text_len = len - 4 - trie;
    if (!utf8_valid(m->text, m->text_len))
        return err_set(e, ERR_INPUT, "precompiled_charsmap has replacements that are not UTF-8");
    return 0;
}

int charsmap_open(struct charsmap *m, const char *base64, struct err *e)
{
    size_t len = 0;
    memset(m, 0, sizeof *m);
    if (decode64(&m->bytes, &len, base64, e) < 0) return -1;
    if (divide(m, len, e) == 0) return 0;
    charsmap_close(m);
    return -1;
}

int charsmap_copy(struct charsmap *m, const void *bytes, size_t len, struct err *e)
{
    memset(m, 0, sizeof *m);
    m->bytes = malloc(len ? len : 1);
    if (!m->bytes) return err_set(e, ERR_RESOURCE, "no memory for precompiled_charsmap");
    memcpy(m->bytes, bytes, len);
    if (divide(m, len, e) == 0) return 0;
    charsmap_close(m);
    return -1;
}

void charsmap_close(struct charsmap *m)
{
    free(m->bytes);
    memset(m, 0, sizeof *m);
}

static uint32_t unit(const struct charsmap *m, uint64_t at) /* 0, a dead end, outside */
{
    if (at >= m->n_units) return 0;
    const unsigned char *u = m->units + at * 4;
    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static uint64_t offset(uint32_t u) { return (uint64_t)(u >> 10) << ((u & 0x200) >> 6); }

/* The replacement of the shortest prefix of s[n] that has one; NULL when none does. */
static const char *find(const struct charsmap *m, const char *s, size_t n, size_t *len)
{
    uint64_t pos = offset(unit(m, 0));
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == 0) return NULL;
        pos ^= c;
        uint32_t u = unit(m, pos);
        if (pos >= m->n_units || (u & 0x800000FFu) != c) return NULL;
        pos ^= offset(u);
        if (!(u & 0x100)) continue;
        size_t at = unit(m, pos) & 0x7FFFFFFFu;
        if (at > m->text_len || (at < m->text_len && ((unsigned char)m->text[at] & 0xC0) == 0x80))
            return NULL; /* outside, or inside a rune: a broken map replaces nothing */
        const char *end = memchr(m->text + at, 0, m->text_len - at);
        *len = (end ? (size_t)(end - m->text) : m->text_len) - at;
        return m->text + at;
    }
    return NULL;
}

int charsmap_apply(const struct charsmap *m, struct bytes *out, const char *s, size_t n,
                   struct err *e)
{
    for (size_t i = 0; i < n;) {
        size_t cluster = cluster_len(s + i, n - i), len;
        const char *to = cluster < 6 ? find(m, s + i, cluster, &len) : NULL;
        if (out->len > MAX_OUT)
            return err_set(e, ERR_INPUT,
                           "precompiled_charsmap makes more than %zu bytes of the text", MAX_OUT);
        if (to) {
            if (bytes_add(out, to, len, e) < 0) return -1;
            i += cluster;
            continue;
        }
        for (size_t end = i + cluster; i < end;) {
            uint32_t rune;
            size_t k = utf8_read(&rune, s + i, end - i);
            to = find(m, s + i, k, &len);
            if (bytes_add(out, to ? to : s + i, to ? len : k, e) < 0) return -1;
            i += k;
        }
    }
    return 0;
}
