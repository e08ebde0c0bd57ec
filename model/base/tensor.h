/* A view of numbers somewhere else: type, shape, address. Row-major, last axis fastest.
 * Owner: whoever owns data (a mapped file, an arena). data may be unaligned when it is in a file.
 */
#ifndef DITGEN_BASE_TENSOR_H
#define DITGEN_BASE_TENSOR_H

#include "model/base/dtype.h"

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

#endif
