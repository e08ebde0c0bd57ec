/* Shapes in words; see tensor.h. */
#include "model/base/tensor.h"

#include <stdio.h>

void tensor_shape_text(char *buf, size_t n, int n_dims, const int64_t *shape)
{
    size_t at = (size_t)snprintf(buf, n, "[");
    for (int i = 0; i < n_dims && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (at < n) snprintf(buf + at, n - at, "]");
}
