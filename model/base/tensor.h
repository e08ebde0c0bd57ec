/* A view of numbers somewhere else: type, shape, address. Row-major, last axis fastest.
 * Owner: whoever owns data (a mapped file, an arena). data may be unaligned when it is in a file.
 */
#ifndef DITGEN_BASE_TENSOR_H
#define DITGEN_BASE_TENSOR_H

#include "model/base/dtype.h"

#include <stddef.h>
#include <stdint.h>

#define TENSOR_MAX_DIMS 8

struct tensor {
    const void *data;
    enum dtype dtype;
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS];
};

static inline size_t tensor_len(const struct tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= (size_t)t->shape[i];
    return n;
}

/* "[8960, 1536]", at most n - 1 bytes. */
void tensor_shape_text(char *buf, size_t n, int n_dims, const int64_t *shape);

/* In whose memory. */
enum place { PLACE_HOST, PLACE_DEVICE };

/* [n, cols]: what the operations of a device read and write. A view owns nothing; a row's numbers lie
 * together. Of F8_E4M3, which operations of PRECISION_FP8 alone take, a number is its row's scale times the
 * value of its code (model/ops/fp8.h). */
struct rows {
    void *at; /* of row 0; NULL: no such tensor */
    enum dtype type;
    enum place where;
    int64_t n, cols;
    int64_t stride; /* elements from one row to the next */
    float *scale; /* [n] of F8_E4M3, in the same memory; else NULL */
};

/* [len, n, dim]: what attention calls q, k, v and o. A view owns nothing; channels are contiguous. */
struct heads {
    void *at; /* of token 0, head 0; NULL: no such tensor */
    enum dtype type;
    enum place where;
    int len, n, dim; /* tokens, heads, channels a head */
    int64_t token, head; /* elements from one token to the next, from one head to the next */
};

/* Element [token, head, 0], of a host or a device. */
static inline void *heads_at(const struct heads *h, int token, int head)
{
    return (char *)h->at +
           ((int64_t)token * h->token + (int64_t)head * h->head) * (int64_t)dtype_size(h->type);
}

/* fp32 of the host as the model keeps it: [len, n, dim] without gaps. */
static inline struct heads heads_f32(const float *at, int len, int n, int dim)
{
    struct heads h = {0};
    h.at = (void *)(uintptr_t)at;
    h.type = DTYPE_F32;
    h.len = len;
    h.n = n;
    h.dim = dim;
    h.token = (int64_t)n * dim;
    h.head = dim;
    return h;
}

#endif
