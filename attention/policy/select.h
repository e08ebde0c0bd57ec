/* Which blocks are kept: bits[rows, words] from scores or from places alone, of one head.
 *
 * bits: one bit a key block, lowest first, words = select_words(cols) of 32; every function adds to
 * what is set, so that selections are united by calling one after another. Order of equals: the
 * lower index first (attention-sparse.md, C6), so that the same scores give the same set anywhere.
 * Pure; any thread. index: scratch of cols ints. */
#ifndef DITGEN_ATTENTION_POLICY_SELECT_H
#define DITGEN_ATTENTION_POLICY_SELECT_H

#include <stdbool.h>
#include <stdint.h>

static inline int select_words(int cols) { return (cols + 31) / 32; }

static inline void select_add(uint32_t *row, int col) { row[col / 32] |= 1u << (col % 32); }

static inline bool select_has(const uint32_t *row, int col)
{
    return row[col / 32] >> (col % 32) & 1;
}

/* The n best of scores[cols], best first; -inf and NaN are left out. index[n]. Returns how many. */
int select_best(int *index, const float *scores, int cols, int n);
/* Exactly min(k, cols) of each row, the best; -inf is never taken. */
void select_top_k(uint32_t *bits, const float *scores, int rows, int cols, int k, int *index);
/* Of each row the best until their share of the row's sum reaches p: the one that crosses is kept,
 * and so is the best; the first `least` besides, whatever they weigh (SVG2, section 1 step 4).
 * mass >= 0: probabilities or any masses; rows need not add up to 1. */
void select_top_p(uint32_t *bits, const float *mass, int rows, int cols, double p, int least,
                  int *index);
/* A head's share of all its pairs, whatever row they stand in (DraftAttention, section 4): those not
 * below the floor((1 - share) * rows * cols)-th smallest. all: scratch of rows * cols floats. */
void select_percentile(uint32_t *bits, const float *scores, int rows, int cols, double share,
                       float *all);
/* score > mean of its row + tau * standard deviation of its row (Sol-Attn, section 12.1). */
void select_threshold(uint32_t *bits, const float *scores, int rows, int cols, float tau);
/* |row / rows - col / cols| within a band of `share` of the map; always the blocks that hold the same
 * places. Looks at no score. */
void select_band(uint32_t *bits, int rows, int cols, double share);

/* Whatever a row must have: a column for all, a row whole. */
void select_column(uint32_t *bits, int rows, int cols, int col);
void select_row(uint32_t *bits, int cols, int row);
/* Rows that keep nothing get the block at their own place (C5): how many there were. */
int select_fill(uint32_t *bits, int rows, int cols);
int select_count(const uint32_t *bits, int rows, int cols);

#endif
