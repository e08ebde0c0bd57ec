/* A sorted set of strings, walked byte by byte as a trie would be: for "which pieces begin here".
 *
 * Owner: caller; strings are borrowed and must outlive the index. Threads: read-only after build.
 */
#ifndef DITGEN_TEXT_PIECES_H
#define DITGEN_TEXT_PIECES_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct piece {
    const char *text;
    uint32_t len; /* bytes, at least 1 */
    int id;
    uint64_t head; /* first 8 bytes, big-endian: makes sorting 256,000 of them quick */
};

struct pieces {
    struct piece *at;
    int n;
    int first[257]; /* range of each first byte */
};

/* Takes items (heap) over, whatever happens. Of equal strings the highest id stays, as in the
 * reference's map. */
void pieces_build(struct pieces *p, struct piece *items, int n);
void pieces_free(struct pieces *p);

struct pieces_walk {
    int lo, hi; /* pieces that begin with the bytes walked */
    uint32_t depth;
};

/* One byte further; false when no piece goes on so. Start from { 0 }. */
bool pieces_step(const struct pieces *p, struct pieces_walk *w, unsigned char byte);
/* The id of the piece that ends here, or -1. */
int pieces_here(const struct pieces *p, const struct pieces_walk *w);
/* The id of exactly this string, or -1. */
int pieces_find(const struct pieces *p, const char *s, size_t n);
/* The longest piece that s[n] begins with: its id and length; -1 when there is none. */
int pieces_longest(const struct pieces *p, const char *s, size_t n, size_t *len);

#endif
