/* What the hooks of a call read: on a device it is brought to the host for them, and a step in which
 * nobody reads anything may be recorded. */
#include "attention/room.h"

static const struct attn_part *by(const struct attn *a, enum attn_axis axis)
{
    return attn_stack_by(&a->stack, axis);
}

static unsigned ask(attn_looks_fn *looks, const struct attn_part *p, const struct attn_turn *t,
                    unsigned otherwise)
{
    return looks ? looks(p, t) : otherwise;
}

unsigned looks_reuse(const struct attn *a)
{
    const struct axis_reuse *r = a->stack.recipe.reuse;
    return r && !r->scheduled ? ATTN_LOOK_QK : 0;
}

unsigned looks_axes(const struct attn *a, const struct attn_turn *t)
{
    const struct attn_recipe *r = &a->stack.recipe;
    unsigned looks = 0;
    if (a->plan_fixed || a->there.made.on) return 0;
    if (!a->order_fixed) looks |= ask(r->order->looks, by(a, ATTN_AXIS_ORDER), t, ATTN_LOOK_QK);
    if (r->score) looks |= ATTN_LOOK_QK;
    if (r->select) looks |= ask(r->select->looks, by(a, ATTN_AXIS_SELECT), t, ATTN_LOOK_QK);
    return looks;
}

unsigned looks_plan(const struct attn *a, const struct attn_turn *t)
{
    const struct axis_compensate *rest = a->stack.recipe.compensate;
    unsigned looks = 0;
    if (rest && rest->before)
        looks = ask(rest->before_looks, by(a, ATTN_AXIS_COMPENSATE), t, ATTN_LOOK_QKV);
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *p = &a->stack.part[i];
        if (p->method->plan) looks |= ask(p->method->plan_looks, p, t, ATTN_LOOK_QKV);
    }
    return looks;
}

unsigned looks_rest(const struct attn *a, const struct attn_turn *t)
{
    const struct axis_compensate *rest = a->stack.recipe.compensate;
    if (!rest || !rest->after || (t && t->exact)) return 0;
    return ask(rest->after_looks, by(a, ATTN_AXIS_COMPENSATE), t, ATTN_LOOK_ALL);
}

unsigned looks_after(const struct attn *a, const struct attn_turn *t)
{
    unsigned looks = looks_rest(a, t);
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *p = &a->stack.part[i];
        if (p->method->observe) looks |= ask(p->method->observe_looks, p, t, ATTN_LOOK_ALL);
    }
    return looks;
}
