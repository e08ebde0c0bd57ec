/* Operations on rows and numbers in a GPU's memory: what a DiT block has between its products, and
 * what stands before and after the blocks.
 *
 * The arithmetic is that of model/ops/rows.h: fp32 inside, rounded to the type of the result where
 * the reference stores it (wan.md 3.2). Rows are [rows, features] of bf16 or fp32 with features
 * contiguous. Several streams (guidance branches) lie one after another or turn by turn: a row's
 * token is (row / turns) % tokens.
 * Memory: pointers are the device's unless said otherwise; launchers enqueue on the stream, take
 * nothing and do not wait. Same input, same bytes. Threads: any; the current device is used.
 * Errors: ERR_USAGE (shapes that a kernel does not take, before anything is enqueued), ERR_DEVICE. */
#ifndef DITGEN_OPS_CUDA_ROWS_CUDA_H
#define DITGEN_OPS_CUDA_ROWS_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/base/dtype.h"
#include "model/base/err.h"
#include "model/ops/rows.h"

#include <stdbool.h>
#include <stdint.h>

/* --- rows.cu --- */

/* x += add * gate, where there is `add`; then y = LN(x) * weight + bias, * (1 + scale) + shift, where
 * there is y. One pass over memory: between two products of a block everything is this. */
struct cuda_norm {
    int rows, features; /* features: at most 8192; multiples of 8 are fast, with such strides */
    enum dtype type, y_type,
        add_type; /* of x, y and add: BF16 or F32 each; y from BF16 by eights also F8_E4M3 */
    bool round; /* results are bf16 values, in F32 too; add is narrowed before it is added */
    void *x; /* [rows, features]; changed when there is add */
    const void *add; /* [rows, features], or NULL */
    const float *gate; /* [mods, features], or NULL: 1 */
    void *y; /* [rows, features], not x unless add is NULL; or NULL */
    float *y_scale; /* [rows] of F8_E4M3: with y, the codes of what would be written as BF16 */
    int64_t x_row, add_row, y_row; /* elements from row to row */
    float eps;
    const float *weight, *bias; /* [features], both or NULL */
    const float *scale, *shift; /* [mods, features], both or NULL */
    /* set (row / rows_per_mod) % mods at gate, scale, shift + set * mod_stride; mods 1: one for all */
    int64_t mod_stride;
    int rows_per_mod, mods;
};
int cuda_norm(const struct cuda_norm *p, void *stream, struct err *e);

/* Each part: y = x * rsqrt(mean(x²) + eps) * weight over the whole row, turned by its token's
 * position where there is cos_t; or, without weight, a copy. Heads may lie elsewhere in y. */
#define CUDA_ROPE_PARTS 3
struct cuda_rope {
    int rows, features; /* features: at most 8192; multiples of 8 are fast, with such strides */
    enum dtype type;
    bool round; /* x is narrowed to bf16 first, and again after each of the two, in F32 too */
    int n_parts; /* q, k, v */
    struct {
        const void *x; /* row r at x + r * x_row */
        void
            *y; /* head h of row r at y + r * y_row + h * y_head; may be x when the strides agree */
        const float *weight; /* [features], or NULL: copied */
        int64_t x_row, y_row, y_head;
        bool turn; /* by cos_t, sin_t */
    } part[CUDA_ROPE_PARTS];
    float eps;
    const float *cos_t, *sin_t; /* [tokens, head_dim / 2] */
    int tokens, turns; /* of a row's token: see the top */
    int head_dim; /* divides features; even where a part turns */
};
int cuda_rope(const struct cuda_rope *p, void *stream, struct err *e);

/* --- numbers.cu --- */

/* y[i] = act(x[i]), from one type to another, each rounded to its own: casts are ACT_NONE. From F64,
 * F32, F16, BF16, F8_E4M3, F8_E5M2 to F32, BF16, F16. x may be y when the types are one. times:
 * multiplies before act (the scale of fp8 weights), 1 for none. */
struct cuda_map {
    const void *x;
    void *y;
    enum dtype from, to;
    size_t n;
    enum activation act;
    float times;
    bool round; /* x * times is narrowed to bf16 before act, and the result, in F32 too */
};
int cuda_map(const struct cuda_map *p, void *stream, struct err *e);
/* y[r, c] = x[r, c] of rows with strides, any type of 1, 2, 4 or 8 bytes; copies q | k | v apart. */
int cuda_copy_rows(void *y, int64_t y_row, const void *x, int64_t x_row, int rows, int cols,
                   size_t element, void *stream, struct err *e);
/* y [rows, n] fp32 = table [n] + m [rows, n], which is BF16 or F32 */
int cuda_add_table(float *y, int64_t y_row, const void *m, enum dtype type, int64_t m_row,
                   const float *table, int rows, int n, void *stream, struct err *e);

#define CUDA_TERMS 4
/* to = c[0] * from[0] + ... : lincomb.h, in its order of rounding. `c` is the device's when
 * c_device is set (a replayed step reads other numbers), else c. */
struct cuda_sum {
    float *to;
    const float *from[CUDA_TERMS];
    float c[CUDA_TERMS];
    const float *c_device; /* [n_terms] or NULL */
    int n_terms;
    size_t n;
    bool bf16; /* each product and sum is rounded to bf16 too */
};
int cuda_sum(const struct cuda_sum *p, void *stream, struct err *e);
/* *found, if 0, becomes label when some x[r, c] is NaN or infinite; F32 or BF16. */
int cuda_not_finite(int *found, int label, const void *x, enum dtype type, int rows, int cols,
                    int64_t row, void *stream, struct err *e);
/* room[0] = sum |a - b|, room[1] = sum |b| of n numbers, F32 or BF16 each, in double, in an order of n
 * alone; b NULL: sum |a|, and 0. room: CUDA_DISTANCE_ROOM doubles; behind the first two is scratch. */
#define CUDA_DISTANCE_ROOM 2050
int cuda_distance(double *room, const void *a, enum dtype a_type, const void *b, enum dtype b_type,
                  size_t n, void *stream, struct err *e);
/* frames [C = 3][H, W] or [H, W][3] fp32 of -1 .. 1 to bytes [H, W, 3]; clamped; truncate: as the
 * reference's integer cast, else to the nearest. NaN becomes 0. */
int cuda_to_bytes(uint8_t *bytes, const float *x, size_t pixels, bool planes, bool truncate,
                  void *stream, struct err *e);

/* --- embed.cu --- */

struct cuda_grid {
    int channels, frames, height, width; /* of latents [C, F, H, W] fp32 */
    int patch_h, patch_w; /* divide height, width */
    int64_t row; /* elements from one token's row of cols to the next */
};
/* cols [L, C * ph * pw], channel slowest; and cols [L, ph * pw * C], channel fastest, back: wan.md
 * 3.3. type: of cols */
int cuda_patchify(void *cols, enum dtype type, const float *latents, const struct cuda_grid *g,
                  void *stream, struct err *e);
int cuda_unpatchify(float *latents, const void *cols, enum dtype type, const struct cuda_grid *g,
                    void *stream, struct err *e);
/* sinus [n, 2 * half] = cosines, then sines of t[i] * freqs rounded to fp32, in double;
 * t and freqs [half] are the device's. */
int cuda_sinusoid(float *sinus, const float *t, const float *freqs, int n, int half, void *stream,
                  struct err *e);
/* y = act(W · pre(x) + b) of few rows: a weight is read once, by a warp a feature. Sums in fp32. */
struct cuda_few {
    int rows, in, out; /* rows: at most CUDA_FEW_ROWS; in: a multiple of 8 */
    const float *x; /* [rows, in] */
    float *y; /* [rows, out] */
    const void *weight; /* [out, in] of weight_type BF16 or F32 */
    const float *bias; /* [out] or NULL */
    enum dtype weight_type;
    enum activation pre, act;
    bool round_in, round_out; /* x before and after pre, y after act, to bf16 */
};
#define CUDA_FEW_ROWS 64
int cuda_few(const struct cuda_few *p, void *stream, struct err *e);

/* --- codes.cu: what fp8 products read, and what they leave to others --- */

/* q, scale: fp8.h's of act(x). GELU is its sigmoid form by fast units: within 2^-20 of its argument, so that a
 * code next to a tie may be the other one; without it bits are the judge's. */
struct cuda_row_codes {
    uint8_t *q; /* [rows, cols], 8-byte aligned */
    float *scale; /* [rows] */
    const void *x; /* [rows, cols] of BF16 or F32 */
    enum dtype type;
    int64_t x_row; /* elements from row to row */
    int rows, cols; /* cols and x_row: multiples of 8 */
    enum activation act; /* none, or GELU by tanh */
};
int cuda_row_codes(const struct cuda_row_codes *p, void *stream, struct err *e);
/* The same of rows without gaps; whole: one scale for all, scale [1] (then peak [1] uint32, zeroed, is
 * scratch). */
int cuda_codes(uint8_t *q, float *scale, uint32_t *peak, const void *x, enum dtype type, int rows,
               int cols, bool whole, void *stream, struct err *e);
/* y[r, c] = act(y[r, c] * x_scale[r] * w_scale[c] + bias[c]), y and bias (or NULL) of the type BF16 or F32: for
 * cards whose products take one scale a tensor. */
int cuda_scale_product(void *y, enum dtype type, int64_t y_row, const float *x_scale,
                       const float *w_scale, const void *bias, int rows, int out,
                       enum activation act, void *stream, struct err *e);

/* A few numbers of y = act(x) Wᵀ + b, as fp8 products made them, against sums of fp32 over x and rows of W in bf16:
 * adds their relative L2 error to sums[0] and 1 to sums[1]. */
#define CUDA_SAMPLE_ROWS 8
#define CUDA_SAMPLE_OUTS 8
#define CUDA_SAMPLE_OUT(i, out) ((int)((2 * (int64_t)(i) + 1) * (out) / (2 * CUDA_SAMPLE_OUTS)))
struct cuda_code_sample {
    const void *x, *y;
    enum dtype type, y_type; /* BF16 or F32 each */
    int64_t x_row, y_row;
    int rows, in, out;
    enum activation act;
    const void *weight; /* [CUDA_SAMPLE_OUTS, in] bf16: rows CUDA_SAMPLE_OUT(i, out) of W */
    const float *bias; /* [out] or NULL */
    double *sums; /* [2] */
};
int cuda_code_sample(const struct cuda_code_sample *p, void *stream, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
