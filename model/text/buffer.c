/* Growing arrays; see buffer.h. */
#include "model/text/buffer.h"

#include "model/text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* Room for `more` items of `size` bytes after `len`; doubles. */
static int grow(void **at, size_t *cap, size_t len, size_t more, size_t size, struct err *e)
{
    if (more <= *cap - len) return 0;
    size_t want = *cap ? *cap : 64;
    while (want - len < more) {
        if (want > SIZE_MAX / 2 / size) return err_set(e, ERR_RESOURCE, "no memory for text");
        want *= 2;
    }
    void *p = realloc(*at, want * size);
    if (!p) return err_set(e, ERR_RESOURCE, "no memory for text (%zu bytes)", want * size);
    *at = p;
    *cap = want;
    return 0;
}

int bytes_add(struct bytes *b, const char *s, size_t n, struct err *e)
{
    void *at = b->at;
    if (grow(&at, &b->cap, b->len, n, 1, e) < 0) return -1;
    b->at = at;
    if (n) memcpy(b->at + b->len, s, n);
    b->len += n;
    return 0;
}

int bytes_add_rune(struct bytes *b, uint32_t c, struct err *e)
{
    char s[4];
    return bytes_add(b, s, utf8_put(s, c), e);
}

void bytes_free(struct bytes *b)
{
    free(b->at);
    *b = (struct bytes){0};
}

int runes_add(struct runes *r, uint32_t c, struct err *e)
{
    void *at = r->at;
    if (grow(&at, &r->cap, r->len, 1, sizeof *r->at, e) < 0) return -1;
    r->at = at;
    r->at[r->len++] = c;
    return 0;
}

int runes_set(struct runes *r, const uint32_t *from, size_t n, struct err *e)
{
    void *at = r->at;
    r->len = 0;
    if (grow(&at, &r->cap, 0, n, sizeof *r->at, e) < 0) return -1;
    r->at = at;
    if (n) memcpy(r->at, from, n * sizeof *from);
    r->len = n;
    return 0;
}

void runes_free(struct runes *r)
{
    free(r->at);
    *r = (struct runes){0};
}
