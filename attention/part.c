/* What a method may ask about its part of a run: memory, tensors, limits, noise, what stays exact. */
#include "attention/room.h"

void *attn_state(const struct attn_part *p, int layer, int branch)
{
    const struct memory *m = &p->room->memory[p->index];
    if (!m->state || layer < 0 || layer >= p->shape->n_layers || branch < 0 ||
        branch >= p->shape->n_branches)
        return NULL;
    return m->state +
           m->size.state * ((size_t)layer * (size_t)p->shape->n_branches + (size_t)branch);
}

void *attn_shared(const struct attn_part *p) { return p->room->memory[p->index].shared; }

void *attn_scratch(const struct attn_part *p) { return p->room->memory[p->index].scratch; }

const struct tensor *attn_tensor(const struct attn_part *p, int layer, const char *name)
{
    return p->room->tensor ? p->room->tensor(p->room->tensor_ctx, layer, name) : NULL;
}

unsigned attn_looks_nowhere(const struct attn_part *p, const struct attn_turn *t)
{
    return (void)p, (void)t, 0;
}

unsigned attn_looks_qkv(const struct attn_part *p, const struct attn_turn *t)
{
    return (void)p, (void)t, ATTN_LOOK_QKV;
}

struct attn_limits attn_limits(const struct attn_part *p)
{
    const struct attn *a = p->room;
    return (struct attn_limits){.threads = a->size.threads,
                                .block = a->block,
                                .blocks = a->most_q > a->most_k ? a->most_q : a->most_k,
                                .cols = a->most_k,
                                .level = a->level,
                                .by_head = a->by_head};
}

uint64_t attn_random(const struct attn_ctx *c, int head, uint64_t n)
{
    const uint64_t who[] = {(uint64_t)c->step, (uint64_t)c->layer, (uint64_t)c->branch,
                            (uint64_t)head, n};
    uint64_t z = 0;
    for (size_t i = 0; i < ARRAY_LEN(who); i++) {
        z += who[i] + 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
    }
    return z;
}

int attn_exact_layers(const struct attn_part *p)
{
    int most = 0;
    for (int i = 0; i < p->room->stack.n; i++)
        if (p->room->stack.part[i].knobs->layers > most)
            most = p->room->stack.part[i].knobs->layers;
    return most;
}

const struct budget *attn_budget(const struct attn_part *p) { return p->room->budget; }

unsigned attn_granted(const struct attn_part *p) { return p->room->granted; }

bool attn_on_device(const struct attn_part *p) { return p->room->device != NULL; }

bool attn_is_exact(const struct attn_part *p, const struct attn_ctx *c)
{
    return c->step < p->first || c->step >= p->last || c->layer < attn_exact_layers(p);
}
