/* Convolutions as plain sums over their taps, by oneDNN; for processors that multiply bf16.
 *
 * y [h', w', out] fp32 = sum over kt frames x [kt, h, w, in] and a window of side x side, zeros
 * beside the picture, no bias. x and weight are fp32 or bf16, sums fp32. Side 1 or 3; stride 1
 * (centred) or 2 (window 2y .. 2y + 2). Owner: conv3d_open → conv3d_close. Threads: one call at a
 * time a convolution. Errors: ERR_DEVICE (not in this build, or the processor cannot),
 * ERR_RESOURCE. */
#ifndef DITGEN_OPS_CONV_H
#define DITGEN_OPS_CONV_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct conv3d_params {
    int in, out, kt, side, stride;
    int h, w; /* of x */
    bool bf16;
};

struct conv3d; /* opaque */

/* true when this build has them; with bf16, when the processor multiplies it natively. */
bool conv3d_available(bool bf16);
/* Room that packed weights need at most, as far as can be said without asking. */
size_t conv3d_packed_bytes(const struct conv3d_params *p);
/* weight [out, in, kt, side, side] of the type. packed: room for conv3d_packed_bytes(), 64-byte
 * aligned, which must outlive the convolution; what does not fit is taken from the heap. */
int conv3d_open(struct conv3d **c, const struct conv3d_params *p, const void *weight, void *packed,
                struct err *e);
void conv3d_close(struct conv3d *c); /* takes NULL */
/* scratch: conv3d_scratch_bytes() of these parameters, 64-byte aligned. */
int conv3d_run(struct conv3d *c, float *y, const void *x, void *scratch, struct err *e);
/* 0 where the convolution cannot be. Asks the library: about a millisecond. */
size_t conv3d_scratch_bytes(const struct conv3d_params *p);

#endif
