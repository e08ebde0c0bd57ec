/* What a step cache remembers as memory of the host: shown to who watches, saved and brought back. In
 * place where the transformer computes there, else copied. */
#include "model/dit/cache.h"
#include "model/dit/dit_internal.h"

static bool on_host(const struct dit_run *r) { return device_place(r->device) == PLACE_HOST; }

/* bf16 comes into the upper half and is widened from below, which overtakes nothing. */
static int fetch(const struct dit_run *r, float *to, const void *at, enum dtype type, size_t n,
                 struct err *e)
{
    char *raw = (char *)to + n * (sizeof *to - dtype_size(type));
    if (device_download(r->device, raw, at, n * dtype_size(type), e) < 0) return -1;
    for (size_t i = 0; type != DTYPE_F32 && i < n; i++) {
        uint16_t x;
        memcpy(&x, raw + i * sizeof x, sizeof x);
        to[i] = bf16_to_f32(x);
    }
    return 0;
}

/* from is used up. */
static int send(const struct dit_run *r, void *at, float *from, enum dtype type, size_t n,
                struct err *e)
{
    for (size_t i = 0; type != DTYPE_F32 && i < n; i++) {
        uint16_t x = f32_to_bf16(from[i]);
        memcpy((char *)from + i * sizeof x, &x, sizeof x);
    }
    return device_upload(r->device, at, from, n * dtype_size(type), e);
}

/* What a step made, as whoever watches takes it: on the host in place. */
int step_cache_tell(struct dit *d, const struct dit_call *c, int i, const float *velocity,
                    struct err *e)
{
    const struct dit_run *r = &d->run;
    const struct step_cache *s = &r->cache;
    const struct dit_watch *watch = r->p.cache.watch;
    struct rows kept = step_cache_kept(r, c->branch + i);
    const struct dit_grid *g = &r->p.grid;
    size_t n =
        (size_t)d->config.out_channels * (size_t)g->frames * (size_t)g->height * (size_t)g->width;
    size_t n_time = (size_t)r->time_rows * (size_t)r->width;
    struct dit_seen seen = {.step = c->step,
                            .n_steps = r->p.n_steps,
                            .branch = c->branch + i,
                            .n_branches = r->p.n_branches,
                            .added = kept.at,
                            .tokens = r->tokens,
                            .width = r->width,
                            .velocity = velocity,
                            .n = n,
                            .temb = r->temb.at,
                            .time6 = r->time6.at,
                            .n_time = n_time};
    if (!on_host(r)) {
        float *added = s->seen, *moved = added + s->kept_len, *temb = moved + n,
              *time6 = temb + n_time;
        if (fetch(r, added, kept.at, s->type, s->kept_len, e) < 0 ||
            fetch(r, moved, velocity, DTYPE_F32, n, e) < 0 ||
            fetch(r, temb, r->temb.at, r->temb.type, n_time, e) < 0 ||
            fetch(r, time6, r->time6.at, r->time6.type, 6 * n_time, e) < 0)
            return -1;
        seen.added = added, seen.velocity = moved, seen.temb = temb, seen.time6 = time6;
    }
    watch->seen(watch->ctx, &seen);
    return 0;
}

void dit_cache_stats(const struct dit *d, struct dit_cache_stats *s)
{
    const struct step_cache *c = &d->run.cache;
    struct budget_run r = {.of = d->run.p.cache.budget, .n_units = 1, .group = 1, .end = c->last};
    struct budget_one one;
    *s = (struct dit_cache_stats){
        .computed = c->computed, .reused = c->reused, .budgeted = c->kind && c->kind->budgeted};
    if (!s->budgeted) return;
    budget_take(&one, c->numbers);
    budget_spent(&s->spent, budget_one(&one), &r);
}

void dit_cache_kept(struct dit *d, struct dit_cache_kept *k)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    size_t n = s->kept_len * (size_t)r->p.n_branches;
    float *kept = on_host(r) ? (float *)(void *)s->kept : s->mirror;
    float *own = on_host(r) ? s->own : s->mirror ? s->mirror + n : NULL;
    *k = (struct dit_cache_kept){0};
    if (!s->kind || s->kind == &step_cache_watched) return;
    *k = (struct dit_cache_kept){.blocks = {{kept, n}, {own, s->own_len}},
                                 .n_blocks = s->own_len ? 2 : 1,
                                 .numbers = s->numbers,
                                 .n_numbers = DIT_CACHE_NUMBERS};
}

int dit_cache_fetch(struct dit *d, struct err *e)
{
    const struct dit_run *r = &d->run;
    const struct step_cache *s = &r->cache;
    size_t n = s->kept_len * (size_t)r->p.n_branches;
    if (!s->kind || !s->mirror) return 0;
    if (fetch(r, s->mirror, s->kept, s->type, n, e) < 0) return -1;
    return s->own_len ? fetch(r, s->mirror + n, s->own, DTYPE_F32, s->own_len, e) : 0;
}

int dit_cache_resume(struct dit *d, int step, struct err *e)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    size_t n = s->kept_len * (size_t)r->p.n_branches;
    if (!s->kind) return 0;
    s->step = step - 1;
    for (int b = 0; b < r->p.n_branches; b++)
        s->held[b] = true;
    if (!s->mirror) return 0;
    if (s->own_len && send(r, s->own, s->mirror + n, DTYPE_F32, s->own_len, e) < 0) return -1;
    return send(r, s->kept, s->mirror, s->type, n, e);
}
