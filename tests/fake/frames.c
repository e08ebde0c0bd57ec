/* The VAE's operations of the fake: the host's behind its addresses. Each is done at once; a VAE is not
 * recorded. Layers keep addresses of the fake, and are handed to the host's table with the host's. */
#include "model/ops/frames.h"

#include "tests/fake/fake.h"

#include <stdlib.h>

#define HOST frame_ops_cpu

struct args { /* what an operation of the host is called with */
    struct frames_on *on;
    void *to, *x, *norm, *scratch;
    const void *from, *residual;
    const void *list[2];
    struct frame_size a, b;
    struct frame_conv conv;
    struct frame_call call;
    void *lists[4][MAX_FRAMES];
    struct frame_attention attention;
    struct frame_attention_room room;
    struct frame_latents latents;
    struct frame_pictures pictures;
    const struct tensor *weights[2];
    const float *w, *gamma;
    int n, m, k, l;
    size_t len;
    bool flag;
};

#define RUN(name) static int do_##name(struct device *d, void *args, struct err *e)
#define DONE return (void)d, (void)e, 0
#define GO(name, a)                                                                                \
    do {                                                                                           \
        struct err lost_;                                                                          \
        device_did((a).on->device, OP_FRAMES);                                                     \
        fake_do((a).on->device, do_##name, &(a), sizeof(a), &lost_);                               \
    } while (0)

static int open_fake(struct frames_on *on, enum precision precision, struct err *e)
{
    return HOST.open(on, precision, e);
}

static void close_fake(struct frames_on *on) { HOST.close(on); }

static size_t bytes(const struct frames_on *on, const struct frame_size *s)
{
    return HOST.bytes(on, s);
}

RUN(clear)
{
    struct args *a = args;
    HOST.clear(a->on, a->to, &a->a, a->flag);
    DONE;
}

static void clear(struct frames_on *on, void *frame, const struct frame_size *s, bool whole)
{
    struct args a = {.on = on, .to = fake_real(frame), .a = *s, .flag = whole};
    GO(clear, a);
}

RUN(copy)
{
    struct args *a = args;
    HOST.copy(a->on, a->to, a->from, &a->a);
    DONE;
}

static void copy(struct frames_on *on, void *to, const void *from, const struct frame_size *s)
{
    struct args a = {.on = on, .to = fake_real(to), .from = fake_real(from), .a = *s};
    GO(copy, a);
}

static void put(struct frames_on *on, float *to, const float *from, size_t n)
{
    device_upload(on->device, to, from, n * sizeof *to, &on->failed);
}

RUN(finite)
{
    struct args *a = args;
    a->flag = HOST.finite(a->on, a->lists[0], a->n, &a->a);
    DONE;
}

static bool finite(struct frames_on *on, void *const *frames, int n, const struct frame_size *s)
{
    struct args a = {.on = on, .n = n, .a = *s};
    for (int i = 0; i < n; i++)
        a.lists[0][i] = fake_real(frames[i]);
    GO(finite, a);
    return a.flag;
}

static void conv_carve_fake(const struct frames_on *on, struct frame_conv *c,
                            const struct conv_shape *s, struct arena *a)
{
    HOST.conv_carve(on, c, s, a); /* addresses of the fake, which nobody reads there */
}

static struct frame_conv real_conv(const struct frame_conv *c)
{
    struct frame_conv h = *c;
    h.host.weight = fake_real(c->host.weight);
    h.host.bias = fake_real(c->host.bias);
    return h;
}

RUN(pack)
{
    struct args *a = args;
    HOST.conv_pack(a->on, &a->conv, a->weights[0], a->weights[1], a->n);
    DONE;
}

static void conv_pack_fake(struct frames_on *on, struct frame_conv *c, const struct tensor *weight,
                           const struct tensor *bias, int first_out)
{
    struct args a = {.on = on, .conv = real_conv(c), .weights = {weight, bias}, .n = first_out};
    GO(pack, a);
}

static size_t scratch(struct frames_on *on, size_t most) { return HOST.scratch(on, most); }

static size_t conv_scratch_fake(const struct frames_on *on, const struct frame_conv *c,
                                const struct frame_size *out, int frames)
{
    return HOST.conv_scratch(on, c, out, frames);
}

RUN(conv)
{
    struct args *a = args;
    HOST.conv(a->on, &a->conv, &a->call, a->scratch);
    DONE;
}

static void *const *real_list(void **to, void *const *list, int n)
{
    for (int i = 0; list && i < n; i++)
        to[i] = fake_real(list[i]);
    return list ? to : NULL;
}

static void conv(struct frames_on *on, const struct frame_conv *c, const struct frame_call *call,
                 void *room)
{
    struct args a = {.on = on, .conv = real_conv(c), .call = *call, .scratch = fake_real(room)};
    for (int i = 0; i < (call->frames - 1) * c->shape.step + c->shape.kt; i++)
        a.call.src[i] = fake_real(call->src[i]);
    a.call.residual = real_list(a.lists[0], call->residual, call->frames);
    a.call.x = real_list(a.lists[1], call->x, call->frames);
    a.call.norm = real_list(a.lists[2], call->norm, call->frames);
    a.call.gamma = fake_real(call->gamma);
    GO(conv, a);
}

static void attend_carve(const struct frames_on *on, struct frame_attention_room *room,
                         const struct frame_size *s, int channels, struct arena *a)
{
    HOST.attend_carve(on, room, s, channels, a);
}

static size_t attend_scratch(const struct frames_on *on, const struct frame_size *s, int channels)
{
    return HOST.attend_scratch(on, s, channels);
}

RUN(attend)
{
    struct args *a = args;
    HOST.attend(a->on, &a->attention, &a->room, a->scratch);
    DONE;
}

static void attend(struct frames_on *on, const struct frame_attention *t,
                   const struct frame_attention_room *room, void *scratch_at)
{
    struct args a = {.on = on,
                     .attention = {fake_real(t->o), fake_real(t->q), fake_real(t->k),
                                   fake_real(t->v), t->size, t->channels},
                     .room = {fake_real(room->keys), fake_real(room->values)},
                     .scratch = fake_real(scratch_at)};
    GO(attend, a);
}

RUN(settle)
{
    struct args *a = args;
    HOST.settle(a->on, &a->a, a->n, a->from, a->residual, a->x, a->norm, a->gamma);
    DONE;
}

static void settle(struct frames_on *on, const struct frame_size *s, int channels,
                   const void *frame, const void *residual, void *x, void *norm, const float *gamma)
{
    struct args a = {.on = on,
                     .a = *s,
                     .n = channels,
                     .from = fake_real(frame),
                     .residual = fake_real(residual),
                     .x = fake_real(x),
                     .norm = fake_real(norm),
                     .gamma = fake_real(gamma)};
    GO(settle, a);
}

RUN(dup_up)
{
    struct args *a = args;
    HOST.dup_up(a->on, a->to, &a->a, a->n, a->from, &a->b, a->m, a->k, a->l);
    DONE;
}

static void dup_up_fake(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                        const void *from, const struct frame_size *size, int in, int ft, int sub)
{
    struct args a = {.on = on,
                     .to = fake_real(to),
                     .a = *to_size,
                     .n = out,
                     .from = fake_real(from),
                     .b = *size,
                     .m = in,
                     .k = ft,
                     .l = sub};
    GO(dup_up, a);
}

RUN(avg_down)
{
    struct args *a = args;
    HOST.avg_down(a->on, a->to, &a->a, a->n, a->list, &a->b, a->m, a->k, a->l);
    DONE;
}

static void avg_down_fake(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                          const void *const *from, const struct frame_size *size, int in, int ft,
                          int fs)
{
    struct args a = {.on = on,
                     .to = fake_real(to),
                     .a = *to_size,
                     .n = out,
                     .list = {fake_real(from[0]), ft == 2 ? fake_real(from[1]) : NULL},
                     .b = *size,
                     .m = in,
                     .k = ft,
                     .l = fs};
    GO(avg_down, a);
}

RUN(latents_in)
{
    struct args *a = args;
    HOST.latents_in(a->on, a->to, &a->a, &a->latents);
    DONE;
}

static void latents_in(struct frames_on *on, void *frame, const struct frame_size *s,
                       const struct frame_latents *l)
{
    struct args a = {.on = on, .to = fake_real(frame), .a = *s, .latents = *l};
    a.latents.at = fake_real(l->at);
    GO(latents_in, a);
}

RUN(latents_out)
{
    struct args *a = args;
    HOST.latents_out(a->on, &a->latents, a->from, &a->a);
    DONE;
}

static void latents_out(struct frames_on *on, const struct frame_latents *l, const void *frame,
                        const struct frame_size *s)
{
    struct args a = {.on = on, .from = fake_real(frame), .a = *s, .latents = *l};
    a.latents.at = fake_real(l->at);
    GO(latents_out, a);
}

RUN(pictures_out)
{
    struct args *a = args;
    struct frame_pictures *p = &a->pictures;
    size_t n = (size_t)p->n * (size_t)(p->size.h * p->patch) * (size_t)(p->size.w * p->patch) * 3;
    float *own = p->rgb ? NULL : malloc(n * sizeof *own); /* the host's table wants them */
    if (own) p->rgb = own;
    if (p->rgb) HOST.pictures_out(a->on, p);
    free(own);
    DONE;
}

static void pictures_out(struct frames_on *on, const struct frame_pictures *p)
{
    struct args a = {.on = on, .pictures = *p};
    a.pictures.frames = real_list(a.lists[0], p->frames, p->n);
    a.pictures.rgb = fake_real(p->rgb);
    a.pictures.bytes = fake_real(p->bytes);
    a.pictures.bad = fake_real(p->bad);
    GO(pictures_out, a);
}

RUN(picture_in)
{
    struct args *a = args;
    HOST.picture_in(a->on, a->to, &a->a, a->w, a->n);
    DONE;
}

static void picture_in(struct frames_on *on, void *frame, const struct frame_size *s,
                       const float *rgb, int patch)
{
    struct args a = {.on = on, .to = fake_real(frame), .a = *s, .w = fake_real(rgb), .n = patch};
    GO(picture_in, a);
}

static int piece(const struct frames_on *on, const struct frame_size *s, int least)
{
    return HOST.piece(on, s, least);
}

const struct frame_ops fake_frames = {
    .kind = DEVICE_FAKE,
    .open = open_fake,
    .close = close_fake,
    .bytes = bytes,
    .clear = clear,
    .copy = copy,
    .put = put,
    .finite = finite,
    .conv_carve = conv_carve_fake,
    .conv_pack = conv_pack_fake,
    .scratch = scratch,
    .conv_scratch = conv_scratch_fake,
    .conv = conv,
    .attend_carve = attend_carve,
    .attend_scratch = attend_scratch,
    .attend = attend,
    .settle = settle,
    .dup_up = dup_up_fake,
    .avg_down = avg_down_fake,
    .latents_in = latents_in,
    .latents_out = latents_out,
    .pictures_out = pictures_out,
    .picture_in = picture_in,
    .piece = piece,
};
