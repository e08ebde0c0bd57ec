/* The same bytes again and again: a race in a ring of stages shows as a launch that differs. */
#include "tests/bench/kernels/checks.h"

struct again { /* outputs of the first launch, in device memory */
    void *o, *lse, *alive;
    unsigned *count;
};

static void *keep_copy(struct on_device *d, const void *from, size_t bytes)
{
    void *copy = own(d, gpu_new(bytes));
    GPU(cudaMemcpy(copy, from, bytes, cudaMemcpyDeviceToDevice));
    return copy;
}

static void launch(const struct kernel_under_test *k, struct on_device *d)
{
    struct err e = {0};
    GPU(cudaMemsetAsync(d->o, 0xff, d->o_bytes + 2 * GUARD, NULL)); /* NaN, as run() leaves it */
    if (d->call.lse) GPU(cudaMemsetAsync(d->call.lse, 0xff, d->lse_count * 4, NULL));
    CHECK_OK(k->run(&d->call, k->variant, &e));
}

static void repeat(const struct kernel_under_test *k, struct on_device *d, int repeats,
                   const char *what)
{
    size_t o_bytes = d->o_bytes + 2 * GUARD;
    unsigned differ = 0;
    struct again first;
    launch(k, d);
    GPU(cudaDeviceSynchronize());
    first.o = keep_copy(d, d->o, o_bytes);
    first.lse = keep_copy(d, d->call.lse, d->lse_count * 4);
    first.alive = d->call.alive ? keep_copy(d, d->call.alive, d->alive_count * 4) : NULL;
    first.count = own(d, gpu_copy(&differ, sizeof differ));
    for (int x = 0; x < repeats; x++) {
        launch(k, d);
        gpu_differ(first.count, first.o, d->o, o_bytes);
        gpu_differ(first.count, first.lse, d->call.lse, d->lse_count * 4);
        if (first.alive) gpu_differ(first.count, first.alive, d->call.alive, d->alive_count * 4);
    }
    GPU(cudaDeviceSynchronize());
    gpu_read(&differ, first.count, sizeof differ);
    CHECK_MSG(!differ, "%s: %u words differ in %d launches from the first: %s", k->name, differ,
              repeats, what);
}

/* The mass of every tile under one lse. */
static void repeat_mass(const struct problem *p, struct on_device *d, int repeats)
{
    struct err e = {0};
    const struct problem_want *w = &p->want;
    size_t bytes = problem_rows(p) * (size_t)p->lists.cols * 4;
    unsigned differ = 0, *count = own(d, gpu_copy(&differ, sizeof differ));
    float *mass = own(d, gpu_new(bytes));
    void *first = NULL;
    for (int x = 0; x <= repeats; x++) {
        GPU(cudaMemsetAsync(mass, 0xff, bytes, NULL));
        CHECK_OK(attn_mass_sm80(mass, &d->call, d->call.lse, w->block_q, w->block_k, &e));
        if (x == 0)
            first = keep_copy(d, mass, bytes);
        else
            gpu_differ(count, first, mass, bytes);
    }
    GPU(cudaDeviceSynchronize());
    gpu_read(&differ, count, sizeof differ);
    CHECK_MSG(!differ, "mass_sm80: %u words differ in %d launches: %s", differ, repeats, p->what);
}

void check_repeats(struct test_rng *r, int repeats)
{
    static const struct {
        int len_q, len_k, heads, block;
        bool mean, alive;
    } shapes[] = {{1100, 1337, 4, 0, false, false},   {4000, 77, 3, 0, false, false},
                  {1100, 1337, 4, 128, true, false},  {1500, 1500, 2, 128, false, true},
                  {20000, 300, 1, 128, false, false}, {1100, 1337, 4, 64, true, false},
                  {700, 900, 3, 64, false, true}};
    for (int n = 0; n < 2 * (int)ARRAY_LEN(shapes); n++) {
        const int s = n / 2;
        struct problem_want w = {.len_q = shapes[s].len_q,
                                 .len_k = shapes[s].len_k,
                                 .n_heads = shapes[s].heads,
                                 .head_dim = n % 2 ? 64 : 128,
                                 .block_q = shapes[s].block,
                                 .block_k = shapes[s].block,
                                 .density = .5,
                                 .sparse = shapes[s].block > 0,
                                 .per_head = true,
                                 .mean = shapes[s].mean,
                                 .alive = shapes[s].alive,
                                 .lse = true};
        struct problem p;
        struct on_device d;
        problem_make(&p, &w, r);
        for (int i = 0; i < kernels_under_test(); i++) {
            upload(&d, &p);
            if (kernel_takes(kernel_under_test(i), &d.call))
                repeat(kernel_under_test(i), &d, repeats, p.what);
            release(&d);
        }
        upload(&d, &p);
        for (int i = 0; w.block_q == 128 && i < kernels_under_test(); i++) {
            if (!kernel_takes(kernel_under_test(i), &d.call)) continue;
            launch(kernel_under_test(i), &d); /* an lse to start from */
            repeat_mass(&p, &d, repeats);
            break;
        }
        release(&d);
        problem_free(&p);
    }
    tally_up();
}
