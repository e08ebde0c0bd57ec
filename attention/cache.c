/* What is kept over steps, under --cache-mem: residuals and outputs, bf16, a slot a pair.
 *
 * A pair without a slot runs exactly. Slots go to the first layers: nothing is known that would
 * prefer others. Outputs and residuals of one pair are given together. */
#include "attention/room.h"

#include "model/base/threads.h"

#include <string.h>

struct cache_sizes cache_sizes(const struct attn_stack *s, const struct attn_shape *shape,
                               const struct attn_params *p)
{
    const struct attn_recipe *r = &s->recipe;
    bool residual = r->compensate && r->compensate->residual, output = r->ask && r->ask->over_steps;
    size_t tokens = (size_t)shape->grid_t * (size_t)shape->grid_h * (size_t)shape->grid_w;
    size_t slot =
        (tokens * (size_t)shape->n_heads * (size_t)shape->head_dim * sizeof(uint16_t) + 63) / 64 *
        64;
    size_t each = slot * ((size_t)residual + (size_t)output);
    int pairs = shape->n_layers * shape->n_branches, most = pairs;
    if (each && p->cap_cache && p->cache_mem / each < (size_t)pairs)
        most = (int)(p->cache_mem / each);
    if (!each) most = 0;
    return (struct cache_sizes){
        .residual_slots = residual ? most : 0,
        .output_slots = output ? most : 0,
        .bytes = each * (size_t)most,
        .wanted = each * (size_t)pairs,
        .left_out = each ? pairs - most : 0,
    };
}

static size_t slot_len(const struct attn *a) /* elements, whole cache lines */
{
    return ((size_t)a->size.len_q * (size_t)a->shape.n_heads * (size_t)a->shape.head_dim + 31) /
           32 * 32;
}

void cache_carve(struct attn *a, const struct cache_sizes *c, struct arena *arena)
{
    size_t slot = slot_len(a) * sizeof(uint16_t);
    const struct axis_ask *ask = a->stack.recipe.ask;
    a->residual_slots = c->residual_slots;
    a->output_slots = c->output_slots;
    a->residual = arena_take(arena, slot * (size_t)c->residual_slots);
    a->output = arena_take(arena, slot * (size_t)c->output_slots);
    a->branch_output = ask && ask->over_branches ? arena_take(arena, slot) : NULL;
}

struct heads cache_residual(const struct attn *a, int pair)
{
    struct heads h = heads_f32(NULL, a->size.len_q, a->shape.n_heads, a->shape.head_dim);
    h.type = DTYPE_BF16;
    h.where = a->device ? PLACE_DEVICE : PLACE_HOST;
    if (pair < a->residual_slots) h.at = a->residual + slot_len(a) * (size_t)pair;
    return h;
}

struct heads cache_heads(const struct attn *a, const uint16_t *slot)
{
    struct heads h = heads_f32(NULL, a->size.len_q, a->shape.n_heads, a->shape.head_dim);
    h.type = DTYPE_BF16;
    h.where = a->device ? PLACE_DEVICE : PLACE_HOST;
    h.at = (void *)(uintptr_t)slot;
    return h;
}

uint16_t *cache_output(const struct attn *a, int pair)
{
    return pair < a->output_slots ? a->output + slot_len(a) * (size_t)pair : NULL;
}

/* --- copying, in pieces a thread each --- */

struct cast {
    uint16_t *bf16;
    const uint16_t *from_bf16;
    float *f32;
    const float *from_f32;
    size_t n;
};
#define PIECE ((size_t)1 << 16) /* elements: a few times a core's first cache */

static void cast_piece(void *ctx, int task, int worker)
{
    const struct cast *c = ctx;
    size_t i = (size_t)task * PIECE, end = i + PIECE < c->n ? i + PIECE : c->n;
    (void)worker;
    if (c->f32 == c->from_f32)
        for (; i < end; i++)
            c->f32[i] = bf16_to_f32(f32_to_bf16(c->f32[i]));
    else if (c->bf16)
        for (; i < end; i++)
            c->bf16[i] = f32_to_bf16(c->from_f32[i]);
    else
        for (; i < end; i++)
            c->f32[i] = bf16_to_f32(c->from_bf16[i]);
}

void cache_narrow(uint16_t *to, const float *from, size_t n)
{
    struct cast c = {.bf16 = to, .from_f32 = from, .n = n};
    threads_run((int)((n + PIECE - 1) / PIECE), cast_piece, &c);
}

void cache_widen(float *to, const uint16_t *from, size_t n)
{
    struct cast c = {.f32 = to, .from_bf16 = from, .n = n};
    threads_run((int)((n + PIECE - 1) / PIECE), cast_piece, &c);
}

void cache_round(float *x, size_t n)
{
    struct cast c = {.f32 = x, .from_f32 = x, .n = n};
    threads_run((int)((n + PIECE - 1) / PIECE), cast_piece, &c);
}

/* --- into slots and out of them --- */

static size_t whole(const struct attn *a)
{
    return (size_t)a->size.len_q * (size_t)a->shape.n_heads * (size_t)a->shape.head_dim;
}

int cache_get(struct attn *a, const struct heads *out, const uint16_t *slot, struct err *e)
{
    struct heads from = cache_heads(a, slot);
    if (a->device) return room_device_move(a, out, &from, e);
    cache_widen(out->at, slot, whole(a));
    return 0;
}

int cache_put(struct attn *a, uint16_t *slot, const struct heads *out, struct err *e)
{
    struct heads to = cache_heads(a, slot);
    if (a->device) return room_device_move(a, &to, out, e);
    cache_narrow(slot, out->at, whole(a));
    return 0;
}

int cache_copy(struct attn *a, uint16_t *to, const uint16_t *from, struct err *e)
{
    size_t bytes = whole(a) * sizeof *to;
    if (a->device) return device_copy(a->device, to, from, bytes, e);
    memcpy(to, from, bytes);
    return 0;
}

void cache_areas(const struct attn *a, struct cache_area areas[3])
{
    size_t slot = slot_len(a) * sizeof(uint16_t);
    areas[0] = (struct cache_area){a->residual, slot * (size_t)a->residual_slots};
    areas[1] = (struct cache_area){a->output, slot * (size_t)a->output_slots};
    areas[2] = (struct cache_area){a->branch_output, a->branch_output ? slot : 0};
}

int cache_clear(struct attn *a, struct err *e)
{
    struct cache_area areas[3];
    cache_areas(a, areas);
    for (int i = 0; i < 3; i++)
        if (areas[i].bytes && device_zero(a->device, areas[i].at, areas[i].bytes, e) < 0) return -1;
    return 0;
}
