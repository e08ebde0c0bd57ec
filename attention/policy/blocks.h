/* One head's q or k, cut into blocks: what poolers, scorers and clusters look at.
 *
 * Rows of x are tokens; a block is a run of places, and order says which token stands at a place.
 * Owner: everything is borrowed. Blocks may be empty, and of any length. */
#ifndef DITGEN_ATTENTION_POLICY_BLOCKS_H
#define DITGEN_ATTENTION_POLICY_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

struct blocks {
    const float *x; /* [len, dim], stride floats from row to row; host */
    int64_t stride;
    int len, dim;
    const int32_t *order; /* [len] token at each place; NULL: place i holds token i */
    const int32_t *offset; /* [n + 1] places, rising, offset[n] = len; NULL: equal blocks of size */
    int size; /* tokens a block, the last shorter; of equal blocks */
    int n;
};

static inline int blocks_begin(const struct blocks *b, int i)
{
    int64_t at = (int64_t)i * b->size;
    return b->offset ? b->offset[i] : at < b->len ? (int)at : b->len;
}

static inline int blocks_count(const struct blocks *b, int i)
{
    return blocks_begin(b, i + 1) - blocks_begin(b, i);
}

static inline const float *blocks_row(const struct blocks *b, int place)
{
    return b->x + (int64_t)(b->order ? b->order[place] : place) * b->stride;
}

#endif
