/* Packing, blocking and running of convolutions; the inner loops are kernels/. */
#include "model/ops/cpu/frames/conv.h"

#include "model/base/threads.h"

#include <math.h>
#include <stdlib.h>

#define PANEL_ROWS                                                                                 \
    288 /* input channels x taps a panel of weights holds: 27 KiB at 24 columns, in L1 */
#define LINE 16 /* floats a cache line */
#define MAX_WIDTH 48 /* columns of the widest panel: three 512-bit vectors */

static int round_up(int v, int to) { return (v + to - 1) / to * to; }

static int min_int(int a, int b) { return a < b ? a : b; }

/* --- weights --- */

void conv_carve(struct conv *c, const struct conv_shape *s, const struct vae_kernels *k,
                struct direct_set *set, struct arena *a)
{
    *c = (struct conv){.shape = *s, .kernels = k};
    c->in_pad = pad_channels(s->in);
    c->out_pad = pad_channels(s->out);
    if (set && set->products != PRODUCTS_OWN && s->in >= set->least) {
        c->set = set;
        direct_carve(c, a);
        return;
    }
    /* fewest wasted columns; then the widest panel, which reuses a broadcast input most */
    int best = 0;
    for (int v = 1; v <= k->max_vectors; v++) {
        int columns = round_up(c->out_pad, v * k->lanes);
        if (!best || columns <= best) best = columns, c->vectors = v;
    }
    c->width = c->vectors * k->lanes;
    c->panels = best / c->width;
    c->points = s->up ? WINO_POINTS_UP : s->ks == 3 && s->stride == 1 ? WINO_POINTS : 0;
    size_t taps = (size_t)s->kt * (size_t)(c->points ? c->points : s->ks * s->ks);
    c->weight = arena_take(a, taps * (size_t)c->in_pad * (size_t)best * sizeof(float));
    c->bias = arena_take(a, (size_t)best * sizeof(float));
}

struct pack {
    const struct conv *c;
    const float *w; /* [out, in, kt, ks * ks] fp32 */
};

/* One tap in time of one panel: all points (or taps in space) of its output columns. */
static void pack_task(void *ctx, int task, int worker)
{
    const struct pack *p = ctx;
    const struct conv *c = p->c;
    const struct conv_shape *s = &c->shape;
    int panel = task / s->kt, t = task % s->kt;
    int area = s->ks * s->ks, planes = c->points ? c->points : area;
    size_t width = (size_t)c->width;
    (void)worker;
    for (int i = 0; i < c->in_pad; i++) {
        float rows[WINO_POINTS][MAX_WIDTH] = {{0}};
        for (int col = 0; col < c->width && i < s->in; col++) {
            int o = panel * c->width + col;
            if (o >= s->out) break;
            const float *w =
                p->w + (((size_t)o * (size_t)s->in + (size_t)i) * (size_t)s->kt + (size_t)t) *
                           (size_t)area;
            double u[WINO_POINTS], g[9];
            for (int q = 0; q < area; q++)
                u[q] = g[q] = (double)w[q];
            if (c->points) wino_filter(u, g, s->up);
            for (int q = 0; q < planes; q++)
                rows[q][col] = (float)u[q];
        }
        for (int q = 0; q < planes; q++) {
            /* Winograd: [point][panel][t][in]; plain: [panel][t][tap][in] */
            size_t at =
                c->points
                    ? ((size_t)q * (size_t)c->panels + (size_t)panel) * (size_t)s->kt + (size_t)t
                    : ((size_t)panel * (size_t)s->kt + (size_t)t) * (size_t)area + (size_t)q;
            memcpy(c->weight + (at * (size_t)c->in_pad + (size_t)i) * width, rows[q],
                   width * sizeof(float));
        }
    }
}

void conv_pack(struct conv *c, const float *w, const float *bias)
{
    struct pack p = {c, w};
    memset(c->bias, 0, (size_t)(c->set ? c->out_pad : c->panels * c->width) * sizeof *c->bias);
    memcpy(c->bias, bias, (size_t)c->shape.out * sizeof *c->bias);
    if (c->set)
        direct_pack(c, w);
    else
        threads_run(c->panels * c->shape.kt, pack_task, &p);
}

/* --- blocking --- */

struct block {
    int tiles, wide; /* 4x4 tiles of the picture; a row of them */
    int step; /* tiles a task takes */
    ptrdiff_t v_stride, m_stride; /* floats between two points */
};

/* An odd count of cache lines, so that the points of one tile do not share a cache set. */
static ptrdiff_t odd_lines(ptrdiff_t floats)
{
    ptrdiff_t lines = (floats + LINE - 1) / LINE;
    return (lines | 1) * LINE;
}

static struct block block_of(const struct conv *c, const struct frame_size *out, int frames,
                             int threads)
{
    struct block b = {.wide = (out->w + 3) / 4};
    b.tiles = b.wide * ((out->h + 3) / 4);
    /* Weights that do not fit the first caches are read once a block: the larger they are, the more
     * rows a block takes, so that reading them stays below the arithmetic. */
    size_t weights = (size_t)(c->points * c->shape.kt) * (size_t)c->in_pad *
                     (size_t)(c->panels * c->width) * sizeof(float);
    int rows = weights <= 320u << 10 ? 32 : weights <= 6u << 20 ? 48 : 128;
    b.step = round_up((rows + frames - 1) / frames, 4);
    int share = round_up((b.tiles + 2 * threads - 1) / (2 * threads), 4);
    b.step = min_int(b.step, share);
    b.v_stride =
        odd_lines((ptrdiff_t)(frames * c->shape.step + c->shape.kt - 1) * b.step * c->in_pad);
    b.m_stride = odd_lines((ptrdiff_t)frames * b.step * c->panels * c->width);
    return b;
}

/* Picture rows a task of a plain convolution takes: enough pixels to reuse a panel of weights. */
static int plain_rows(const struct frame_size *out)
{
    int r = 96 / out->w;
    return r < 1 ? 1 : min_int(r, out->h);
}

size_t conv_scratch(const struct conv *c, const struct frame_size *out, int frames, int threads)
{
    size_t most = 0;
    if (c->set) return direct_scratch(c, out, frames) / (size_t)threads + 1;
    if (!c->points)
        return (size_t)plain_rows(out) * (size_t)out->w * (size_t)(c->panels * c->width);
    for (int f = 1; f <= frames; f++) {
        struct block b = block_of(c, out, f, threads);
        size_t n = (size_t)c->points * (size_t)(b.v_stride + b.m_stride) +
                   (size_t)(WINO_OUT * WINO_OUT * c->out_pad);
        if (n > most) most = n;
    }
    return most;
}

/* --- running --- */

struct job {
    const struct conv *c;
    const struct conv_call *call;
    struct finish finish;
    struct block block;
    float *scratch;
    size_t scratch_stride;
    int rows_per_task, tasks_per_frame; /* plain */
};

static float *pixel(float *const *list, int f, const struct frame_size *s, int y, int x)
{
    return list ? list[f] + frame_at(s, y, x) : NULL;
}

/* First tap in time of output f that lies inside the clip. */
static int first_tap(const struct job *j, int f)
{
    int t = j->call->missing - f * j->c->shape.step;
    return t < 0 ? 0 : min_int(t, j->c->shape.kt - 1);
}

static void wino_forward(const struct job *j, float *v, int tile0, int n)
{
    const struct conv *c = j->c;
    const struct conv_call *call = j->call;
    ptrdiff_t pitch = frame_pitch(&call->in);
    int in_frames = (call->frames - 1) * c->shape.step + c->shape.kt;
    int side = c->shape.up ? 2 : WINO_OUT; /* input pixels a tile moves on by */
    for (int f = call->missing; f < in_frames; f++) {
        for (int i = 0; i < n; i++) {
            int ty = (tile0 + i) / j->block.wide, tx = (tile0 + i) % j->block.wide;
            const float *src = call->src[f] + frame_at(&call->in, ty * side - 1, tx * side - 1);
            float *dst = v + (ptrdiff_t)(f * n + i) * c->in_pad;
            if (c->shape.up)
                c->kernels->wino_in_up(dst, j->block.v_stride, src, pitch, c->in_pad);
            else
                c->kernels->wino_in(dst, j->block.v_stride, src, pitch, c->in_pad);
        }
    }
}

static void wino_multiply(const struct job *j, float *m, const float *v, int n)
{
    const struct conv *c = j->c;
    int kt = c->shape.kt, columns = c->panels * c->width;
    size_t tap = (size_t)c->in_pad * (size_t)c->width;
    int group = PANEL_ROWS / c->in_pad; /* taps at a time */
    if (group < 1) group = 1;
    for (int p = 0; p < c->points; p++) {
        const float *vp = v + p * j->block.v_stride;
        float *mp = m + p * j->block.m_stride;
        for (int f = 0, f1; f < j->call->frames; f = f1) { /* frames of equal taps together */
            int t0 = first_tap(j, f);
            for (f1 = f + 1; f1 < j->call->frames && first_tap(j, f1) == t0;)
                f1++;
            const float *a = vp + (ptrdiff_t)f * n * c->in_pad;
            for (int panel = 0; panel < c->panels; panel++) {
                const float *w =
                    c->weight + ((size_t)p * (size_t)c->panels + (size_t)panel) * (size_t)kt * tap;
                float *out = mp + (ptrdiff_t)f * n * columns + panel * c->width;
                for (int t = t0; t < kt; t += group) {
                    ptrdiff_t seg[3];
                    int k = min_int(group, kt - t);
                    for (int q = 0; q < k; q++)
                        seg[q] = (ptrdiff_t)(t + q) * n * c->in_pad;
                    c->kernels->gemm(out, columns, a, c->in_pad, seg, k, c->in_pad,
                                     w + (size_t)t * tap, (f1 - f) * n, c->vectors, t > t0);
                }
            }
        }
    }
}

static void wino_back(const struct job *j, const float *m, float *y, int tile0, int n)
{
    const struct conv *c = j->c;
    const struct conv_call *call = j->call;
    int columns = c->panels * c->width;
    for (int f = 0; f < call->frames; f++) {
        for (int i = 0; i < n; i++) {
            int y0 = (tile0 + i) / j->block.wide * WINO_OUT,
                x0 = (tile0 + i) % j->block.wide * WINO_OUT;
            const float *src = m + (ptrdiff_t)(f * n + i) * columns;
            if (c->shape.up)
                c->kernels->wino_out_up(y, src, j->block.m_stride, c->out_pad);
            else
                c->kernels->wino_out(y, src, j->block.m_stride, c->out_pad);
            int w = min_int(WINO_OUT, call->out.w - x0);
            for (int r = 0; r < WINO_OUT && y0 + r < call->out.h; r++)
                c->kernels->finish(&j->finish, y + r * WINO_OUT * c->out_pad, c->out_pad, w,
                                   pixel(call->residual, f, &call->out, y0 + r, x0),
                                   pixel(call->x, f, &call->out, y0 + r, x0),
                                   pixel(call->norm, f, &call->out, y0 + r, x0));
        }
    }
}

static void wino_task(void *ctx, int task, int worker)
{
    const struct job *j = ctx;
    float *v = j->scratch + (size_t)worker * j->scratch_stride;
    float *m = v + j->c->points * j->block.v_stride, *y = m + j->c->points * j->block.m_stride;
    int tile0 = task * j->block.step, n = min_int(j->block.step, j->block.tiles - tile0);
    wino_forward(j, v, tile0, n);
    wino_multiply(j, m, v, n);
    wino_back(j, m, y, tile0, n);
}

/* Rows y0.. of one output frame: all taps as segments of one product. */
static void plain_task(void *ctx, int task, int worker)
{
    const struct job *j = ctx;
    const struct conv *c = j->c;
    const struct conv_call *call = j->call;
    const struct conv_shape *s = &c->shape;
    float *sums = j->scratch + (size_t)worker * j->scratch_stride;
    int f = task / j->tasks_per_frame, y0 = task % j->tasks_per_frame * j->rows_per_task;
    int rows = min_int(j->rows_per_task, call->out.h - y0), columns = c->panels * c->width;
    int area = s->ks * s->ks, t0 = first_tap(j, f), n_seg = (s->kt - t0) * area;
    const float *base = call->src[f * s->step + t0];
    ptrdiff_t seg[27];
    for (int q = 0; q < n_seg; q++) {
        int t = t0 + q / area, dy = q % area / s->ks, dx = q % s->ks;
        seg[q] = call->src[f * s->step + t] - base + frame_at(&call->in, dy, dx);
    }
    int group = PANEL_ROWS / c->in_pad;
    if (group < 1) group = 1;
    size_t tap = (size_t)c->in_pad * (size_t)c->width;
    for (int panel = 0; panel < c->panels; panel++) {
        const float *w =
            c->weight + ((size_t)panel * (size_t)s->kt + (size_t)t0) * (size_t)area * tap;
        for (int q = 0; q < n_seg; q += group)
            for (int r = 0; r < rows; r++)
                c->kernels->gemm(
                    sums + (ptrdiff_t)r * call->out.w * columns + panel * c->width, columns,
                    base + (ptrdiff_t)(y0 + r) * s->stride * frame_pitch(&call->in),
                    (ptrdiff_t)s->stride * c->in_pad, seg + q, min_int(group, n_seg - q), c->in_pad,
                    w + (size_t)q * tap, call->out.w, c->vectors, q > 0);
    }
    for (int r = 0; r < rows; r++)
        c->kernels->finish(&j->finish, sums + (ptrdiff_t)r * call->out.w * columns, columns,
                           call->out.w, pixel(call->residual, f, &call->out, y0 + r, 0),
                           pixel(call->x, f, &call->out, y0 + r, 0),
                           pixel(call->norm, f, &call->out, y0 + r, 0));
}

void conv_run(const struct conv *c, const struct conv_call *call, float *scratch,
              size_t scratch_stride, int threads)
{
    struct job j = {.c = c, .call = call, .scratch = scratch, .scratch_stride = scratch_stride};
    j.finish = (struct finish){.channels = c->out_pad,
                               .sqrt_c = sqrtf((float)c->shape.out),
                               .bias = c->bias,
                               .gamma = call->gamma,
                               .silu = call->silu,
                               .round = call->round};
    if (c->set) {
        direct_run(c, call, &j.finish, scratch);
    } else if (c->points) {
        j.block = block_of(c, &call->out, call->frames, threads);
        threads_run((j.block.tiles + j.block.step - 1) / j.block.step, wino_task, &j);
    } else {
        j.rows_per_task = plain_rows(&call->out);
        j.tasks_per_frame = (call->out.h + j.rows_per_task - 1) / j.rows_per_task;
        threads_run(call->frames * j.tasks_per_frame, plain_task, &j);
    }
}
