/* What a run's step cache keeps and adds, and when it is asked; see cache.h.
 *
 * In front of a step's blocks the kept residual is added, or the stream is kept to be subtracted from
 * what comes out behind them. Sums are fp32, narrowed in bf16 runs as the stream is. All of it is done by
 * operations of the device; decisions are the host's, of numbers that it has brought down. */
#include "model/dit/dit_internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

static bool on_host(const struct dit_run *r) { return device_place(r->device) == PLACE_HOST; }

/* --- what a cache asks for ---------------------------------------------------------------------- */

double cache_mean(struct dit_cache_now *now, const struct rows *a, const struct rows *b)
{
    double sum = 0;
    if (now->failed) return 0;
    now->failed = ops_of(now->device)->distance(now->device, now->room, a, b, now->e) < 0 ||
                  device_download(now->device, &sum, now->room, sizeof sum, now->e) < 0;
    return now->failed ? 0 : sum / (double)(a->n * a->cols);
}

double cache_change(struct dit_cache_now *now, const struct rows *a, const struct rows *b)
{
    double sums[2] = {0}, n = (double)(a->n * a->cols);
    if (now->failed) return 0;
    now->failed = ops_of(now->device)->distance(now->device, now->room, a, b, now->e) < 0 ||
                  device_download(now->device, sums, now->room, sizeof sums, now->e) < 0;
    if (now->failed) return 0;
    double moved = sums[0] / n, size = sums[1] / n;
    return size > 0 ? moved / size : moved > 0 ? DBL_MAX : 0;
}

struct rows cache_own(const struct dit_cache_now *now, int i, const struct rows *like)
{
    float *at = now->own ? now->own + (size_t)i * (size_t)(like->n * like->cols) : NULL;
    return rows_of(now->device, at, DTYPE_F32, like->n, like->cols);
}

void cache_note(struct dit_cache_now *now, const struct rows *to, const struct rows *from)
{
    if (now->failed) return;
    now->failed = ops_of(now->device)->cast(now->device, to, from, false, now->e) < 0;
}

/* Keeps what the blocks added for who watches, and leaves out nothing. */
static bool never(struct dit_cache_now *now)
{
    (void)now;
    return false;
}
const struct dit_cache step_cache_watched = {
    .name = "watched", .keeps = KEEPS_BLOCKS, .decide = never};

/* --- memory ------------------------------------------------------------------------------------- */

struct
    lengths { /* numbers: of one stream, one velocity; of what is kept a branch, and by the cache */
    size_t stream, velocity, kept, own, head, minus, times;
};

static struct lengths lengths_of(const struct dit_cache *kind, const struct dit_config *c,
                                 const struct dit_run_params *p)
{
    size_t D = (size_t)c->n_heads * (size_t)c->head_dim, frames = (size_t)p->grid.frames;
    struct lengths n = {.stream = (size_t)dit_tokens(c, &p->grid) * D,
                        .velocity = (size_t)c->out_channels * frames * (size_t)p->grid.height *
                                    (size_t)p->grid.width,
                        .times = 7 * D * frames};
    bool streams = kind->keeps != KEEPS_VELOCITY;
    n.kept = streams ? n.stream : n.velocity;
    n.minus = streams ? D : 0;
    n.head = kind->keeps == KEEPS_TAIL ? n.stream : 0;
    n.own = kind->own.stream * n.stream + kind->own.latents * n.velocity +
            kind->own.time * 6 * D * frames;
    return n;
}

static enum dtype kept_type(const struct dit_cache *kind, enum dtype act)
{
    return kind->keeps == KEEPS_VELOCITY ? DTYPE_F32 : act;
}

#define ROOM (OPS_DISTANCE_ROOM * sizeof(double))

size_t step_cache_bytes(const struct dit_cache *kind, const struct dit_config *c,
                        const struct dit_run_params *p, enum dtype act)
{
    struct lengths n = lengths_of(kind, c, p);
    return n.kept * (size_t)p->n_branches * dtype_size(kept_type(kind, act)) +
           (n.own + n.head + n.minus) * sizeof(float) + ROOM;
}

int step_cache_carve(struct dit_run *r, const struct dit_config *c, struct arena *a,
                     struct arena *host, struct err *e)
{
    struct step_cache *s = &r->cache;
    *s = (struct step_cache){.step = -1};
    if (step_cache_parse(&s->kind, &s->knobs, r->p.cache.words, e) < 0) return -1;
    bool watch = !s->kind && r->p.cache.watch;
    if (watch) s->kind = &step_cache_watched;
    if (!s->kind) return 0;
    int rc = step_cache_poly(s->poly, s->kind, &s->knobs, &r->p.cache, c, r->tokens_a_frame, e);
    if (!watch) option_free(s->kind->options, &s->knobs); /* texts; numbers stay */
    if (rc < 0) return -1;
    struct lengths n = lengths_of(s->kind, c, &r->p);
    size_t kept = n.kept * (size_t)r->p.n_branches;
    step_cache_ends(&s->knobs, r->p.n_steps, &s->first, &s->last);
    s->type = kept_type(s->kind, r->act);
    s->kept_len = n.kept;
    s->own_len = n.own;
    s->held = arena_take(host, (size_t)r->p.n_branches * sizeof *s->held);
    s->kept = arena_take(a, kept * dtype_size(s->type));
    s->own = arena_take(a, n.own * sizeof(float));
    s->head = arena_take(a, n.head * sizeof(float));
    s->minus = arena_take(a, n.minus * sizeof(float));
    s->room = arena_take(a, ROOM);
    if (on_host(r)) return 0;
    s->mirror = arena_take(host, (watch ? 0 : kept + n.own) * sizeof(float));
    s->seen = arena_take(host, (watch ? n.stream + n.velocity + n.times : 0) * sizeof(float));
    return 0;
}

static int reset(struct dit_run *r, struct err *e)
{
    struct step_cache *s = &r->cache;
    s->step = -1;
    memset(s->held, 0, (size_t)r->p.n_branches * sizeof *s->held);
    memset(s->numbers, 0, sizeof s->numbers);
    return s->own_len ? device_zero(r->device, s->own, s->own_len * sizeof(float), e) : 0;
}

int step_cache_fill(struct dit_run *r, struct err *e)
{
    struct step_cache *s = &r->cache;
    if (!s->kind) return 0;
    if (s->minus) {
        size_t bytes = (size_t)r->width * sizeof(float);
        float *minus = malloc(bytes);
        if (!minus) return err_set(e, ERR_RESOURCE, "no memory for the step cache's signs");
        for (int i = 0; i < r->width; i++)
            minus[i] = -1;
        int rc = device_upload(r->device, s->minus, minus, bytes, e);
        free(minus);
        if (rc < 0) return -1;
    }
    return reset(r, e);
}

/* --- a step ------------------------------------------------------------------------------------- */

static struct rows stream_of(struct dit_run *r, int i)
{
    dit_stream(r, i, 1);
    return r->x;
}

/* Of one velocity, or of as many channels of the latents. */
static struct rows latents_of(const struct dit *d, const float *at)
{
    const struct dit_grid *g = &d->run.p.grid;
    return rows_of(d->run.device, (void *)(uintptr_t)at, DTYPE_F32, d->config.out_channels,
                   (int64_t)g->frames * g->height * g->width);
}

struct rows step_cache_kept(const struct dit_run *r, int branch)
{
    const struct step_cache *s = &r->cache;
    return rows_of(r->device, s->kept + (size_t)branch * s->kept_len * dtype_size(s->type), s->type,
                   r->tokens, r->width);
}

static float *kept_velocity(const struct step_cache *s, int branch)
{
    return (float *)(void *)s->kept + (size_t)branch * s->kept_len;
}

static struct dit_cache_now now_of(struct dit *d, const struct dit_call *c, const float *latents,
                                   struct err *e)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    struct dit_cache_now now = {.knobs = &s->knobs,
                                .calibration = r->p.cache.calibration,
                                .budget = r->p.cache.budget,
                                .poly = s->poly,
                                .step = c->step,
                                .n_steps = r->p.n_steps,
                                .n_branches = r->p.n_branches,
                                .first = s->first,
                                .last = s->last,
                                .temb = rows_part(&r->temb, 0, r->time_rows),
                                .time6 = rows_part(&r->time6, 0, r->time_rows),
                                .latents = latents_of(d, latents),
                                .must = c->step < s->first || c->step >= s->last,
                                .own = s->own,
                                .numbers = s->numbers,
                                .device = r->device,
                                .room = s->room,
                                .e = e};
    if (s->head) now.head = rows_of(r->device, s->head, DTYPE_F32, r->tokens, r->width);
    for (int i = 0; i < c->n_branches; i++)
        now.must = now.must || !s->held[c->branch + i];
    return now;
}

int step_cache_begin(struct dit_run *r, const struct dit_call *c, struct err *e)
{
    struct step_cache *s = &r->cache;
    if ((c->step < s->step || c->expert != s->expert) && reset(r, e) < 0) return -1;
    s->expert = c->expert;
    return 0;
}

bool step_cache_wants_block(const struct dit_run *r)
{
    return r->cache.kind && r->cache.kind->keeps == KEEPS_TAIL;
}

/* x -= y */
static int subtract(struct dit_run *r, const struct rows *x, const struct rows *y, bool round,
                    struct err *e)
{
    struct gate_params minus = {.gate = r->cache.minus, .round = round};
    return r->ops->gate(r->device, x, y, &minus, e);
}

/* What the first block adds to branch 0, wide whatever the streams are: what went in less what came
 * out, its sign turned. */
int step_cache_head(struct dit_run *r, int done, struct err *e)
{
    float *head = r->cache.head;
    struct rows to = rows_of(r->device, head, DTYPE_F32, r->tokens, r->width);
    struct rows x = stream_of(r, 0);
    if (!done) return r->ops->cast(r->device, &to, &x, false, e);
    const struct lincomb turn = {.n = 1, .c = {-1}};
    if (subtract(r, &to, &x, false, e) < 0) return -1;
    return r->ops->lincomb(r->device, &head, &turn, r->cache.kept_len, false, e);
}

/* Once a step: by the branches of the first call that has it. */
int step_cache_decide(struct dit *d, bool *skip, const float *latents, const struct dit_call *c,
                      struct err *e)
{
    struct step_cache *s = &d->run.cache;
    struct dit_cache_now now = now_of(d, c, latents, e);
    if (c->step == s->step) {
        s->skip = s->skip && !now.must;
    } else {
        s->step = c->step;
        s->skip = s->kind->decide(&now) && !now.must;
        if (now.failed) return -1;
        if (s->skip)
            s->reused++;
        else
            s->computed++;
    }
    for (int i = 0; !s->skip && i < c->n_branches; i++)
        s->held[c->branch + i] = false;
    *skip = s->skip;
    return 0;
}

bool step_cache_of_velocity(const struct dit_run *r)
{
    return r->cache.kind->keeps == KEEPS_VELOCITY;
}

/* to = a + sign * b, rounded once: a sum of a solver would round the latents as well. */
static int add_latents(struct dit *d, float *to, const float *a, float sign, const float *b,
                       struct err *e)
{
    struct dit_run *r = &d->run;
    float *x[] = {to, (float *)(uintptr_t)a, (float *)(uintptr_t)b};
    const struct lincomb sum = {.to = 0, .n = 2, .from = {1, 2}, .c = {1, sign}};
    struct rows view = latents_of(d, to);
    if (r->ops->lincomb(r->device, x, &sum, r->cache.kept_len, false, e) < 0) return -1;
    return r->round ? r->ops->cast(r->device, &view, &view, true, e) : 0;
}

int step_cache_add_velocity(struct dit *d, float *const *velocity, const float *latents,
                            const struct dit_call *c, struct err *e)
{
    for (int i = 0; i < c->n_branches; i++) {
        const float *kept = kept_velocity(&d->run.cache, c->branch + i);
        if (add_latents(d, velocity[i], latents, 1, kept, e) < 0) return -1;
    }
    return 0;
}

int step_cache_add(struct dit_run *r, const struct dit_call *c, struct err *e)
{
    struct gate_params plain = {.round = r->round};
    for (int i = 0; i < c->n_branches; i++) {
        struct rows kept = step_cache_kept(r, c->branch + i), x = stream_of(r, i);
        if (r->ops->gate(r->device, &x, &kept, &plain, e) < 0) return -1;
    }
    return 0;
}

int step_cache_split(struct dit_run *r, const struct dit_call *c, struct err *e)
{
    for (int i = 0; !step_cache_of_velocity(r) && i < c->n_branches; i++) {
        struct rows kept = step_cache_kept(r, c->branch + i), x = stream_of(r, i);
        if (r->ops->cast(r->device, &kept, &x, false, e) < 0) return -1;
    }
    return 0;
}

int step_cache_keep(struct dit *d, float *const *velocity, const float *latents,
                    const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    for (int i = 0; i < c->n_branches; i++) {
        if (step_cache_of_velocity(r)) {
            float *kept = kept_velocity(&r->cache, c->branch + i);
            if (add_latents(d, kept, velocity[i], -1, latents, e) < 0) return -1;
            continue;
        }
        struct rows kept = step_cache_kept(r, c->branch + i), x = stream_of(r, i);
        if (subtract(r, &x, &kept, r->round, e) < 0 ||
            r->ops->cast(r->device, &kept, &x, false, e) < 0)
            return -1;
    }
    return 0;
}

int step_cache_done(struct dit *d, float *const *velocity, const float *latents,
                    const struct dit_call *c, struct err *e)
{
    struct step_cache *s = &d->run.cache;
    for (int i = 0; i < c->n_branches; i++) {
        s->held[c->branch + i] = true;
        if (s->kind == &step_cache_watched && step_cache_tell(d, c, i, velocity[i], e) < 0)
            return -1;
    }
    if (!s->kind->computed || c->branch > 0) return 0;
    struct dit_cache_now now = now_of(d, c, latents, e);
    now.velocity = latents_of(d, velocity[0]);
    s->kind->computed(&now);
    return now.failed ? -1 : 0;
}
