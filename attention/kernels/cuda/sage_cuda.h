/* 8-bit attention on NVIDIA GPUs: codes from q, k and v, then attention over them.
 *
 * The codes are attention/kernels/quant_ref.h's struct with device pointers; quant_ref.c is the
 * judge of both. Plans are attn_lists of 128 x 128 tiles, as of attn_cuda.h. Memory, threads and
 * errors as there: launchers enqueue, allocate nothing, do not wait.
 *
 * The room reaches them by its row `sage` (device_cuda.c). What a card has run, and how fast, is in
 * tests/bench/NOTES_kernels.md. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SAGE_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_SAGE_CUDA_H

#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/quant_ref.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- sage_row.c: what the room's row wants of the host; attention/device.h --- */

struct attn_size;
struct attn_job;
size_t sage_scratch(const struct attn_size *s); /* attn_cuda_scratch(), then the codes */
unsigned sage_pays(const struct attn_size *s);
/* The codes that the job's plan asks for, laid out in its scratch. ERR_DEVICE: other than these kernels do. */
int sage_codes(struct quant_codes *c, const struct attn_job *j, struct err *e);

/* --- quant_qkv.cu: sm_80 and later --- */

/* Fills every array of c from w->q, w->k, w->v (bf16, strides as attn_cuda says); w->stream; the
 * rest of w but the sizes is not looked at. c: carved by quant_codes_carve() on device memory. */
int quant_qkv(struct quant_codes *c, const struct attn_cuda *w, struct err *e);

/* --- sage_sm90.cu: sm_90a --- */

struct sage_tile { /* one instance */
    const char *kernel; /* sage_sm90, sage_sparse_sm90 */
    int head_dim, block_q, stages, threads;
    enum quant_values values;
    bool list, record, delta;
    size_t shared;
};
/* Whether the codes and the call belong together and are taken: ERR_USAGE or ERR_BUG with a
 * sentence (sage_shape.c, host). w->q, w->k, w->v and their means are not looked at. */
int sage_check(const struct quant_codes *c, const struct attn_cuda *w, struct err *e);
/* o, lse and alive of w from c. lse is that of q and k themselves: what smoothing took is given
 * back. */
int sage_sm90(const struct quant_codes *c, const struct attn_cuda *w, struct err *e);
/* For measurements, as attn_sm90_variant() and its sisters. */
const char *sage_sm90_variant(int variant, struct sage_tile *t);
bool sage_sm90_takes(const struct quant_codes *c, const struct attn_cuda *w, int variant);
int sage_sm90_as(const struct quant_codes *c, const struct attn_cuda *w, int variant,
                 struct err *e);

#ifdef __cplusplus
}
#endif

#endif
