/* The loop: noise → num_steps velocities → latents. */
#include "sched/sched.h"

#include "model/base/arena.h"

#define ALIGN 64 /* an arena's */
#define BUFFERS (BUFFER_HISTORY + SOLVER_MAX_HISTORY)
#define MAX_FRAMES 1024 /* latent frames that may have timesteps of their own: 4,093 frames */

/* Places the buffers at base, BUFFER_NEGATIVE only with guidance; with base NULL only counts. */
static size_t carve(float *buffers[BUFFERS], const struct solver *s, size_t n, bool guided,
                    char *base)
{
    struct arena a = {0};
    if (base) /* the scratch may start anywhere */
        a = (struct arena){.base = base + (ALIGN - (uintptr_t)base % ALIGN) % ALIGN,
                           .size = SIZE_MAX};
    for (int i = BUFFER_VELOCITY; i < BUFFER_HISTORY + s->history; i++) {
        if (i == BUFFER_NEGATIVE && !guided) continue;
        float *at = arena_take(&a, n * sizeof(float));
        if (base) buffers[i] = at;
    }
    return a.used + ALIGN;
}

size_t denoise_bytes(const struct solver *s, size_t n, bool guided)
{
    return carve(NULL, s, n, guided, NULL);
}

float *denoise_history(const struct solver *s, size_t n, bool guided, void *scratch, int i)
{
    float *buffers[BUFFERS] = {0};
    carve(buffers, s, n, guided, scratch);
    return buffers[BUFFER_HISTORY + i];
}

static int add_up(const struct denoise_params *p, float *const *buffers, const struct lincomb *sums,
                  int n, bool bf16, struct err *e)
{
    for (int i = 0; i < n; i++)
        if (p->place->run(p->place->ctx, buffers, &sums[i], p->n, bf16, e) < 0) return -1;
    return 0;
}

static float scale_of(const struct denoise_params *p, float timestep)
{
    return p->guidance_scale[timestep < p->boundary]; /* t >= boundary is high noise: wan.md 3.10 */
}

static struct denoise_ask question(const struct denoise_params *p, float *const *buffers,
                                   float *frame_timesteps, int step, const float *latents)
{
    const struct schedule *s = p->schedule;
    float t = s->timestep[step], scale = scale_of(p, t);
    struct denoise_ask a = {
        .step = step,
        .num_steps = s->num_steps,
        .n_branches = scale > 1 ? 2 : 1,
        .expert = t < p->boundary,
        .sigma = s->sigma[step],
        .timestep = t,
        .latents = latents,
        .velocity = {buffers[BUFFER_VELOCITY], scale > 1 ? buffers[BUFFER_NEGATIVE] : NULL}};
    if (p->frame_noise) {
        for (int i = 0; i < p->n_frames; i++)
            frame_timesteps[i] = t * p->frame_noise[i];
        a.frame_timesteps = frame_timesteps;
        a.n_frames = p->n_frames;
    }
    return a;
}

/* Step `bad` gave numbers that are none: where they come from, as far as its latents are still there while step
 * `now` is under way, or done. Always -1. */
static int not_finite(const struct denoise_params *p, const struct denoise_model *m,
                      float *const *buffers, float *frame_timesteps, int bad, int now, bool done,
                      struct err *e)
{
    const struct schedule *s = p->schedule;
    const float *latents = p->before[0] && now - bad < 2 ? p->before[bad & 1] : NULL;
    if (bad == now && !done) latents = buffers[BUFFER_LATENTS];
    e->code = ERR_NONE;
    if (m->trace && latents) {
        struct denoise_ask a = question(p, buffers, frame_timesteps, bad, latents);
        if (m->trace(m->ctx, &a, e) < 0) {
            if (e->code != ERR_INPUT) return -1;
            return err_wrap(
                e,
                "step %d of %d: the model's velocity is not finite; its weights are broken, "
                "or made for another precision: the first such numbers come from",
                bad + 1, s->num_steps);
        }
    }
    return err_set(e, ERR_INPUT,
                   "step %d of %d: the model's velocity is not finite; its weights are broken, or "
                   "made for another precision",
                   bad + 1, s->num_steps);
}

/* The velocity of one step, guided, in BUFFER_VELOCITY; looked at, or noted to be looked at. */
static int ask(const struct denoise_params *p, const struct denoise_model *m, float *const *buffers,
               float *frame_timesteps, int step, struct err *e)
{
    const struct schedule *s = p->schedule;
    const struct lincomb_place *place = p->place;
    const float *velocity = buffers[BUFFER_VELOCITY];
    float scale = scale_of(p, s->timestep[step]);
    struct denoise_ask a = question(p, buffers, frame_timesteps, step, buffers[BUFFER_LATENTS]);
    int first;
    if (m->velocity(m->ctx, &a, e) < 0) return -1;
    if (scale > 1) {
        struct lincomb sums[2];
        guidance_sums(sums, scale);
        if (add_up(p, buffers, sums, 2, p->round, e) < 0) return -1;
    }
    if (place->waits && step > p->first_step && step + 1 < s->num_steps)
        return place->note(place->ctx, velocity, p->n, step + 1, e);
    if (place->finite(place->ctx, velocity, p->n, step + 1, &first, e) < 0) return -1;
    if (!first) return 0;
    return not_finite(p, m, buffers, frame_timesteps, first - 1, step, false, e);
}

/* What a step began with, while it is not known yet whether its velocity is one. */
static int keep_before(const struct denoise_params *p, float *latents, int step, struct err *e)
{
    static const struct lincomb copy = {.to = 1, .n = 1, .from = {0}, .c = {1}};
    float *both[] = {latents, p->before[step & 1]};
    if (!p->before[0]) return 0;
    return p->place->run(p->place->ctx, both, &copy, p->n, false, e);
}

int denoise(float *latents, const struct denoise_params *params, const struct denoise_model *m,
            void *scratch, struct err *e)
{
    struct denoise_params p = *params;
    const struct schedule *s = p.schedule;
    float *buffers[BUFFERS] = {latents}, frame_timesteps[MAX_FRAMES];
    bool guided = p.guidance_scale[0] > 1 || (p.boundary > 0 && p.guidance_scale[1] > 1);
    if (!p.place) p.place = &lincomb_host;
    if (p.solver->history > SOLVER_MAX_HISTORY)
        return err_set(e, ERR_BUG, "solver %s wants %d buffers, at most %d exist", p.solver->name,
                       p.solver->history, SOLVER_MAX_HISTORY);
    if (p.frame_noise && (p.n_frames < 1 || p.n_frames > MAX_FRAMES))
        return err_set(e, ERR_USAGE, "%d latent frames with timesteps of their own, at most %d",
                       p.n_frames, MAX_FRAMES);
    carve(buffers, p.solver, p.n, guided, scratch);
    int first; /* an earlier run may have left a note that nobody asked for */
    if (p.place->waits && p.place->finite(p.place->ctx, latents, p.n, 1, &first, e) < 0) return -1;

    for (int step = p.first_step; step < s->num_steps; step++) {
        struct lincomb sums[SOLVER_MAX_SUMS];
        if (keep_before(&p, latents, step, e) < 0) return -1;
        if (ask(&p, m, buffers, frame_timesteps, step, e) < 0) return -1;
        int n = p.solver->step(sums, s, step);
        if (add_up(&p, buffers, sums, n, false, e) < 0) return -1;
        if (p.after_step && p.after_step(p.ctx, step, s->num_steps, latents) != 0)
            return err_set(e, ERR_CANCELLED, "cancelled after step %d of %d", step + 1,
                           s->num_steps);
        first = p.place->waits ? p.place->noted(p.place->ctx) : 0;
        if (!first) continue;
        if (p.place->finite(p.place->ctx, latents, p.n, first, &first, e) < 0) return -1;
        return not_finite(&p, m, buffers, frame_timesteps, first - 1, step, true, e);
    }
    return 0;
}
