/* The door: opens a method with its options, state and scratch, calls its hooks, fills in NULL
 * ones. */
#include "attention/attention.h"

#include "attention/kernels/kernels.h"
#include "model/base/threads.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_BLOCK 128

#define METHOD(m) extern const struct attn_method attn_##m;
#include "attention/methods.def"
#undef METHOD
#define METHOD(m) &attn_##m,
static const struct attn_method *const methods[] = {
#include "attention/methods.def"
};
#undef METHOD

struct attn {
    const struct attn_method *method;
    const struct attn_kernel *kernel;
    struct attn_shape shape;
    struct attn_size size;
    struct attn_plan plan; /* dense, as methods find it */
    uint32_t *kept, *seen; /* planes of a call; scratch of its check */
    void *options; /* heap, once */
    bool own_strings; /* options are the defaults, whose strings are copies */
    char *state; /* [n_layers, n_branches][state_bytes] */
    size_t state_bytes;
    void *scratch;
    const struct attn_call *call; /* while attn_run() is under way */
    double density_sum;
    long calls;
};

int attn_method_count(void) { return (int)ARRAY_LEN(methods); }

const struct attn_method *attn_method_at(int i)
{
    return i >= 0 && i < attn_method_count() ? methods[i] : NULL;
}

const struct attn_method *attn_method_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (strcmp(methods[i]->name, name) == 0) return methods[i];
    return NULL;
}

int attn_kernel_count(void) { return attn_kernel_rows(); }

struct attn_kernel_info attn_kernel_at(int i)
{
    const struct attn_kernel *k = attn_kernel_row(i);
    if (!k) return (struct attn_kernel_info){0};
    return (struct attn_kernel_info){.name = k->name, .summary = k->summary, .needs = k->needs};
}

static int workers(const struct attn_params *p)
{
    return p->threads > 0 ? p->threads : threads_count();
}

/* An option table can be read back as text; so a value out of bounds is found by printing and
 * parsing. */
static int check_options(const struct attn_method *m, const void *values, struct err *e)
{
    struct err why = {0};
    void *copy = calloc(1, m->options_size);
    if (!copy)
        return err_set(e, ERR_RESOURCE, "no memory for the options of attention %s", m->name);
    int rc = 0;
    for (const struct option *o = m->options; rc == 0 && o->name; o++) {
        char text[256];
        if (o->type == OPTION_STRING) continue; /* any text is in bounds */
        if (option_print(o, values, text, sizeof text) >= (int)sizeof text) continue;
        if (option_parse(o, copy, text, &why) < 0) rc = err_set(e, why.code, "%s", why.msg);
    }
    free(copy);
    return rc;
}

static int copy_options(struct attn *a, const void *values, struct err *e)
{
    const struct attn_method *m = a->method;
    if (!m->options_size) return 0;
    a->options = calloc(1, m->options_size);
    if (!a->options)
        return err_set(e, ERR_RESOURCE, "no memory for the options of attention %s", m->name);
    a->own_strings = !values;
    if (!values) return option_defaults(m->options, a->options, e);
    if (check_options(m, values, e) < 0) return err_wrap(e, "attention %s", m->name);
    memcpy(a->options, values,
           m->options_size); /* strings stay the caller's, who outlives the run */
    return 0;
}

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
    int64_t plane = (int64_t)s->grid_h * s->grid_w; /* below 2^62 */
    if (plane > INT32_MAX || plane * s->grid_t > INT32_MAX / 2)
        return err_set(e, ERR_USAGE,
                       "attention over a grid of %d x %d x %d tokens is too long; at most %d",
                       s->grid_t, s->grid_h, s->grid_w, INT32_MAX / 2);
    return 0;
}

/* Everything the run keeps: the same code counts and places. */
static int attn_carve(struct attn *a, struct arena *arena, struct err *e)
{
    const struct attn_method *m = a->method;
    int len = a->size.len_q;
    if (m->plan) {
        int bq = m->block_q ? m->block_q : DEFAULT_BLOCK,
            bk = m->block_k ? m->block_k : DEFAULT_BLOCK;
        a->plan =
            (struct attn_plan){.n_heads = a->shape.n_heads, .per_head = m->per_head, .all = true};
        if (attn_blocks_equal(&a->plan.q, len, bq, e) < 0 ||
            attn_blocks_equal(&a->plan.k, len, bk, e) < 0)
            return err_wrap(e, "attention %s", m->name);
        a->kept = arena_take(arena, attn_plane_size(&a->plan) * sizeof *a->kept);
        a->seen = arena_take(arena, attn_seen_size(len, len) * sizeof *a->seen);
        a->size.rows = a->plan.q.n;
        a->size.cols = a->plan.k.n;
    } else if (attn_plan_dense(&a->plan, len, len, a->shape.n_heads, e) < 0) {
        return -1;
    }
    a->state_bytes = m->state_size ? (m->state_size(a) + 63) / 64 * 64 : 0;
    size_t states = (size_t)a->shape.n_layers * (size_t)a->shape.n_branches;
    if (a->state_bytes && states > SIZE_MAX / a->state_bytes)
        return err_set(e, ERR_RESOURCE,
                       "attention %s: %zu states of %zu bytes are more than memory can hold",
                       m->name, states, a->state_bytes);
    a->state = arena_take(arena, a->state_bytes * states);
    if (a->state) memset(a->state, 0, a->state_bytes * states);
    a->scratch = arena_take(arena, a->kernel->scratch(&a->size));
    return 0;
}

int attn_open(struct attn **out, const struct attn_params *p, const struct attn_shape *s,
              struct arena *arena, struct err *e)
{
    *out = NULL;
    if (check_shape(s, e) < 0) return -1;
    struct attn *a = calloc(1, sizeof *a);
    if (!a) return err_set(e, ERR_RESOURCE, "no memory for attention (%zu bytes)", sizeof *a);
    int len = s->grid_t * s->grid_h * s->grid_w;
    a->method = p->method ? p->method : methods[0];
    a->shape = *s;
    a->size = (struct attn_size){
        .len_q = len,
        .len_k = len,
        .n_heads = s->n_heads,
        .head_dim = s->head_dim,
        .threads = workers(p),
        .precision = p->precision,
        .needs = a->method->plan ? ATTN_NEED_PLANES : 0,
    };
    if (copy_options(a, p->options, e) < 0) goto fail;
    a->kernel = attn_kernel_pick(&a->size, &p->cpu, p->kernel, e);
    if (!a->kernel) goto fail;
    if (attn_carve(a, arena, e) < 0) goto fail;
    if (!arena->base) { /* only counting */
        attn_close(a);
        return 0;
    }
    log_line(p->log, 1, "attention %s by kernel %s: %d tokens, %d heads of %d", a->method->name,
             a->kernel->name, len, s->n_heads, s->head_dim);
    *out = a;
    return 0;
fail:
    attn_close(a);
    return -1;
}

void attn_close(struct attn *a)
{
    if (!a) return;
    if (a->method->fini && a->scratch) a->method->fini(a);
    if (a->own_strings) option_free(a->method->options, a->options);
    free(a->options);
    free(a);
}

int attn_run(struct attn *a, const struct attn_call *c, struct err *e)
{
    if (!c->q || !c->k || !c->v || !c->o)
        return err_set(e, ERR_BUG, "attention without q, k, v or o");
    if (c->step < 0 || c->step >= a->shape.n_steps || c->layer < 0 ||
        c->layer >= a->shape.n_layers || c->branch < 0 || c->branch >= a->shape.n_branches)
        return err_set(e, ERR_BUG,
                       "attention at step %d, layer %d, branch %d; opened for %d steps, %d layers, "
                       "%d branches",
                       c->step, c->layer, c->branch, a->shape.n_steps, a->shape.n_layers,
                       a->shape.n_branches);
    a->call = c;
    struct attn_plan plan = a->plan;
    int rc = 0;
    if (a->method->plan) rc = a->method->plan(a, &plan, a->kept, e);
    if (rc == 0) rc = attn_plan_check(&plan, a->size.len_q, a->size.len_k, a->seen, e);
    if (rc == 0) rc = a->method->run ? a->method->run(a, &plan, e) : attn_run_kernel(a, &plan, e);
    a->call = NULL;
    if (rc < 0)
        return err_wrap(e, "attention %s, step %d, layer %d", a->method->name, c->step, c->layer);
    a->density_sum += attn_plan_density(&plan, a->size.len_k);
    a->calls++;
    return 0;
}

int attn_run_kernel(struct attn *a, const struct attn_plan *p, struct err *e)
{
    const struct attn_call *c = a->call;
    if (!c) return err_set(e, ERR_BUG, "attn_run_kernel() outside a call");
    int len = a->size.len_q, n = a->size.n_heads, dim = a->size.head_dim;
    struct attn_job job = {
        .q = heads_f32(c->q, len, n, dim),
        .k = heads_f32(c->k, len, n, dim),
        .v = heads_f32(c->v, len, n, dim),
        .o = heads_f32(c->o, len, n, dim),
        .plan = p,
        .size = &a->size,
        .scratch = a->scratch,
    };
    return attn_kernel_run(a->kernel, &job, e);
}

static struct attn_size cross_size(const struct attn_params *p, int len_q, int len_k, int n_heads,
                                   int head_dim)
{
    return (struct attn_size){
        .len_q = len_q,
        .len_k = len_k,
        .n_heads = n_heads,
        .head_dim = head_dim,
        .threads = workers(p),
        .precision = p->precision,
        .needs = ATTN_NEED_KEY_BIAS | ATTN_NEED_ACCUMULATE,
    };
}

size_t attn_cross_scratch(const struct attn_params *p, int len_q, int len_k, int n_heads,
                          int head_dim)
{
    struct attn_size s = cross_size(p, len_q, len_k, n_heads, head_dim);
    struct err e = {0};
    const struct attn_kernel *k = attn_kernel_pick(&s, &p->cpu, p->kernel, &e);
    return k ? k->scratch(&s) + 64 : 0; /* 64: the caller's memory may be aligned less than ours */
}

int attn_cross_run(const struct attn_params *p, const struct attn_cross *c, void *scratch,
                   struct err *e)
{
    struct attn_size s = cross_size(p, c->len_q, c->len_k, c->n_heads, c->head_dim);
    struct attn_plan plan;
    const struct attn_kernel *k = attn_kernel_pick(&s, &p->cpu, p->kernel, e);
    if (!k) return -1;
    if (!c->q || !c->k || !c->v || !c->o || !scratch)
        return err_set(e, ERR_BUG, "cross-attention without q, k, v, o or scratch");
    if (attn_plan_dense(&plan, c->len_q, c->len_k, c->n_heads, e) < 0) return -1;
    plan.key_bias = c->key_bias;
    struct attn_job job = {
        .q = heads_f32(c->q, c->len_q, c->n_heads, c->head_dim),
        .k = heads_f32(c->k, c->len_k, c->n_heads, c->head_dim),
        .v = heads_f32(c->v, c->len_k, c->n_heads, c->head_dim),
        .o = heads_f32(c->o, c->len_q, c->n_heads, c->head_dim),
        .plan = &plan,
        .accumulate = c->accumulate,
        .size = &s,
        .scratch = (void *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63),
    };
    return attn_kernel_run(k, &job, e);
}

void attn_stats(const struct attn *a, struct attn_stats *s)
{
    *s = (struct attn_stats){
        .kernel = a->kernel->name,
        .density = a->calls ? a->density_sum / (double)a->calls : 1,
        .calls = a->calls,
    };
}

const struct attn_call *attn_call_of(const struct attn *a) { return a->call; }

const struct attn_shape *attn_shape_of(const struct attn *a) { return &a->shape; }

const void *attn_options(const struct attn *a) { return a->options; }

void *attn_state(struct attn *a)
{
    const struct attn_call *c = a->call;
    if (!c || !a->state) return NULL;
    return a->state +
           a->state_bytes * ((size_t)c->layer * (size_t)a->shape.n_branches + (size_t)c->branch);
}
