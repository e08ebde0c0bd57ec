/* What goes into the blocks and what comes out: latents to tokens and back, time, text and image.
 * wan.md 3.3, 3.4. */
#include "model/dit/dit_internal.h"

#include "model/base/threads.h"

#include <math.h>

/* --- Patches --- */

struct patches {
    float *cols, *latents;
    const float *from;
    const struct dit_config *c;
    int frames, height, width; /* latent size */
};

/* One row of patches: b of frame a, task = a * grid_h + b. */
static void gather_row(void *ctx, int task, int worker)
{
    const struct patches *s = ctx;
    const int ph = s->c->patch_h, pw = s->c->patch_w, C = s->c->in_channels;
    int gh = s->height / ph, gw = s->width / pw, a = task / gh, b = task % gh;
    float *col = s->cols + (size_t)task * (size_t)gw * (size_t)(C * ph * pw);
    (void)worker;
    for (int x = 0; x < gw; x++)
        for (int ch = 0; ch < C; ch++)
            for (int i = 0; i < ph; i++) {
                const float *src =
                    s->from +
                    (((size_t)ch * (size_t)s->frames + (size_t)a) * (size_t)s->height +
                     (size_t)(b * ph + i)) *
                        (size_t)s->width +
                    (size_t)(x * pw);
                for (int j = 0; j < pw; j++)
                    *col++ = src[j];
            }
}

void patchify(float *cols, const float *latents, const struct dit_config *c,
              const struct dit_grid *g)
{
    struct patches s = {.cols = cols,
                        .from = latents,
                        .c = c,
                        .frames = g->frames,
                        .height = g->height,
                        .width = g->width};
    threads_run(g->frames * (g->height / c->patch_h), gather_row, &s);
}

/* The other way the channel is fastest: mixing the two orders gives noise that looks trained. */
static void scatter_row(void *ctx, int task, int worker)
{
    const struct patches *s = ctx;
    const int ph = s->c->patch_h, pw = s->c->patch_w, C = s->c->out_channels;
    int gh = s->height / ph, gw = s->width / pw, a = task / gh, b = task % gh;
    const float *col = s->from + (size_t)task * (size_t)gw * (size_t)(C * ph * pw);
    (void)worker;
    for (int ch = 0; ch < C; ch++)
        for (int i = 0; i < ph; i++) {
            float *dst =
                s->latents + (((size_t)ch * (size_t)s->frames + (size_t)a) * (size_t)s->height +
                              (size_t)(b * ph + i)) *
                                 (size_t)s->width;
            for (int x = 0; x < gw; x++)
                for (int j = 0; j < pw; j++)
                    *dst++ = col[((size_t)(x * ph + i) * (size_t)pw + (size_t)j) * (size_t)C +
                                 (size_t)ch];
        }
}

void unpatchify(float *latents, const float *cols, const struct dit_config *c,
                const struct dit_grid *g)
{
    struct patches s = {.latents = latents,
                        .from = cols,
                        .c = c,
                        .frames = g->frames,
                        .height = g->height,
                        .width = g->width};
    threads_run(g->frames * (g->height / c->patch_h), scatter_row, &s);
}

int dit_embed_latents(struct dit *d, const float *latents, int n_streams, struct err *e)
{
    struct dit_run *r = &d->run;
    size_t len = (size_t)r->tokens * (size_t)r->width;
    dit_stream(r, 0);
    patchify(r->cols, latents, &d->config, &r->p.grid);
    if (linear_run(d->top.patch, r->x, r->cols, r->tokens, r->scratch, e) < 0) return -1;
    for (int i = 1; i < n_streams; i++)
        memcpy(r->streams + (size_t)i * len, r->x, len * sizeof(float));
    return 0;
}

/* --- Time --- */

/* Each operation is rounded to fp32 as the reference does; exp, sin and cos of any size of
 * argument. */
void time_freqs(float *freqs, int half)
{
    for (int i = 0; i < half; i++) {
        float exponent = (float)-9.210340371976184 * (float)i / (float)half; /* -ln 10000 */
        freqs[i] = (float)exp((double)exponent);
    }
}

void time_sinusoid(float *sinus, const float *freqs, int half, float timestep)
{
    for (int i = 0; i < half; i++) {
        float angle = timestep * freqs[i];
        sinus[i] = (float)cos((double)angle);
        sinus[half + i] = (float)sin((double)angle);
    }
}

/* One timestep for all tokens, or one a latent frame (image-to-video of Wan2.2 5B: 0 on the given
 * frame): the same formulas on T rows. The reference makes a row a token; equal, and 1 GB larger.
 */
int dit_embed_time(struct dit *d, const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    int half = d->config.freq_dim / 2, D = r->width;
    int T = r->time_rows = c->frame_timesteps ? r->p.grid.frames : 1;
    for (int t = 0; t < T; t++)
        time_sinusoid(r->sinus + (size_t)t * (size_t)(2 * half), r->freqs, half,
                      c->frame_timesteps ? c->frame_timesteps[t] : c->timestep);
    if (linear_run(d->top.time_1, r->time_h, r->sinus, T, r->scratch, e) < 0 ||
        linear_run(d->top.time_2, r->temb, r->time_h, T, r->scratch, e) < 0)
        return -1;
    size_t n = (size_t)T * (size_t)D;
    if (r->round) round_rows(r->temb, n); /* before SiLU: wan.md 12, trap 10 */
    for (size_t i = 0; i < n; i++)
        r->time_h[i] = act_apply(ACT_SILU, r->temb[i]);
    if (r->round) round_rows(r->time_h, n);
    return linear_run(d->top.time_proj, r->time6, r->time_h, T, r->scratch, e);
}

void dit_add_table(float *dst, const float *m, const float *table, int rows, int n)
{
    for (int t = 0; t < rows; t++)
        for (int i = 0; i < n; i++)
            dst[(size_t)t * (size_t)n + (size_t)i] =
                table[i] + m[(size_t)t * (size_t)n + (size_t)i];
}

/* --- Text and image --- */

/* Rows past the prompt are zeros, as the reference pads; all of them become the same row. */
int dit_embed_text(struct dit *d, const float *text, int n, struct err *e)
{
    struct dit_run *r = &d->run;
    size_t dim = (size_t)d->config.text_dim;
    if (n) memcpy(r->text_in, text, (size_t)n * dim * sizeof *text);
    memset(r->text_in + (size_t)n * dim, 0, (size_t)(r->text_keys - n) * dim * sizeof *text);
    if (linear_run(d->top.text_1, r->text_h, r->text_in, r->text_keys, r->scratch, e) < 0)
        return -1;
    return linear_run(d->top.text_2, r->text, r->text_h, r->text_keys, r->scratch, e);
}

int dit_embed_image(struct dit *d, const float *image, struct err *e)
{
    struct dit_run *r = &d->run;
    int dim = d->config.image_dim, rows = r->p.image_rows;
    size_t n = (size_t)rows * (size_t)dim;
    struct norm_params norm1 = {.eps =
                                    1e-5f, /* torch's default: the config has none for these two */
                                .weight = d->top.image_norm1_w,
                                .bias = d->top.image_norm1_b,
                                .round = r->round};
    struct norm_params norm2 = norm1;
    norm2.weight = d->top.image_norm2_w;
    norm2.bias = d->top.image_norm2_b;
    memcpy(r->image_in, image, n * sizeof *image);
    if (r->round) round_rows(r->image_in, n);
    if (d->top.pos_embed) {
        for (size_t i = 0; i < n; i++)
            r->image_in[i] += d->top.pos_embed[i];
        if (r->round) round_rows(r->image_in, n);
    }
    layer_norm(r->image_in, r->image_in, rows, dim, &norm1);
    if (linear_run(d->top.image_1, r->image_h, r->image_in, rows, r->scratch, e) < 0 ||
        linear_run(d->top.image_2, r->image, r->image_h, rows, r->scratch, e) < 0)
        return -1;
    layer_norm(r->image, r->image, rows, r->width, &norm2);
    return 0;
}

/* --- Head --- */

int dit_head(struct dit *d, float *velocity, struct err *e)
{
    struct dit_run *r = &d->run;
    int D = r->width, T = r->time_rows;
    /* temb itself, not its projection; shift, then scale */
    for (int t = 0; t < T; t++)
        for (int half = 0; half < 2; half++)
            dit_add_table(r->mod + (size_t)(2 * t + half) * (size_t)D,
                          r->temb + (size_t)t * (size_t)D, d->top.table + (size_t)half * (size_t)D,
                          1, D);
    struct norm_params norm = {.eps = (float)d->config.eps,
                               .shift = r->mod,
                               .scale = r->mod + D,
                               .mod_stride = 2 * D,
                               .rows_per_mod = T > 1 ? r->tokens_a_frame : 0,
                               .round = r->round};
    layer_norm(r->n, r->x, r->tokens, D, &norm);
    if (linear_run(d->top.head, r->out_cols, r->n, r->tokens, r->scratch, e) < 0) return -1;
    unpatchify(velocity, r->out_cols, &d->config, &r->p.grid);
    return 0;
}
