/* SentencePiece's compiled normalizer: a trie from strings to their replacements (wan.md 1.3 (2)).
 * Built from a file, so every index is checked. Owner: caller; bytes are taken over. */
#ifndef DITGEN_TEXT_CHARSMAP_H
#define DITGEN_TEXT_CHARSMAP_H

#include "model/text/buffer.h"

struct charsmap {
    unsigned char *bytes; /* heap, the whole blob */
    const unsigned char *units; /* u32 LE [n_units], unaligned */
    size_t n_units;
    const char *text; /* replacements, each NUL-terminated */
    size_t text_len;
};

/* base64: the "precompiled_charsmap" string. */
int charsmap_open(struct charsmap *m, const char *base64, struct err *e);
/* The same, as bytes. */
int charsmap_copy(struct charsmap *m, const void *bytes, size_t len, struct err *e);
void charsmap_close(struct charsmap *m);
/* Grapheme cluster by cluster, with the reference's quirk: the shortest hit replaces a whole
 * cluster of less than 6 bytes. out is appended to. */
int charsmap_apply(const struct charsmap *m, struct bytes *out, const char *s, size_t n,
                   struct err *e);

#endif
