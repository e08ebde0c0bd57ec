/* 8-bit attention in plain C: codes of q, k and v, and what a kernel must make of them.
 *
 * SageAttention2 (arXiv 2411.10958) as of attention-kernels 1.2: s = q8·k8 · sq · sk with integer
 * codes whose scales are shared by the queries and keys that one lane of a tensor core's fragment
 * holds; softmax in fp32; weights to e4m3 or to unsigned bytes; products with values in two levels,
 * QUANT_BLOCK keys exactly, then fp32. Not rounded where a kernel does not round, rounded where it
 * does: who computes wider than this differs from it.
 *
 * The struct is the same on a GPU, with device pointers (quant_qkv.cu, sage_sm90.cu); here they are
 * the host's. Memory: the caller's, carved by quant_codes_carve(). Threads: reading is free;
 * quant_ref() is one thread's. No errors. */
#ifndef DITGEN_ATTENTION_KERNELS_QUANT_REF_H
#define DITGEN_ATTENTION_KERNELS_QUANT_REF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUANT_BLOCK                                                                                \
    128 /* keys that share four scales and one sum; lengths are rounded up to it                   \
         */
#define QUANT_K_SCALES                                                                             \
    8 /* words a block of keys: scales of tokens 0,1 / 2,3 / 4,5 / 6,7 of 8; factor of values; 0   \
       */
#define QUANT_MOST_POOLS 4 /* means a block, at most */

enum quant_values {
    QUANT_E4M3, /* v / v_scale to e4m3, weights times 448 too */
    QUANT_S8, /* v / (v_scale · factor of the block) to signed bytes, weights of a tile to 0..255 of
                 its own maximum */
};

struct quant_how {
    int bits; /* of a code of q and k: 8 (+-127) or 4 (+-7); a byte each either way */
    bool smooth_k; /* codes are of k - its mean over all keys: changes a row's scores by one
                      constant */
    bool smooth_q; /* codes are of q - its mean over QUANT_BLOCK queries; delta makes up for it */
    bool rotate; /* codes are of Hadamard-rotated rows: q·k stays, outlier channels spread */
    enum quant_values values;
    int pools; /* means of q and k wanted a block: 0, 1, 2, 4 */
};

struct quant_codes {
    int len_q, len_k, n_heads, head_dim;
    struct quant_how how;
    int q_blocks, k_blocks; /* of QUANT_BLOCK tokens */
    int8_t *q, *k; /* [N, blocks * 128, D]; 0 past the last token */
    float *q_scale; /* [N, q_blocks * 64]: of queries 16 i + j and 16 i + j + 8 at 8 i + j */
    float *k_scale; /* [N, k_blocks, QUANT_K_SCALES] */
    uint8_t *v; /* [N, k_blocks, D, 128], token t of a block at quant_slot(t) */
    float *v_scale; /* [N, D] */
    float *k_mean; /* [N, D], 0 unless smooth_k */
    float *lse_shift; /* [N, len_q] what smoothing k takes from lse: q·k_mean / sqrt(D) */
    float *q_mean; /* [N, q_blocks, D] what smooth_q takes off; NULL without */
    float *delta; /* [N, q_blocks, k_blocks * 128] (q_mean · (k - k_mean)) of a key; NULL without
                     smooth_q */
    float *q_pool, *k_pool; /* [N, blocks * pools, D] means of what came in; NULL when pools is 0 */
    float *partial; /* [N, quant_chunks, 2, D] a GPU's first pass: sums of keys, largest values */
};

#define QUANT_CHUNK 256 /* tokens a block of the first pass */
static inline int quant_chunks(int len) { return (len + QUANT_CHUNK - 1) / QUANT_CHUNK; }

/* Lays the arrays of len_q ... how out from `at`, 256-byte aligned, and says how many bytes they
 * take. at NULL: counts. */
size_t quant_codes_carve(struct quant_codes *c, void *at);

/* Where key t of a block stands among the values: fragments of weights are then fragments of scores
 * (1.2 step 5). */
static inline int quant_slot(int t)
{
    int r = t % 16;
    return t - r + 2 * (r / 8) + 4 * (r % 8 / 2) + r % 2;
}
uint8_t quant_e4m3(float x); /* nearest even, +-448 at most; NaN stays */
float quant_e4m3_value(uint8_t code);
void quant_rotate(
    float *x,
    int dim); /* Walsh-Hadamard / sqrt(dim), in the order of the kernels; dim a power of 2 */

struct quant_rows { /* fp32, channels contiguous, strides in elements */
    const float *at;
    int64_t token, head;
};
/* Means, scales, codes, everything but partial, of one host's tensors. */
void quant_ref(struct quant_codes *c, const struct quant_rows *q, const struct quant_rows *k,
               const struct quant_rows *v);
/* The same from means and value scales that are there (k_mean, v_scale, q_mean): a GPU adds in
 * another order, and its codes follow from its means. */
void quant_ref_codes(struct quant_codes *c, const struct quant_rows *q, const struct quant_rows *k,
                     const struct quant_rows *v);

/* o [D] fp32 and lse of one query over n tiles of QUANT_BLOCK keys in this order; rise[i]: by what,
 * in powers of two, the largest score of the i-th tile is above the largest before it (infinite at
 * the first). lse and rise may be NULL. n 0: zeros and -inf. */
void quant_attend(float *o, float *lse, float *rise, const struct quant_codes *c, int head,
                  int query, const uint32_t *tiles, int n);

#ifdef __cplusplus
}
#endif

#endif
