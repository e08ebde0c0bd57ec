/* A run's share of a GPU's memory, and what is refused of it; see cost.h. */
#include "app/lib/cost.h"

#include "model/base/limits.h"

#include <stdint.h>

static double mib(size_t bytes) { return (double)bytes / 1048576; }
static double mib_up(size_t bytes) { return (double)((bytes + 1048575) / 1048576); }

size_t cost_beside(const struct ditgen *d, const struct run *r)
{
    struct dit_grid g = model_grid(&d->info, &r->clip);
    size_t n = (size_t)d->info.vae.z_dim * (size_t)g.frames * (size_t)g.height * (size_t)g.width;
    size_t solver = (denoise_bytes(r->solver, n, r->clip.guided) + 255) / 256 * 256;
    return 3 * n * sizeof(float) + solver; /* latents, and what the last two steps began with */
}

int cost_device(struct model_vram *v, const struct ditgen *d, const struct run *r,
                const struct cost_text *t, struct err *e)
{
    *v = (struct model_vram){0};
    if (device_place(r->params.device) == PLACE_HOST) return 0;
    return model_plan_vram(v, &d->info, &r->params, &r->clip, t->most, e);
}

static int refuse_vram(const struct model_vram *v, const struct run *r, struct err *e)
{
    static const char *const phases[] = {"reading the text", "denoising", "decoding"};
    const char *asked = settings_text(r->settings, SET_MAX_VRAM);
    char next[64] = "";
    if (asked) snprintf(next, sizeof next, "--max-vram %.0fM, ", mib_up(v->least));
    return err_set(e, ERR_RESOURCE,
                   "%s takes at least %.0f MiB of %s for this clip, and %.0f %s; try %sa smaller "
                   "size, fewer frames, or --device cpu",
                   phases[v->least_phase], mib_up(v->least), device_name(r->params.device),
                   mib(v->limit), asked ? "may be taken" : "are free", next);
}

static int refuse_pinned(const struct model_vram *v, const struct run *r, size_t left,
                         struct err *e)
{
    return err_set(e, ERR_RESOURCE,
                   "%d of %d blocks are streamed to %s from %.0f MiB of the host's memory, which "
                   "has %.0f MiB left; try a higher --max-vram, a smaller size, or fewer frames",
                   v->streamed, v->n_blocks, device_name(r->params.device), mib(v->pinned),
                   mib(left));
}

int cost_check_device(struct model_vram *v, const struct ditgen *d, const struct run *r,
                      const struct cost_text *t, struct err *e)
{
    if (cost_device(v, d, r, t, e) < 0) return -1;
    if (v->over) return refuse_vram(v, r, e);
    size_t left = limit_memory();
    const struct model_store *s = r->params.store;
    bool there = s && s->dit && dit_streamed(s->dit); /* their packs are */
    return left && v->pinned > left && !there ? refuse_pinned(v, r, left, e) : 0;
}
