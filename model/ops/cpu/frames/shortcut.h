/* The parameter-free shortcuts of the 2.2 VAE and its patches. wan.md 4.6, 4.7. */
#ifndef DITGEN_OPS_CPU_FRAMES_SHORTCUT_H
#define DITGEN_OPS_CPU_FRAMES_SHORTCUT_H

#include "model/ops/cpu/frames/border.h"

/* One output frame of DupUp: sub-frame `a` of ft. in, out: real channels; sizes name the frames. */
void dup_up(float *dst, const struct frame_size *to, int out, const float *src,
            const struct frame_size *from, int in, int ft, int a);
/* One output frame of AvgDown from ft input frames (NULL: a frame of zeros); fs 1 or 2. */
void avg_down(float *dst, const struct frame_size *to, int out, const float *const *src,
              const struct frame_size *from, int in, int ft, int fs);

/* A decoded frame, channels (c * p + sub_w) * p + sub_h, to rgb [h * p, w * p, 3], clamped to [-1,
 * 1]. */
void frame_to_rgb(float *rgb, const float *src, const struct frame_size *s, int patch);
void frame_from_rgb(float *dst, const struct frame_size *s, const float *rgb, int patch,
                    bool round);

#endif
