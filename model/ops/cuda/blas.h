/* Products of linear layers on a GPU: y = act(x · Wᵀ + b), by cuBLASLt, which is opened at run time.
 *
 * x [rows, in], W [out, in], y [rows, out], features contiguous. Sums are fp32; TF32 is not used unless
 * asked for. One plan a shape, made before the first run: a run only enqueues, takes no memory, may
 * be recorded, and gives the same bytes each time.
 * Memory: the caller's, of the device; `room` has CUDA_BLAS_ROOM bytes, 256-byte aligned, and serves
 * one product at a time. Owner: open → close. Threads: one at a time. Errors: ERR_DEVICE (no library,
 * too old, no product of this kind on this card), ERR_USAGE (types). */
#ifndef DITGEN_OPS_CUDA_BLAS_H
#define DITGEN_OPS_CUDA_BLAS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/base/dtype.h"
#include "model/base/err.h"
#include "model/ops/rows.h"

#include <stdbool.h>
#include <stdint.h>

#define CUDA_BLAS_ROOM ((size_t)32 << 20) /* what Hopper's kernels ask for at most */

struct cuda_blas; /* the library on the current device */
int cuda_blas_open(struct cuda_blas **out, struct err *e);
void cuda_blas_close(struct cuda_blas *b); /* takes NULL */
int cuda_blas_version(const struct cuda_blas *b); /* 130000 */

enum cuda_scales { /* of e4m3 numbers: x = scale * code */
                   CUDA_NO_SCALES,
                   CUDA_ONE_SCALE, /* one number for x, one for W */
                   CUDA_ROW_SCALES, /* [rows] for x, [out] for W: where the card has none of these, as the next */
                   CUDA_ROW_SCALES_AFTER, /* the same by a launch behind the product, bias and act too */
};

struct cuda_product {
    int rows, in, out;
    enum dtype type; /* of x and W: BF16, F32 or F8_E4M3 */
    enum dtype y_type; /* BF16 or F32 */
    int64_t x_row, y_row; /* elements from row to row; 0: without gaps */
    enum activation act; /* of BF16 results before the one rounding */
    bool bias; /* there is one, of y_type */
    bool add; /* y += the product and bias, which is rounded to y_type first; without act */
    bool tf32; /* of F32: allowed */
    enum cuda_scales scales; /* of F8_E4M3 */
    bool fast; /* of F8_E4M3: partial sums stay in the matrix unit's own fewer bits */
    /* several at once of one x: W, bias and y of each lie so many elements after those before */
    int batch; /* 0 or 1: one */
    int64_t w_batch, bias_batch, y_batch;
};

struct cuda_matmul;
int cuda_matmul_open(struct cuda_matmul **out, struct cuda_blas *b, const struct cuda_product *p,
                     struct err *e);
void cuda_matmul_close(struct cuda_matmul *m); /* takes NULL */
/* How many launches a run is: 2 when the library has no kernel that does act, or scales a row, as well. */
int cuda_matmul_launches(const struct cuda_matmul *m);
int cuda_matmul_run(struct cuda_matmul *m, void *y, const void *x, const void *w, const void *bias,
                    const float *x_scale, const float *w_scale, void *room, void *stream,
                    struct err *e);

#ifdef __cplusplus
}
#endif

#endif
