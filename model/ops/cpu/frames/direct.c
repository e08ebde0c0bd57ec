/* See direct.h. */
#include "model/ops/cpu/frames/direct.h"

#include "model/base/dtype.h"
#include "model/base/threads.h"
#include "model/ops/cpu/frames/conv.h"

#define LINE 64 /* bytes a cache line */
#define ROWS 4 /* picture rows a task narrows or finishes */

static size_t align(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

static bool is_bf16(const struct conv *c) { return c->set->products == PRODUCTS_LIBRARY_BF16; }

static size_t size_of(const struct conv *c) { return is_bf16(c) ? 2 : 4; }

/* What the library sees: padded channels, and pictures already doubled. h, w: of the input. */
static struct conv3d_params params_of(const struct conv *c, int h, int w)
{
    const struct conv_shape *s = &c->shape;
    return (struct conv3d_params){.in = c->in_pad,
                                  .out = c->out_pad,
                                  .kt = s->kt,
                                  .side = s->ks,
                                  .stride = s->stride,
                                  .h = h,
                                  .w = w,
                                  .bf16 = is_bf16(c)};
}

void direct_carve(struct conv *c, struct arena *a)
{
    const struct conv_shape *s = &c->shape;
    struct conv3d_params p = params_of(c, 0, 0);
    size_t n = (size_t)c->out_pad * (size_t)c->in_pad * (size_t)(s->kt * s->ks * s->ks);
    void *weight = arena_take(a, n * size_of(c)), *packed = arena_take(a, conv3d_packed_bytes(&p));
    c->bias = arena_take(a, (size_t)c->out_pad * sizeof(float));
    c->direct = arena_take(a, sizeof *c->direct);
    if (c->direct) *c->direct = (struct direct){.weight = weight, .packed = packed};
}

void direct_pack(struct conv *c, const float *w)
{
    const struct conv_shape *s = &c->shape;
    struct direct *d = c->direct;
    size_t window = (size_t)(s->kt * s->ks * s->ks), per_in = window * size_of(c);
    for (int o = 0; o < c->out_pad; o++)
        for (int i = 0; i < c->in_pad; i++) {
            char *to = (char *)d->weight + ((size_t)o * (size_t)c->in_pad + (size_t)i) * per_in;
            const float *from = w + ((size_t)o * (size_t)s->in + (size_t)i) * window;
            if (o >= s->out || i >= s->in)
                memset(to, 0, per_in);
            else if (is_bf16(c))
                for (size_t k = 0; k < window; k++)
                    ((uint16_t *)(void *)to)[k] = f32_to_bf16(from[k]);
            else
                memcpy(to, from, per_in);
        }
    d->next = c->set->first;
    c->set->first = d;
}

void direct_set_close(struct direct_set *s)
{
    for (struct direct *d = s->first; d; d = d->next) {
        conv3d_close(d->conv);
        d->conv = NULL;
    }
    s->first = NULL;
}

static int input_frames(const struct conv *c, int frames)
{
    return (frames - 1) * c->shape.step + c->shape.kt;
}

static size_t input_bytes(const struct conv *c, const struct frame_size *out, int frames)
{
    size_t side = (size_t)c->shape.stride;
    return align((size_t)input_frames(c, frames) * (size_t)out->h * side * (size_t)out->w * side *
                 (size_t)c->in_pad * size_of(c));
}

static size_t sums_bytes(const struct conv *c, const struct frame_size *out)
{
    return align((size_t)out->h * (size_t)out->w * (size_t)c->out_pad * sizeof(float));
}

size_t direct_scratch(const struct conv *c, const struct frame_size *out, int frames)
{
    struct conv3d_params p = params_of(c, out->h * c->shape.stride, out->w * c->shape.stride);
    return (input_bytes(c, out, frames) + sums_bytes(c, out) + conv3d_scratch_bytes(&p)) /
           sizeof(float);
}

struct job {
    const struct conv *c;
    const struct conv_call *call;
    const struct finish *finish;
    char *src; /* [input frames, h, w, in_pad] */
    float *sums; /* [out.h, out.w, out_pad] */
    int h, w; /* of src */
    int chunks, frame;
};

/* Rows of one input frame into the block; doubled where the shape says so. */
static void narrow_task(void *ctx, int task, int worker)
{
    const struct job *j = ctx;
    const struct conv *c = j->c;
    int f = task / j->chunks, y0 = task % j->chunks * ROWS;
    int y1 = y0 + ROWS < j->call->in.h ? y0 + ROWS : j->call->in.h, up = c->shape.up ? 2 : 1;
    size_t pixel = (size_t)c->in_pad * size_of(c), row = (size_t)j->w * pixel;
    (void)worker;
    for (int y = y0; y < y1; y++) {
        char *to = j->src + ((size_t)f * (size_t)j->h + (size_t)(y * up)) * row;
        if (f < j->call->missing) {
            memset(to, 0, row);
            continue;
        }
        const float *from = j->call->src[f] + frame_at(&j->call->in, y, 0);
        size_t n = (size_t)j->call->in.w * (size_t)c->in_pad;
        if (is_bf16(c))
            c->kernels->narrow((uint16_t *)(void *)to, from, n);
        else
            memcpy(to, from, n * sizeof(float));
        if (up == 1) continue;
        for (size_t x = (size_t)j->call->in.w; x-- > 0;) { /* from the end: in place */
            memmove(to + (2 * x + 1) * pixel, to + x * pixel, pixel);
            if (x) memcpy(to + 2 * x * pixel, to + (2 * x + 1) * pixel, pixel);
        }
        memcpy(to + row, to, row);
    }
}

static float *row_of(float *const *list, int f, const struct frame_size *s, int y)
{
    return list ? list[f] + frame_at(s, y, 0) : NULL;
}

static void finish_task(void *ctx, int task, int worker)
{
    const struct job *j = ctx;
    const struct conv_call *call = j->call;
    int y1 = (task + 1) * ROWS < call->out.h ? (task + 1) * ROWS : call->out.h;
    (void)worker;
    for (int y = task * ROWS; y < y1; y++)
        j->c->kernels->finish(
            j->finish, j->sums + (ptrdiff_t)y * call->out.w * call->out.channels,
            call->out.channels, call->out.w, row_of(call->residual, j->frame, &call->out, y),
            row_of(call->x, j->frame, &call->out, y), row_of(call->norm, j->frame, &call->out, y));
}

static int ready(const struct conv *c, int h, int w, struct err *e)
{
    struct direct *d = c->direct;
    if (d->conv && d->h == h && d->w == w) return 0;
    conv3d_close(d->conv);
    struct conv3d_params p = params_of(c, h, w);
    d->h = h, d->w = w;
    return conv3d_open(&d->conv, &p, d->weight, d->packed, e);
}

void direct_run(const struct conv *c, const struct conv_call *call, const struct finish *f,
                float *scratch)
{
    struct direct_set *set = c->set;
    struct job j = {.c = c, .call = call, .finish = f, .src = (char *)scratch};
    j.h = call->out.h * c->shape.stride;
    j.w = call->out.w * c->shape.stride;
    if (set->error.code != ERR_NONE || ready(c, j.h, j.w, &set->error) < 0) return;
    size_t frame = (size_t)j.h * (size_t)j.w * (size_t)c->in_pad * size_of(c);
    j.sums = scratch + input_bytes(c, &call->out, call->frames) / sizeof(float);
    void *inner = (char *)j.sums + sums_bytes(c, &call->out);
    j.chunks = (call->in.h + ROWS - 1) / ROWS;
    threads_run(input_frames(c, call->frames) * j.chunks, narrow_task, &j);
    for (j.frame = 0; j.frame < call->frames; j.frame++) {
        const char *src = j.src + (size_t)(j.frame * c->shape.step) * frame;
        if (conv3d_run(c->direct->conv, j.sums, src, inner, &set->error) < 0) return;
        threads_run((call->out.h + ROWS - 1) / ROWS, finish_task, &j);
    }
}
