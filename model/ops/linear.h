/* Linear layers: y = act(x · Wᵀ + b).
 *
 * All activations are fp32 [rows, features] row-major. With PRECISION_BF16* the inputs and weights
 * are rounded to bf16, sums are fp32, and the result is rounded to bf16 where `round_out` says so
 * (wan.md 3.2). Weights are packed once at open (or borrowed as they lie in the file). Results do
 * not depend on the number of threads.
 * Products: oneDNN when built with it, else plain C (slow). ref_linear() is the judge of both.
 * Owner: linear_open → linear_close. Threads: one call at a time a layer. */
#ifndef DITGEN_OPS_LINEAR_H
#define DITGEN_OPS_LINEAR_H

#include "model/base/err.h"
#include "model/base/tensor.h"
#include "model/ops/rows.h"

struct linear; /* opaque */

struct linear_params {
    int in, out;
    enum precision precision;
    enum activation act;
    bool round_out; /* bf16 precisions only: result narrowed to bf16 (else the reader does it) */
    bool borrow; /* keep the weight where it lies (mapped file), unpacked: for weights used once */
    /* On a device: where all that it keeps of weight and bias lies, ops->linear_bytes() of the caller's,
     * 256-byte aligned; NULL: the layer's own. Nothing else of a weight is kept, so that these bytes,
     * copied here from another layer of the same shape, are that layer's weight. The host packs its own. */
    void *at;
    bool sent; /* the weight lies there already, as ops->linear_as_is() says that it may */
};

/* weight [out, in], bias [out] or NULL; F32, BF16, F16 or F64. With borrow, weight may be NULL and
 * set later by linear_rebind(). Errors: ERR_INPUT (dtype), ERR_RESOURCE. */
int linear_open(struct linear **out, const struct linear_params *p, const struct tensor *weight,
                const struct tensor *bias, struct err *e);
/* Many layers one after another: the room that a weight is converted in is kept from one to the
 * next. Zero it first; free() data after the last. */
struct linear_stage {
    void *data;
    size_t bytes;
};
int linear_open_staged(struct linear **out, const struct linear_params *p,
                       const struct tensor *weight, const struct tensor *bias,
                       struct linear_stage *stage, struct err *e);
void linear_close(struct linear *l); /* takes NULL */
/* borrow only: points the layer at another weight of the same shape (next layer, same primitive). */
int linear_rebind(struct linear *l, const struct tensor *weight, const struct tensor *bias,
                  struct err *e);

/* Makes the layer ready for `rows` rows: after it, linear_run() with this count allocates nothing
 * until the threads change. Several counts may be prepared. Returns the scratch bytes that run
 * needs in *scratch. */
int linear_prepare(struct linear *l, int rows, size_t *scratch, struct err *e);
/* The same of linear_run_chain(). */
int linear_prepare_chain(struct linear *first, struct linear *second, int rows, size_t *scratch,
                         struct err *e);
/* What they will return of layers with biases, without any; reads no weights. */
size_t linear_scratch(const struct linear_params *p, int rows);
size_t linear_chain_scratch(const struct linear_params *first, const struct linear_params *second,
                            int rows);

/* y [rows, out], x [rows, in], scratch of the prepared size (NULL: taken from the heap); no more
 * threads work in it than there were when it was prepared.
 * x and y may not overlap. A count that was not prepared is prepared (and allocates). */
int linear_run(struct linear *l, float *y, const float *x, int rows, void *scratch, struct err *e);
/* y[i] = l[i](x) of n packed layers that read the same x, which is rounded once. scratch: the
 * largest of theirs. */
int linear_run_several(struct linear *const *l, float *const *y, int n, const float *x, int rows,
                       void *scratch, struct err *e);
/* y = second(first(x)) of packed layers; the middle is never whole in memory. scratch: of
 * linear_prepare_chain(). */
int linear_run_chain(struct linear *first, struct linear *second, float *y, const float *x,
                     int rows, void *scratch, struct err *e);

/* Bytes of packed weight and bias a layer of this shape keeps; reads no weights. */
size_t linear_bytes(const struct linear_params *p);

/* The judge: double accumulation, any precision rule as above. */
void ref_linear(float *y, const float *x, const float *w, const float *b, int rows, int in, int out,
                enum activation act);

/* "oneDNN 2.6.3 (avx2)" or "plain C (slow: built without oneDNN)"; static storage. */
const char *ops_backend(void);
bool ops_are_slow(void); /* true: plain C, many times slower than the processor can */
/* true when this build and this processor multiply bf16 natively (AVX512-BF16 or AMX). */
bool ops_has_bf16(void);

#endif
