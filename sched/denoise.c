/* The loop: noise → num_steps velocities → latents. */
#include "sched/sched.h"

#include <math.h>
#include <string.h>

#define MAX_HISTORY 8
#define ALIGN 64 /* widest vector load */

static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

struct buffers {
    float *velocity, *negative; /* negative: NULL without guidance */
    float *history[MAX_HISTORY];
    void *state;
    size_t bytes;
};

/* Places the buffers at base; with base NULL only counts. */
static struct buffers carve(const struct solver *s, size_t n, bool guided, char *base)
{
    struct buffers b = {0};
    size_t one = aligned(n * sizeof(float)), at = 0;
    if (base) at = aligned((size_t)(uintptr_t)base) - (size_t)(uintptr_t)base;
    char *start = base ? base + at : NULL;
    at = 0;
#define TAKE(size) (at += (size), start ? start + at - (size) : NULL)
    b.velocity = (float *)(void *)TAKE(one);
    if (guided) b.negative = (float *)(void *)TAKE(one);
    for (int i = 0; i < s->history; i++)
        b.history[i] = (float *)(void *)TAKE(one);
    b.state = TAKE(aligned(s->state_size));
#undef TAKE
    b.bytes = at + ALIGN; /* the scratch may start anywhere */
    return b;
}

size_t denoise_bytes(const struct solver *s, size_t n, bool guided)
{
    return carve(s, n, guided, NULL).bytes;
}

static bool all_finite(const float *x, size_t n)
{
    float sum = 0; /* 0 * x is 0, or NaN when x is infinite or NaN */
    for (size_t i = 0; i < n; i++)
        sum += 0 * x[i];
    return sum == 0;
}

int denoise(float *latents, const struct denoise_params *p, const struct denoise_model *m,
            void *scratch, struct err *e)
{
    const struct schedule *s = p->schedule;
    bool guided = p->guidance_scale > 1;
    if (p->solver->history > MAX_HISTORY)
        return err_set(e, ERR_BUG, "solver %s wants %d buffers, at most %d exist", p->solver->name,
                       p->solver->history, MAX_HISTORY);
    struct buffers b = carve(p->solver, p->n, guided, scratch);
    memset(b.state, 0, p->solver->state_size);

    for (int step = 0; step < s->num_steps; step++) {
        float t = s->timestep[step];
        if (m->velocity(m->ctx, b.velocity, latents, step, 0, t, e) < 0) return -1;
        if (guided) {
            if (m->velocity(m->ctx, b.negative, latents, step, 1, t, e) < 0) return -1;
            guidance_apply(b.velocity, b.negative, p->guidance_scale, p->n, p->round);
        }
        if (!all_finite(b.velocity, p->n))
            return err_set(e, ERR_INPUT,
                           "step %d of %d: the model's velocity is not finite; its weights are "
                           "broken, or made for another precision",
                           step + 1, s->num_steps);
        p->solver->step(b.state, b.history, s, step, latents, b.velocity, p->n);
        if (p->after_step && p->after_step(p->ctx, step, s->num_steps, latents) != 0)
            return err_set(e, ERR_CANCELLED, "cancelled after step %d of %d", step + 1,
                           s->num_steps);
    }
    return 0;
}
