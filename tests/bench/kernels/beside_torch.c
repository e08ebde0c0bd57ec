/* Dense attention of Hopper for a process that holds PyTorch (compare_attention.py): q, k, v, o [len, heads, dim]
 * bf16 of the device, on the caller's stream. Nonzero with a sentence in why. */
#include "attention/kernels/cuda/attn_cuda.h"

#include <stdio.h>

size_t beside_torch_scratch(void);
int beside_torch_dense(void *o, void *q, void *k, void *v, int len, int heads, int dim,
                       void *scratch, void *stream, char *why, size_t size);

size_t beside_torch_scratch(void) { return attn_cuda_scratch(); }

int beside_torch_dense(void *o, void *q, void *k, void *v, int len, int heads, int dim,
                       void *scratch, void *stream, char *why, size_t size)
{
    int64_t token = (int64_t)heads * dim;
    struct err e = {0};
    struct attn_cuda w = {.q = {q, token, dim},
                          .k = {k, token, dim},
                          .v = {v, token, dim},
                          .o = {o, token, dim},
                          .len_q = len,
                          .len_k = len,
                          .n_heads = heads,
                          .head_dim = dim,
                          .scratch = scratch,
                          .stream = stream};
    if (attn_sm90(&w, &e) == 0) return 0;
    snprintf(why, size, "%s", e.msg);
    return (int)e.code;
}
