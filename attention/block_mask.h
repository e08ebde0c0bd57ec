/* The plan of one attention call: which tiles of the score matrix are computed, in which token order.
 *
 * Section 13 of the design: fixed blocks of block_q x block_k in raster order, the tail shorter; kept
 * tiles of each row as a list, as ranges or as bits, all naming the same set; the kernel's result does
 * not depend on the encoding. One plan for all heads, or one a head (n_plans = n_heads).
 * Owner: arrays live in the arena of the attn that made them. */
#ifndef DITGEN_ATTENTION_BLOCK_MASK_H
#define DITGEN_ATTENTION_BLOCK_MASK_H

#include "model/base/arena.h"
#include "model/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum block_map {
    BLOCK_MAP_DENSE,  /* every tile */
    BLOCK_MAP_BITS,   /* bits[plan][row][word] */
    BLOCK_MAP_RANGES, /* row_ptr, pairs (first, end) of tiles */
    BLOCK_MAP_LIST,   /* row_ptr, ascending tile numbers */
};

struct block_mask {
    int len_q, len_k;     /* tokens */
    int block_q, block_k; /* tokens a tile */
    int rows, cols;       /* tiles: ceil(len / block) */
    int n_plans;          /* 1: shared by all heads */
    enum block_map map;
    uint32_t *row_ptr; /* [n_plans * rows + 1] into tiles (LIST) or range pairs (RANGES) */
    uint16_t *tiles;   /* LIST: tile numbers; RANGES: (first, end) pairs */
    uint64_t *bits;    /* BITS: [n_plans * rows, (cols + 63) / 64] */
    size_t tiles_capacity, words;
    const float *key_bias; /* [len_k] added to scaled scores, or NULL */
};

/* Sizes a mask and takes its arrays from the arena, large enough for every tile; all-kept (DENSE). */
int block_mask_init(struct block_mask *m, int len_q, int len_k, int block_q, int block_k, int n_plans,
                    struct arena *a, struct err *e);
/* A band: tile j of row i is kept when |i*block_q - j*block_k| (tile distance) <= tiles. RANGES. */
int block_mask_band(struct block_mask *m, int tiles, struct err *e);
/* keep(ctx, plan, row, col) decides; encoded as `map`. */
int block_mask_build(struct block_mask *m, enum block_map map,
                     bool (*keep)(void *ctx, int plan, int row, int col), void *ctx, struct err *e);
bool block_mask_kept(const struct block_mask *m, int plan, int row, int col);
/* Kept share of query-key pairs, counted in tokens (tails are smaller). */
double block_mask_density(const struct block_mask *m);
/* Every row of every plan keeps something, tiles ascend, nothing is out of range: ERR_BUG else. */
int block_mask_check(const struct block_mask *m, struct err *e);

#endif
