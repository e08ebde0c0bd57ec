/* Latents [C, F, H, W] ↔ one row of numbers a token; wan.md 3.3. A task is a row of patches. */
#include "model/ops/cpu/patch.h"

#include "model/base/threads.h"

struct patches {
    float *cols, *latents;
    const float *from;
    struct patch_grid g;
};

/* One row of patches: b of frame a, task = a * grid_h + b. */
static void gather_row(void *ctx, int task, int worker)
{
    const struct patches *s = ctx;
    const int ph = s->g.patch_h, pw = s->g.patch_w, C = s->g.channels;
    int gh = s->g.height / ph, gw = s->g.width / pw, a = task / gh, b = task % gh;
    float *col = s->cols + (size_t)task * (size_t)gw * (size_t)(C * ph * pw);
    (void)worker;
    for (int x = 0; x < gw; x++)
        for (int ch = 0; ch < C; ch++)
            for (int i = 0; i < ph; i++) {
                const float *src =
                    s->from +
                    (((size_t)ch * (size_t)s->g.frames + (size_t)a) * (size_t)s->g.height +
                     (size_t)(b * ph + i)) *
                        (size_t)s->g.width +
                    (size_t)(x * pw);
                for (int j = 0; j < pw; j++)
                    *col++ = src[j];
            }
}

void latents_to_patches(float *cols, const float *latents, const struct patch_grid *g)
{
    struct patches s = {.cols = cols, .from = latents, .g = *g};
    threads_run(g->frames * (g->height / g->patch_h), gather_row, &s);
}

/* The other way the channel is fastest: mixing the two orders gives noise that looks trained. */
static void scatter_row(void *ctx, int task, int worker)
{
    const struct patches *s = ctx;
    const int ph = s->g.patch_h, pw = s->g.patch_w, C = s->g.channels;
    int gh = s->g.height / ph, gw = s->g.width / pw, a = task / gh, b = task % gh;
    const float *col = s->from + (size_t)task * (size_t)gw * (size_t)(C * ph * pw);
    (void)worker;
    for (int ch = 0; ch < C; ch++)
        for (int i = 0; i < ph; i++) {
            float *dst =
                s->latents + (((size_t)ch * (size_t)s->g.frames + (size_t)a) * (size_t)s->g.height +
                              (size_t)(b * ph + i)) *
                                 (size_t)s->g.width;
            for (int x = 0; x < gw; x++)
                for (int j = 0; j < pw; j++)
                    *dst++ = col[((size_t)(x * ph + i) * (size_t)pw + (size_t)j) * (size_t)C +
                                 (size_t)ch];
        }
}

void patches_to_latents(float *latents, const float *cols, const struct patch_grid *g)
{
    struct patches s = {.latents = latents, .from = cols, .g = *g};
    threads_run(g->frames * (g->height / g->patch_h), scatter_row, &s);
}
