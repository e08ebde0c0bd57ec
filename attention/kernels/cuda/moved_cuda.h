/* Tokens in the order of a plan and back (moved.cu): kernels for tiles read and write positions, tensors stand by token.
 *
 * A piece of work is some heads of a plan. There, numbers lie bf16 [N, rows, D] without gaps, all heads of the
 * job having a place. Memory, threads and errors as attn_cuda.h; head_dim a multiple of 8, strides multiples of 8
 * elements. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_MOVED_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_MOVED_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

struct moved_order { /* of the device; token NULL: position i is token i */
    const int32_t *token;
    int64_t stride; /* from the table of one of the plan's heads to the next; 0: shared */
};

struct moved {
    int n_heads, head_dim,
        named; /* heads of the plan; named: which they are, else 0 .. n_heads - 1 */
    uint8_t heads[256];
    void *stream;
};

/* to [N, rows, D]: row i of a head is token order[i] of `from`. */
int moved_there(void *to, const struct attn_tensor *from, const struct moved_order *order, int rows,
                const struct moved *m, struct err *e);

/* What becomes of `rows` positions of the plan's output `x`:
 *
 *   o          x, and less or more: by what. x.at may be o.at, in which case order names nothing
 *   residual   by token, as o */
enum moved_what {
    MOVED_BACK, /* o = x */
    MOVED_ADD, /* o = x + residual */
    MOVED_LESS, /* o = x; residual = x - y */
    MOVED_BOTH, /* o = x; residual = y */
};
struct moved_result {
    struct attn_tensor x, y, o, residual; /* x, y: by position */
    const float *lse_from; /* [N, rows] by position → lse [N, rows] by token; NULL: none */
    float *lse;
    struct moved_order order;
    int rows;
    enum moved_what what;
};
int moved_back(const struct moved_result *b, const struct moved *m, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
