/* Facts of Unicode that prompts need: UTF-8, white space, NFC, width folding, grapheme clusters.
 *
 * Tables: unicode_tables.inc, whose head says the versions. Threads: any. */
#ifndef DITGEN_TEXT_UNICODE_H
#define DITGEN_TEXT_UNICODE_H

#include "model/text/buffer.h"

#include <stdbool.h>

#define RUNE_REPLACEMENT 0xFFFDu

/* One code point of s[n], n >= 1; returns the bytes used, at least 1. What is not UTF-8 gives
 * RUNE_REPLACEMENT for each longest beginning of a sequence, as Python's errors="replace" does; but
 * an encoded surrogate (CESU-8) comes back as itself, for text_clean to join. */
size_t utf8_read(uint32_t *c, const char *s, size_t n);
/* Returns the length. Surrogates and numbers above 10FFFF are written as RUNE_REPLACEMENT. */
size_t utf8_put(char out[4], uint32_t c);
/* Strict: no surrogates, no overlong forms. utf8_fault: offset of the first byte that is none; n: there is
 * none. */
bool utf8_valid(const char *s, size_t n);
size_t utf8_fault(const char *s, size_t n);

bool rune_is_space(uint32_t c); /* Python's str.isspace: White_Space and 1C..1F */
bool rune_is_white_space(uint32_t c); /* property White_Space: \s, Rust's is_whitespace */
bool rune_is_word(uint32_t c); /* \w of Rust's regex */

/* NFKC of a half- or full-width form (U+FF01..FFEF): 1 or 2 runes; 0 when it has none. */
int rune_fold_width(uint32_t c, uint32_t out[2]);

/* Normalization Form C, in place. */
int runes_nfc(struct runes *r, struct err *e);

/* Bytes of the extended grapheme cluster (UAX 29) that begins at s[n], n >= 1. s is at a boundary.
 */
size_t cluster_len(const char *s, size_t n);

#endif
