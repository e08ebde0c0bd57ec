/* The few regular expressions that tokenizer.json files of this family use: " {2,}", "\A +| +\z",
 * "\s+". Runes, \s, \A, \z, quantifiers, alternation; anything else is refused at open.
 * Owner: caller, no heap. Threads: read-only after init. */
#ifndef DITGEN_TEXT_PATTERN_H
#define DITGEN_TEXT_PATTERN_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define PATTERN_MAX_ATOMS 48

struct pattern_atom {
    enum { ATOM_RUNE, ATOM_SPACE, ATOM_START, ATOM_END, ATOM_OR, ATOM_DONE } type;
    uint32_t rune;
    int min, max; /* times; max -1: no end */
};

struct pattern {
    struct pattern_atom atoms[PATTERN_MAX_ATOMS + 1]; /* alternatives between ATOM_OR */
};

int pattern_regex(struct pattern *p, const char *regex, struct err *e);
int pattern_string(struct pattern *p, const char *literal, struct err *e);
/* Bytes of the match that begins at s[at] of s[n]; 0 when none does. */
size_t pattern_match(const struct pattern *p, const char *s, size_t n, size_t at);

#endif
