/* Growing arrays of the text room: bytes (UTF-8) and runes (code points).
 *
 * Owner: caller; start from { 0 }, end with _free(). Errors: ERR_RESOURCE. */
#ifndef DITGEN_TEXT_BUFFER_H
#define DITGEN_TEXT_BUFFER_H

#include "model/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct bytes {
    char *at; /* not NUL-terminated */
    size_t len, cap;
};

struct runes {
    uint32_t *at;
    size_t len, cap;
};

int bytes_add(struct bytes *b, const char *s, size_t n, struct err *e);
int bytes_add_rune(struct bytes *b, uint32_t c, struct err *e);
void bytes_free(struct bytes *b);

int runes_add(struct runes *r, uint32_t c, struct err *e);
int runes_set(struct runes *r, const uint32_t *from, size_t n, struct err *e);
void runes_free(struct runes *r);

#endif
