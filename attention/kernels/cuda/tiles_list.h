/* Steps of lists from bits (tiles_list.cu): what attn_lists.steps holds, for rows whose offsets stand. Memory, threads and
 * errors as attn_cuda.h. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_TILES_LIST_H
#define DITGEN_ATTENTION_KERNELS_CUDA_TILES_LIST_H

#include "attention/kernels/cuda/attn_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tiles_listing {
    uint32_t *steps;
    const uint32_t *row_ptr; /* [plan_rows + 1] */
    const uint32_t *kept, *mean; /* [plan_rows, words]; mean: of tiles that are not kept, or NULL */
    int plan_rows, words, block_k;
    int falls; /* tiles in falling order; means come last either way */
};
int tiles_list(const struct tiles_listing *l, void *stream, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
