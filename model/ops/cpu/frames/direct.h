/* Convolutions as plain sums through model/ops/conv.h: what a bf16 run uses where the processor
 * multiplies bf16. A call narrows its input frames into one block, lets the library sum each output
 * frame, and finishes the sums as every convolution does (kernels.h).
 *
 * Owner: the arena holds weights and states; a set closes what the library made for them. Errors:
 * a set keeps the first one, and its convolutions do nothing after it. */
#ifndef DITGEN_OPS_CPU_FRAMES_DIRECT_H
#define DITGEN_OPS_CPU_FRAMES_DIRECT_H

#include "model/base/arena.h"
#include "model/ops/conv.h"
#include "model/ops/cpu/frames/border.h"

enum products {
    PRODUCTS_OWN, /* fp32 by kernels/: Winograd, or plain sums */
    PRODUCTS_LIBRARY_FP32, /* to test and time the path where no bf16 is */
    PRODUCTS_LIBRARY_BF16,
};

struct direct {
    struct direct *next; /* in its set */
    void *weight, *packed; /* plain [out, in, kt, side, side]; as the library likes it */
    struct conv3d *conv; /* for pictures of h x w; NULL before the first call */
    int h, w;
};

struct direct_set {
    enum products products;
    int least; /* channels that a convolution must read to be here; the others are our own */
    struct direct *first;
    struct err error; /* code ERR_NONE: none yet */
};

/* Below this many channels read, tiles of 32 x 16 bf16 run part empty, and Winograd in fp32 was
 * faster (tests/bench/vae/NOTES.md). */
#define DIRECT_LEAST 96

void direct_set_close(struct direct_set *s);

struct conv;
struct conv_call;
struct finish;

void direct_carve(struct conv *c, struct arena *a);
/* w: [out, in, kt, side * side] of the real channels. */
void direct_pack(struct conv *c, const float *w);
/* Floats for the whole call, all workers together. */
size_t direct_scratch(const struct conv *c, const struct frame_size *out, int frames);
void direct_run(const struct conv *c, const struct conv_call *call, const struct finish *f,
                float *scratch);

#endif
