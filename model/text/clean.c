/* prompt_clean: what diffusers' pipelines do to a prompt before the tokenizer (wan.md 1.1).
 *
 * ftfy.fix_text without its guesser of mistaken encodings: that needs a model of "badness" of
 * several hundred lines, and changes nothing in text that is proper UTF-8. Its escape pattern takes
 * any Unicode digit in ESC [ ... m; here ASCII digits. Everything else is ftfy 6.3. */
#include "model/text/text.h"

#include "model/text/entities.h"
#include "model/text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PROMPT = 1 << 20, /* bytes; the model reads 512 tokens of it */
    MAX_SEGMENT = 1000000, /* ftfy's max_decode_length */
    MAX_ROUNDS = 64, /* layers of &amp;amp;... undone before we stop looking */
};

static int not_utf8(const char *text, size_t at, struct err *e)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        column = text[i] == '\n' ? 1 : column + (((unsigned char)text[i] & 0xC0) != 0x80);
        line += text[i] == '\n';
    }
    char where[64] = "";
    if (strchr(text, '\n')) snprintf(where, sizeof where, "line %zu, ", line);
    return err_set(
        e, ERR_USAGE,
        "the prompt is not UTF-8: byte 0x%02X at %scharacter %zu (byte %zu); convert it, "
        "as by iconv -f ISO-8859-1 -t UTF-8",
        (unsigned)(unsigned char)text[at], where, column, at + 1);
}

int prompt_check(const char *text, struct err *e)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        uint32_t c, low;
        size_t k = utf8_read(&c, text + i, n - i);
        bool half = c >= 0xD800 && c < 0xE000;
        if (c == RUNE_REPLACEMENT && (k != 3 || (unsigned char)text[i] != 0xEF))
            return not_utf8(text, i, e);
        if (half && (c >= 0xDC00 || i + k >= n)) return not_utf8(text, i, e);
        if (half) {
            size_t more = utf8_read(&low, text + i + k, n - i - k);
            if (low < 0xDC00 || low >= 0xE000) return not_utf8(text, i, e);
            k += more;
        }
        i += k;
    }
    return 0;
}

/* Bytes to runes; surrogate pairs written as two (CESU-8) are joined. */
static int decode(struct runes *out, const char *text, struct err *e)
{
    size_t n = strlen(text);
    if (n > MAX_PROMPT)
        return err_set(e, ERR_USAGE,
                       "the prompt has %zu bytes; at most %d are taken, and the model "
                       "reads only its first few hundred words",
                       n, MAX_PROMPT);
    if (prompt_check(text, e) < 0) return -1;
    for (size_t i = 0; i < n;) {
        uint32_t c, low;
        i += utf8_read(&c, text + i, n - i);
        if (c >= 0xD800 && c < 0xDC00 && i < n) {
            size_t k = utf8_read(&low, text + i, n - i);
            if (low >= 0xDC00 && low < 0xE000) {
                c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
                i += k;
            }
        }
        if (runes_add(out, c, e) < 0) return -1;
    }
    return 0;
}

static uint32_t from_c1(uint32_t c) /* C1 controls were windows-1252 */
{
    static const uint16_t table[32] = {
        0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
        0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178,
    };
    return c >= 0x80 && c < 0xA0 ? table[c - 0x80] : c;
}

static const char *ligature(uint32_t c) /* UTF-8, or NULL */
{
    static const struct {
        uint16_t from;
        const char *to;
    } table[] = {
        {0x132, "IJ"},       {0x133, "ij"},  {0x149, "\u02BCn"}, {0x1F1, "DZ"},
        {0x1F2, "Dz"},       {0x1F3, "dz"},  {0x1C4, "D\u017D"}, {0x1C5, "D\u017E"},
        {0x1C6, "d\u017E"},  {0x1C7, "LJ"},  {0x1C8, "Lj"},      {0x1C9, "lj"},
        {0x1CA, "NJ"},       {0x1CB, "Nj"},  {0x1CC, "nj"},      {0xFB00, "ff"},
        {0xFB01, "fi"},      {0xFB02, "fl"}, {0xFB03, "ffi"},    {0xFB04, "ffl"},
        {0xFB05, "\u017Ft"}, {0xFB06, "st"},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (table[i].from == c) return table[i].to;
    return NULL;
}

static uint32_t straight_quote(uint32_t c)
{
    if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B)) return '\'';
    return c >= 0x201C && c <= 0x201F ? '"' : c;
}

static bool is_removed(uint32_t c)
{
    return c < 0x09 || c == 0x0B || (c >= 0x0E && c < 0x20) || c == 0x7F ||
           (c >= 0x206A && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
}

/* width, quotes, line ends of one rune that came out of the tables above */
static int add_plain(struct runes *out, uint32_t c, struct err *e)
{
    uint32_t wide[2];
    int n = rune_fold_width(c, wide);
    if (c == 0x3000) c = ' ';
    if (!n) wide[0] = c, n = 1;
    for (int i = 0; i < n; i++) {
        c = straight_quote(wide[i]);
        if (c == 0x2028 || c == 0x2029 || c == 0x85) c = '\n';
        if (runes_add(out, c, e) < 0) return -1;
    }
    return 0;
}

static int fix_characters(struct runes *out, const struct runes *in, struct err *e)
{
    out->len = 0;
    for (size_t i = 0; i < in->len; i++) {
        uint32_t c = from_c1(in->at[i]);
        const char *letters = ligature(c);
        if (c == '\r') {
            if (i + 1 < in->len && in->at[i + 1] == '\n') continue; /* the \n will do */
            c = '\n';
        }
        if (!letters) {
            if (add_plain(out, c, e) < 0) return -1;
            continue;
        }
        for (size_t n = strlen(letters), k = 0; k < n;) {
            k += utf8_read(&c, letters + k, n - k);
            if (add_plain(out, c, e) < 0) return -1;
        }
    }
    return 0;
}

/* Length of ESC [ digits and semicolons, letter at s[n]; 0 when there is none. */
static size_t terminal_escape(const uint32_t *s, size_t n)
{
    if (n < 3 || s[0] != 0x1B || s[1] != '[') return 0;
    size_t i = 2;
    while (i < n && ((s[i] >= '0' && s[i] <= '9') || s[i] == ';'))
        i++;
    return i < n && (s[i] | 32) >= 'a' && (s[i] | 32) <= 'z' ? i + 1 : 0;
}

static void remove_controls(struct runes *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->len;) {
        size_t escape = terminal_escape(r->at + i, r->len - i);
        if (!escape && !is_removed(r->at[i])) r->at[n++] = r->at[i];
        i += escape ? escape : 1;
    }
    r->len = n;
}

/* One segment, again and again until nothing changes. */
static int fix_segment(struct runes *seg, bool entities, struct err *e)
{
    struct runes next = {0}, before = {0};
    for (int round = 0; round < MAX_ROUNDS; round++) {
        if (runes_set(&before, seg->at, seg->len, e) < 0) goto fail;
        if (entities && ftfy_unescape(seg, e) < 0) goto fail;
        if (fix_characters(&next, seg, e) < 0) goto fail;
        remove_controls(&next);
        if (runes_nfc(&next, e) < 0) goto fail;
        if (runes_set(seg, next.at, next.len, e) < 0) goto fail;
        if (seg->len == before.len &&
            (!seg->len || memcmp(seg->at, before.at, seg->len * sizeof *seg->at) == 0))
            break;
    }
    runes_free(&next);
    runes_free(&before);
    return 0;
fail:
    runes_free(&next);
    runes_free(&before);
    return -1;
}

/* ftfy.fix_text: line by line; a "<" means real HTML, and from there on entities are left alone. */
static int fix_text(struct runes *r, struct err *e)
{
    struct runes out = {0}, seg = {0};
    bool entities = true;
    for (size_t i = 0; i < r->len;) {
        size_t n = 0;
        while (i + n < r->len && n < MAX_SEGMENT && r->at[i + n] != '\n')
            n++;
        if (i + n < r->len && n < MAX_SEGMENT) n++; /* with its line end */
        if (runes_set(&seg, r->at + i, n, e) < 0) goto fail;
        for (size_t k = 0; k < n; k++)
            if (seg.at[k] == '<') entities = false;
        if (fix_segment(&seg, entities, e) < 0) goto fail;
        for (size_t k = 0; k < seg.len; k++)
            if (runes_add(&out, seg.at[k], e) < 0) goto fail;
        i += n;
    }
    runes_free(&seg);
    runes_free(r);
    *r = out;
    return 0;
fail:
    runes_free(&seg);
    runes_free(&out);
    return -1;
}

/* Both ends stripped as Python's str.strip does, every run of White_Space inside squeezed into one
 * space. The two sets differ: 1C..1F are stripped, not squeezed. */
static int squeeze(struct bytes *out, const struct runes *r, struct err *e)
{
    size_t first = 0, end = r->len;
    while (first < end && rune_is_space(r->at[first]))
        first++;
    while (end > first && rune_is_space(r->at[end - 1]))
        end--;
    bool gap = false;
    for (size_t i = first; i < end; i++) {
        bool space = rune_is_white_space(r->at[i]);
        if (space && !gap && bytes_add(out, " ", 1, e) < 0) return -1;
        gap = space;
        if (!space && bytes_add_rune(out, r->at[i], e) < 0) return -1;
    }
    return bytes_add(out, "", 1, e);
}

int prompt_clean(char **out, const char *text, bool fix, struct err *e)
{
    struct runes r = {0};
    struct bytes b = {0};
    *out = NULL;
    if (decode(&r, text, e) < 0) goto fail;
    if (fix && fix_text(&r, e) < 0) goto fail;
    if (html_unescape(&r, e) < 0 || html_unescape(&r, e) < 0) goto fail;
    if (squeeze(&b, &r, e) < 0) goto fail;
    runes_free(&r);
    *out = b.at;
    return 0;
fail:
    runes_free(&r);
    bytes_free(&b);
    return -1;
}
