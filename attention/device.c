/* Attention on a device: its kernel, plans put there, launches, and which steps may be recorded. The host's
 * calls are launch.c's; what crosses between the two, bring.c's.
 *
 * Plans are made by the host's methods of what bring.c brings them. Where a plan stands over steps, or was
 * made once, what put() made of it stands too, and its calls cross no bus. Those of making.c are made there. */
#include "attention/device.h"

#include "attention/room.h"
#include "model/base/device_table.h"

#ifdef DITGEN_HAVE_CUDA_ATTENTION
extern const struct attn_device attn_device_cuda;
#endif

const struct attn_device *attn_device_of(const struct device *d)
{
    if (d && d->attn) return d->attn;
#ifdef DITGEN_HAVE_CUDA_ATTENTION
    if (device_kind(d) == DEVICE_CUDA) return &attn_device_cuda;
#endif
    return NULL;
}

const struct attn_device_kernel *room_device_pick(struct device *d, const struct attn_size *s,
                                                  const char *only, struct err *e)
{
    const struct attn_device *table = attn_device_of(d);
    if (table) return table->pick(d, s, only, e);
    err_set(e, ERR_DEVICE, "%s: this build has no attention there; use --device cpu",
            device_name(d));
    return NULL;
}

static size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* What fills and moves, and what a launch of all tiles asks for: a kernel that does all the rest is seldom
 * the fastest of these, so they are picked apart. */
#define MOVES (unsigned)(ATTN_NEED_ZERO | ATTN_NEED_COPY)

static int pick_others(struct attn *a, const struct attn_params *p, unsigned needs, struct err *e)
{
    struct attn_size plain = a->size, moves = a->size;
    plain.needs = 0;
    moves.needs = needs & MOVES;
    plain.rows = plain.cols = plain.block_q = plain.block_k = 0;
    moves.rows = moves.cols = moves.block_q = moves.block_k = 0;
    a->there.exact = room_device_pick(a->device, &plain, p->kernel, e);
    if (!a->there.exact) return -1;
    if (!moves.needs) return 0;
    a->there.moves = room_device_pick(a->device, &moves, NULL, e); /* no attention: no --kernel */
    return a->there.moves ? 0 : -1;
}

/* One that does what is asked for gladly too, where it is the faster for it. */
static const struct attn_device_kernel *pick_gladly(struct attn *a, const struct attn_params *p,
                                                    unsigned gladly)
{
    struct attn_size more = a->size;
    struct err none;
    more.needs |= gladly;
    if (!gladly) return NULL;
    const struct attn_device_kernel *k = room_device_pick(a->device, &more, p->kernel, &none);
    if (k && k->pays && !(gladly & ~k->pays(&more))) {
        a->size = more;
        a->granted |= gladly;
        return k;
    }
    a->declined = gladly;
    return NULL;
}

int room_device_open(struct attn *a, const struct attn_params *p, unsigned gladly, struct err *e)
{
    char text[200];
    unsigned needs = a->size.needs;
    if (a->stack.recipe.ask) needs |= ATTN_NEED_COPY; /* how copies are moved */
    a->size.needs &= ~MOVES;
    a->device_kernel = pick_gladly(a, p, gladly);
    if (!a->device_kernel) a->device_kernel = room_device_pick(a->device, &a->size, p->kernel, e);
    if (!a->device_kernel || pick_others(a, p, needs, e) < 0) {
        if (!a->sparse && !a->wants) return -1;
        attn_stack_print(&a->stack, text, sizeof text);
        return err_wrap(e, "attention %s on %s", text, device_name(a->device));
    }
    a->size.needs |= needs & MOVES;
    if (a->sparse && !a->device_kernel->plan_bytes)
        return err_set(e, ERR_DEVICE, "attention kernel %s computes every tile; leave --kernel out",
                       a->device_kernel->name);
    making_open(a);
    return 0;
}

/* --- places of prepared plans --- */

bool room_stands(const struct attn *a)
{
    const struct attn_recipe *r = &a->stack.recipe;
    if (!a->plan_fixed && !r->reuse) return false;
    if (r->compensate && r->compensate->before) return false;
    for (int i = 0; i < a->stack.n; i++)
        if (a->stack.part[i].method->plan) return false;
    return true;
}

static bool leads(const struct attn *a, int layer)
{
    const struct axis_reuse *r = a->stack.recipe.reuse;
    return !r || !r->layer || r->layer(attn_stack_by(&a->stack, ATTN_AXIS_REUSE), layer) == layer;
}

static bool one_place(const struct attn *a) { return a->plan_fixed || !room_stands(a); }

int room_places(const struct attn *a)
{
    int n = 0;
    if (one_place(a)) return 1;
    for (int layer = 0; layer < a->shape.n_layers; layer++)
        n += leads(a, layer);
    return n * a->shape.n_branches;
}

int room_place_of(const struct attn *a, const struct attn_turn *t)
{
    int n = 0;
    if (one_place(a)) return 0;
    for (int layer = 0; layer < t->plan_layer; layer++)
        n += leads(a, layer);
    return n * a->shape.n_branches + t->at.branch;
}

/* Of all launches of a call. */
static size_t place_bytes(const struct attn *a)
{
    const struct attn_device_kernel *k = a->device_kernel;
    bool cut = false;
    int n = a->shape.n_heads;
    for (int i = 0; i < a->stack.n; i++)
        cut = cut || a->stack.part[i].method->splits;
    if (cut && a->plans > 1) return (size_t)n * aligned(k->plan_bytes(&a->size, 1, 1));
    return aligned(k->plan_bytes(&a->size, n, a->plans));
}

void room_device_carve(struct attn *a, struct arena *there, struct arena *here)
{
    struct there *w = &a->there;
    size_t heads = (size_t)a->shape.n_heads;
    const struct attn_device_kernel *all[] = {a->device_kernel, w->exact, w->moves};
    size_t scratch = 0;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        size_t bytes = all[i] ? all[i]->scratch(&a->size) : 0;
        if (bytes > scratch) scratch = bytes;
    }
    a->scratch = arena_take(there, scratch);
    bring_carve(a, there, here);
    if (!a->sparse) return;
    int n = room_places(a);
    w->place = place_bytes(a);
    w->plans = arena_take(there, w->place * (size_t)n);
    w->put = arena_take(here, (size_t)n * sizeof *w->put);
    w->density = arena_take(here, (size_t)n * sizeof *w->density);
    w->row = arena_take(there, heads * (size_t)a->shape.head_dim * sizeof(float));
    w->rows = arena_take(here, 2 * heads * (size_t)a->shape.head_dim * sizeof *w->rows);
    making_carve(a, there);
    if (here->base) room_device_forget(a);
}

void room_device_forget(struct attn *a)
{
    for (int i = 0; a->device && a->there.put && i < room_places(a); i++)
        a->there.put[i] = false, a->there.density[i] = -1;
}

/* --- a call --- */

void room_device_begin(struct attn *a, const struct attn_views *c, struct attn_turn *t)
{
    struct there *w = &a->there;
    struct heads none = heads_f32(NULL, a->size.len_q, a->shape.n_heads, a->shape.head_dim);
    w->q = c->q, w->k = c->k, w->v = c->v, w->o = c->o;
    w->brought = false;
    w->waited = 0;
    for (int i = 0; i < UPS; i++)
        w->up[i].from = NULL;
    *t = (struct attn_turn){.q = none, .k = none, .v = none, .o = none};
}

/* The plan of all calls, before the first. */
int room_device_fixed(struct attn *a, struct err *e)
{
    struct attn_calls c = {.at = a->launches, .max = a->shape.n_heads + 1};
    struct there *w = &a->there;
    if (!a->sparse || !a->plan_fixed || !room_stands(a)) return 0;
    if (turn_static(a, &c, e) < 0) return -1;
    struct attn_plan *plan = &c.at[0].plan;
    if (a->stack.recipe.compensate && a->stack.recipe.compensate->residual)
        plan->rule = ATTN_MAKE_RESIDUAL;
    bool dense = plan->all && plan->rule == ATTN_COMPUTE;
    if (!dense && a->device_kernel->put(a->device, w->plans, plan, &a->size, e) < 0) return -1;
    w->put[0] = true;
    w->puts++;
    return 0;
}

bool room_device_fresh(const struct attn *a, const struct attn_turn *t)
{
    if (t->exact) return false;
    if (!room_stands(a)) return true;
    return !a->there.put[room_place_of(a, t)] || (!a->plan_fixed && t->anew);
}

double *room_device_density(struct attn *a, const struct attn_turn *t)
{
    if (t->exact || !room_stands(a)) return NULL;
    double *known = &a->there.density[room_place_of(a, t)];
    if (a->there.fresh) *known = -1;
    return known;
}

/* A launch that is attention of all queries with all keys of its k, whatever the plan says. */
static bool is_dense(const struct attn_job *j)
{
    const struct attn_plan *p = j->plan;
    return p->all && p->rule == ATTN_COMPUTE && p->k.len == j->k.len && !j->mass && !j->alive;
}

static int launch(struct attn *a, const struct attn_job *j, const void *at, struct err *e)
{
    const struct attn_device_kernel *k = a->device_kernel;
    unsigned needs = attn_job_needs(j) & ~(unsigned)(ATTN_NEED_DEVICE | ATTN_NEED_BF16), missing;
    char text[200];
    if (attn_job_check(j, e) < 0) return -1;
    if (needs & MOVES)
        k = a->there.moves;
    else if (!at && !needs)
        k = a->there.exact;
    missing = needs & ~k->can;
    if (missing)
        return err_set(e, ERR_DEVICE, "attention kernel %s cannot do %s; use --device cpu", k->name,
                       attn_needs_text(missing, text, sizeof text));
    device_did(a->device, DEVICE_OP_ATTENTION);
    return k->run(a->device, j, at, e);
}

/* What a launch of the host's names, there. tokens: the most that a launch of this call has of its own. */
static int there_of(struct attn *a, struct attn_job *j, int launch, int tokens, struct err *e)
{
    struct there *w = &a->there;
    if (bring_up(a, UP_K, &j->k, tokens, e) < 0 || bring_up(a, UP_V, &j->v, tokens, e) < 0 ||
        bring_up(a, UP_K_MEAN, &j->k_mean, j->k_mean.len, e) < 0 ||
        bring_up(a, UP_V_MEAN, &j->v_mean, j->v_mean.len, e) < 0 ||
        bring_up(a, UP_V_SUM, &j->v_sum, j->v_sum.len, e) < 0 ||
        bring_up(a, UP_FILL, &j->residual, j->residual.len, e) < 0)
        return -1;
    if (j->lse) j->lse = w->lse;
    if (j->mass) j->mass = w->mass;
    if (j->alive) j->alive = w->alive;
    struct attn_plan *p = (struct attn_plan *)(uintptr_t)j->plan;
    p->where = PLACE_DEVICE;
    return bring_bias(a, launch, &p->key_bias, p->k.len, e);
}

/* What lies at `at` becomes this call's plan. */
static int prepare(struct attn *a, const struct attn_turn *t, const struct attn_plan *p, void *at,
                   int place, struct err *e)
{
    if (making_now(a, t)) return making_make(a, p, at, place, e);
    if (a->device_kernel->put(a->device, at, p, &a->size, e) < 0) return -1;
    return a->there.made.on ? making_put(a, p, place, e) : 0;
}

int room_device_run(struct attn *a, const struct attn_turn *t, const struct attn_calls *c,
                    struct err *e)
{
    struct there *w = &a->there;
    /* asked for as on the host: a kernel may cut its sums by it */
    bool seen = looks_after(a, t) & ATTN_LOOK_SEEN, asked = seen || !t->exact;
    int place = t->exact ? 0 : room_place_of(a, t), tokens = 0;
    char *at = w->plans ? w->plans + w->place * (size_t)place : NULL, *end = at + w->place;
    for (int i = 0; i < c->n; i++)
        if (c->at[i].k.at && c->at[i].k.len > tokens) tokens = c->at[i].k.len;
    for (int i = 0; i < c->n; i++) {
        struct attn_plan plan = c->at[i].plan;
        struct attn_job job;
        launch_job(&job, a, t, c, i, asked);
        job.q = w->q, job.o = w->o;
        if (!c->at[i].k.at) job.k = w->k, job.v = w->v;
        bool put = plan.rule != ATTN_ZERO && plan.rule != ATTN_COPY && !is_dense(&job);
        const void *from = put ? at : NULL;
        if (put) {
            size_t bytes =
                aligned(a->device_kernel->plan_bytes(&a->size, plan.n_heads, attn_plans(&plan)));
            if (!at || bytes > (size_t)(end - at))
                return err_set(e, ERR_BUG, "plan %d of a call finds no place on %s", i + 1,
                               device_name(a->device));
            if (w->fresh && prepare(a, t, &plan, at, place, e) < 0) return -1;
            if (w->made.on && plan.rule != ATTN_MAKE_RESIDUAL && making_tally(a, place, e) < 0)
                return -1;
            at += bytes;
        }
        job.plan = &plan;
        if (there_of(a, &job, i, tokens, e) < 0) return -1;
        if (launch(a, &job, from, e) < 0) return -1;
    }
    if (w->fresh) {
        w->puts += !making_now(a, t);
        if (room_stands(a)) w->put[place] = true;
    }
    return seen ? bring_seen(a, e) : 0;
}

int room_device_move(struct attn *a, const struct heads *to, const struct heads *from,
                     struct err *e)
{
    struct attn_plan plan;
    if (attn_plan_dense(&plan, a->size.len_q, a->size.len_k, a->shape.n_heads, e) < 0) return -1;
    plan.where = PLACE_DEVICE;
    plan.rule = ATTN_COPY;
    struct attn_job job = {
        .o = *to, .residual = *from, .plan = &plan, .size = &a->size, .scratch = a->scratch};
    return launch(a, &job, NULL, e);
}

int room_device_row(struct attn *a, int token, float *exact, float *got, struct err *e)
{
    struct there *w = &a->there;
    struct attn_plan plan;
    int n = a->shape.n_heads * a->shape.head_dim;
    if (attn_plan_dense(&plan, 1, a->size.len_k, a->shape.n_heads, e) < 0) return -1;
    plan.where = PLACE_DEVICE;
    struct attn_job job = {.q = w->q,
                           .k = w->k,
                           .v = w->v,
                           .o = w->o,
                           .plan = &plan,
                           .size = &a->size,
                           .scratch = a->scratch};
    job.q.at = heads_at(&w->q, token, 0);
    job.o.at = w->row;
    job.q.len = job.o.len = 1;
    job.o.token = n, job.o.head = a->shape.head_dim;
    if (launch(a, &job, NULL, e) < 0) return -1;
    if (bring_row(a, exact, w->row, w->o.type, n, e) < 0) return -1;
    for (int h = 0; h < a->shape.n_heads; h++)
        if (bring_row(a, got + h * a->shape.head_dim, heads_at(&w->o, token, h), w->o.type,
                      a->shape.head_dim, e) < 0)
            return -1;
    return 0;
}

/* --- recorded steps --- */

/* Whether a hook reads something behind a call of this step, or a plan or a residual is made in it. */
static bool looks(const struct attn *a, const struct attn_ctx *c)
{
    for (int layer = 0; layer < a->shape.n_layers; layer++)
        for (int branch = 0; branch < a->shape.n_branches; branch++) {
            struct attn_turn t = {.at = *c, .plan_layer = layer};
            t.at.layer = layer, t.at.branch = branch;
            turn_begins(a, &t);
            if (looks_after(a, &t)) return true;
            if (t.exact || (a->there.made.on && !room_stands(a))) continue;
            if (!a->there.put[room_place_of(a, &t)]) return true;
            if (t.anew && (!a->plan_fixed || a->stack.recipe.compensate)) return true;
        }
    return false;
}

int attn_step_kind(struct attn *a, const struct attn_ctx *c, long *launched)
{
    struct attn_ctx at = *c, next;
    *launched = 0;
    if (!a->device_kernel) return -1;
    room_notice(a, c);
    at.layer = a->shape.n_layers - 1;
    next = at;
    next.step++;
    bool all = attn_is_exact(&a->stack.part[0], &at), exact = !a->sparse || all;
    /* a step that copies, or keeps its output for a later one that does, is like no other */
    if (a->stack.recipe.ask && !(all && attn_is_exact(&a->stack.part[0], &next))) return -1;
    if (!exact && (looks_reuse(a) || looks_plan(a, NULL))) return -1;
    if (!exact && !room_stands(a) && !a->there.made.on) return -1;
    if (looks(a, c)) return -1;
    *launched = exact ? 0 : a->there.puts;
    return exact ? 0 : 1;
}
