/* One call of a stack on given q, k and v, and the plan that it made: for tests that look at what is
 * kept. */
#ifndef DITGEN_TESTS_PLANNED_H
#define DITGEN_TESTS_PLANNED_H

#include "attention/room.h"
#include "model/base/threads.h"
#include "tests/check.h"

struct planned {
    struct attn *a;
    struct arena arena;
    struct attn_shape shape;
    float *o;
    int tokens;
};

static inline int planned_open(struct planned *p, const char *stack, const struct attn_shape *shape,
                               struct err *e)
{
    struct attn_params params = {.method = stack, .threads = threads_count()};
    struct arena count = {0};
    cpu_detect(&params.cpu);
    *p = (struct planned){.shape = *shape, .tokens = shape->grid_t * shape->grid_h * shape->grid_w};
    if (attn_open(&p->a, &params, shape, &count, e) < 0) return -1;
    CHECK(arena_open(&p->arena, count.used, e) == 0);
    memset(p->arena.base, 0xff, p->arena.size);
    p->o = malloc((size_t)p->tokens * (size_t)(shape->n_heads * shape->head_dim) * sizeof *p->o);
    return attn_open(&p->a, &params, shape, &p->arena, e);
}

static inline void planned_close(struct planned *p)
{
    attn_close(p->a);
    arena_close(&p->arena);
    free(p->o);
}

/* q, k, v: [L, N, D]. The first plan of the call; its arrays stay until the next one. */
static inline const struct attn_plan *planned_call(struct planned *p, const float *q,
                                                   const float *k, const float *v, int step)
{
    struct err e = {0};
    struct attn_call c = {.q = q, .k = k, .v = v, .o = p->o, .at = {.step = step}};
    CHECK_OK(attn_run(p->a, &c, &e));
    return &p->a->launches[0].plan;
}

#endif
