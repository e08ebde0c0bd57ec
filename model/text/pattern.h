/* The few regular expressions that tokenizer.json files of this family use: " {2,}", "\A +| +\z",
 * "\s+". Runes, \s, \A, \z, quantifiers, alternation; anything else is refused at open. Greedy, the
 * leftmost alternative first, as the reference's.
 *
 * All matches of a text are found in one pass from its end, in time atoms * bytes whatever the
 * pattern: nothing is tried twice. Owner: caller, no heap. Threads: read-only after init. */
#ifndef DITGEN_TEXT_PATTERN_H
#define DITGEN_TEXT_PATTERN_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define PATTERN_MAX_ATOMS 255

struct pattern_atom {
    enum { ATOM_RUNE, ATOM_SPACE, ATOM_START, ATOM_END, ATOM_OR, ATOM_DONE } type;
    uint32_t rune;
    enum { TIMES_ONE, TIMES_OPTIONAL, TIMES_ANY } times; /* {n,m} is written out */
};

struct pattern {
    int n; /* with the ATOM_DONE that ends it */
    struct pattern_atom atoms[PATTERN_MAX_ATOMS + 1]; /* alternatives between ATOM_OR */
};

int pattern_regex(struct pattern *p, const char *regex, struct err *e);
int pattern_string(struct pattern *p, const char *literal, struct err *e);
/* len[n]: bytes of the match that begins at s[i], s valid UTF-8; 0 where none does or no rune
 * begins. Refuses what would take minutes: ERR_INPUT. */
int pattern_matches(const struct pattern *p, uint32_t *len, const char *s, size_t n, struct err *e);

#endif
