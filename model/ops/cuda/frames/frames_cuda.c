/* Frames on a GPU: lists to launches. */
#include "model/ops/cuda/frames/frames_cuda.h"

#include "model/base/device_table.h"
#include "model/ops/cuda/frames/conv_cuda.h"
#include "model/ops/ops.h"

#include <stdlib.h>
#include <string.h>

/* Of one list of frames: three lists and the past of six convolutions make a level, and the widest level
 * of a 2.1 decoder at 832x480 has frames of 73 MiB. */
#define MOST_LIST ((size_t)160 << 20)

static bool is_bf16(const struct frames_on *on) { return on->round; }

static size_t size_of(const struct frames_on *on) { return is_bf16(on) ? 2 : 4; }

/* false: something failed before; else one more operation is counted */
static bool going(struct frames_on *on, int op)
{
    if (on->failed.code != ERR_NONE) return false;
    device_did(on->device, op);
    return true;
}

static void *stream(const struct frames_on *on) { return device_stream(on->device); }

static int cuda_open(struct frames_on *on, enum precision precision, struct err *e)
{
    enum dtype type;
    if (ops_of(on->device)->type(on->device, precision, &type, e) < 0) return -1;
    on->round = type == DTYPE_BF16;
    on->kernels = NULL;
    return device_alloc(on->device, &on->own, 256, e); /* a flag, for finite() */
}

static void cuda_close(struct frames_on *on)
{
    if (on->own) device_free(on->device, on->own);
    on->own = NULL;
}

static size_t cuda_bytes(const struct frames_on *on, const struct frame_size *s)
{
    size_t n = (size_t)s->h * (size_t)s->w * (size_t)s->channels * size_of(on);
    return (n + 255) / 256 * 256;
}

static void cuda_clear(struct frames_on *on, void *frame, const struct frame_size *s, bool whole)
{
    if (whole && on->failed.code == ERR_NONE)
        device_zero(on->device, frame, cuda_bytes(on, s), &on->failed);
}

static void cuda_copy(struct frames_on *on, void *to, const void *from, const struct frame_size *s)
{
    if (going(on, OP_FRAMES)) device_copy(on->device, to, from, cuda_bytes(on, s), &on->failed);
}

static void cuda_put(struct frames_on *on, float *to, const float *from, size_t n)
{
    if (on->failed.code == ERR_NONE)
        device_upload(on->device, to, from, n * sizeof *to, &on->failed);
}

static bool cuda_finite(struct frames_on *on, void *const *frames, int n,
                        const struct frame_size *s)
{
    int bad = 0;
    size_t len = (size_t)s->h * (size_t)s->w * (size_t)s->channels;
    if (!going(on, OP_FINITE) || device_zero(on->device, on->own, sizeof bad, &on->failed) < 0)
        return true;
    for (int f = 0; f < n; f++)
        if (finite_cuda(on->own, frames[f], len, is_bf16(on), stream(on), &on->failed) < 0)
            return true;
    device_download(on->device, &bad, on->own, sizeof bad, &on->failed);
    return !bad;
}

/* --- convolutions --- */

static size_t weight_len(const struct conv_shape *s)
{
    return (size_t)(s->kt * s->ks * s->ks) * (size_t)s->out * (size_t)pad_channels(s->in);
}

static void cuda_conv_carve(const struct frames_on *on, struct frame_conv *c,
                            const struct conv_shape *s, struct arena *a)
{
    *c = (struct frame_conv){.shape = *s};
    c->weight = arena_take(a, weight_len(s) * size_of(on));
    c->bias = arena_take(a, (size_t)s->out * sizeof(float));
}

/* Goes up as the file holds it, and is packed there: the room it passes through is given back. */
static void cuda_conv_pack(struct frames_on *on, struct frame_conv *c, const struct tensor *weight,
                           const struct tensor *bias, int first_out)
{
    static const struct {
        enum dtype of;
        enum conv_weight_type is;
    } types[] = {{DTYPE_F32, CONV_WEIGHT_F32},
                 {DTYPE_F64, CONV_WEIGHT_F64},
                 {DTYPE_BF16, CONV_WEIGHT_BF16},
                 {DTYPE_F16, CONV_WEIGHT_F16}};
    const struct conv_shape *s = &c->shape;
    struct err *e = &on->failed;
    struct conv_weight w = {s->out, s->in, s->kt * s->ks * s->ks, CONV_WEIGHT_F32, is_bf16(on)};
    size_t row = (size_t)(s->in * w.taps) * dtype_size(weight->dtype), i = 0;
    void *room = NULL;
    if (e->code != ERR_NONE) return;
    while (i < ARRAY_LEN(types) && types[i].of != weight->dtype)
        i++;
    float *b = malloc((size_t)s->out * sizeof *b);
    if (!b || i == ARRAY_LEN(types)) {
        err_set(e, b ? ERR_INPUT : ERR_RESOURCE,
                b ? "weights of type %s; F32, BF16, F16 or F64 wanted"
                  : "no memory beside weights of type %s",
                dtype_name(weight->dtype));
        goto done;
    }
    w.type = types[i].is;
    const char *from = (const char *)weight->data + (size_t)first_out * row;
    if (frames_read(on, b, bias, (size_t)first_out, (size_t)s->out) &&
        device_alloc(on->device, &room, row * (size_t)s->out, e) == 0 &&
        device_upload(on->device, room, from, row * (size_t)s->out, e) == 0 &&
        conv_pack_cuda(c->weight, room, &w, stream(on), e) == 0)
        device_upload(on->device, c->bias, b, (size_t)s->out * sizeof *b, e);
done:
    if (room) device_free(on->device, room);
    free(b);
}

static size_t cuda_scratch(struct frames_on *on, size_t most)
{
    (void)on;
    return most;
}

static size_t cuda_conv_scratch(const struct frames_on *on, const struct frame_conv *c,
                                const struct frame_size *out, int frames)
{
    (void)on, (void)c, (void)out, (void)frames;
    return 0;
}

static void cuda_conv(struct frames_on *on, const struct frame_conv *c,
                      const struct frame_call *call, void *scratch)
{
    const struct conv_shape *s = &c->shape;
    struct conv_cuda k = {.in = s->in,
                          .out = s->out,
                          .kt = s->kt,
                          .ks = s->ks,
                          .stride = s->stride,
                          .step = s->step,
                          .up = s->up,
                          .h = call->in.h,
                          .w = call->in.w,
                          .frames = call->frames,
                          .weight = c->weight,
                          .bias = c->bias,
                          .gamma = call->gamma,
                          .silu = call->silu,
                          .bf16 = is_bf16(on),
                          .stream = stream(on)};
    (void)scratch;
    if (!going(on, OP_CONV)) return;
    for (int i = call->missing; i < (call->frames - 1) * s->step + s->kt; i++)
        k.src[i] = call->src[i];
    for (int f = 0; f < call->frames; f++) {
        k.y[f] = call->x ? call->x[f] : NULL;
        k.norm[f] = call->norm ? call->norm[f] : NULL;
        k.residual[f] = call->residual ? call->residual[f] : NULL;
    }
    conv_cuda_run(&k, &on->failed);
}

/* --- attention --- */

static void cuda_attend_carve(const struct frames_on *on, struct frame_attention_room *room,
                              const struct frame_size *s, int channels, struct arena *a)
{
    room->keys = arena_take(a, wide_attention_scratch(s->h * s->w, channels, is_bf16(on)));
    room->values = NULL;
}

static size_t cuda_attend_scratch(const struct frames_on *on, const struct frame_size *s,
                                  int channels)
{
    (void)on, (void)s, (void)channels;
    return 0;
}

static void cuda_attend(struct frames_on *on, const struct frame_attention *a,
                        const struct frame_attention_room *room, void *scratch)
{
    (void)scratch;
    if (!going(on, OP_FRAMES)) return;
    wide_attention_cuda(a->o, a->q, a->k, a->v, a->size.h * a->size.w, a->channels, is_bf16(on),
                        room->keys, stream(on), &on->failed);
}

/* --- shortcuts and ends --- */

static void cuda_settle(struct frames_on *on, const struct frame_size *s, int channels,
                        const void *frame, const void *residual, void *x, void *norm,
                        const float *gamma)
{
    struct pixel_norm p = {.y = &norm,
                           .x = &frame,
                           .residual = &residual,
                           .sum = &x,
                           .frames = 1,
                           .channels = channels,
                           .n = (size_t)s->h * (size_t)s->w,
                           .gamma = gamma,
                           .silu = true,
                           .bf16 = is_bf16(on),
                           .stream = stream(on)};
    if (going(on, OP_FRAMES)) pixel_norm_cuda(&p, &on->failed);
}

static void cuda_dup_up(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                        const void *from, const struct frame_size *size, int in, int ft, int a)
{
    (void)to_size;
    if (going(on, OP_FRAMES))
        dup_up_cuda(to, out, from, in, size->h, size->w, ft, a, is_bf16(on), stream(on),
                    &on->failed);
}

static void cuda_avg_down(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                          const void *const *from, const struct frame_size *size, int in, int ft,
                          int fs)
{
    (void)size;
    if (going(on, OP_FRAMES))
        avg_down_cuda(to, out, to_size->h, to_size->w, from, in, ft, fs, is_bf16(on), stream(on),
                      &on->failed);
}

static void cuda_latents_in(struct frames_on *on, void *frame, const struct frame_size *s,
                            const struct frame_latents *l)
{
    if (going(on, OP_FRAMES))
        latent_in_cuda(frame, l->at, l->channels, l->frames, l->t, s->h, s->w, l->scale, l->shift,
                       is_bf16(on), stream(on), &on->failed);
}

static void cuda_latents_out(struct frames_on *on, const struct frame_latents *l, const void *frame,
                             const struct frame_size *s)
{
    if (going(on, OP_FRAMES))
        latent_out_cuda(l->at, frame, s->channels, l->channels, l->frames, l->t, s->h, s->w,
                        l->shift, l->scale, is_bf16(on), stream(on), &on->failed);
}

static void cuda_pictures_out(struct frames_on *on, const struct frame_pictures *p)
{
    size_t one = (size_t)(p->size.h * p->patch) * (size_t)(p->size.w * p->patch) * 3;
    if (!going(on, OP_FRAMES)) return;
    for (int f = 0; f < p->n; f++)
        if (rgb_out_cuda(p->rgb ? p->rgb + (size_t)f * one : NULL,
                         p->bytes ? p->bytes + (size_t)f * one : NULL, p->truncate, p->bad,
                         p->frames[f], p->size.h, p->size.w, p->patch, is_bf16(on), stream(on),
                         &on->failed) < 0)
            return;
}

static void cuda_picture_in(struct frames_on *on, void *frame, const struct frame_size *s,
                            const float *rgb, int patch)
{
    if (going(on, OP_FRAMES))
        rgb_in_cuda(frame, rgb, s->h, s->w, patch, is_bf16(on), stream(on), &on->failed);
}

static int cuda_piece(const struct frames_on *on, const struct frame_size *s, int least)
{
    size_t fit = MOST_LIST / cuda_bytes(on, s);
    int n = fit > MAX_FRAMES ? MAX_FRAMES : (int)fit;
    return n - n % least < least ? least : n - n % least;
}

const struct frame_ops frame_ops_cuda = {
    .kind = DEVICE_CUDA,
    .open = cuda_open,
    .close = cuda_close,
    .bytes = cuda_bytes,
    .clear = cuda_clear,
    .copy = cuda_copy,
    .put = cuda_put,
    .finite = cuda_finite,
    .conv_carve = cuda_conv_carve,
    .conv_pack = cuda_conv_pack,
    .scratch = cuda_scratch,
    .conv_scratch = cuda_conv_scratch,
    .conv = cuda_conv,
    .attend_carve = cuda_attend_carve,
    .attend_scratch = cuda_attend_scratch,
    .attend = cuda_attend,
    .settle = cuda_settle,
    .dup_up = cuda_dup_up,
    .avg_down = cuda_avg_down,
    .latents_in = cuda_latents_in,
    .latents_out = cuda_latents_out,
    .pictures_out = cuda_pictures_out,
    .picture_in = cuda_picture_in,
    .piece = cuda_piece,
};
