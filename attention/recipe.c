/* Stacks of methods: parsing, composing, printing; see recipe.h. */
#include "attention/recipe.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifndef ATTN_METHODS /* a test brings methods of its own */
#define ATTN_METHODS "attention/methods.def"
#endif
#define METHOD(m) extern const struct attn_method attn_##m;
#include ATTN_METHODS
#undef METHOD
#define METHOD(m) &attn_##m,
static const struct attn_method *const methods[] = {
#include ATTN_METHODS
};
#undef METHOD

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

int attn_methods(void) { return attn_method_count(); }

struct attn_method_info attn_method_info(int i)
{
    const struct attn_method *m = attn_method_at(i);
    if (!m) return (struct attn_method_info){0};
    return (struct attn_method_info){.name = m->name,
                                     .summary = m->summary,
                                     .paper = m->paper,
                                     .exact = m->exact,
                                     .options = m->options,
                                     .options_size = m->options_size};
}

/* --- parsing --- */

static const struct attn_knobs no_knobs;

static int unknown_method(const char *name, struct err *e)
{
    char all[256] = "";
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", methods[i]->name);
    }
    return err_set(e, ERR_USAGE, "there is no attention method '%.60s'; there are %s", name, all);
}

static int unknown_option(const struct attn_method *m, const char *name, struct err *e)
{
    char all[256] = "";
    for (const struct option *o = m->options; o && o->name; o++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "", o->name);
    }
    return err_set(e, ERR_USAGE, "attention %s has no option '%.60s'; it has %s", m->name, name,
                   all[0] ? all : "none");
}

static int add_part(struct attn_stack *s, const struct attn_method *m, struct err *e)
{
    struct attn_part *p = &s->part[s->n];
    for (int i = 0; i < s->n; i++)
        if (s->part[i].method == m)
            return err_set(e, ERR_USAGE, "attention names %s twice", m->name);
    *p = (struct attn_part){.method = m, .knobs = &no_knobs, .index = s->n};
    if (m->options_size) {
        assert(m->options_size >=
               sizeof(struct attn_knobs)); /* method.h: options begin with them */
        void *options = calloc(1, m->options_size);
        if (!options)
            return err_set(e, ERR_RESOURCE, "no memory for the options of attention %s", m->name);
        p->options = options;
        p->knobs = options;
        s->n++; /* from here on attn_stack_free() knows it */
        return option_defaults(m->options, options, e);
    }
    s->n++;
    return 0;
}

/* "NAME:option=value,option", changed in place. */
static int parse_part(struct attn_stack *s, char *text, struct err *e)
{
    char *options = strchr(text, ':');
    if (options) *options++ = 0;
    const struct attn_method *m = attn_method_find(text);
    if (!m) return unknown_method(text, e);
    if (s->n == ATTN_MAX_PARTS)
        return err_set(e, ERR_USAGE, "attention of more than %d methods", ATTN_MAX_PARTS);
    if (add_part(s, m, e) < 0) return -1;
    while (options && *options) {
        char *word = options, *comma = strchr(options, ',');
        options = comma ? comma + 1 : NULL;
        if (comma) *comma = 0;
        char *value = strchr(word, '=');
        if (value) *value++ = 0;
        const struct option *o = option_find(m->options, word);
        if (!o) return unknown_option(m, word, e);
        if (option_parse(o, (void *)(uintptr_t)s->part[s->n - 1].options, value ? value : "true",
                         e) < 0)
            return err_wrap(e, "attention %s", m->name);
    }
    if (m->complete && m->complete(&s->part[s->n - 1], e) < 0)
        return err_wrap(e, "attention %s", m->name);
    return 0;
}

int attn_stack_parse(struct attn_stack *s, const char *text, struct err *e)
{
    *s = (struct attn_stack){0};
    char *copy = strdup(text && *text ? text : methods[0]->name);
    if (!copy) return err_set(e, ERR_RESOURCE, "no memory for the attention method");
    int rc = 0;
    for (char *at = copy; rc == 0 && at;) {
        char *plus = strchr(at, '+');
        if (plus) *plus = 0;
        rc = parse_part(s, at, e);
        at = plus ? plus + 1 : NULL;
    }
    free(copy);
    s->exact = true;
    for (int i = 0; i < s->n; i++)
        s->exact = s->exact && s->part[i].method->exact;
    if (rc < 0) attn_stack_free(s);
    return rc;
}

void attn_stack_free(struct attn_stack *s)
{
    for (int i = 0; i < s->n; i++) {
        void *options = (void *)(uintptr_t)s->part[i].options;
        if (options && s->part[i].method->close) s->part[i].method->close(&s->part[i]);
        if (options) option_free(s->part[i].method->options, options);
        free(options);
    }
    *s = (struct attn_stack){0};
}

int attn_stack_print(const struct attn_stack *s, char *buf, size_t n)
{
    size_t len = 0;
    if (n) buf[0] = 0;
#define PUT(...)                                                                                   \
    do {                                                                                           \
        int k_ = snprintf(len < n ? buf + len : NULL, len < n ? n - len : 0, __VA_ARGS__);         \
        len += k_ > 0 ? (size_t)k_ : 0;                                                            \
    } while (0)
    for (int i = 0; i < s->n; i++) {
        const struct attn_part *p = &s->part[i];
        char value[256], mark = ':';
        PUT("%s%s", i ? "+" : "", p->method->name);
        for (const struct option *o = p->method->options; o && o->name; o++) {
            if (o->type == OPTION_STRING && !*(char *const *)((const char *)p->options + o->offset))
                continue; /* NULL: there is no word for it */
            option_print(o, p->options, value, sizeof value);
            PUT("%c%s=%s", mark, o->name, value);
            mark = ',';
        }
    }
#undef PUT
    return (int)len;
}

int attn_stack_check(const char *text, char *canonical, size_t n, struct err *e)
{
    struct attn_stack s;
    if (attn_stack_parse(&s, text, e) < 0) return -1;
    int len = canonical ? attn_stack_print(&s, canonical, n) : 0;
    attn_stack_free(&s);
    if (canonical && (size_t)len >= n)
        return err_set(e, ERR_USAGE,
                       "the attention methods and their options are longer than %zu bytes", n);
    return 0;
}

int attn_tensor_names(const char *method, const char **names, int max, struct err *e)
{
    struct attn_stack s;
    int n = 0;
    if (attn_stack_parse(&s, method, e) < 0) return -1;
    for (int i = 0; i < s.n; i++)
        for (const char *const *t = s.part[i].method->tensors; t && *t && n + 1 < max; t++)
            names[n++] = *t;
    names[n] = NULL;
    attn_stack_free(&s);
    return 0;
}

/* --- composing --- */

static const char *const axis_names[ATTN_AXES] = {
    "whether it is computed", "the order of tokens", "how much a block matters",
    "what is kept",           "when a plan stands",  "what stands for the rest",
    "the precision",
};

/* The member of an axis as a plain pointer, for tables. */
static const void *member(const struct attn_recipe *r, enum attn_axis axis)
{
    switch (axis) {
    case ATTN_AXIS_ASK:
        return r->ask;
    case ATTN_AXIS_ORDER:
        return r->order;
    case ATTN_AXIS_SCORE:
        return r->score;
    case ATTN_AXIS_SELECT:
        return r->select;
    case ATTN_AXIS_REUSE:
        return r->reuse;
    case ATTN_AXIS_COMPENSATE:
        return r->compensate;
    case ATTN_AXIS_PRECISION:
        return r->precision;
    case ATTN_AXES:
        break;
    }
    return NULL;
}

static bool of_unit(enum attn_axis axis)
{
    return axis == ATTN_AXIS_ORDER || axis == ATTN_AXIS_SCORE || axis == ATTN_AXIS_SELECT;
}

/* A mild unit yields its order to whoever brings an order or a selection, its score and selection
 * to whoever brings one of those. */
static bool yields(const struct attn_stack *s, int part, enum attn_axis axis)
{
    for (int i = 0; axis == ATTN_AXIS_REUSE && s->own[part].mild_reuse && i < s->n; i++)
        if (i != part && s->own[i].reuse && !(s->own[i].mild_reuse && i > part)) return true;
    if (!s->own[part].mild || !of_unit(axis)) return false;
    for (int i = 0; i < s->n; i++) {
        const struct attn_recipe *r = &s->own[i];
        if (i == part || (r->mild && i > part)) continue; /* of two mild ones the first stands */
        if (r->select || r->score) return true;
        if (axis == ATTN_AXIS_ORDER && r->order) return true;
    }
    return false;
}

static int claim(struct attn_stack *s, enum attn_axis axis, struct err *e)
{
    s->by[axis] = -1;
    for (int i = 0; i < s->n; i++) {
        if (!member(&s->own[i], axis) || yields(s, i, axis)) continue;
        if (s->by[axis] >= 0)
            return err_set(e, ERR_USAGE, "attention: %s and %s both say %s; name one of them",
                           s->part[s->by[axis]].method->name, s->part[i].method->name,
                           axis_names[axis]);
        s->by[axis] = i;
    }
    return 0;
}

const struct attn_part *attn_stack_by(const struct attn_stack *s, enum attn_axis axis)
{
    return s->by[axis] >= 0 ? &s->part[s->by[axis]] : NULL;
}

/* What members stand on. */
static int check_members(const struct attn_stack *s, struct err *e)
{
    const struct attn_recipe *r = &s->recipe;
    const struct attn_part *select = attn_stack_by(s, ATTN_AXIS_SELECT),
                           *score = attn_stack_by(s, ATTN_AXIS_SCORE),
                           *rest = attn_stack_by(s, ATTN_AXIS_COMPENSATE),
                           *order = attn_stack_by(s, ATTN_AXIS_ORDER);
    if (select && r->select->needs_score && !score)
        return err_set(e, ERR_USAGE,
                       "attention %s keeps blocks by their scores, and nothing here scores them",
                       select->method->name);
    if (score && !(select && r->select->needs_score))
        return err_set(e, ERR_USAGE, "attention %s scores blocks, and nothing here reads it",
                       score->method->name);
    if (rest && !select && r->compensate->residual)
        return err_set(e, ERR_USAGE,
                       "attention %s keeps what a selection leaves out, and nothing "
                       "here selects",
                       rest->method->name);
    if (rest && r->compensate->residual && !r->reuse)
        return err_set(e, ERR_BUG, "attention %s: a residual needs to be told when to renew it",
                       rest->method->name);
    for (int i = 0; rest && r->compensate->residual && i < s->n; i++) {
        const struct attn_method *m = s->part[i].method;
        if (m->plan && !m->steady)
            return err_set(
                e, ERR_USAGE,
                "attention %s keeps what a plan leaves out, and %s changes its plan between "
                "refreshes",
                rest->method->name, m->name);
    }
    for (int i = 0; order && !r->order->fixed && i < s->n; i++)
        if (s->part[i].method->still)
            return err_set(e, ERR_USAGE,
                           "attention %s remembers blocks, and %s orders tokens anew with every "
                           "plan",
                           s->part[i].method->name, order->method->name);
    for (int i = 0; select && i < s->n; i++)
        if (s->part[i].method->whole)
            return err_set(
                e, ERR_USAGE,
                "attention %s changes keys for all queries alike, and %s selects among them",
                s->part[i].method->name, select->method->name);
    for (int i = 0; i < s->n; i++)
        for (int j = 0; s->part[i].method->splits && j < s->n; j++) {
            const struct attn_method *m = s->part[j].method;
            bool after = rest == &s->part[j] && r->compensate->after;
            if (j == i || !(m->plan || m->observe || after)) continue;
            return err_set(e, ERR_USAGE,
                           "attention %s leaves out heads, and %s looks at the plan of all",
                           s->part[i].method->name, m->name);
        }
    if (order && !select && !r->precision && s->n == 1)
        return err_set(e, ERR_USAGE,
                       "attention %s orders tokens, which says nothing alone; add what selects, as "
                       "%s+resid",
                       order->method->name, order->method->name);
    return 0;
}

static int steps_of(double v, int n_steps) /* a share below 1, a count from 1 on */
{
    return v < 1 ? (int)lround(v * n_steps) : v < n_steps ? (int)v : n_steps;
}

int attn_stack_resolve(struct attn_stack *s, const struct attn_shape *shape, struct err *e)
{
    int first = 0, last = 0;
    for (int i = 0; i < s->n; i++) {
        struct attn_part *p = &s->part[i];
        p->shape = shape;
        p->tokens = shape->grid_t * shape->grid_h * shape->grid_w;
        int a = steps_of(p->knobs->first, shape->n_steps),
            b = steps_of(p->knobs->last, shape->n_steps);
        if (a > first) first = a;
        if (b > last) last = b;
    }
    for (int i = 0; i < s->n; i++) {
        struct attn_part *p = &s->part[i];
        p->first = first;
        p->last = shape->n_steps - last;
        s->own[i] = p->method->recipe;
        if (p->method->choose && p->method->choose(p, &s->own[i], e) < 0)
            return err_wrap(e, "attention %s", p->method->name);
    }
    for (int axis = 0; axis < ATTN_AXES; axis++)
        if (claim(s, (enum attn_axis)axis, e) < 0) return -1;
    s->recipe = (struct attn_recipe){0};
#define TAKE(axis, field) s->recipe.field = s->by[axis] >= 0 ? s->own[s->by[axis]].field : NULL
    TAKE(ATTN_AXIS_ASK, ask);
    TAKE(ATTN_AXIS_ORDER, order);
    TAKE(ATTN_AXIS_SCORE, score);
    TAKE(ATTN_AXIS_SELECT, select);
    TAKE(ATTN_AXIS_REUSE, reuse);
    TAKE(ATTN_AXIS_COMPENSATE, compensate);
    TAKE(ATTN_AXIS_PRECISION, precision);
#undef TAKE
    return check_members(s, e);
}
