/* Velocities of a prepared run: a step, recorded and replayed where the device can, or traced part by
 * part for what is not finite. Allocates nothing but what a recording takes. */
#include "model/dit/dit_internal.h"

void dit_stream(struct dit_run *r, int i, int n)
{
    int64_t rows = (int64_t)n * r->tokens;
    r->x = rows_part(&r->streams, (int64_t)i * r->tokens, rows);
    r->n.n = r->q.n = r->k.n = r->v.n = r->codes.n = rows;
}

struct rows *dit_normed(struct dit_run *r) { return r->fp8 && !r->watching ? &r->codes : &r->n; }

/* --- A step, whose times are in memory --- */

typedef int step_part(struct dit *d, float *const *velocity, const float *latents,
                      const struct dit_call *c, struct err *e);

/* Blocks [from, to): those that are streamed come while the ones before them run. */
static int run_blocks(struct dit *d, int from, int to, const struct dit_call *c, struct err *e)
{
    int rc = dit_stream_begin(d, from, to, false, e);
    for (int i = from; i < to && rc == 0; i++) {
        rc = dit_stream_take(d, i, e);
        if (rc == 0) rc = dit_block_run(d, i, c, e);
        if (rc == 0) rc = dit_stream_leave(d, i, e);
        if (rc < 0) err_wrap(e, "transformer block %d", i);
    }
    return dit_stream_end(d, rc, e);
}

/* All that a step cache decides by. */
static int front(struct dit *d, float *const *velocity, const float *latents,
                 const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    (void)velocity;
    if (dit_embed_time(d, e) < 0) return -1;
    if (!step_cache_wants_block(r)) return 0;
    if (dit_embed_latents(d, latents, c->n_branches, e) < 0 || step_cache_head(r, 0, e) < 0)
        return -1;
    if (run_blocks(d, 0, 1, c, e) < 0) return -1;
    return step_cache_head(r, 1, e);
}

static int heads(struct dit *d, float *const *velocity, const struct dit_call *c, struct err *e)
{
    int most = d->run.together;
    for (int i = 0, n; i < c->n_branches; i += n) {
        n = c->n_branches - i < most ? c->n_branches - i : most;
        if (dit_head(d, velocity, i, n, e) < 0) return -1;
    }
    return 0;
}

static int computed(struct dit *d, float *const *velocity, const float *latents,
                    const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    int done = step_cache_wants_block(r);
    if (!done && dit_embed_latents(d, latents, c->n_branches, e) < 0) return -1;
    if (r->cache.kind && step_cache_split(r, c, e) < 0) return -1;
    if (run_blocks(d, done, d->config.n_layers, c, e) < 0) return -1;
    if (heads(d, velocity, c, e) < 0) return -1;
    return r->cache.kind ? step_cache_keep(d, velocity, latents, c, e) : 0;
}

static int left_out(struct dit *d, float *const *velocity, const float *latents,
                    const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    if (step_cache_of_velocity(r)) return step_cache_add_velocity(d, velocity, latents, c, e);
    if (!step_cache_wants_block(r) && dit_embed_latents(d, latents, c->n_branches, e) < 0)
        return -1;
    return step_cache_add(r, c, e) < 0 ? -1 : heads(d, velocity, c, e);
}

static int whole(struct dit *d, float *const *velocity, const float *latents,
                 const struct dit_call *c, struct err *e)
{
    if (front(d, velocity, latents, c, e) < 0) return -1;
    return computed(d, velocity, latents, c, e);
}

static step_part *const step_parts[STEP_PARTS] = {whole, front, computed, left_out};

/* The first step of a run in fp8 is held against bf16 while it is made: the same bytes, since codes are of
 * what norms would have written. */
static int part_run(struct dit *d, int part, float *const *velocity, const float *latents,
                    const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    struct err off = {0};
    if (!r->fp8 || r->watched || (part != STEP_WHOLE && part != STEP_COMPUTED))
        return step_parts[part](d, velocity, latents, c, e);
    if (r->ops->fp8_watch(r->device, true, e) < 0) return -1;
    r->watching = true;
    int rc = step_parts[part](d, velocity, latents, c, e);
    r->watching = false;
    r->watched = true;
    if (r->ops->fp8_watch(r->device, false, rc < 0 ? &off : e) < 0) return -1;
    return rc;
}

int dit_fp8_error(const struct dit *d, double *error, long *products, struct err *e)
{
    *error = 0;
    *products = 0;
    if (!d->run.watched) return 0;
    return d->ops->fp8_watched(d->device, error, products, e);
}

/* --- Recorded steps --- */

/* The place of this part of this call's kind of step; NULL: it is not recorded. Streamed blocks are,
 * copies and all, where the host's memory that they come from cannot move. */
static struct dit_recorded *recorded(struct dit *d, int part, float *const *velocity,
                                     const float *latents, const struct dit_call *c)
{
    struct dit_run *r = &d->run;
    struct attn_ctx at = {.step = c->step, .branch = c->branch, .expert = c->expert};
    long launched;
    int kind = attn_step_kind(r->attn, &at, &launched);
    if (!device_can_record(r->device) || kind < 0 || c->n_branches > 2) return NULL;
    if (d->stream.n && !d->stream.pinned) return NULL;
    struct dit_recorded *s = &r->recorded[STEP_PARTS * (2 * (r->time_rows > 1) + kind) + part];
    struct dit_recorded now = {.branch = c->branch,
                               .n_branches = c->n_branches,
                               .time_rows = r->time_rows,
                               .latents = latents};
    for (int i = 0; i < c->n_branches; i++)
        now.velocity[i] = velocity[i];
    if (s->branch == now.branch && s->n_branches == now.n_branches &&
        s->time_rows == now.time_rows && s->latents == now.latents &&
        s->velocity[0] == now.velocity[0] && s->velocity[1] == now.velocity[1]) {
        if (s->launched != launched) device_steps_close(r->device, s->steps), s->steps = NULL;
        s->launched = launched;
        return s;
    }
    device_steps_close(r->device, s->steps);
    *s = now;
    s->launched = launched;
    return s;
}

static void attn_sums_of(const struct dit_run *r, struct attn_sums *to)
{
    struct attn_stats s;
    attn_stats(r->attn, &s);
    *to = s.sums;
}

/* A kind's first step runs as it is, and loads what it needs; its second is recorded. */
static int step(struct dit *d, int part, float *const *velocity, const float *latents,
                const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    struct dit_recorded *s = recorded(d, part, velocity, latents, c);
    if (!s || !s->ran) {
        int rc = part_run(d, part, velocity, latents, c, e);
        if (s) s->ran = rc == 0;
        return rc;
    }
    if (s->steps) {
        int layers = (int)(s->after.calls - s->before.calls) / c->n_branches;
        struct attn_ctx at = {.step = c->step, .branch = c->branch, .expert = c->expert};
        if (part != STEP_FRONT) at.layer = d->config.n_layers - layers;
        attn_repeat(r->attn, &at, c->n_branches, &s->before, &s->after);
        return device_replay(r->device, s->steps, e);
    }
    attn_sums_of(r, &s->before);
    if (device_record(r->device, e) < 0) return -1;
    int rc = step_parts[part](d, velocity, latents, c, e);
    if (rc == 0) e->code = ERR_NONE;
    if (device_recorded(r->device, &s->steps, e) < 0) return -1;
    attn_sums_of(r, &s->after);
    return device_replay(r->device, s->steps, e);
}

int dit_velocity(struct dit *d, float *const *velocity, const float *latents,
                 const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    if (c->n_branches < 1)
        return err_set(e, ERR_BUG, "dit_velocity: %d branches are asked for", c->n_branches);
    for (int b = c->branch; b < c->branch + c->n_branches; b++)
        if (!r->arena.base || b < 0 || b >= r->p.n_branches || !r->context[b].set)
            return err_set(e, ERR_BUG, "dit_velocity: branch %d has no context", b);
    if (dit_set_time(d, c, e) < 0) return -1;
    if (!r->cache.kind) return step(d, STEP_WHOLE, velocity, latents, c, e);
    bool skip;
    if (step_cache_begin(r, c, e) < 0 || step(d, STEP_FRONT, velocity, latents, c, e) < 0 ||
        step_cache_decide(d, &skip, latents, c, e) < 0)
        return -1;
    if (skip) return step(d, STEP_LEFT_OUT, velocity, latents, c, e);
    if (step(d, STEP_COMPUTED, velocity, latents, c, e) < 0) return -1;
    return step_cache_done(d, velocity, latents, c, e);
}

int dit_look(struct dit_run *r, const struct rows *x, int label, struct err *e)
{
    return r->tracing ? r->ops->finite(r->device, x, label, e) : 0;
}

/* The step again, without what remembers steps. */
static int trace(struct dit *d, float *const *velocity, const float *latents,
                 const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    struct rows temb = rows_part(&r->temb, 0, r->time_rows);
    if (dit_embed_time(d, e) < 0 || dit_look(r, &temb, PART_TIME, e) < 0) return -1;
    if (dit_embed_latents(d, latents, c->n_branches, e) < 0) return -1;
    for (int i = 0; i < c->n_branches; i++) {
        dit_stream(r, i, 1);
        if (dit_look(r, &r->x, PART_LATENTS, e) < 0) return -1;
    }
    if (run_blocks(d, 0, d->config.n_layers, c, e) < 0) return -1;
    for (int i = 0; i < c->n_branches; i++) {
        if (dit_head(d, velocity, i, 1, e) < 0) return -1;
        struct rows cols = rows_part(&r->out_cols, 0, r->tokens);
        if (dit_look(r, &cols, PART_HEAD, e) < 0) return -1;
    }
    return 0;
}

int dit_trace(struct dit *d, float *const *velocity, const float *latents, const struct dit_call *c,
              struct err *e)
{
    static const char *const parts[PARTS] = {"self-attention", "cross-attention", "feed-forward"};
    struct dit_run *r = &d->run;
    const char *linear = r->fp8 ? "fp8 linear layers" : "linear layers";
    struct attn_stats stats;
    int label = 0;
    if (dit_set_time(d, c, e) < 0) return -1;
    r->tracing = true;
    int rc = trace(d, velocity, latents, c, e);
    r->tracing = false;
    if (rc < 0 || r->ops->finite_seen(r->device, &label, e) < 0) return -1;
    attn_stats(r->attn, &stats);
    if (label == PART_TIME || label == PART_LATENTS || label == PART_HEAD)
        return err_set(e, ERR_INPUT, "transformer, %s (linear layers on %s)",
                       label == PART_TIME      ? "time embedding"
                       : label == PART_LATENTS ? "patch embedding"
                                               : "head",
                       device_name(r->device));
    if (label == 0)
        return err_set(e, ERR_INPUT, "transformer: computed again, every part is finite (%s)",
                       device_name(r->device));
    int layer = (label - PART_BLOCKS) / PARTS, part = (label - PART_BLOCKS) % PARTS;
    if (part == PART_FFN)
        return err_set(e, ERR_INPUT, "transformer block %d, %s (%s on %s)", layer, parts[part],
                       linear, device_name(r->device));
    return err_set(e, ERR_INPUT, "transformer block %d, %s (kernel %s)", layer, parts[part],
                   stats.kernel);
}

void dit_attn_stats(const struct dit *d, struct attn_stats *s)
{
    *s = (struct attn_stats){.density = 1};
    if (d->run.attn) attn_stats(d->run.attn, s);
}

void dit_attn_kept(const struct dit *d, struct attn_kept *k)
{
    *k = (struct attn_kept){0};
    if (d->run.attn) attn_kept(d->run.attn, k);
}

int dit_attn_kept_read(const struct dit *d, void *to, struct err *e)
{
    return d->run.attn ? attn_kept_read(d->run.attn, to, e) : 0;
}

int dit_attn_kept_write(struct dit *d, const void *from, struct err *e)
{
    return d->run.attn ? attn_kept_write(d->run.attn, from, e) : 0;
}

int dit_attn_kept_check(const struct dit *d, struct err *e)
{
    return d->run.attn ? attn_kept_check(d->run.attn, e) : 0;
}
