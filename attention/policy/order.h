/* In which order tokens stand: static tables over a grid of t x h x w, raster being token
 * (f * h + y) * w + x. order[place] = token. Pure; any thread. Sections of attention-sparse.md. */
#ifndef DITGEN_ATTENTION_POLICY_ORDER_H
#define DITGEN_ATTENTION_POLICY_ORDER_H

#include <stdint.h>

struct grid { /* tokens, t slowest */
    int t, h, w;
};

/* Tiles of tile.t x tile.h x tile.w, those at the edges smaller, inside and among themselves in
 * raster. offset[order_tile_count() + 1]: where each begins (section 0.2), or NULL. */
int order_tile_count(struct grid g, struct grid tile);
void order_tile(int32_t *order, int32_t *offset, struct grid g, struct grid tile);
/* All frames of one place together: place (y * w + x) * t + f (SVG1's temporal heads, 1b). */
void order_token_major(int32_t *order, struct grid g);
/* A Z-shaped curve through time and space (Sol-Attn, 12.1): bits of f, y, x interleaved. */
void order_morton(int32_t *order, struct grid g);
/* The `hot` tokens of highest weight first, best first, the rest as they stood in base (NULL:
 * raster); weight[len] (PBS-Attn, section 9). index: scratch of 2 * len ints. */
void order_hot(int32_t *order, const float *weight, const int32_t *base, int hot, int len,
               int *index);
/* place[order[p]] = p */
void order_inverse(int32_t *place, const int32_t *order, int len);

#endif
