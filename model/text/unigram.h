/* The Unigram model: the likeliest way to cut a word into pieces. wan.md 1.3 (4).
 *
 * Owner: caller of unigram_init(), which takes the pieces over. Threads: read-only after it. */
#ifndef DITGEN_TEXT_UNIGRAM_H
#define DITGEN_TEXT_UNIGRAM_H

#include "model/text/pieces.h"

struct unigram {
    struct pieces pieces;
    double *score; /* [n], by id */
    int n;
    int unk_id; /* -1: the file names none, and an unknown rune is an error */
    double unk_score;
    bool byte_fallback;
    int byte_id[256]; /* of "<0x00>".., -1 where missing */
};

/* Ids, one after the other; counts on past max, so that the caller learns of a cut. */
struct ids {
    int *at;
    int max;
    size_t n;
};
void ids_add(struct ids *out, int id);

/* Room for the search, kept between words. Start from { 0 }, free(at). */
struct unigram_scratch {
    struct unigram_node *at;
    size_t cap;
};

/* items and score are heap arrays of n, taken over. */
void unigram_init(struct unigram *u, struct piece *items, double *score, int n, int unk_id,
                  bool byte_fallback);
void unigram_fini(struct unigram *u);
/* word[n]: UTF-8. Errors: ERR_INPUT when a rune is unknown and unk_id is -1; ERR_RESOURCE. */
int unigram_encode(const struct unigram *u, struct ids *out, const char *word, size_t n,
                   struct unigram_scratch *s, struct err *e);

#endif
