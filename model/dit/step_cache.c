/* What a run's step cache keeps and adds, and when it is asked; see cache.h.
 *
 * In front of a step's blocks the kept residual is added, or the stream is kept to be subtracted from
 * what comes out behind them. Sums are fp32, narrowed in bf16 runs as the stream is. All of it looks at
 * memory of the host: dit_prepare() refuses step caches elsewhere. */
#include "model/dit/dit_internal.h"

#include "model/base/threads.h"

#include <float.h>
#include <math.h>

#define PIECE ((size_t)1 << 14) /* elements: sums of pieces are added in their order */

/* --- sums over long rows, in pieces ------------------------------------------------------------- */

struct pieces {
    float *to;
    const float *a, *b;
    size_t n;
    float sign; /* to = a + sign * b */
    bool round;
    double *sums; /* [pieces] of |a - b| */
};

static void add_piece(void *ctx, int task, int worker)
{
    const struct pieces *p = ctx;
    size_t i = (size_t)task * PIECE, end = i + PIECE < p->n ? i + PIECE : p->n;
    (void)worker;
    for (; i < end; i++) {
        float v = p->a[i] + p->sign * p->b[i];
        p->to[i] = p->round ? bf16_round(v) : v;
    }
}

static void sum_piece(void *ctx, int task, int worker)
{
    const struct pieces *p = ctx;
    size_t i = (size_t)task * PIECE, end = i + PIECE < p->n ? i + PIECE : p->n;
    double sum = 0;
    (void)worker;
    for (; i < end; i++)
        sum += fabs((double)p->a[i] - (p->b ? (double)p->b[i] : 0));
    p->sums[task] = sum;
}

static void add(float *to, const float *a, float sign, const float *b, size_t n, bool round)
{
    struct pieces p = {.to = to, .a = a, .b = b, .n = n, .sign = sign, .round = round};
    threads_run((int)((n + PIECE - 1) / PIECE), add_piece, &p);
}

double cache_mean(const float *a, const float *b, size_t n)
{
    double sums[256], sum = 0;
    for (size_t at = 0; at < n; at += PIECE * ARRAY_LEN(sums)) {
        size_t len = n - at < PIECE * ARRAY_LEN(sums) ? n - at : PIECE * ARRAY_LEN(sums);
        int tasks = (int)((len + PIECE - 1) / PIECE);
        struct pieces p = {.a = a + at, .b = b ? b + at : NULL, .n = len, .sums = sums};
        threads_run(tasks, sum_piece, &p);
        for (int i = 0; i < tasks; i++)
            sum += sums[i];
    }
    return n ? sum / (double)n : 0;
}

double cache_change(const float *a, const float *b, size_t n)
{
    double moved = cache_mean(a, b, n), size = cache_mean(b, NULL, n);
    return size > 0 ? moved / size : moved > 0 ? DBL_MAX : 0;
}

/* Keeps what the blocks added for who watches, and leaves out nothing. */
static bool never(const struct dit_cache_now *now)
{
    (void)now;
    return false;
}
static const struct dit_cache watched = {.name = "watched", .keeps = KEEPS_BLOCKS, .decide = never};

static void tell(const struct dit *d, const struct dit_call *c, int i, const float *velocity,
                 const float *added)
{
    const struct dit_run *r = &d->run;
    const struct dit_grid *g = &r->p.grid;
    struct dit_seen seen = {.step = c->step,
                            .n_steps = r->p.n_steps,
                            .branch = c->branch + i,
                            .n_branches = r->p.n_branches,
                            .added = added,
                            .tokens = r->tokens,
                            .width = r->width,
                            .velocity = velocity,
                            .n = (size_t)d->config.out_channels * (size_t)g->frames *
                                 (size_t)g->height * (size_t)g->width,
                            .temb = r->temb.at,
                            .time6 = r->time6.at,
                            .n_time = (size_t)r->time_rows * (size_t)r->width};
    r->p.cache.watch->seen(r->p.cache.watch->ctx, &seen);
}

/* --- memory ------------------------------------------------------------------------------------- */

struct lengths { /* in floats */
    size_t stream, velocity, kept, own, head;
};

static struct lengths lengths_of(const struct dit_cache *kind, const struct dit_config *c,
                                 const struct dit_run_params *p)
{
    size_t D = (size_t)c->n_heads * (size_t)c->head_dim, frames = (size_t)p->grid.frames;
    struct lengths n = {.stream = (size_t)dit_tokens(c, &p->grid) * D,
                        .velocity = (size_t)c->out_channels * frames * (size_t)p->grid.height *
                                    (size_t)p->grid.width};
    n.kept = kind->keeps == KEEPS_VELOCITY ? n.velocity : n.stream;
    n.head = kind->keeps == KEEPS_TAIL ? n.stream : 0;
    n.own = kind->own.stream * n.stream + kind->own.latents * n.velocity +
            kind->own.time * 6 * D * frames;
    return n;
}

size_t step_cache_bytes(const struct dit_cache *kind, const struct dit_config *c,
                        const struct dit_run_params *p)
{
    struct lengths n = lengths_of(kind, c, p);
    return (n.kept * (size_t)p->n_branches + n.own + n.head) * sizeof(float);
}

int step_cache_carve(struct dit_run *r, const struct dit_config *c, struct arena *a, struct err *e)
{
    struct step_cache *s = &r->cache;
    *s = (struct step_cache){.step = -1};
    if (step_cache_parse(&s->kind, &s->knobs, r->p.cache.words, e) < 0) return -1;
    bool watch = !s->kind && r->p.cache.watch;
    if (watch) s->kind = &watched;
    if (!s->kind) return 0;
    int rc = step_cache_poly(s->poly, s->kind, &s->knobs, &r->p.cache, c, r->tokens_a_frame, e);
    if (!watch) option_free(s->kind->options, &s->knobs); /* texts; numbers stay */
    if (rc < 0) return -1;
    struct lengths n = lengths_of(s->kind, c, &r->p);
    step_cache_ends(&s->knobs, r->p.n_steps, &s->first, &s->last);
    s->kept_len = n.kept;
    s->own_len = n.own;
    s->held = arena_take(a, (size_t)r->p.n_branches * sizeof *s->held);
    s->kept = arena_take(a, n.kept * (size_t)r->p.n_branches * sizeof(float));
    s->own = arena_take(a, n.own * sizeof(float));
    s->head = arena_take(a, n.head * sizeof(float));
    if (a->base) step_cache_reset(r);
    return 0;
}

void step_cache_reset(struct dit_run *r)
{
    struct step_cache *s = &r->cache;
    if (!s->kind) return;
    s->step = -1;
    memset(s->held, 0, (size_t)r->p.n_branches * sizeof *s->held);
    if (s->own_len) memset(s->own, 0, s->own_len * sizeof(float));
    memset(s->numbers, 0, sizeof s->numbers);
}

/* --- a step ------------------------------------------------------------------------------------- */

static float *kept_of(struct step_cache *s, int branch)
{
    return s->kept + (size_t)branch * s->kept_len;
}

static struct dit_cache_now now_of(struct dit *d, const struct dit_call *c, const float *latents)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    size_t n_temb = (size_t)r->time_rows * (size_t)r->width;
    struct dit_cache_now now = {.knobs = &s->knobs,
                                .calibration = r->p.cache.calibration,
                                .poly = s->poly,
                                .step = c->step,
                                .n_steps = r->p.n_steps,
                                .n_branches = r->p.n_branches,
                                .first = s->first,
                                .last = s->last,
                                .temb = r->temb.at,
                                .time6 = r->time6.at,
                                .n_temb = n_temb,
                                .n_time6 = 6 * n_temb,
                                .latents = latents,
                                .n_latents = lengths_of(s->kind, &d->config, &r->p).velocity,
                                .head = s->head,
                                .n_head = s->kind->keeps == KEEPS_TAIL ? s->kept_len : 0,
                                .must = c->step < s->first || c->step >= s->last,
                                .own = s->own,
                                .numbers = s->numbers};
    for (int i = 0; i < c->n_branches; i++)
        now.must = now.must || !s->held[c->branch + i];
    return now;
}

/* Once a step: by the branches of the first call that has it. */
static void decide(struct dit *d, const struct dit_call *c, const float *latents)
{
    struct step_cache *s = &d->run.cache;
    struct dit_cache_now now = now_of(d, c, latents);
    if (c->step == s->step) {
        s->skip = s->skip && !now.must;
        return;
    }
    s->step = c->step;
    s->skip = s->kind->decide(&now) && !now.must;
    if (s->skip)
        s->reused++;
    else
        s->computed++;
}

/* The kept residual into all streams, or the streams kept until the blocks are through. */
static void split(struct dit_run *r, const struct dit_call *c)
{
    struct step_cache *s = &r->cache;
    for (int i = 0; i < c->n_branches; i++) {
        float *kept = kept_of(s, c->branch + i);
        dit_stream(r, i, 1);
        if (s->skip) {
            add(r->x.at, r->x.at, 1, kept, s->kept_len, r->round);
        } else {
            memcpy(kept, r->x.at, s->kept_len * sizeof(float));
            s->held[c->branch + i] = false;
        }
    }
}

bool step_cache_velocity(struct dit *d, float *const *velocity, const float *latents,
                         const struct dit_call *c)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    s->whole = false;
    if (!s->kind) return false;
    if (c->step < s->step || c->expert != s->expert) step_cache_reset(r);
    s->expert = c->expert;
    if (s->kind->keeps != KEEPS_VELOCITY) return false;
    decide(d, c, latents);
    for (int i = 0; s->skip && i < c->n_branches; i++)
        add(velocity[i], latents, 1, kept_of(s, c->branch + i), s->kept_len, r->round);
    return s->skip;
}

void step_cache_block(struct dit *d, const float *latents, const struct dit_call *c, int done)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    if (!s->kind || s->kind->keeps == KEEPS_VELOCITY) return;
    if (s->kind->keeps == KEEPS_TAIL) { /* what the first block adds to branch 0 */
        dit_stream(r, 0, 1);
        if (done == 0)
            memcpy(s->head, r->x.at, s->kept_len * sizeof(float));
        else if (done == 1)
            add(s->head, r->x.at, -1, s->head, s->kept_len, false);
    }
    if (done != (s->kind->keeps == KEEPS_TAIL)) return;
    decide(d, c, latents);
    split(r, c);
    s->whole = s->skip;
}

void step_cache_keep(struct dit *d, float *const *velocity, const float *latents,
                     const struct dit_call *c)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    if (!s->kind || s->skip) return;
    for (int i = 0; i < c->n_branches; i++) {
        float *kept = kept_of(s, c->branch + i);
        dit_stream(r, i, 1);
        if (s->kind->keeps == KEEPS_VELOCITY)
            add(kept, velocity[i], -1, latents, s->kept_len, r->round);
        else
            add(kept, r->x.at, -1, kept, s->kept_len, r->round);
        s->held[c->branch + i] = true;
        if (s->kind == &watched) tell(d, c, i, velocity[i], kept);
    }
    if (!s->kind->computed || c->branch > 0) return;
    struct dit_cache_now now = now_of(d, c, latents);
    now.velocity = velocity[0];
    s->kind->computed(&now);
}

/* --- saved and told ----------------------------------------------------------------------------- */

void dit_cache_stats(const struct dit *d, struct dit_cache_stats *s)
{
    *s = (struct dit_cache_stats){.computed = d->run.cache.computed, .reused = d->run.cache.reused};
}

void dit_cache_kept(struct dit *d, struct dit_cache_kept *k)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    *k = (struct dit_cache_kept){0};
    if (!s->kind) return;
    *k = (struct dit_cache_kept){
        .blocks = {{s->kept, s->kept_len * (size_t)r->p.n_branches}, {s->own, s->own_len}},
        .n_blocks = s->own_len ? 2 : 1,
        .numbers = s->numbers,
        .n_numbers = DIT_CACHE_NUMBERS};
}

void dit_cache_resume(struct dit *d, int step)
{
    struct dit_run *r = &d->run;
    struct step_cache *s = &r->cache;
    if (!s->kind) return;
    s->step = step - 1;
    for (int b = 0; b < r->p.n_branches; b++)
        s->held[b] = true;
}
