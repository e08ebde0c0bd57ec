/* ditfast's search: sampled rows of o and of what the window lacks of it, over an exact run; from their
 * changes over steps and between branches, a plan. See ditfast.c. */
#include "attention/methods/ditfast.h"
#include "attention/policy/order.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS = 16, /* of every call: errors of a layer are means of hundreds of channels each */
    LAGS = 2, /* A in a row at most */
    AGES = 5, /* steps from an F to its last W */
    OUTS = LAGS + 1,
    RESTS = AGES + 1, /* kept of the last steps */
};

struct errors { /* relative L1, of one layer and branch at one step; INFINITY: not known */
    float copy[LAGS], window[AGES], branch;
};

struct shared { /* errors [layers, steps, branches] and place [L] follow */
    int64_t calls;
    int64_t first_step;
};

static const struct ditfast *of(const struct attn_part *p) { return p->options; }

static size_t row_of(const struct attn_part *p)
{
    return (size_t)p->shape->n_heads * (size_t)p->shape->head_dim;
}

static struct errors *errors_at(const struct attn_part *p, int layer, int step, int branch)
{
    const struct attn_shape *s = p->shape;
    struct errors *all = (struct errors *)((struct shared *)attn_shared(p) + 1);
    return all + ((size_t)layer * (size_t)s->n_steps + (size_t)step) * (size_t)s->n_branches +
           branch;
}

static int32_t *places(const struct attn_part *p)
{
    return (int32_t *)errors_at(p, p->shape->n_layers, 0, 0);
}

/* Of a pair: o [OUTS, ROWS, N * D], then what the window lacks [RESTS, ROWS, N * D]. */
static float *out_of(const struct attn_part *p, const struct attn_ctx *c, int step)
{
    return (float *)attn_state(p, c->layer, c->branch) + (size_t)(step % OUTS) * ROWS * row_of(p);
}

static float *rest_of(const struct attn_part *p, const struct attn_ctx *c, int step)
{
    return (float *)attn_state(p, c->layer, c->branch) +
           (size_t)(OUTS + step % RESTS) * ROWS * row_of(p);
}

void ditfast_search_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    const struct attn_shape *shape = p->shape;
    if (!of(p)->search) return;
    size_t calls = (size_t)shape->n_layers * (size_t)shape->n_steps * (size_t)shape->n_branches;
    s->state = (OUTS + RESTS) * ROWS * row_of(p) * sizeof(float);
    s->shared =
        sizeof(struct shared) + calls * sizeof(struct errors) + (size_t)p->tokens * sizeof(int32_t);
    /* an order, once; scores of a row for every worker */
    s->scratch = axis_scratch(p, ((size_t)p->tokens + 32) * sizeof(float));
}

/* --- rows --- */

static int token_of(const struct attn_part *p, int row)
{
    return (int)((2 * (int64_t)row + 1) * p->tokens / (2 * ROWS));
}

/* o of the sampled rows, and that minus the window's. */
static void sample(const struct axis_head *h)
{
    const struct attn_part *p = h->p;
    const int32_t *place = places(p);
    int dim = h->q.dim, block = h->k.size, tiles = band_tiles(p, h->k.n);
    float *s = h->scratch;
    for (int r = 0; r < ROWS; r++) {
        int token = token_of(p, r), own = place[token] / block;
        size_t at = (size_t)r * row_of(p) + (size_t)h->head * (size_t)dim;
        float *out = out_of(p, &h->t->at, h->t->at.step) + at,
              *rest = rest_of(p, &h->t->at, h->t->at.step) + at, top = -INFINITY;
        double sum = 0, window[256] = {0};
        memcpy(out, heads_at(&h->t->o, token, h->head), (size_t)dim * sizeof *out);
        h->dots(s, h->k.len, heads_at(&h->t->q, token, h->head), h->q.stride, h->k.x, h->k.stride,
                1, h->k.len, dim, h->scale);
        for (int j = 0; j < h->k.len; j++)
            if (abs(place[j] / block - own) <= tiles) top = fmaxf(top, s[j]);
        for (int j = 0; j < h->k.len; j++) {
            if (abs(place[j] / block - own) > tiles) continue;
            const float *v = heads_at(&h->t->v, j, h->head);
            double w = (double)expf(s[j] - top);
            sum += w;
            for (int c = 0; c < dim; c++)
                window[c] += w * (double)v[c];
        }
        for (int c = 0; c < dim; c++)
            rest[c] = out[c] - (float)(window[c] / sum);
    }
}

static float apart(const float *a, const float *b, const float *of_what, size_t n)
{
    double d = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        d += fabs((double)a[i] - (double)b[i]);
        all += fabs((double)of_what[i]);
    }
    return all > 0 ? (float)(d / all) : 0;
}

static void compare(const struct attn_part *p, const struct attn_ctx *c, int64_t first_step)
{
    struct errors *e = errors_at(p, c->layer, c->step, c->branch);
    const float *out = out_of(p, c, c->step), *rest = rest_of(p, c, c->step);
    size_t n = ROWS * row_of(p);
    for (int lag = 1; lag <= LAGS; lag++)
        e->copy[lag - 1] = c->step - lag >= first_step
                               ? apart(out, out_of(p, c, c->step - lag), out, n)
                               : INFINITY;
    for (int age = 1; age <= AGES; age++)
        e->window[age - 1] = c->step - age >= first_step
                                 ? apart(rest, rest_of(p, c, c->step - age), out, n)
                                 : INFINITY;
    struct attn_ctx other = *c;
    other.branch = 0;
    e->branch = c->branch ? apart(out, out_of(p, &other, c->step), out, n) : 0;
}

/* --- the plan --- */

static float worst(const struct attn_part *p, int layer, int step, int which, int i)
{
    float most = 0;
    for (int b = 0; b < p->shape->n_branches; b++) {
        const struct errors *e = errors_at(p, layer, step, b);
        float x = which == 'A' ? e->copy[i - 1] : which == 'W' ? e->window[i - 1] : e->branch;
        if (!(x <= most)) most = x; /* NaN is no small error */
    }
    return most;
}

/* The cheapest treatment under the bound: what it is after the ones before it. */
static char cheapest(const struct attn_part *p, int layer, int step, int copies, int age)
{
    double bound = of(p)->error * (layer + 1) / p->shape->n_layers;
    bool share = p->shape->n_branches > 1 && step >= p->shape->n_steps / 5 &&
                 (double)worst(p, layer, step, 'C', 0) <= bound;
    bool window = age >= 1 && age <= AGES && (double)worst(p, layer, step, 'W', age) <= bound;
    if (copies < LAGS && (double)worst(p, layer, step, 'A', copies + 1) <= bound) return 'A';
    return window && share ? 'c' : window ? 'W' : share ? 'C' : 'F';
}

static void plan_layer(char *row, const struct attn_part *p, int layer)
{
    int copies = 0, full = -1000;
    for (int step = 0; step < p->shape->n_steps; step++) {
        struct attn_ctx c = {.step = step, .layer = layer};
        row[step] = attn_is_exact(p, &c) ? 'F' : cheapest(p, layer, step, copies, step - full);
        copies = row[step] == 'A' ? copies + 1 : 0;
        /* after a C other branches have no new rest, and exact steps make none */
        if (row[step] == 'F' && !attn_is_exact(p, &c)) full = step;
    }
    row[p->shape->n_steps] = 0;
}

static int write_plan(const struct attn_part *p, const char *path, struct err *e)
{
    const struct attn_shape *s = p->shape;
    const struct ditfast *o = of(p);
    char *part, *row = malloc((size_t)s->n_steps + 1);
    if (asprintf(&part, "%s.part", path) < 0) part = NULL;
    FILE *f = part && row ? fopen(part, "w") : NULL;
    int rc = 0;
    if (!part || !row)
        rc = err_set(e, ERR_RESOURCE, "no memory for a plan");
    else if (!f)
        rc = err_set(e, ERR_RESOURCE, "%s cannot be written: %s", part, strerror(errno));
    if (f) {
        fprintf(f,
                "{\"version\": 1, \"num_steps\": %d, \"n_layers\": %d, \"n_heads\": %d,\n"
                " \"head_dim\": %d, \"grid_t\": %d, \"grid_h\": %d, \"grid_w\": %d,\n"
                " \"density\": \"%.6g\", \"tile\": \"%s\", \"block\": %d,\n"
                " \"metric\": \"relative L1 of o, %d rows\", \"error\": %g,\n \"blocks\": [\n",
                s->n_steps, s->n_layers, s->n_heads, s->head_dim, s->grid_t, s->grid_h, s->grid_w,
                o->knobs.density, o->knobs.tile ? o->knobs.tile : "raster", o->knobs.block, ROWS,
                o->error);
        for (int layer = 0; layer < s->n_layers; layer++) {
            plan_layer(row, p, layer);
            fprintf(f, "  \"%s\"%s\n", row, layer < s->n_layers - 1 ? "," : "");
        }
        fprintf(f, "]}\n");
        bool bad = ferror(f);
        if (fclose(f) != 0 || bad || rename(part, path) != 0)
            rc = err_set(e, ERR_RESOURCE, "%s cannot be written: %s", path, strerror(errno));
    }
    free(part);
    free(row);
    return rc;
}

/* Whether the plan can be written, before a run is spent on it. */
static int try_write(const char *path, struct err *e)
{
    char *part;
    if (asprintf(&part, "%s.part", path) < 0) return err_set(e, ERR_RESOURCE, "no memory");
    FILE *f = fopen(part, "w");
    int rc = f ? 0 : err_set(e, ERR_RESOURCE, "%s cannot be written: %s", part, strerror(errno));
    if (f) fclose(f);
    free(part);
    return rc;
}

static int begin(const struct attn_part *p, const struct attn_turn *t, struct err *e)
{
    struct shared *s = attn_shared(p);
    struct grid all = {p->shape->grid_t, p->shape->grid_h, p->shape->grid_w};
    int32_t *order = attn_scratch(p);
    int tile[3];
    if (try_write(of(p)->search, e) < 0 || tile_parse(p->knobs->tile, tile, e) < 0) return -1;
    order_tile(order, NULL, all, tile[0] ? (struct grid){tile[0], tile[1], tile[2]} : all);
    order_inverse(places(p), order, p->tokens);
    s->first_step = t->at.step;
    return 0;
}

int ditfast_search(const struct attn_part *p, const struct attn_turn *t, const struct attn_seen *s,
                   struct err *e)
{
    struct shared *shared = attn_shared(p);
    const struct attn_shape *shape = p->shape;
    struct attn_plan each = {.n_heads = shape->n_heads, .per_head = true};
    if (!of(p)->search) return 0;
    if (!s->calls->at[0].plan.all || s->calls->n > 1)
        return err_set(e, ERR_USAGE, "search looks at exact attention; name no other method");
    if (!shared->calls++ && begin(p, t, e) < 0) return -1;
    if (attn_blocks_equal(&each.q, p->tokens, p->knobs->block, e) < 0) return -1;
    each.k = each.q;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .fn = sample});
    compare(p, &t->at, shared->first_step);
    if (t->at.step < shape->n_steps - 1 || t->at.layer < shape->n_layers - 1 ||
        t->at.branch < shape->n_branches - 1)
        return 0;
    return write_plan(p, of(p)->search, e);
}

unsigned ditfast_search_looks(const struct attn_part *p, const struct attn_turn *t)
{
    (void)t;
    return of(p)->search ? ATTN_LOOK_QKV | ATTN_LOOK_O : 0;
}
