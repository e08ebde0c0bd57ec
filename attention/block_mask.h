/* The plan of one attention call: which tiles of the score matrix are computed.
 *
 * Section 13 of the design: fixed blocks of block_q x block_k in raster order, the tail shorter;
 * kept tiles of each row as a list, as ranges or as bits, all naming the same set; the kernel's
 * result does not depend on the encoding. One plan for all heads, or one a head (n_plans =
 * n_heads). Owner: arrays live in the arena of the attn that made them. Threads: read-only while a
 * kernel runs. Errors: ERR_USAGE (sizes), ERR_BUG (a plan that breaks a rule). */
#ifndef DITGEN_ATTENTION_BLOCK_MASK_H
#define DITGEN_ATTENTION_BLOCK_MASK_H

#include "model/base/arena.h"
#include "model/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum block_map {
    BLOCK_MAP_DENSE, /* every tile */
    BLOCK_MAP_BITS, /* bits[plan][row][word] */
    BLOCK_MAP_RANGES, /* row_ptr, pairs (first, end) of tiles */
    BLOCK_MAP_LIST, /* row_ptr, ascending tile numbers */
};

struct block_mask {
    int len_q, len_k; /* tokens */
    int block_q, block_k; /* tokens a tile */
    int rows, cols; /* tiles: ceil(len / block), at most 65535 */
    int n_plans; /* 1: shared by all heads */
    enum block_map map;
    uint32_t *row_ptr; /* [n_plans * rows + 1] into tiles (LIST) or range pairs (RANGES) */
    uint16_t *tiles; /* LIST: tile numbers; RANGES: (first, end) pairs */
    uint64_t *bits; /* BITS: [n_plans * rows, words] */
    size_t tiles_capacity, words; /* uint16s in tiles; uint64s a row: (cols + 63) / 64 */
    const float *key_bias; /* [len_k] added to scaled scores, or NULL */
};

/* Sizes a mask and takes its arrays from the arena, large enough for every encoding of every plan;
 * all-kept (DENSE). */
int block_mask_init(struct block_mask *m, int len_q, int len_k, int block_q, int block_k,
                    int n_plans, struct arena *a, struct err *e);
/* Every tile, for good: a mask that needs no arrays and can take no other map. */
int block_mask_dense(struct block_mask *m, int len_q, int len_k, struct err *e);
/* A band for every plan, as RANGES: row i keeps the tiles that hold its own tokens and `tiles` more
 * on each side. Equal tiles: |i - j| <= tiles. Rows past the last key keep the band round the last
 * tile. */
int block_mask_band(struct block_mask *m, int tiles, struct err *e);
/* keep(ctx, plan, row, col) decides; encoded as `map`. DENSE keeps everything and asks nothing. */
int block_mask_build(struct block_mask *m, enum block_map map,
                     bool (*keep)(void *ctx, int plan, int row, int col), void *ctx, struct err *e);
bool block_mask_kept(const struct block_mask *m, int plan, int row, int col);
/* Kept share of query-key pairs, counted in tokens (tails are smaller). */
double block_mask_density(const struct block_mask *m);
/* Every row of every plan keeps something, tiles ascend, nothing is out of range: ERR_BUG else. */
int block_mask_check(const struct block_mask *m, struct err *e);

/* Walks one row's kept keys as the longest possible runs, ascending: what kernels execute. The runs
 * depend on the kept set alone, which is why the encoding cannot change a result.
 *     for (struct block_run r = block_run_begin(m, plan, row); block_run_next(&r);) use r.k0..r.k1
 */
struct block_run {
    const struct block_mask *mask;
    size_t row; /* plan * rows + row */
    uint32_t at; /* LIST, RANGES: next entry; BITS, DENSE: next tile */
    int k0, k1; /* the run: keys [k0, k1) */
};
struct block_run block_run_begin(const struct block_mask *m, int plan, int row);
bool block_run_next(struct block_run *r); /* false: no more */

#endif
