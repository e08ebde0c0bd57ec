/* Between a device and the host: what hooks read comes down, what they made goes up. On a device the host
 * has fp32 copies in its own layout, so that a method makes of the same numbers the same plan. */
#include "attention/room.h"

#include "model/base/clock.h"

static size_t whole(const struct attn *a) /* elements of one tensor */
{
    return (size_t)a->size.len_q * (size_t)a->shape.n_heads * (size_t)a->shape.head_dim;
}

void bring_carve(struct attn *a, struct arena *there, struct arena *here)
{
    struct there *w = &a->there;
    unsigned needs = a->size.needs, looks = looks_after(a, NULL);
    size_t heads = (size_t)a->shape.n_heads, dim = (size_t)a->shape.head_dim,
           tokens = (size_t)a->size.len_q, rows = heads * (size_t)a->most_q;
    size_t up[UPS] = {0}, most = 0;
    if (a->sparse) looks |= looks_reuse(a) | looks_axes(a, NULL) | looks_plan(a, NULL);
    for (int i = 0; i < 4; i++)
        if (looks >> i & 1) w->down[i] = arena_take(here, whole(a) * sizeof(float));
    for (int i = 0; i < a->stack.n; i++)
        if (a->stack.part[i].method->whole) up[UP_K] = up[UP_V] = whole(a);
    if (needs & (ATTN_NEED_MEAN | ATTN_NEED_SOL)) up[UP_K_MEAN] = (size_t)a->most_k * heads * dim;
    if (needs & ATTN_NEED_MEAN) up[UP_V_MEAN] = up[UP_K_MEAN];
    if (needs & ATTN_NEED_SOL) up[UP_V_SUM] = up[UP_K_MEAN];
    if (needs & ATTN_NEED_COPY) up[UP_FILL] = heads * dim;
    if (needs & ATTN_NEED_KEY_BIAS) up[UP_BIAS] = (heads + 1) * tokens;
    for (int i = 0; i < UPS; i++) {
        if (up[i]) w->up[i].at = arena_take(there, up[i] * sizeof(float));
        if (up[i] > most) most = up[i];
    }
    if (looks & (ATTN_LOOK_QKV | ATTN_LOOK_O)) most = whole(a);
    if (most && a->size.precision != PRECISION_FP32)
        w->narrow = arena_take(here, most * sizeof(uint16_t));
    if (a->wants & (ATTN_NEED_LSE | ATTN_NEED_MASS))
        w->lse = arena_take(there, heads * tokens * sizeof *w->lse);
    if (a->wants & ATTN_NEED_MASS)
        w->mass = arena_take(there, rows * (size_t)a->most_k * sizeof *w->mass);
    if (a->wants & ATTN_NEED_ALIVE)
        w->alive = arena_take(there, rows * (size_t)a->words * sizeof *w->alive);
}

/* All of h, which may have gaps, to `to`, which has none. */
static int copy_down(struct attn *a, char *to, const struct heads *h, struct err *e)
{
    size_t each = dtype_size(h->type), part = (size_t)h->dim * each;
    bool rows = h->head == h->dim, together = rows && h->token == (int64_t)h->n * h->dim;
    if (together) return device_download(a->device, to, h->at, whole(a) * each, e);
    for (int i = 0; i < h->len; i++)
        for (int n = 0; n < (rows ? 1 : h->n); n++) {
            size_t bytes = rows ? (size_t)h->n * part : part;
            if (device_download(a->device, to, heads_at(h, i, n), bytes, e) < 0) return -1;
            to += bytes;
        }
    return 0;
}

static int copy_up(struct attn *a, const struct heads *h, const char *from, struct err *e)
{
    size_t each = dtype_size(h->type), part = (size_t)h->dim * each;
    bool rows = h->head == h->dim, together = rows && h->token == (int64_t)h->n * h->dim;
    if (together) return device_upload(a->device, h->at, from, whole(a) * each, e);
    for (int i = 0; i < h->len; i++)
        for (int n = 0; n < (rows ? 1 : h->n); n++) {
            size_t bytes = rows ? (size_t)h->n * part : part;
            if (device_upload(a->device, heads_at(h, i, n), from, bytes, e) < 0) return -1;
            from += bytes;
        }
    return 0;
}

static int narrow_missing(const struct attn *a, enum dtype type, struct err *e)
{
    if (type == DTYPE_F32 || a->there.narrow) return 0;
    return err_set(e, ERR_BUG, "attention of %s in a run of %s", dtype_name(type),
                   precision_name(a->size.precision));
}

/* The device is done with what came before: what it still works on is no time of planning. */
static int wait_once(struct attn *a, struct err *e)
{
    double begin = clock_seconds();
    if (a->there.brought) return 0;
    if (device_wait(a->device, e) < 0) return -1;
    a->there.brought = true;
    a->there.waited += clock_seconds() - begin;
    return 0;
}

int bring_down(struct attn *a, struct attn_turn *t, unsigned looks, struct err *e)
{
    struct there *w = &a->there;
    const struct heads *from[] = {&w->q, &w->k, &w->v, &w->o};
    struct heads *to[] = {&t->q, &t->k, &t->v, &t->o};
    if (!a->device) return 0;
    for (int i = 0; i < 4; i++) {
        if (!(looks >> i & 1) || to[i]->at) continue;
        enum dtype type = from[i]->type;
        if (!w->down[i])
            return err_set(e, ERR_BUG, "attention looks at tensor %d, which it did not say", i);
        if (wait_once(a, e) < 0 || narrow_missing(a, type, e) < 0) return -1;
        char *raw = type == DTYPE_F32 ? (char *)w->down[i] : (char *)w->narrow;
        if (copy_down(a, raw, from[i], e) < 0) return -1;
        if (type != DTYPE_F32) cache_widen(w->down[i], w->narrow, whole(a));
        to[i]->at = w->down[i];
    }
    return 0;
}

int bring_seen(struct attn *a, struct err *e)
{
    struct there *w = &a->there;
    size_t heads = (size_t)a->shape.n_heads, rows = heads * (size_t)a->most_q;
    if (wait_once(a, e) < 0) return -1;
    if (w->lse && device_download(a->device, a->lse, w->lse,
                                  heads * (size_t)a->size.len_q * sizeof *w->lse, e) < 0)
        return -1;
    if (w->mass && device_download(a->device, a->mass, w->mass,
                                   rows * (size_t)a->most_k * sizeof *w->mass, e) < 0)
        return -1;
    return w->alive ? device_download(a->device, a->alive, w->alive,
                                      rows * (size_t)a->words * sizeof *w->alive, e)
                    : 0;
}

int bring_back(struct attn *a, const struct attn_turn *t, struct err *e)
{
    struct there *w = &a->there;
    if (w->o.type == DTYPE_F32) return copy_up(a, &w->o, t->o.at, e);
    cache_narrow(w->narrow, t->o.at, whole(a));
    return copy_up(a, &w->o, (const char *)w->narrow, e);
}

int bring_up(struct attn *a, enum attn_up which, struct heads *h, int tokens, struct err *e)
{
    struct there *w = &a->there;
    if (!h->at || h->where == PLACE_DEVICE) return 0;
    enum dtype type = which == UP_FILL ? DTYPE_F32 : w->q.type;
    size_t n = (size_t)(h->token ? tokens : 1) * (size_t)h->n * (size_t)h->dim;
    if (!w->up[which].at)
        return err_set(e, ERR_BUG, "attention was not opened for a tensor that a method made");
    if (w->up[which].from && w->up[which].from != h->at)
        return err_set(e, ERR_BUG, "tensors of one call's plans lie in two places");
    if (!w->up[which].from) {
        const void *from = h->at;
        if (narrow_missing(a, type, e) < 0) return -1;
        if (type != DTYPE_F32) cache_narrow(w->narrow, h->at, n), from = w->narrow;
        if (device_upload(a->device, w->up[which].at, from, n * dtype_size(type), e) < 0) return -1;
        w->up[which].from = h->at;
    }
    h->at = w->up[which].at;
    h->type = type;
    h->where = PLACE_DEVICE;
    return 0;
}

int bring_bias(struct attn *a, int launch, const float **bias, int n, struct err *e)
{
    if (!*bias) return 0;
    float *at = (float *)(void *)a->there.up[UP_BIAS].at;
    if (!at) return err_set(e, ERR_BUG, "attention was not opened for plan.key_bias");
    at += (size_t)launch * (size_t)a->size.len_q;
    if (device_upload(a->device, at, *bias, (size_t)n * sizeof *at, e) < 0) return -1;
    *bias = at;
    return 0;
}

int bring_row(struct attn *a, float *to, const void *from, enum dtype type, int n, struct err *e)
{
    uint16_t bf16[256];
    if (type == DTYPE_F32) return device_download(a->device, to, from, (size_t)n * sizeof *to, e);
    for (int i = 0, m; i < n; i += m) {
        m = n - i < (int)ARRAY_LEN(bf16) ? n - i : (int)ARRAY_LEN(bf16);
        if (device_download(a->device, bf16, (const uint16_t *)from + i, (size_t)m * sizeof *bf16,
                            e) < 0)
            return -1;
        for (int c = 0; c < m; c++)
            to[i + c] = bf16_to_f32(bf16[c]);
    }
    return 0;
}
