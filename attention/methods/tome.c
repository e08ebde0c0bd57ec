/* Keys that say the same in the frame before and after are merged: ToMe, arXiv 2210.09461, and VidToMe,
 * arXiv 2312.10656, in the form for clips with rotary positions: keys and values alone, after rotation,
 * and only at one place in neighbouring frames; attention-sparse.md 12.7.
 *
 * Of every second frame each key looks at the two beside it. Those most alike (by cosine, at least
 * `alike`) are merged until a share `keep` of all keys is left: key and value become means, and a key
 * that stands for n counts as n (log n added to its score). Queries are never merged. Lossy: meant for
 * long clips whose pictures hardly move. Memory: merged keys and values, fp32. Cost: one pass over k,
 * and sorting. */
#include "attention/axes/axes.h"

#include <math.h>
#include <string.h>

struct tome {
    struct attn_knobs knobs;
    double keep, alike;
};

struct state { /* scratch of a call; a row a head, but k and v [len, N, D] */
    float *k, *v, *bias, *like; /* bias, like: [N, L] */
    int32_t *into; /* [N, L] the token that a token is merged into, itself, or -1: not yet known */
    int32_t *place; /* [N, L] */
    int *index; /* [N, 2 L] */
    int *left; /* [N] keys that are left */
    uint8_t *heads; /* [N] */
    size_t bytes;
};

static const struct tome *of(const struct attn_part *p) { return p->options; }

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

static struct state carve(const struct attn_part *p, char *at)
{
    struct state s = {0};
    size_t n = (size_t)p->shape->n_heads, len = (size_t)p->tokens, all = round64(n * len * 4);
    size_t wide = round64(n * len * (size_t)p->shape->head_dim * sizeof(float));
    s.bytes = 2 * wide + 6 * all + round64(n * sizeof(int)) + n;
    if (!at) return s;
    s.k = (float *)at;
    s.v = (float *)(at += wide);
    s.bias = (float *)(at += wide);
    s.like = (float *)(at += all);
    s.into = (int32_t *)(at += all);
    s.place = (int32_t *)(at += all);
    s.index = (int *)(at += all);
    s.left = (int *)(at += 2 * all);
    s.heads = (uint8_t *)(at + round64(n * sizeof(int)));
    return s;
}

static float cosine(const float *a, const float *b, int dim)
{
    double ab = 0, aa = 0, bb = 0;
    for (int c = 0; c < dim; c++) {
        ab += (double)a[c] * (double)b[c];
        aa += (double)a[c] * (double)a[c];
        bb += (double)b[c] * (double)b[c];
    }
    return aa > 0 && bb > 0 ? (float)(ab / sqrt(aa * bb)) : -INFINITY;
}

/* Into which of its neighbours each key of every second frame would go. */
static void match(const struct axis_head *h, const struct state *s)
{
    const struct attn_shape *shape = h->p->shape;
    int frame = shape->grid_h * shape->grid_w, len = h->k.len;
    float *like = s->like + (size_t)h->head * (size_t)len;
    int32_t *into = s->into + (size_t)h->head * (size_t)len;
    for (int t = 0; t < len; t++) {
        const float *k = heads_at(&h->t->k, t, h->head);
        into[t] = t;
        like[t] = -INFINITY;
        if (t / frame % 2 == 0) continue;
        for (int side = -1; side < 2; side += 2) {
            int other = t + side * frame;
            if (other >= len) continue;
            float alike = cosine(k, heads_at(&h->t->k, other, h->head), h->k.dim);
            if (!(alike > like[t]) || !((double)alike >= of(h->p)->alike)) continue;
            like[t] = alike;
            into[t] = other;
        }
    }
}

static void merge(const struct axis_head *h)
{
    const struct state *s = h->ctx;
    int len = h->k.len, dim = h->k.dim;
    size_t row = (size_t)h->head * (size_t)len, token = (size_t)h->p->shape->n_heads * (size_t)dim;
    int32_t *into = s->into + row, *place = s->place + row;
    int *index = s->index + 2 * row, *merged = index + len;
    float *bias = s->bias + row;
    match(h, s);
    int most = (int)((1 - of(h->p)->keep) * len + 1e-9);
    int n = select_best(index, s->like + row, len, most), at = 0;
    memset(merged, 0, (size_t)len * sizeof *merged);
    for (int i = 0; i < n; i++)
        merged[index[i]] = 1;
    for (int t = 0; t < len; t++) {
        if (!merged[t]) into[t] = t;
        place[t] = into[t] == t ? at++ : 0;
    }
    s->left[h->head] = at;
    for (int t = 0; t < len; t++) { /* those that stay, then what is added to them */
        if (into[t] != t) continue;
        size_t to = (size_t)place[t] * token + (size_t)h->head * (size_t)dim;
        memcpy(s->k + to, heads_at(&h->t->k, t, h->head), (size_t)dim * sizeof(float));
        memcpy(s->v + to, heads_at(&h->t->v, t, h->head), (size_t)dim * sizeof(float));
        bias[place[t]] = 1;
    }
    for (int t = 0; t < len; t++) {
        if (into[t] == t) continue;
        int to = place[into[t]];
        float *k = s->k + (size_t)to * token + (size_t)h->head * (size_t)dim;
        float *v = s->v + (size_t)to * token + (size_t)h->head * (size_t)dim;
        const float *more_k = heads_at(&h->t->k, t, h->head),
                    *more_v = heads_at(&h->t->v, t, h->head);
        float part = 1 / (bias[to] += 1);
        for (int c = 0; c < dim; c++) {
            k[c] += (more_k[c] - k[c]) * part;
            v[c] += (more_v[c] - v[c]) * part;
        }
    }
    for (int i = 0; i < at; i++)
        bias[i] = logf(bias[i]);
}

/* A plan a head: each has keys of its own. */
static int tome_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                     struct err *e)
{
    struct state s = carve(p, attn_scratch(p));
    struct attn_plan each = {.n_heads = p->shape->n_heads};
    if (attn_plan_dense(&each, p->tokens, p->tokens, p->shape->n_heads, e) < 0) return -1;
    each.per_head = true;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .ctx = &s, .fn = merge});
    c->n = 0;
    for (int h = 0; h < p->shape->n_heads; h++) {
        struct attn_launch *l = &c->at[c->n++];
        s.heads[h] = (uint8_t)h;
        *l = (struct attn_launch){0};
        if (attn_plan_dense(&l->plan, p->tokens, s.left[h], 1, e) < 0) return -1;
        l->plan.heads = s.heads + h;
        if (s.left[h] == p->tokens) continue; /* nothing was alike */
        l->plan.key_bias = s.bias + (size_t)h * (size_t)p->tokens;
        l->k = heads_f32(s.k, s.left[h], p->shape->n_heads, p->shape->head_dim);
        l->v = heads_f32(s.v, s.left[h], p->shape->n_heads, p->shape->head_dim);
    }
    return 0;
}

static unsigned tome_looks(const struct attn_part *p, const struct attn_turn *t)
{
    return (void)p, (void)t, ATTN_LOOK_K | ATTN_LOOK_V;
}

static void tome_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = carve(p, NULL).bytes;
}

const struct attn_method attn_tome = {
    .name = "tome",
    .summary = "keys that say the same in neighbouring frames, merged",
    .paper = "2312.10656",
    .options = OPTIONS(
        OPT_DOUBLE(struct tome, keep, "keep", 0.7, 0.5, 1, "share of keys that is left at least"),
        OPT_DOUBLE(struct tome, alike, "alike", 0.8, -1, 1, "least cosine of keys that are merged"),
        KNOB_FIRST(0.2), KNOB_LAST(0)),
    .options_size = sizeof(struct tome),
    .needs = ATTN_NEED_HEADS | ATTN_NEED_KEY_BIAS,
    .sizes = tome_sizes,
    .plan = tome_plan,
    .plan_looks = tome_looks,
    .splits = true,
    .whole = true,
};
