/* Attention on a device: which stacks can be, their one plan put there, and the calls. The host's calls
 * are launch.c's. */
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

/* Plans that are made once, from positions alone: all that planning on the host can do for q and k that
 * the host never sees. Said in the words of who asked for more. */
static int check_stack(const struct attn *a, struct err *e)
{
    const struct attn_recipe *r = &a->stack.recipe;
    const char *what = NULL;
    char text[200];
    if (r->ask)
        what = "copies outputs";
    else if (r->compensate)
        what = "makes up for what it leaves out";
    else if (a->wants || r->score)
        what = "looks at queries and keys";
    else if (!a->plan_fixed)
        what = "plans anew as it runs";
    for (int i = 0; i < a->stack.n && !what; i++)
        if (a->stack.part[i].method->plan || a->stack.part[i].method->observe)
            what = "looks at queries and keys";
    if (!what) return 0;
    attn_stack_print(&a->stack, text, sizeof text);
    return err_set(
        e, ERR_DEVICE,
        "attention %s %s, which only the processor does so far; use --device cpu, or dense "
        "or window",
        text, what);
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
    if (check_stack(a, e) < 0) return -1;
    a->device_kernel = pick_gladly(a, p, gladly);
    if (!a->device_kernel) a->device_kernel = room_device_pick(a->device, &a->size, p->kernel, e);
    if (!a->device_kernel) return -1;
    if (a->sparse && !a->device_kernel->plan_bytes)
        return err_set(e, ERR_DEVICE, "attention kernel %s computes every tile; leave --kernel out",
                       a->device_kernel->name);
    return 0;
}

void room_device_carve(struct attn *a, struct arena *arena)
{
    a->scratch = arena_take(arena, a->device_kernel->scratch(&a->size));
    if (a->sparse)
        a->plan_at =
            arena_take(arena, a->device_kernel->plan_bytes(&a->size, a->shape.n_heads, a->plans));
}

int room_device_fixed(struct attn *a, struct err *e)
{
    struct attn_calls c = {.at = a->launches, .max = a->shape.n_heads + 1};
    if (!a->sparse) return 0;
    if (turn_static(a, &c, e) < 0) return -1;
    if (c.at[0].plan.all) return 0;
    return a->device_kernel->put(a->device, a->plan_at, &c.at[0].plan, &a->size, e);
}

int room_device_run(struct attn *a, const struct attn_job *j, bool dense, struct err *e)
{
    struct attn_job job = *j;
    struct attn_plan plan = *j->plan; /* where the tensors are; its planes went there before */
    plan.where = PLACE_DEVICE;
    job.plan = &plan;
    if (attn_job_check(&job, e) < 0) return -1;
    device_did(a->device, DEVICE_OP_ATTENTION);
    return a->device_kernel->run(a->device, &job, dense || plan.all ? NULL : a->plan_at, e);
}

int attn_step_kind(const struct attn *a, int step)
{
    if (!a->device_kernel) return -1;
    struct attn_ctx c = {.step = step, .layer = a->shape.n_layers - 1, .n_steps = a->shape.n_steps};
    bool same = !a->sparse && !a->stack.recipe.precision; /* as an exact one */
    return same || attn_is_exact(&a->stack.part[0], &c) ? 0 : 1;
}
