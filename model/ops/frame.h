/* Pictures between the VAE's layers, and the windows that slide over them: sizes alone. */
#ifndef DITGEN_OPS_FRAME_H
#define DITGEN_OPS_FRAME_H

#include <stdbool.h>
#include <stddef.h>

#define FRAME_LANES 8 /* channels are padded to it: 16 bytes of bf16, an AVX register of fp32 */
#define MAX_FRAMES 16 /* of one stage in one call */

struct frame_size {
    int h, w; /* pixels */
    int channels; /* padded: a multiple of FRAME_LANES */
};

static inline int pad_channels(int c) { return (c + FRAME_LANES - 1) / FRAME_LANES * FRAME_LANES; }

static inline struct frame_size frame_size(int h, int w, int channels)
{
    return (struct frame_size){h, w, pad_channels(channels)};
}

struct conv_shape {
    int in, out; /* real channels */
    int kt, ks; /* taps in time (1, 3) and a side in space (1, 3) */
    int stride; /* space: 1, or 2 (window 2y..2y+2, not centred) */
    int step; /* time: input frames an output frame moves on by (1, 2) */
    bool up; /* the input is doubled by nearest neighbour first; ks 3, kt 1 */
};

#endif
