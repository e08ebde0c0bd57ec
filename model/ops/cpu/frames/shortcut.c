/* Plain loops of the 2.2 VAE's shortcuts and patches: a small share of the time. */
#include "model/ops/cpu/frames/shortcut.h"

#include "model/base/dtype.h"
#include "model/base/threads.h"

struct dup {
    float *dst;
    const float *src;
    const struct frame_size *to, *from;
    int in, out, ft, a;
};

static void dup_row(void *ctx, int y, int worker)
{
    const struct dup *d = ctx;
    int repeats = d->out * d->ft * 4 / d->in;
    (void)worker;
    for (int x = 0; x < d->to->w; x++) {
        const float *src = d->src + frame_at(d->from, y / 2, x / 2);
        float *dst = d->dst + frame_at(d->to, y, x);
        for (int o = d->out; o < d->to->channels; o++)
            dst[o] = 0;
        for (int o = 0; o < d->out; o++)
            dst[o] = src[(((o * d->ft + d->a) * 2 + y % 2) * 2 + x % 2) / repeats];
    }
}

void dup_up(float *dst, const struct frame_size *to, int out, const float *src,
            const struct frame_size *from, int in, int ft, int a)
{
    struct dup d = {dst, src, to, from, in, out, ft, a};
    threads_run(to->h, dup_row, &d);
}

struct avg {
    float *dst;
    const float *const *src;
    const struct frame_size *to, *from;
    int in, out, ft, fs;
};

static void avg_row(void *ctx, int y, int worker)
{
    const struct avg *d = ctx;
    int group = d->in * d->ft * d->fs * d->fs / d->out;
    (void)worker;
    for (int x = 0; x < d->to->w; x++) {
        float *dst = d->dst + frame_at(d->to, y, x);
        for (int o = d->out; o < d->to->channels; o++)
            dst[o] = 0;
        for (int o = 0; o < d->out; o++) {
            double sum = 0;
            for (int g = o * group; g < (o + 1) * group; g++) {
                int e = g % d->fs, b = g / d->fs % d->fs, a = g / (d->fs * d->fs) % d->ft;
                int c = g / (d->fs * d->fs * d->ft);
                if (d->src[a])
                    sum += (double)d->src[a][frame_at(d->from, y * d->fs + b, x * d->fs + e) + c];
            }
            dst[o] = (float)(sum / group);
        }
    }
}

void avg_down(float *dst, const struct frame_size *to, int out, const float *const *src,
              const struct frame_size *from, int in, int ft, int fs)
{
    struct avg d = {dst, src, to, from, in, out, ft, fs};
    threads_run(to->h, avg_row, &d);
}

struct show {
    float *rgb;
    const float *src;
    const struct frame_size *s;
    int patch;
};

static void show_row(void *ctx, int y, int worker)
{
    const struct show *j = ctx;
    int patch = j->patch, w = j->s->w * patch;
    float *rgb = j->rgb + (size_t)y * (size_t)w * 3;
    (void)worker;
    for (int x = 0; x < w; x++) {
        const float *p = j->src + frame_at(j->s, y / patch, x / patch);
        for (int c = 0; c < 3; c++) {
            float v = p[(c * patch + x % patch) * patch + y % patch];
            *rgb++ = v < -1 ? -1 : v > 1 ? 1 : v;
        }
    }
}

void frame_to_rgb(float *rgb, const float *src, const struct frame_size *s, int patch)
{
    struct show j = {rgb, src, s, patch};
    threads_run(s->h * patch, show_row, &j);
}

void frame_from_rgb(float *dst, const struct frame_size *s, const float *rgb, int patch, bool round)
{
    int w = s->w * patch;
    for (int y = 0; y < s->h * patch; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) {
                float v = rgb[((size_t)y * (size_t)w + (size_t)x) * 3 + (size_t)c];
                dst[frame_at(s, y / patch, x / patch) + (c * patch + x % patch) * patch +
                    y % patch] = round ? bf16_round(v) : v;
            }
}
