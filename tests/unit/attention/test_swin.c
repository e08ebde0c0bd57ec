/* Windows of every second layer, by who may look at whom. */
#include "transcribed.h"

/* Whether two places on one axis share a window. */
static bool together(int a, int b, int size, int shift)
{
    return (a + shift) / size == (b + shift) / size;
}

static void check(const char *stack, const int even[3], const int odd[3], bool shifted)
{
    struct attn_shape deep = shape;
    struct planned p;
    struct err e = {0};
    struct attn_params params = {.method = stack, .threads = 1};
    struct attn_forecast f;
    double density[2];
    deep.n_layers = 3;
    fill(4);
    CHECK_OK(planned_open(&p, stack, &deep, &e));
    for (int layer = 0; layer < 3; layer++) {
        const int *size = layer % 2 ? odd : even;
        struct attn_call c = {
            .q = qkv[0], .k = qkv[1], .v = qkv[2], .o = p.o, .at = {.step = 9, .layer = layer}};
        CHECK_OK(attn_run(p.a, &c, &e));
        const struct attn_plan *plan = &p.a->launches[0].plan;
        int wrong = 0, pairs = 0;
        for (int row = 0; row < plan->q.n; row++) {
            static bool keeps[L];
            memset(keeps, 0, sizeof keeps);
            for (struct attn_run r = attn_run_begin(plan, 0, row); attn_run_next(&r);)
                for (int k = r.k0; k < r.k1; k++)
                    keeps[attn_token(&plan->k_order, 0, k)] = true;
            for (int at = attn_block_at(&plan->q, 0, row); at < attn_block_at(&plan->q, 0, row + 1);
                 at++) {
                int i = attn_token(&plan->q_order, 0, at);
                for (int j = 0; j < L; j++) {
                    const int a[] = {i / (H * W), i / W % H, i % W},
                              b[] = {j / (H * W), j / W % H, j % W};
                    bool wanted = true;
                    for (int x = 0; x < 3; x++)
                        wanted = wanted && together(a[x], b[x], size[x],
                                                    shifted && layer % 2 ? size[x] / 2 : 0);
                    wrong += wanted != keeps[j];
                    pairs += wanted;
                }
            }
        }
        CHECK_MSG(wrong == 0, "%s, layer %d: %d pairs differ", stack, layer, wrong);
        if (layer < 2) density[layer] = (double)pairs / L / L;
    }
    deep.n_steps = 1; /* all of it, with no exact step */
    cpu_detect(&params.cpu);
    CHECK_OK(attn_forecast(&f, &params, &deep, &e));
    CHECK(fabs(f.density[0] - fmin(density[0], density[1])) < 1e-9 &&
          fabs(f.density[1] - fmax(density[0], density[1])) < 1e-9);
    planned_close(&p);
}

int main(void)
{
    threads_set(1);
    check("swin:reach=4x3x4,first=0", (const int[]){4, 3, 4}, (const int[]){4, 3, 4}, true);
    check("swin:reach=2x4x5,first=0", (const int[]){2, 4, 5}, (const int[]){2, 4, 5}, true);
    check("swin:reach=2x4x5,shape=varied,first=0", (const int[]){2, 4, 5}, (const int[]){4, 2, 3},
          false);
    check("swin:reach=9x3x4,shape=varied,first=0", (const int[]){6, 3, 4}, (const int[]){6, 2, 2},
          false);
    return TEST_RESULT();
}
