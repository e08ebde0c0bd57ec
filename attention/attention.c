/* The door: opens a stack with its memory, asks it, runs what it plans, keeps what it will copy. */
#include "attention/attention.h"

#include "attention/room.h"
#include "model/base/clock.h"
#include "model/base/threads.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* --- kernels --- */

int attn_kernel_count(void) { return attn_kernel_rows(); }

struct attn_kernel_info attn_kernel_at(int i)
{
    const struct attn_kernel *k = attn_kernel_row(i);
    if (!k) return (struct attn_kernel_info){0};
    return (struct attn_kernel_info){.name = k->name, .summary = k->summary, .needs = k->needs};
}

/* --- opening --- */

static int check_shape(const struct attn_shape *s, struct err *e)
{
    if (s->grid_t < 1 || s->grid_h < 1 || s->grid_w < 1)
        return err_set(e, ERR_USAGE,
                       "attention over a grid of %d x %d x %d tokens: all must be 1 or more",
                       s->grid_t, s->grid_h, s->grid_w);
    if (s->n_layers < 1 || s->n_branches < 1 || s->n_steps < 1)
        return err_set(e, ERR_USAGE,
                       "attention of %d layers, %d branches, %d steps: all must be 1 or more",
                       s->n_layers, s->n_branches, s->n_steps);
    if (s->n_heads < 1 || s->n_heads > 256)
        return err_set(e, ERR_USAGE, "attention of %d heads, wanted 1 to 256", s->n_heads);
    int64_t plane = (int64_t)s->grid_h * s->grid_w; /* below 2^62 */
    if (plane > INT32_MAX || plane * s->grid_t > INT32_MAX / 2)
        return err_set(e, ERR_USAGE,
                       "attention over a grid of %d x %d x %d tokens is too long; at most %d",
                       s->grid_t, s->grid_h, s->grid_w, INT32_MAX / 2);
    return 0;
}

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

static void add_sizes(struct attn_sizes *to, const struct attn_part *p, attn_sizes_fn *sizes)
{
    struct attn_sizes s = {0};
    if (!sizes) return;
    sizes(p, &s);
    assert(!(to->state && s.state)); /* one owner: method.h */
    to->state += s.state;
    to->shared += s.shared;
    if (s.scratch > to->scratch) to->scratch = s.scratch;
}

/* What a part wants: its method, and the members that it brought to the recipe. */
static struct attn_sizes part_sizes(const struct attn *a, const struct attn_part *p)
{
    const struct attn_recipe *r = &a->stack.recipe;
    const int *by = a->stack.by;
    struct attn_sizes s = {0};
    add_sizes(&s, p, p->method->sizes);
    if (by[ATTN_AXIS_ORDER] == p->index) add_sizes(&s, p, r->order->sizes);
    if (by[ATTN_AXIS_SCORE] == p->index) add_sizes(&s, p, r->score->sizes);
    if (by[ATTN_AXIS_SELECT] == p->index) add_sizes(&s, p, r->select->sizes);
    if (by[ATTN_AXIS_REUSE] == p->index) add_sizes(&s, p, r->reuse->sizes);
    if (by[ATTN_AXIS_COMPENSATE] == p->index) add_sizes(&s, p, r->compensate->sizes);
    return s;
}

/* State of every part, sized by its method and members. */
int parts_carve(struct attn *a, struct arena *arena, struct err *e)
{
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *p = &a->stack.part[i];
        struct memory *m = &a->memory[i];
        m->size = part_sizes(a, p);
        m->size.state = aligned(m->size.state);
        if (m->size.state > SIZE_MAX / (size_t)a->n_pairs)
            return err_set(e, ERR_RESOURCE,
                           "attention %s: %d states of %zu bytes are more than memory can hold",
                           p->method->name, a->n_pairs, m->size.state);
        if (m->size.state) m->state = arena_take(arena, m->size.state * (size_t)a->n_pairs);
        if (m->size.shared) m->shared = arena_take(arena, m->size.shared);
    }
    return 0;
}

void parts_carve_scratch(struct attn *a, struct arena *arena)
{
    for (int i = 0; i < a->stack.n; i++) {
        struct memory *m = &a->memory[i];
        if (m->size.scratch) m->scratch = arena_take(arena, m->size.scratch);
    }
}

/* Everything the run keeps: the same code counts and places. What is remembered over steps lies
 * together. */
static int carve(struct attn *a, const struct attn_params *p, struct arena *arena,
                 struct arena *device, struct err *e)
{
    struct cache_sizes cache = cache_sizes(&a->stack, &a->shape, p);
    turn_carve(a, arena);
    a->recent = arena_take(arena, sizeof *a->recent);
    a->pair = arena_take(arena, (size_t)a->n_pairs * sizeof *a->pair);
    if (parts_carve(a, arena, e) < 0) return -1;
    turn_carve_plans(a, arena);
    cache_carve(a, &cache, a->device ? device : arena);
    a->kept_bytes = a->recent ? (size_t)(arena->base + arena->used - (char *)a->recent) : 0;
    parts_carve_scratch(a, arena);
    renew_carve(a, arena);
    if (a->device)
        room_device_carve(a, device, arena);
    else
        launch_carve(a, arena);
    return 0;
}

static int open_stack(struct attn_stack *s, const struct attn_params *p,
                      const struct attn_shape *shape, struct err *e)
{
    if (check_shape(shape, e) < 0) return -1;
    if (attn_stack_parse(s, p->method, e) < 0) return -1;
    return attn_stack_resolve(s, shape, e);
}

/* What the processor does of a run on a device. */
static void say_host(const struct attn *a)
{
    unsigned plans = a->sparse ? looks_reuse(a) | looks_axes(a, NULL) | looks_plan(a, NULL) : 0,
             rest = looks_rest(a, NULL), after = looks_after(a, NULL);
    if (plans & ATTN_LOOK_QKV)
        log_line(
            a->log, 1,
            "attention: plans are made on the processor, of q and k that are brought there from "
            "%s",
            device_name(a->device));
    else if (a->there.made.on)
        log_line(a->log, 1, "attention: plans are made on %s", device_name(a->device));
    else if (a->sparse && !a->plan_fixed)
        log_line(a->log, 1, "attention: plans are made on the processor, of positions alone");
    if (rest & ATTN_LOOK_O)
        log_line(a->log, 1, "attention: %s: what is added to o is computed on the processor",
                 a->stack.recipe.compensate->name);
    if (after & ~rest)
        log_line(a->log, 1, "attention: what calls leave is looked at on the processor");
}

static void say_open(const struct attn *a, const struct attn_params *p)
{
    char text[1024]; /* a line of a log; longer stacks are cut */
    struct cache_sizes c = cache_sizes(&a->stack, &a->shape, p);
    attn_stack_print(&a->stack, text, sizeof text);
    log_line(p->log, 1, "attention %s by kernel %s: %d tokens, %d heads of %d", text,
             room_kernel_name(a), a->size.len_q, a->shape.n_heads, a->shape.head_dim);
    if (a->there.exact != a->device_kernel)
        log_line(p->log, 1, "attention: exact calls by kernel %s", a->there.exact->name);
    if (a->device) say_host(a);
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *part = &a->stack.part[i];
        const char *note = part->method->note ? part->method->note(part) : NULL;
        if (note) log_line(p->log, 1, "attention %s: %s", part->method->name, note);
    }
    if (a->declined)
        log_line(
            p->log, 1,
            "attention: products over codes are not faster here by kernel %s: all are as the run "
            "(sage:qk=int8,pv=%s asks for them all the same)",
            room_kernel_name(a), a->device ? "fp8" : "int8");
    if (c.left_out)
        log_line(p->log, 1,
                 "attention: --cache-mem leaves %d of %d layers and branches without a cache: they "
                 "are computed exactly (all would take %.1f MiB)",
                 c.left_out, a->n_pairs, (double)c.wanted / 1048576);
}

static void size_run(struct attn *a, const struct attn_params *p, const struct attn_shape *s)
{
    int len = s->grid_t * s->grid_h * s->grid_w;
    a->level = p->cpu.level;
    a->n_pairs = s->n_layers * s->n_branches;
    a->counts = p->device;
    a->device = device_place(p->device) == PLACE_DEVICE ? p->device : NULL;
    a->size = (struct attn_size){.len_q = len,
                                 .len_k = len,
                                 .n_heads = s->n_heads,
                                 .head_dim = s->head_dim,
                                 .threads = p->threads > 0 ? p->threads : threads_count(),
                                 .precision = p->precision};
    turn_sizes(a);
}

int attn_open(struct attn **out, const struct attn_params *p, const struct attn_shape *s,
              struct arena *arena, struct err *e)
{
    return attn_open_on(out, p, s, arena, arena, e);
}

int attn_open_on(struct attn **out, const struct attn_params *p, const struct attn_shape *s,
                 struct arena *arena, struct arena *device, struct err *e)
{
    *out = NULL;
    struct attn *a = calloc(1, sizeof *a);
    if (!a) return err_set(e, ERR_RESOURCE, "no memory for attention (%zu bytes)", sizeof *a);
    a->shape = *s;
    if (open_stack(&a->stack, p, &a->shape, e) < 0) goto fail;
    for (int i = 0; i < a->stack.n; i++)
        a->stack.part[i].room = a;
    a->log = p->log;
    a->watch = p->watch;
    a->budget = p->budget;
    a->tensor = p->tensor;
    a->tensor_ctx = p->tensor_ctx;
    size_run(a, p, s);
    if (renew_check(a, e) < 0 || launch_open(a, p, e) < 0) goto fail;
    if (carve(a, p, arena, device, e) < 0) goto fail;
    if (!arena->base) { /* only counting */
        attn_close(a);
        return 0;
    }
    memset(a->recent, 0, a->kept_bytes); /* a state holds no memory of others */
    if (a->device && cache_clear(a, e) < 0) goto fail;
    device_hosts_turn(a->device, true);
    int made = turn_fixed(a, e);
    device_hosts_turn(a->device, false);
    if (made < 0) goto fail;
    if (a->device && (room_device_fixed(a, e) < 0 || making_start(a, e) < 0)) goto fail;
    attn_reset(a);
    say_open(a, p);
    *out = a;
    return 0;
fail:
    attn_close(a);
    return -1;
}

void attn_close(struct attn *a)
{
    if (!a) return;
    attn_stack_free(&a->stack);
    free(a);
}

void attn_reset(struct attn *a)
{
    memset(a->pair, 0, (size_t)a->n_pairs * sizeof *a->pair);
    *a->recent = (struct recent){-1, -1, -1, -1};
    for (int i = 0; i < a->stack.n; i++) {
        struct memory *m = &a->memory[i];
        if (m->state) memset(m->state, 0, m->size.state * (size_t)a->n_pairs);
        if (m->shared) memset(m->shared, 0, m->size.shared);
        if (a->stack.part[i].method->reset) a->stack.part[i].method->reset(&a->stack.part[i]);
    }
}

/* --- a call --- */

int room_ctx(struct attn_ctx *to, const struct attn *a, const struct attn_ctx *c, struct err *e)
{
    *to = *c;
    if (!to->n_steps) to->n_steps = a->shape.n_steps;
    if (!to->n_branches) to->n_branches = a->shape.n_branches;
    if (c->step >= 0 && c->step < a->shape.n_steps && c->layer >= 0 &&
        c->layer < a->shape.n_layers && c->branch >= 0 && c->branch < a->shape.n_branches)
        return 0;
    return err_set(e, ERR_BUG,
                   "attention at step %d, layer %d, branch %d; opened for %d steps, %d layers, %d "
                   "branches",
                   c->step, c->layer, c->branch, a->shape.n_steps, a->shape.n_layers,
                   a->shape.n_branches);
}

void room_notice(struct attn *a, const struct attn_ctx *c)
{
    if (a->recent->last_step >= 0 &&
        (c->step < a->recent->last_step || c->expert != a->recent->last_expert))
        attn_reset(a);
    a->recent->last_step = c->step;
    a->recent->last_expert = c->expert;
}

static size_t out_len(const struct attn *a)
{
    return (size_t)a->size.len_q * (size_t)a->shape.n_heads * (size_t)a->shape.head_dim;
}

/* What a copy would come from; NULL: nothing is there. */
static const uint16_t *source(const struct attn *a, const struct attn_ctx *c, enum attn_ask ask)
{
    if (ask == ATTN_ASK_COPY_STEP)
        return a->pair[pair_of(a, c)].kept ? cache_output(a, pair_of(a, c)) : NULL;
    if (ask == ATTN_ASK_COPY_BRANCH && c->branch > 0 && a->recent->branch_step == c->step &&
        a->recent->branch_layer == c->layer)
        return a->branch_output;
    return NULL;
}

static void keep_branch(struct attn *a, const struct attn_ctx *c)
{
    a->recent->branch_step = c->step;
    a->recent->branch_layer = c->layer;
}

static struct heads out_heads(const struct attn *a, const float *out)
{
    return heads_f32(out, a->size.len_q, a->shape.n_heads, a->shape.head_dim);
}

int attn_ask(struct attn *a, const struct attn_ctx *ctx, float *out, enum attn_ask *answer,
             struct err *e)
{
    struct heads h = out_heads(a, out);
    return attn_ask_views(a, ctx, &h, answer, e);
}

int attn_ask_views(struct attn *a, const struct attn_ctx *ctx, const struct heads *out,
                   enum attn_ask *answer, struct err *e)
{
    struct attn_ctx c;
    const struct axis_ask *ask = a->stack.recipe.ask;
    *answer = ATTN_ASK_COMPUTE;
    if (room_ctx(&c, a, ctx, e) < 0) return -1;
    room_notice(a, &c);
    if (!ask || attn_is_exact(&a->stack.part[0], &c)) return 0;
    enum attn_ask said = ask->ask(attn_stack_by(&a->stack, ATTN_AXIS_ASK), &c);
    struct pair *pair = &a->pair[pair_of(a, &c)];
    struct attn_ctx missed = c; /* a step that was left out should have been computed: do it now */
    for (missed.step = pair->last + 1; said == ATTN_ASK_COPY_STEP && missed.step < c.step;
         missed.step++)
        said = ask->ask(attn_stack_by(&a->stack, ATTN_AXIS_ASK), &missed);
    const uint16_t *from = source(a, &c, said);
    if (!from) return 0;
    pair->last = c.step;
    if (cache_get(a, out, from, e) < 0) return -1;
    if (a->branch_output && c.branch == 0) { /* the other branch may copy this copy */
        if (cache_copy(a, a->branch_output, from, e) < 0) return -1;
        keep_branch(a, &c);
    }
    meter_copy(a, &c);
    *answer = said;
    return 0;
}

int attn_keep(struct attn *a, const struct attn_ctx *ctx, const float *out, struct err *e)
{
    struct heads h = out_heads(a, out);
    return attn_keep_views(a, ctx, &h, e);
}

int attn_keep_views(struct attn *a, const struct attn_ctx *ctx, const struct heads *out,
                    struct err *e)
{
    struct attn_ctx c;
    if (!a->output && !a->branch_output) return 0;
    if (room_ctx(&c, a, ctx, e) < 0) return -1;
    struct attn_ctx next = c;
    next.step++;
    struct pair *pair = &a->pair[pair_of(a, &c)];
    uint16_t *slot = cache_output(a, pair_of(a, &c));
    if (slot && next.step < c.n_steps && !attn_is_exact(&a->stack.part[0], &next)) {
        if (pair->kept && meter_drift(a, &c, slot, out, e) < 0) return -1;
        if (cache_put(a, slot, out, e) < 0) return -1;
        pair->kept = true;
    }
    /* exact steps copy nothing */
    if (a->branch_output && c.branch == 0 && !attn_is_exact(&a->stack.part[0], &c)) {
        if (cache_put(a, a->branch_output, out, e) < 0) return -1;
        keep_branch(a, &c);
    }
    return 0;
}

static int observe(struct attn *a, const struct attn_turn *t, const struct attn_calls *calls,
                   struct err *e)
{
    struct attn_seen seen = {.calls = calls, .lse = a->lse, .mass = a->mass, .alive = a->alive};
    const struct axis_compensate *rest = a->stack.recipe.compensate;
    if (rest && rest->after && !t->exact) {
        if (rest->after(attn_stack_by(&a->stack, ATTN_AXIS_COMPENSATE), t, &seen, e) < 0)
            return err_wrap(e, "%s", rest->name);
        if (t->o.at && a->size.precision != PRECISION_FP32) cache_round(t->o.at, out_len(a));
    }
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *p = &a->stack.part[i];
        if (p->method->observe && p->method->observe(p, t, &seen, e) < 0)
            return err_wrap(e, "%s", p->method->name);
    }
    return 0;
}

/* The same on a device: its own operations, then what hooks read of them. */
static int run_there(struct attn *a, struct attn_turn *t, const struct attn_calls *calls,
                     struct err *e)
{
    unsigned rest = looks_rest(a, t);
    device_hosts_turn(a->device, false);
    if (room_device_run(a, t, calls, e) < 0) return -1;
    if (a->there.brought && device_wait(a->device, e) < 0) return -1; /* its seconds are known */
    device_hosts_turn(a->device, true);
    if (bring_down(a, t, looks_after(a, t), e) < 0 || observe(a, t, calls, e) < 0) return -1;
    return rest & ATTN_LOOK_O ? bring_back(a, t, e) : 0;
}

static int make_call(struct attn *a, struct attn_turn *t, struct err *e)
{
    struct attn_calls calls = {.at = a->launches, .max = a->shape.n_heads + 1};
    double begin = clock_seconds();
    if (turn_call(a, t, &calls, e) < 0) return -1;
    double planned = clock_seconds(), waited = a->there.waited;
    if (!a->device) renew_before(a, t, &calls);
    if (a->device ? run_there(a, t, &calls, e) < 0 : launch_run(a, t, &calls, e) < 0) return -1;
    if (!a->device) renew_after(a, t, &calls);
    if (!a->device && observe(a, t, &calls, e) < 0) return -1;
    a->pair[pair_of(a, &t->at)].last = t->at.step;
    return meter_call(a, t, &calls, planned - begin - waited, clock_seconds() - planned, e);
}

static int run_call(struct attn *a, struct attn_turn *t, struct err *e)
{
    device_hosts_turn(a->device, true);
    int rc = make_call(a, t, e);
    device_hosts_turn(a->device, false);
    return rc;
}

int attn_run(struct attn *a, const struct attn_call *c, struct err *e)
{
    struct attn_views v = {.at = c->at};
    v.q = heads_f32(c->q, a->size.len_q, a->shape.n_heads, a->shape.head_dim);
    v.k = v.v = v.o = v.q;
    v.k.at = (void *)(uintptr_t)c->k;
    v.v.at = (void *)(uintptr_t)c->v;
    v.o.at = c->o;
    return attn_run_views(a, &v, e);
}

int attn_run_views(struct attn *a, const struct attn_views *c, struct err *e)
{
    struct attn_turn t = {.q = c->q, .k = c->k, .v = c->v, .o = c->o};
    enum place place = a->device ? PLACE_DEVICE : PLACE_HOST;
    if (!c->q.at || !c->k.at || !c->v.at || !c->o.at)
        return err_set(e, ERR_BUG, "attention without q, k, v or o");
    if (c->q.where != place || c->o.where != place)
        return err_set(e, ERR_BUG, "attention of tensors that are in another memory");
    if (a->device) room_device_begin(a, c, &t);
    if (room_ctx(&t.at, a, &c->at, e) < 0) return -1;
    room_notice(a, &t.at);
    if (run_call(a, &t, e) == 0) {
        if (a->watch && !a->device)
            a->watch->ran(a->watch->ctx, &a->shape,
                          &(struct attn_call){c->q.at, c->k.at, c->v.at, c->o.at, c->at});
        return 0;
    }
    char text[256];
    attn_stack_print(&a->stack, text, sizeof text);
    return err_wrap(e, "attention %s, step %d, layer %d", text, t.at.step, t.at.layer);
}

/* --- before a run --- */

int attn_may_copy(bool *may, const struct attn_params *p, const struct attn_shape *shape,
                  struct err *e)
{
    struct attn_stack stack = {0};
    struct attn_shape s = *shape;
    int rc = open_stack(&stack, p, &s, e);
    *may = rc == 0 && stack.recipe.ask;
    attn_stack_free(&stack);
    return rc;
}

int attn_forecast(struct attn_forecast *f, const struct attn_params *p,
                  const struct attn_shape *shape, struct err *e)
{
    struct attn a = {.shape = *shape,
                     .budget = p->budget}; /* what ask, anew and density hooks may look at */
    *f = (struct attn_forecast){0};
    if (open_stack(&a.stack, p, &a.shape, e) < 0) {
        attn_stack_free(&a.stack);
        return -1;
    }
    for (int i = 0; i < a.stack.n; i++)
        a.stack.part[i].room = &a;
    size_run(&a, p, shape);
    for (int i = 0; i < a.stack.n; i++) /* what has a state remembers */
        a.memory[i].size = part_sizes(&a, &a.stack.part[i]);
    int rc = renew_check(&a, e);
    if (rc == 0) rc = launch_open(&a, p, e);
    if (rc == 0) rc = forecast_run(f, &a, p, e);
    if (rc == 0) f->kernel = room_kernel_name(&a);
    attn_stack_free(&a.stack);
    return rc;
}
