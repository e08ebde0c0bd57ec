/* The normalizer and pre-tokenizer steps' building stones of a tokenizer. wan.md 1.3 (2). */
#include "model/text/tokenizer.h"

#include "model/text/unicode.h"

#include <stdlib.h>
#include <string.h>

#define MAX_NORMALIZED ((size_t)16 << 20) /* a hostile file may blow a prompt of 1 MiB up */

static int too_long(struct err *e)
{
    return err_set(e, ERR_INPUT, "the tokenizer's normalizers make more than %zu bytes of the text",
                   MAX_NORMALIZED);
}

static void strip(struct bytes *b, bool left, bool right, bool *shifted)
{
    size_t first = 0, end = 0; /* of what stays */
    bool inside = !left;
    for (size_t i = 0; i < b->len;) {
        uint32_t c;
        size_t k = utf8_read(&c, b->at + i, b->len - i);
        bool space = rune_is_white_space(c);
        if (!inside && !space) {
            inside = true;
            first = i;
        }
        i += k;
        if (!space || !right) end = i;
    }
    if (!inside) first = end = 0;
    if (first) *shifted = true;
    if (end < first) end = first;
    if (end > first) memmove(b->at, b->at + first, end - first);
    b->len = end - first;
}

static int replace(struct bytes *out, const struct bytes *in, const struct norm_step *s,
                   struct err *e)
{
    size_t len = strlen(s->content);
    uint32_t *match = malloc((in->len ? in->len : 1) * sizeof *match);
    if (!match) return err_set(e, ERR_RESOURCE, "no memory for a text of %zu bytes", in->len);
    int status = pattern_matches(&s->pattern, match, in->at, in->len, e);
    for (size_t i = 0; i < in->len && status == 0;) {
        if (match[i]) {
            status = bytes_add(out, s->content, len, e);
            i += match[i];
        } else {
            status = bytes_add(out, in->at + i, 1, e);
            i++;
        }
        if (status == 0 && out->len > MAX_NORMALIZED) status = too_long(e);
    }
    free(match);
    return status;
}

static int nfc(struct bytes *out, const struct bytes *in, struct err *e)
{
    struct runes r = {0};
    int status = 0;
    for (size_t i = 0; i < in->len && status == 0;) {
        uint32_t c;
        i += utf8_read(&c, in->at + i, in->len - i);
        status = runes_add(&r, c, e);
    }
    if (status == 0) status = runes_nfc(&r, e);
    for (size_t i = 0; i < r.len && status == 0; i++)
        status = bytes_add_rune(out, r.at[i], e);
    runes_free(&r);
    return status;
}

static int apply(struct bytes *out, struct bytes *b, const struct norm_step *s, struct err *e)
{
    switch (s->type) {
    case NORM_CHARSMAP:
        return charsmap_apply(&s->map, out, b->at, b->len, e);
    case NORM_REPLACE:
        return replace(out, b, s, e);
    case NORM_NFC:
        return nfc(out, b, e);
    case NORM_PREPEND:
        if (b->len && bytes_add(out, s->content, strlen(s->content), e) < 0) return -1;
        return bytes_add(out, b->at, b->len, e);
    case NORM_STRIP:
        break;
    }
    return err_set(e, ERR_BUG, "no such normalizer");
}

int tokenizer_normalize(const struct tokenizer *t, struct bytes *b, bool *shifted, struct err *e)
{
    for (int i = 0; i < t->n_norm; i++) {
        const struct norm_step *s = &t->norm[i];
        if (s->type == NORM_STRIP) {
            strip(b, s->left, s->right, shifted);
            continue;
        }
        struct bytes out = {0};
        int status = apply(&out, b, s, e);
        if (status == 0 && out.len > MAX_NORMALIZED) status = too_long(e);
        if (status < 0) {
            bytes_free(&out);
            return -1;
        }
        bytes_free(b);
        *b = out;
    }
    return 0;
}
