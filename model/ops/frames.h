/* What a VAE asks of a device: convolutions over lists of frames with the norm behind them, one wide
 * attention head, shortcuts, and the ends of the pipeline.
 *
 * A frame is a block of the device's memory, frame_bytes() long, that holds [h, w, channels padded]
 * (frame.h); how lies with the table: the host keeps fp32 inside a border of zeros, a GPU bf16 or
 * fp32 without one. Lists of pointers name frames, so that one becomes the past of a causal
 * convolution by a swap of pointers and never by a copy. Padded channels hold 0.
 *
 * Everything is put on the device's line of work. Nothing returns an error: the first one waits in
 * frames_on.failed, and nothing is done after it; whoever waits for results looks there. Owner: frames_open
 * → frames_close, after the last use; memory is the caller's arenas. Threads: one call at a time. */
#ifndef DITGEN_OPS_FRAMES_H
#define DITGEN_OPS_FRAMES_H

#include "model/base/arena.h"
#include "model/base/device.h"
#include "model/base/tensor.h"
#include "model/ops/cpu/frames/conv.h"
#include "model/ops/frame.h"

struct frame_ops;

/* Where frames are computed, and in which numbers. */
struct frames_on {
    struct device *device; /* NULL: the host */
    const struct frame_ops *ops;
    bool away; /* memory is not the host's */
    bool round; /* bf16 storage */
    struct err failed; /* code ERR_NONE: nothing yet */
    void *own; /* the table's */
    /* the host's alone */
    const struct vae_kernels *kernels;
    struct direct_set set; /* whose products the convolutions take */
    int threads;
    size_t stride; /* floats from one worker's scratch to the next */
};

struct frame_conv { /* one convolution: laid out by conv_carve, filled by conv_pack */
    struct conv_shape shape;
    void *weight; /* as the table's products like it */
    float *bias;
    struct conv host; /* the host's alone */
};

struct frame_call {
    /* kt = 3: output f reads src[f * step .. f * step + 2]; kt = 1: src[f] */
    void *src[MAX_FRAMES + 2];
    int missing; /* the first ones of src that lie before the clip: not read */
    struct frame_size in, out;
    int frames; /* that come out */
    /* Lists of `frames`, or NULL. x = conv + bias + residual; norm = its RMS norm by gamma, through SiLU
     * or not. At least one of x and norm; residual may be x. */
    void *const *residual, *const *x, *const *norm;
    const float *gamma;
    bool silu;
};

struct frame_attention_room { /* memory of its own that attention keeps */
    void *keys, *values;
};

struct frame_attention { /* of one frame: softmax(q kᵀ / sqrt(channels)) v over its pixels */
    void *o, *q, *k, *v;
    struct frame_size size;
    int channels; /* real */
};

struct frame_latents { /* [channels, frames, h, w] fp32 of the device */
    float *at;
    int channels, frames, t; /* t: which frame is meant */
    /* of the host: in: v / scale + shift; out: (v - shift) * scale */
    const float *scale, *shift;
};

struct frame_pictures { /* decoded frames of 3 patch² channels (c * patch + x) * patch + y */
    void *const *frames;
    int n, patch;
    struct frame_size size;
    /* [n, h * patch, w * patch, 3] of the device: clamped to [-1, 1] (NULL: not kept, where memory is
     * away); bytes (or NULL), to nearest (half to even) or truncated */
    float *rgb;
    uint8_t *bytes;
    bool truncate;
    int *bad; /* of the device: becomes 1 where a number is none; never set back */
};

struct frame_ops {
    enum device_kind kind;
    /* What the caller has set of the host's (kernels, set) stays, the rest is filled. */
    int (*open)(struct frames_on *on, enum precision precision, struct err *e);
    void (*close)(struct frames_on *on);

    size_t (*bytes)(const struct frames_on *on, const struct frame_size *s);
    /* A frame that was just taken: what nobody will write becomes 0; whole: all of it. */
    void (*clear)(struct frames_on *on, void *frame, const struct frame_size *s, bool whole);
    void (*copy)(struct frames_on *on, void *to, const void *from, const struct frame_size *s);
    /* fp32 of the host → of the device */
    void (*put)(struct frames_on *on, float *to, const float *from, size_t n);
    bool (*finite)(struct frames_on *on, void *const *frames, int n, const struct frame_size *s);

    void (*conv_carve)(const struct frames_on *on, struct frame_conv *c, const struct conv_shape *s,
                       struct arena *a);
    /* weight [.., in, kt, ks, ks] and bias [..] of the host, F32, BF16, F16 or F64, of which this
     * convolution has the rows from first_out on; rounded where the run rounds. */
    void (*conv_pack)(struct frames_on *on, struct frame_conv *c, const struct tensor *weight,
                      const struct tensor *bias, int first_out);
    /* Scratch of all: `most` is the largest that conv_scratch and attend_scratch said (of one worker, on
     * the host). */
    size_t (*scratch)(struct frames_on *on, size_t most);
    /* For any count of frames up to `frames`. */
    size_t (*conv_scratch)(const struct frames_on *on, const struct frame_conv *c,
                           const struct frame_size *out, int frames);
    void (*conv)(struct frames_on *on, const struct frame_conv *c, const struct frame_call *call,
                 void *scratch);

    void (*attend_carve)(const struct frames_on *on, struct frame_attention_room *room,
                         const struct frame_size *s, int channels, struct arena *a);
    size_t (*attend_scratch)(const struct frames_on *on, const struct frame_size *s, int channels);
    void (*attend)(struct frames_on *on, const struct frame_attention *a,
                   const struct frame_attention_room *room, void *scratch);

    /* x = frame + residual (or NULL), norm = its norm: what a convolution does at its end, alone. */
    void (*settle)(struct frames_on *on, const struct frame_size *s, int channels,
                   const void *frame, const void *residual, void *x, void *norm,
                   const float *gamma);
    /* 2.2's shortcuts, wan.md 4.6: one output frame; from NULL: zeros. */
    void (*dup_up)(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                   const void *from, const struct frame_size *size, int in, int ft, int a);
    void (*avg_down)(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                     const void *const *from, const struct frame_size *size, int in, int ft,
                     int fs);

    void (*latents_in)(struct frames_on *on, void *frame, const struct frame_size *s,
                       const struct frame_latents *l);
    void (*latents_out)(struct frames_on *on, const struct frame_latents *l, const void *frame,
                        const struct frame_size *s);
    void (*pictures_out)(struct frames_on *on, const struct frame_pictures *p);
    /* rgb [h * patch, w * patch, 3] fp32 of the device */
    void (*picture_in)(struct frames_on *on, void *frame, const struct frame_size *s,
                       const float *rgb, int patch);

    /* Frames a piece at most, for lists of this size; `least` at a time (whole pairs). */
    int (*piece)(const struct frames_on *on, const struct frame_size *s, int least);
};

extern const struct frame_ops frame_ops_cpu;
/* For tables: numbers first .. first + n - 1 of a tensor as fp32, rounded where the run rounds; false: it
 * is of another type, and on->failed says so. */
bool frames_read(struct frames_on *on, float *to, const struct tensor *t, size_t first, size_t n);
/* on->ops by device; ERR_DEVICE where there are none. */
int frames_open(struct frames_on *on, struct device *device, enum precision precision,
                struct err *e);
void frames_close(struct frames_on *on);

/* Takes n frames; counting arenas give NULL. */
void frames_take(struct frames_on *on, void **list, int n, const struct frame_size *s,
                 struct arena *a);
/* The same, all zero: for frames whose channels past the real ones nobody writes. */
void frames_take_zero(struct frames_on *on, void **list, int n, const struct frame_size *s,
                      struct arena *a);

#endif
