/* haste's rule (attention-sparse.md 12.5): a plan stands while pooled queries and keys stay within
 * the bound of those that it was made from, and is made anew from the first call that leaves it. */
#include "planned.h"

enum { T = 4, H = 8, W = 10, L = T * H * W, HEADS = 2, DIM = 16, N = L * HEADS * DIM };

static const struct attn_shape shape = {.n_heads = HEADS,
                                        .head_dim = DIM,
                                        .grid_t = T,
                                        .grid_h = H,
                                        .grid_w = W,
                                        .n_layers = 1,
                                        .n_branches = 1,
                                        .n_steps = 20};
static float base[3][N], moved[3][N];

static void scale_by(float by, int which)
{
    memcpy(moved, base, sizeof base);
    for (int i = 0; i < N; i++)
        moved[which][i] *= by;
}

static void kept_of(uint32_t *to, const struct attn_plan *p)
{
    memcpy(to, p->kept, attn_plane_size(p) * sizeof *to);
}

int main(void)
{
    static uint32_t first[4096], then[4096], fresh[4096];
    struct err e = {0};
    struct test_rng r = {3};
    threads_set(2);
    for (int i = 0; i < 3 * N; i++)
        base[i / N][i % N] = rng_normal(&r) + (i % DIM == i % N / (HEADS * DIM) / 16 % DIM ? 3 : 0);
    for (int which = 0; which < 2; which++) { /* queries, keys */
        struct planned p, q;
        const char *stack = "haste:drift=0.2,mass=0.5,block=16";
        CHECK_OK(planned_open(&p, stack, &shape, &e));
        kept_of(first, planned_call(&p, base[0], base[1], base[2], 9));
        CHECK(sizeof first / sizeof *first >= attn_plane_size(&p.a->launches[0].plan));
        size_t n = attn_plane_size(&p.a->launches[0].plan) * sizeof(uint32_t);

        scale_by(1.15f, which); /* less than .2 away: stands, though a new plan would differ */
        kept_of(then, planned_call(&p, moved[0], moved[1], moved[2], 10));
        CHECK(memcmp(first, then, n) == 0);
        CHECK_OK(planned_open(&q, stack, &shape, &e));
        kept_of(fresh, planned_call(&q, moved[0], moved[1], moved[2], 10));
        CHECK(memcmp(fresh, then, n) != 0);
        planned_close(&q);

        scale_by(1.3f, which); /* measured from the plan's own call, not from the last one */
        kept_of(then, planned_call(&p, moved[0], moved[1], moved[2], 11));
        CHECK_OK(planned_open(&q, stack, &shape, &e));
        kept_of(fresh, planned_call(&q, moved[0], moved[1], moved[2], 11));
        CHECK(memcmp(fresh, then, n) == 0 && memcmp(first, then, n) != 0);
        planned_close(&q);

        scale_by(1.25f, which); /* near the new plan: that one stands */
        struct attn_stats before, after;
        attn_stats(p.a, &before);
        kept_of(first, planned_call(&p, moved[0], moved[1], moved[2], 12));
        attn_stats(p.a, &after);
        CHECK(memcmp(first, then, n) == 0 && after.calls == before.calls + 1);
        planned_close(&p);
    }
    return TEST_RESULT();
}
