/* What goes into the blocks and what comes out: latents to tokens and back, time, text and image.
 * wan.md 3.3, 3.4. */
#include "model/dit/dit_internal.h"

#include <math.h>

static struct patch_grid patches(const struct dit *d, int channels)
{
    const struct dit_grid *g = &d->run.p.grid;
    return (struct patch_grid){.channels = channels,
                               .frames = g->frames,
                               .height = g->height,
                               .width = g->width,
                               .patch_h = d->config.patch_h,
                               .patch_w = d->config.patch_w};
}

int dit_embed_latents(struct dit *d, const float *latents, int n_streams, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct ops *o = r->ops;
    struct patch_grid g = patches(d, d->config.in_channels);
    dit_stream(r, 0, 1);
    struct rows first = r->x;
    if (o->patchify(r->device, &r->cols, latents, &g, e) < 0) return -1;
    if (o->linear(d->top.patch, &first, &r->cols, r->scratch, e) < 0) return -1;
    for (int i = 1; i < n_streams; i++) {
        dit_stream(r, i, 1);
        if (o->cast(r->device, &r->x, &first, false, e) < 0) return -1;
    }
    return 0;
}

/* --- Time --- */

/* Each operation is rounded to fp32 as the reference does; exp of any size of argument. */
void time_freqs(float *freqs, int half)
{
    for (int i = 0; i < half; i++) {
        float exponent = (float)-9.210340371976184 * (float)i / (float)half; /* -ln 10000 */
        freqs[i] = (float)exp((double)exponent);
    }
}

/* One timestep for all tokens, or one a latent frame (image-to-video of Wan2.2 5B: 0 on the given
 * frame): the same formulas on T rows. The reference makes a row a token; equal, and 1 GB larger. */
int dit_set_time(struct dit *d, const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    int T = r->time_rows = c->frame_timesteps ? r->p.grid.frames : 1;
    const float *times = c->frame_timesteps ? c->frame_timesteps : &c->timestep;
    return device_upload(r->device, r->timesteps, times, (size_t)T * sizeof *times, e);
}

int dit_embed_time(struct dit *d, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct ops *o = r->ops;
    int T = r->time_rows;
    struct rows sinus = rows_part(&r->sinus, 0, T), hidden = rows_part(&r->time_h, 0, T);
    struct rows temb = rows_part(&r->temb, 0, T), act = rows_part(&r->time_a, 0, T);
    struct rows time6 = rows_part(&r->time6, 0, T);
    if (o->sinusoid(r->device, &sinus, r->timesteps, r->freqs, e) < 0 ||
        o->linear(d->top.time_1, &hidden, &sinus, r->scratch, e) < 0 ||
        o->linear(d->top.time_2, &temb, &hidden, r->scratch, e) < 0)
        return -1;
    if (r->round && o->cast(r->device, &temb, &temb, true, e) < 0)
        return -1; /* before SiLU: wan.md 12, trap 10 */
    if (o->act(r->device, &act, &temb, ACT_SILU, r->round, e) < 0) return -1;
    return o->linear(d->top.time_proj, &time6, &act, r->scratch, e);
}

/* --- Text and image --- */

/* rows of the host or of the device → to, in its type. */
static int bring(struct dit_run *r, const struct rows *to, const struct rows *from, struct err *e)
{
    struct rows here = *from;
    if (!from->n) return 0;
    if (from->where != device_place(r->device)) {
        if (from->type != DTYPE_F32 || from->stride != from->cols)
            return err_set(e, ERR_BUG, "rows of the host that are not whole fp32 rows");
        here = rows_of(r->device, r->staging.at, DTYPE_F32, from->n, from->cols);
        if (device_upload(r->device, here.at, from->at,
                          (size_t)(from->n * from->cols) * sizeof(float), e) < 0)
            return -1;
    }
    return r->ops->cast(r->device, to, &here, false, e);
}

/* Rows past the prompt are zeros, as the reference pads; all of them become the same row. */
int dit_embed_text(struct dit *d, const struct rows *text, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct ops *o = r->ops;
    struct rows real = rows_part(&r->text_in, 0, text->n);
    struct rows pads = rows_part(&r->text_in, text->n, r->text_keys - text->n);
    if (bring(r, &real, text, e) < 0) return -1;
    if (device_zero(r->device, pads.at, (size_t)(pads.n * pads.cols) * dtype_size(pads.type), e) <
        0)
        return -1;
    if (o->linear(d->top.text_1, &r->text_h, &r->text_in, r->scratch, e) < 0) return -1;
    return o->linear(d->top.text_2, &r->text, &r->text_h, r->scratch, e);
}

int dit_embed_image(struct dit *d, const struct rows *image, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct ops *o = r->ops;
    struct norm_params norm1 = {.eps =
                                    1e-5f, /* torch's default: the config has none for these two */
                                .weight = d->top.image_norm1_w,
                                .bias = d->top.image_norm1_b,
                                .round = r->round};
    struct norm_params norm2 = norm1;
    norm2.weight = d->top.image_norm2_w;
    norm2.bias = d->top.image_norm2_b;
    if (bring(r, &r->image_in, image, e) < 0) return -1;
    if (r->round && o->cast(r->device, &r->image_in, &r->image_in, true, e) < 0) return -1;
    if (d->top.pos_embed) {
        struct rows place =
            rows_of(r->device, d->top.pos_embed, DTYPE_F32, r->image_in.n, r->image_in.cols);
        struct gate_params add = {.round = r->round};
        if (o->gate(r->device, &r->image_in, &place, &add, e) < 0) return -1;
    }
    if (o->norm(r->device, &r->image_in, &r->image_in, &norm1, e) < 0 ||
        o->linear(d->top.image_1, &r->image_h, &r->image_in, r->scratch, e) < 0 ||
        o->linear(d->top.image_2, &r->image, &r->image_h, r->scratch, e) < 0)
        return -1;
    return o->norm(r->device, &r->image, &r->image, &norm2, e);
}

/* --- Head --- */

/* temb itself, not its projection; shift, then scale */
static int head_mods(struct dit *d, struct err *e)
{
    struct dit_run *r = &d->run;
    int D = r->width, T = r->time_rows;
    struct rows temb = rows_part(&r->temb, 0, T);
    struct rows all = rows_of(r->device, r->mod.at, DTYPE_F32, T, 2 * D);
    for (int row = 0; row < 2; row++) {
        struct rows to = rows_cols(&all, (int64_t)row * D, D);
        if (r->ops->add_table(r->device, &to, &temb, d->top.table + (size_t)row * (size_t)D, e) < 0)
            return -1;
    }
    return 0;
}

int dit_head(struct dit *d, float *const *velocity, int first, int n, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct ops *o = r->ops;
    int D = r->width;
    float *mods = r->mod.at;
    struct norm_params norm = {.eps = (float)d->config.eps,
                               .shift = mods,
                               .scale = mods + D,
                               .mod_stride = 2 * D,
                               .rows_per_mod = r->time_rows > 1 ? r->tokens_a_frame : 0,
                               .period = n > 1 ? r->tokens : 0,
                               .round = r->round};
    struct patch_grid g = patches(d, d->config.out_channels);
    dit_stream(r, first, n);
    struct rows cols = rows_part(&r->out_cols, 0, r->x.n);
    if (head_mods(d, e) < 0 || o->norm(r->device, &r->n, &r->x, &norm, e) < 0 ||
        o->linear(d->top.head, &cols, &r->n, r->scratch, e) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        struct rows part = rows_part(&cols, (int64_t)i * r->tokens, r->tokens);
        if (o->unpatchify(r->device, velocity[first + i], &part, &g, e) < 0) return -1;
    }
    return 0;
}
