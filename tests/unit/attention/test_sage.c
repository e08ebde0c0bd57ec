/* sage: what its words ask for by layer, what is refused, and what a processor without fast products
 * over codes does with `auto`. */
#include "tests/unit/attention/planned.h"

#include <string.h>

enum { HEADS = 2, DIM = 16, LAYERS = 6, L = 5 * 8 * 8, N = L * HEADS * DIM };

static const struct attn_shape shape = {.n_heads = HEADS,
                                        .head_dim = DIM,
                                        .grid_t = 5,
                                        .grid_h = 8,
                                        .grid_w = 8,
                                        .n_layers = LAYERS,
                                        .n_branches = 1,
                                        .n_steps = 4};
static float qkv[3][N];

static void refused(const char *stack, const char *why)
{
    struct planned p;
    struct err e = {0};
    int rc = planned_open(&p, stack, &shape, &e);
    CHECK_MSG(rc < 0 && e.code == ERR_USAGE && strstr(e.msg, why), "%s: %s", stack,
              rc < 0 ? e.msg : "taken");
    planned_close(&p);
}

static void words(void)
{
    static const struct {
        const char *stack;
        enum attn_prec qk[LAYERS], pv[LAYERS];
    } cases[] = {
        {"sage:qk=int8,pv=run",
         {ATTN_PREC_INT8, ATTN_PREC_INT8, ATTN_PREC_INT8, ATTN_PREC_INT8, ATTN_PREC_INT8,
          ATTN_PREC_INT8},
         {0}},
        {"sage:qk=int8/0-1=run/5=int4,pv=run/2=int8/4-9=fp8",
         {0, 0, ATTN_PREC_INT8, ATTN_PREC_INT8, ATTN_PREC_INT8, ATTN_PREC_INT4},
         {0, 0, ATTN_PREC_INT8, 0, ATTN_PREC_FP8, ATTN_PREC_FP8}},
        {"sage:qk=run/3=int8/3=int4,pv=run", {0, 0, 0, ATTN_PREC_INT4, 0, 0}, {0}},
        {"sage:qk=run,pv=run", {0}, {0}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct planned p;
        struct err e = {0};
        CHECK_OK(planned_open(&p, cases[i].stack, &shape, &e));
        for (int layer = 0; layer < LAYERS; layer++) {
            struct attn_call c = {
                .q = qkv[0], .k = qkv[1], .v = qkv[2], .o = p.o, .at = {.layer = layer}};
            CHECK_OK(attn_run(p.a, &c, &e));
            const struct attn_plan *plan = &p.a->launches[0].plan;
            CHECK_MSG(plan->qk == cases[i].qk[layer] && plan->pv == cases[i].pv[layer],
                      "%s, layer %d: qk %d pv %d", cases[i].stack, layer, (int)plan->qk,
                      (int)plan->pv);
        }
        planned_close(&p);
    }
}

/* As the run where nothing is gained, byte for byte; over codes all the same when told so. */
static void processors(void)
{
    static float dense[N];
    static const char *const stacks[] = {
        "dense", "sage", "sage:qk=int8", "sage:pv=int8", "sage:qk=int8,pv=run", "sage:qk=int4"};
    static const double low[] = {0, 0, .5, 1, .5, .5};
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++) {
        struct attn_params params = {.method = stacks[i], .threads = threads_count()};
        struct arena count = {0}, arena = {0};
        struct attn *a;
        struct err e = {0};
        struct attn_stats st;
        float o[N];
        params.cpu.level = CPU_REF; /* no product over codes is faster there */
        CHECK_OK(attn_open(&a, &params, &shape, &count, &e));
        CHECK_OK(arena_open(&arena, count.used, &e));
        CHECK_OK(attn_open(&a, &params, &shape, &arena, &e));
        struct attn_call c = {.q = qkv[0], .k = qkv[1], .v = qkv[2], .o = o};
        CHECK_OK(attn_run(a, &c, &e));
        attn_stats(a, &st);
        CHECK_MSG(st.low == low[i], "%s: %g of the products over codes", stacks[i], st.low);
        if (i == 0) memcpy(dense, o, sizeof o);
        CHECK_MSG((memcmp(dense, o, sizeof o) == 0) == (low[i] == 0), "%s", stacks[i]);
        attn_close(a);
        arena_close(&arena);
    }
}

int main(void)
{
    struct test_rng r = {11};
    threads_set(2);
    for (int i = 0; i < 3; i++)
        for (int n = 0; n < N; n++)
            qkv[i][n] = (float)rng_normal(&r);
    words();
    processors();
    refused("sage:qk=int7", "'int7' is not auto, run, int8 or int4");
    refused("sage:pv=int4", "'int4' is not auto, run, int8 or fp8");
    refused("sage:qk=", "is not auto");
    refused("sage:qk=int8/", "is not auto");
    refused("sage:qk=int8/x=run", "'x=run'");
    refused("sage:qk=int8/3-1=run", "'3-1=run'");
    refused("sage:qk=int8/3", "'3'");
    refused("sage:qk=int8/-1=run", "'-1=run'");
    refused("sage:qk=run,pv=int8", "layer 0: pv=int8 wants codes of q and k");
    refused("sage:qk=int8/2=run,pv=fp8", "layer 2: pv=fp8 wants codes of q and k");
    struct attn_shape odd = shape;
    odd.head_dim = 24;
    struct planned p;
    struct err e = {0};
    CHECK(planned_open(&p, "sage:rotate", &odd, &e) < 0 && e.code == ERR_USAGE &&
          strstr(e.msg, "this model's have 24"));
    planned_close(&p);
    CHECK_OK(planned_open(&p, "sage:rotate", &shape, &e));
    planned_close(&p);
    return TEST_RESULT();
}
