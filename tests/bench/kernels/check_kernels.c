/* Every GPU kernel against the judge: random, ragged and adversarial calls; guards; lists;
 * repetition. Design, attention-kernels 9.4. */
#include "tests/bench/kernels/checks.h"

static bool near_bound(const struct problem *p, const float *margin, size_t row, int tile)
{
    double m = (double)margin[row * (size_t)p->lists.cols + (size_t)tile];
    double score, value;
    extremes(p, &score, &value);
    return fabs(m - (double)p->host.alive_log2) < 1e-3 + score * 0x1p-18;
}

static void compare_alive(const char *name, const struct problem *p, const uint32_t *got,
                          const uint32_t *want, const float *margin)
{
    int wrong = 0;
    for (size_t r = 0; r < problem_rows(p); r++)
        for (int t = 0; t < p->lists.cols; t++) {
            size_t at = r * (size_t)p->lists.words + (size_t)(t / 32);
            if (((got[at] ^ want[at]) >> (t % 32) & 1) && !near_bound(p, margin, r, t)) wrong++;
        }
    CHECK_MSG(!wrong, "%s: %d tiles dead or alive against the judge: %s", name, wrong, p->what);
}

/* Lists made on the device from the planes: the same words as the host's. */
static void check_expand(struct problem *p)
{
    struct err e = {0};
    struct on_device d = {0};
    struct attn_plan plan = p->plan;
    size_t plane = attn_plane_size(&plan) * 4;
    plan.where = PLACE_DEVICE;
    plan.key_bias = NULL; /* the call's */
    plan.kept = own(&d, gpu_copy(p->kept, plane));
    if (p->forced) plan.forced = own(&d, gpu_copy(p->forced, plane));
    if (p->dead) plan.dead = own(&d, gpu_copy(p->dead, plane));
    if (p->mean) plan.mean = own(&d, gpu_copy(p->mean, plane));
    void *row_ptr = own(&d, gpu_new(p->size.row_ptr * 4)),
         *order = own(&d, gpu_new(p->size.order * 4));
    void *mean = own(&d, gpu_new(p->size.mean * 4)),
         *scratch = own(&d, gpu_new(attn_expand_scratch(&plan)));
    void *steps = own(&d, gpu_new(attn_expand_steps(&plan) * 4));
    struct attn_lists l;
    CHECK_OK(attn_expand(&l, row_ptr, steps, order, mean, &plan, scratch, NULL, &e));
    GPU(cudaDeviceSynchronize());
    const struct {
        const void *device, *host;
        size_t n;
    } words[] = {{row_ptr, p->row_ptr, p->size.row_ptr},
                 {steps, p->steps, p->size.steps},
                 {order, p->order, p->size.order},
                 {mean, p->mean_out, p->size.mean}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        char *got = host_new(words[i].n * 4);
        gpu_read(got, words[i].device, words[i].n * 4);
        CHECK_MSG(memcmp(got, words[i].host, words[i].n * 4) == 0,
                  "expanded on the device: array %d differs: %s", (int)i, p->what);
        free(got);
    }
    release(&d);
}

void check_problem(struct problem *p)
{
    const struct problem_want *w = &p->want;
    struct err e = {0};
    struct on_device probe;
    bool taken = false;
    upload(&probe, p);
    for (int i = 0; i < kernels_under_test(); i++)
        taken |= kernel_takes(kernel_under_test(i), &probe.call);
    release(&probe);
    if (!taken) return;
    size_t rows = problem_rows(p), cols = w->sparse ? (size_t)p->lists.cols : 1;
    float *want = host_new((size_t)w->len_q * (size_t)w->n_heads * (size_t)w->head_dim * 4);
    float *lse = host_new((size_t)w->len_q * (size_t)w->n_heads * 4);
    float *margin = host_new(rows * cols * 4);
    uint32_t *alive = host_new(rows * ((cols + 31) / 32) * 4);
    struct attn_job judge = judged(&p->host, &p->plan);
    judge.lse = lse;
    judge.alive = w->alive ? alive : NULL;
    CHECK_OK(attn_judge(
        &judge,
        &(struct attn_judge){.o = want, .margin = w->sparse ? margin : NULL, .only_row = -1}, &e));
    for (int i = 0; i < kernels_under_test(); i++) {
        const struct kernel_under_test *k = kernel_under_test(i);
        struct on_device d;
        upload(&d, p);
        if (!kernel_takes(k, &d.call)) {
            release(&d);
            continue;
        }
        struct output first = run(k, &d, p->what);
        compare(k->name, p, &first, want, lse);
        if (w->alive) compare_alive(k->name, p, first.alive, alive, margin);
        release(&d);
        output_free(&first);
    }
    if (w->sparse) check_expand(p);
    if (w->sparse && !w->bias && !w->poison && w->lse &&
        w->block_q == 128) { /* mass of every tile under this lse */
        float *mass = host_new(rows * cols * 4), *got = host_new(rows * cols * 4);
        judge.mass = mass; /* over every tile, from lse alone */
        judge.alive = NULL;
        CHECK_OK(attn_judge(&judge, &(struct attn_judge){.only_row = -1}, &e));
        struct on_device d;
        upload(&d, p);
        void *device_mass = own(&d, gpu_new(rows * cols * 4)),
             *device_lse = own(&d, gpu_copy(lse, d.lse_count * 4));
        GPU(cudaMemset(device_mass, 0xff, rows * cols * 4));
        CHECK_OK(attn_mass_sm80(device_mass, &d.call, device_lse, 128, w->block_k, &e));
        GPU(cudaDeviceSynchronize());
        gpu_read(got, device_mass, rows * cols * 4);
        double score, value, most = 0;
        extremes(p, &score, &value);
        for (size_t i = 0; i < rows * cols; i++) {
            double d2 = fabs((double)got[i] - (double)mass[i]) / ((double)mass[i] + 1e-6);
            /* exp overflows where a plan left out what matters most: both say so */
            if (isinf(got[i]) && isinf(mass[i])) d2 = 0;
            if (!(d2 <= most)) most = d2;
        }
        CHECK_MSG(most <= 1e-3 + score * 0x1p-20 || score > 1000, "mass off by %.3g relatively: %s",
                  most, p->what);
        release(&d);
        free(mass);
        free(got);
    }
    free(want);
    free(lse);
    free(margin);
    free(alive);
}

static int some_length(struct test_rng *r)
{
    static const int lens[] = {1,   2,   7,   63,  64,  65,  97,  127, 128,
                               129, 175, 176, 177, 191, 193, 255, 257};
    return rng_int(r, 0, 1) ? rng_int(r, 1, 300) : lens[rng_int(r, 0, (int)ARRAY_LEN(lens) - 1)];
}

static void check_random(struct test_rng *r, int problems)
{
    static const double densities[] = {0, .1, .3, .6, 2};
    for (int n = 0; n < problems; n++) {
        struct problem_want w = {.len_q = some_length(r),
                                 .len_k = some_length(r),
                                 .n_heads = rng_int(r, 1, 3),
                                 .head_dim = rng_int(r, 0, 1) ? 128 : 64,
                                 .block_q = 128,
                                 .block_k = rng_int(r, 0, 2) ? 128 : 64,
                                 .density = densities[rng_int(r, 0, 4)],
                                 .sparse = rng_int(r, 0, 2) > 0,
                                 .lse = rng_int(r, 0, 1),
                                 .by_head = rng_int(r, 0, 1),
                                 .gaps = rng_int(r, 0, 1),
                                 .bias = rng_int(r, 0, 4) == 0};
        if (rng_int(r, 0, 2) == 0) w.block_q = w.block_k = 64;
        if (n % 5 == 0) { /* longer rows: the ring of stages goes round */
            w.len_k = rng_int(r, 600, 1500);
            w.len_q = rng_int(r, 100, 400);
            w.n_heads = 1;
        }
        w.logits = (enum logits)(rng_int(r, 0, 1) ? NORMAL : rng_int(r, 0, LOGITS - 1));
        if (w.sparse) {
            w.per_head = rng_int(r, 0, 1);
            w.forced = rng_int(r, 0, 2) == 0;
            w.dead = rng_int(r, 0, 2) == 0;
            w.mean = rng_int(r, 0, 2) == 0;
            w.alive = rng_int(r, 0, 1);
            w.poison = !w.per_head && !w.alive && rng_int(r, 0, 1);
        }
        struct problem p;
        problem_make(&p, &w, r);
        check_problem(&p);
        problem_free(&p);
    }
}

/* Rows enough for every processor to take several: the counter, turns and phases over rows. Dense,
 * the keys of a text beside them, and sparse. */
static void check_many_rows(struct test_rng *r)
{
    static const int keys[] = {200, 264, 328, 392, 512, 77};
    for (int n = 0; n < (int)ARRAY_LEN(keys); n++) {
        struct problem_want w = {.len_q = 9000 + 37 * n,
                                 .len_k = keys[n],
                                 .n_heads = 5,
                                 .head_dim = n % 2 ? 64 : 128,
                                 .block_q = 128,
                                 .block_k = 128,
                                 .density = .6,
                                 .sparse = n == 2 || n == 3,
                                 .per_head = n == 3,
                                 .lse = true};
        struct problem p;
        problem_make(&p, &w, r);
        check_problem(&p);
        problem_free(&p);
    }
}

/* Heads more than 2^31 elements apart, all four tensors in one allocation: the same bytes. */
static void check_far(struct test_rng *r)
{
    const int64_t apart = ((int64_t)1 << 31) + 64;
    const size_t each = 4 << 20; /* bytes a head of a tensor */
    struct problem_want w = {
        .len_q = 300, .len_k = 500, .n_heads = 2, .head_dim = 128, .by_head = true};
    struct err e = {0};
    struct problem p;
    char *far = NULL;
    if (cudaMalloc((void **)&far, (size_t)apart * 2 + 4 * each) != cudaSuccess) {
        (void)cudaGetLastError();
        printf("no memory for heads 2^31 elements apart: not checked\n");
        return;
    }
    problem_make(&p, &w, r);
    for (int i = 0; i < kernels_under_test(); i++) {
        const struct kernel_under_test *k = kernel_under_test(i);
        struct on_device d;
        upload(&d, &p);
        if (kernel_takes(k, &d.call)) {
            struct output near = run(k, &d, p.what);
            struct attn_cuda c = d.call;
            struct attn_tensor *to[4] = {&c.q, &c.k, &c.v, &c.o};
            size_t bytes = (size_t)w.len_q * 128 * 2, wrong = 0;
            unsigned char *got = host_new(bytes);
            for (int t = 0; t < 4; t++) {
                struct attn_tensor from = *to[t];
                to[t]->at = far + (size_t)t * each;
                to[t]->head = apart;
                for (int h = 0; h < 2 && t < 3; h++)
                    GPU(cudaMemcpy(
                        (char *)to[t]->at + 2 * apart * h, (char *)from.at + 2 * from.head * h,
                        (size_t)(t ? w.len_k : w.len_q) * 128 * 2, cudaMemcpyDeviceToDevice));
            }
            CHECK_OK(k->run(&c, k->variant, &e));
            GPU(cudaDeviceSynchronize());
            for (int h = 0; h < 2; h++) {
                gpu_read(got, (char *)c.o.at + 2 * apart * h, bytes);
                wrong += memcmp(got, near.o + GUARD + 2 * p.host.o.head * h, bytes) != 0;
            }
            CHECK_MSG(!wrong, "%s: other bytes for heads 2^31 elements apart", k->name);
            free(got);
            output_free(&near);
        }
        release(&d);
    }
    GPU(cudaFree(far));
    problem_free(&p);
}

static void so_far(const char *part) /* for a run that is cut short */
{
    tally_up();
    printf("after %s: %d checks, %d failed\n", part, tally.done, tally.failed);
}

int check_kernels(int problems, int repeats, uint64_t seed)
{
    struct test_rng r = {seed};
    check_random(&r, problems);
    so_far("random calls");
    for (int i = 0; kernels_have(ATTN_SM90) && i < (problems + 3) / 4; i++)
        check_ragged(&r, i < 4 ? repeats : 0);
    so_far("blocks of any length");
    if (problems >= 20) {
        check_sets(&r);
        check_many_rows(&r);
        check_far(&r);
        so_far("kinds of data, many rows, far heads");
    }
    if (repeats > 1) check_repeats(&r, repeats);
    tally_up();
    printf("check: %d problems, %d repeats, seed %llu: %d checks, %d failed\n", problems, repeats,
           (unsigned long long)seed, tally.done, tally.failed);
    return tally.failed > 0;
}
