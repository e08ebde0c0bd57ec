/* Plans that a device makes itself (attn_planner): for which stacks, where what they want lies, and what the host
 * hears of them, which is their density when somebody asks, and their kept sets when somebody goes on from them.
 *
 * A stack's plans are made there when a device can be told both of its halves (plan/making.h), tokens stand in an
 * order that is made once, and nobody else reads or cuts a plan on the host. All others stay the host's. */
#include "attention/axes/axes.h"
#include "attention/room.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct attn_part *by(const struct attn *a, enum attn_axis axis)
{
    return attn_stack_by(&a->stack, axis);
}

/* Whether nobody on the host looks at plans, or at what calls leave. */
static bool unseen(const struct attn *a)
{
    const struct axis_compensate *rest = a->stack.recipe.compensate;
    if (a->wants || a->by_head || (rest && (rest->before || rest->after))) return false;
    for (int i = 0; i < a->stack.n; i++)
        if (a->stack.part[i].method->plan || a->stack.part[i].method->observe) return false;
    return true;
}

void making_open(struct attn *a)
{
    const struct attn_recipe *r = &a->stack.recipe;
    const struct attn_planner *planner = a->device_kernel->planner;
    struct made_there *m = &a->there.made;
    *m = (struct made_there){0};
    if (!planner || a->plan_fixed || !a->order_fixed || a->plans != a->shape.n_heads) return;
    if (r->order && (r->order->blocks || r->order->per_head)) return;
    if (!r->score || !r->score->there || !r->select || !r->select->there) return;
    if ((r->reuse && !r->reuse->scheduled) || !unseen(a)) return;
    r->score->there(by(a, ATTN_AXIS_SCORE), &m->how);
    r->select->there(by(a, ATTN_AXIS_SELECT), a->most_k, &m->how);
    m->scratch_bytes = planner->scratch(&a->size, &m->how);
    m->on = m->scratch_bytes > 0;
}

static size_t plane(const struct attn *a)
{
    return (size_t)a->most_q * (size_t)a->words * sizeof(uint32_t);
}

void making_carve(struct attn *a, struct arena *there)
{
    struct made_there *m = &a->there.made;
    if (!m->on) return;
    m->scratch = arena_take(there, m->scratch_bytes);
    m->pairs = arena_take(there, ((size_t)room_places(a) + 1) * sizeof *m->pairs);
    m->forced = m->how.sink > 0 ? arena_take(there, plane(a)) : NULL;
}

bool making_now(const struct attn *a, const struct attn_turn *t)
{
    return a->there.made.on && t->anew && !t->exact;
}

/* --- before the run --- */

static int send_forced(struct attn *a, const struct attn_plan *p, struct err *e)
{
    struct made_there *m = &a->there.made;
    if (!m->forced) return 0;
    uint32_t *kept = calloc(1, plane(a));
    if (!kept) return err_set(e, ERR_RESOURCE, "no memory for a plan (%zu bytes)", plane(a));
    device_hosts_turn(a->device, true);
    axis_forced(kept, by(a, ATTN_AXIS_SELECT), p, &m->how);
    device_hosts_turn(a->device, false);
    int rc = device_upload(a->device, m->forced, kept, plane(a), e);
    free(kept);
    return rc;
}

/* Every place gets a plan that keeps all tiles, in the orders of all calls: what make() changes. */
int making_start(struct attn *a, struct err *e)
{
    struct made_there *m = &a->there.made;
    struct there *w = &a->there;
    struct attn_plan p;
    size_t n = (size_t)room_places(a) + 1;
    if (!m->on) return 0;
    if (turn_ordered_plan(a, &p, e) < 0) return -1;
    for (size_t r = 0; r < (size_t)attn_plans(&p) * (size_t)p.q.n; r++)
        for (int c = 0; c < p.k.n; c++)
            select_add(a->geometry[0].kept + r * (size_t)a->words, c);
    int rc = send_forced(a, &p, e);
    for (size_t i = 0; i + 1 < n && rc == 0; i++)
        rc = a->device_kernel->put(a->device, w->plans + w->place * i, &p, &a->size, e);
    memset(a->geometry[0].kept, 0, attn_plane_size(&p) * sizeof(uint32_t));
    uint64_t *none = rc == 0 ? calloc(n, sizeof *none) : NULL;
    if (rc == 0 && !none) return err_set(e, ERR_RESOURCE, "no memory for a plan");
    if (rc == 0) rc = device_upload(a->device, m->pairs, none, n * sizeof *none, e);
    free(none);
    return rc;
}

/* --- a call --- */

int making_make(struct attn *a, const struct attn_plan *p, void *at, int place, struct err *e)
{
    struct made_there *m = &a->there.made;
    struct attn_made made = {.plan = p,
                             .how = &m->how,
                             .q = a->there.q,
                             .k = a->there.k,
                             .forced = m->forced,
                             .pairs = m->pairs + 1 + place,
                             .scratch = m->scratch,
                             .size = &a->size};
    return a->device_kernel->planner->make(a->device, at, &made, e);
}

static double all_pairs(const struct attn *a)
{
    return (double)a->size.len_q * a->size.len_k * a->shape.n_heads;
}

int making_put(struct attn *a, const struct attn_plan *p, int place, struct err *e)
{
    uint64_t pairs = (uint64_t)llround(attn_plan_density(p, a->size.len_k) * all_pairs(a));
    return device_upload(a->device, a->there.made.pairs + 1 + place, &pairs, sizeof pairs, e);
}

int making_tally(struct attn *a, int place, struct err *e)
{
    uint64_t *pairs = a->there.made.pairs;
    return a->device_kernel->planner->tally(a->device, pairs, pairs + 1 + place, e);
}

/* --- what the host hears --- */

double making_density(const struct attn *a)
{
    uint64_t pairs;
    struct err lost; /* then there is none */
    if (!a->there.made.on || device_is_recording(a->device)) return 0;
    if (device_download(a->device, &pairs, a->there.made.pairs, sizeof pairs, &lost) < 0) return 0;
    return (double)pairs / all_pairs(a);
}

int making_remember(const struct attn *a, struct err *e)
{
    const struct there *w = &a->there;
    struct attn_turn t = {0};
    struct attn_plan p;
    if (!w->made.on || !room_stands(a)) return 0;
    if (turn_ordered_plan(a, &p, e) < 0) return -1;
    size_t first = a->device_kernel->planner->kept_at(&p, &a->size);
    for (t.plan_layer = 0; t.plan_layer < a->shape.n_layers; t.plan_layer++)
        for (t.at.branch = 0; t.at.branch < a->shape.n_branches; t.at.branch++) {
            int pair = t.plan_layer * a->shape.n_branches + t.at.branch;
            int place = room_place_of(a, &t);
            if (!a->geometry[pair].kept || !a->pair[pair].planned || !w->put[place]) continue;
            if (device_download(a->device, a->geometry[pair].kept,
                                w->plans + w->place * (size_t)place + first,
                                attn_plane_size(&p) * sizeof(uint32_t), e) < 0)
                return -1;
        }
    return 0;
}
