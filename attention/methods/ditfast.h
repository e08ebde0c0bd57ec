/* What ditfast.c and ditfast_search.c share. */
#ifndef DITGEN_ATTENTION_METHODS_DITFAST_H
#define DITGEN_ATTENTION_METHODS_DITFAST_H

#include "attention/axes/axes.h"

#define DITFAST_LETTERS "FWACc"

struct ditfast {
    struct attn_knobs knobs;
    char *steps, *file, *hash, *search;
    double error;
    char *table; /* [n_layers, n_steps] letters, made by choose(), freed by close() */
};

/* Treatment of a layer at a step: 'F' where steps or layers are exact. */
char ditfast_at(const struct attn_part *p, int layer, int step);

/* search: sampled rows of every exact call, and the plan that follows, written after the last. */
void ditfast_search_sizes(const struct attn_part *p, struct attn_sizes *s);
int ditfast_search(const struct attn_part *p, const struct attn_turn *t, const struct attn_seen *s,
                   struct err *e);
unsigned ditfast_search_looks(const struct attn_part *p, const struct attn_turn *t);

#endif
