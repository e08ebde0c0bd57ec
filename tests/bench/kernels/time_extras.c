/* Times what a call may ask for besides: lse, recording, mean tiles, blocks of any length, the mass
 * of tiles, lists made on the device. Each beside the plain call of the same run. */
#include "tests/bench/kernels/bench_data.h"
#include "tests/bench/kernels/gpu.h"
#include "tests/bench/kernels/kernels_under_test.h"

#define MOST 14
#define ROUNDS 25
#define DENSITY .3

struct extra {
    const char *name;
    const char *beside; /* the row that its time is divided by */
    struct attn_cuda call;
    const struct attn_ragged *ragged;
    double pairs; /* ragged: share of token pairs */
    double ms[ROUNDS];
};

struct extras {
    struct extra row[MOST];
    int n;
    struct attn_cuda base;
    struct attn_lists lists, host, with_mean, with_mean_host;
    struct attn_ragged ragged;
    double pairs;
    struct attn_plan plan; /* device arrays, for lists made there */
    void *made[5]; /* row_ptr, steps, order, mean, scratch */
    float *mass, *lse;
    uint32_t *alive;
    void *owned[64];
    int n_owned;
};

static void *own(struct extras *x, void *p) { return x->owned[x->n_owned++] = p; }

static struct attn_tensor tensor(struct extras *x, int len, int heads, int dim, uint64_t seed)
{
    size_t n = (size_t)len * (size_t)heads * (size_t)dim;
    uint16_t *host = bench_numbers(n, seed);
    struct attn_tensor t = {own(x, gpu_copy(host, n * 2)), (int64_t)heads * dim, dim};
    free(host);
    return t;
}

static void lists_of(struct extras *x, struct attn_lists *l, const struct attn_plan *plan)
{
    struct err e = {0};
    struct attn_lists_size s;
    CHECK_OK(attn_lists_size(&s, plan, &e));
    uint32_t *row_ptr = host_new(s.row_ptr * 4), *steps = host_new(s.steps * 4);
    uint32_t *order = host_new(s.order * 4), *mean = host_new(s.mean * 4);
    CHECK_OK(attn_lists_fill(l, row_ptr, steps, order, mean, plan, &e));
    l->row_ptr = own(x, gpu_copy(row_ptr, s.row_ptr * 4));
    l->steps = own(x, gpu_copy(steps, s.steps * 4));
    l->order = own(x, gpu_copy(order, s.order * 4));
    if (l->mean) l->mean = own(x, gpu_copy(mean, s.mean * 4));
    free(row_ptr);
    free(steps);
    free(order);
    free(mean);
}

static void plans_of(struct extras *x, int len, int heads)
{
    struct attn_plan plan;
    uint32_t *kept = bench_plan(&plan, len, 128, 128, heads, RANDOM, DENSITY);
    size_t rows = (size_t)heads * (size_t)plan.q.n, bytes = attn_plane_size(&plan) * 4;
    uint32_t *all = host_new(bytes);
    memset(all, 0xff, bytes);
    lists_of(x, &x->lists, &plan);
    plan.mean = all;
    lists_of(x, &x->with_mean, &plan);
    x->alive = own(x, gpu_new(bytes));
    x->mass = own(x, gpu_new(rows * (size_t)plan.k.n * 4));
    x->plan = plan; /* the same plan, made into lists on the device */
    x->plan.where = PLACE_DEVICE;
    x->plan.mean = NULL;
    x->plan.kept = own(x, gpu_copy(kept, bytes));
    x->made[0] = own(x, gpu_new((rows + 1) * 4));
    x->made[1] = own(x, gpu_new(attn_expand_steps(&x->plan) * 4));
    x->made[2] = own(x, gpu_new(rows * 4));
    x->made[3] = NULL;
    x->made[4] = own(x, gpu_new(attn_expand_scratch(&x->plan)));
    free(all);
    free(kept);
}

/* Clusters as attention-sparse 1 has them: about 164 queries and 33 keys, another cut a head. */
static void ragged_of(struct extras *x, int len, int heads, int dim)
{
    struct err e = {0};
    struct test_rng r = {5};
    int rows = len / 164, cols = len / 33, words = (cols + 31) / 32;
    size_t n_rows, n_runs, n = (size_t)heads;
    int32_t *q_at = host_new(n * (size_t)(rows + 1) * 4),
            *k_at = host_new(n * (size_t)(cols + 1) * 4);
    uint32_t *keep = host_new(n * (size_t)rows * (size_t)words * 4);
    double pairs = 0;
    for (int h = 0; h < heads; h++) {
        int32_t *q = q_at + h * (rows + 1), *k = k_at + h * (cols + 1);
        for (int i = 1; i <= rows; i++)
            q[i] = i == rows ? len : 164 * i + rng_int(&r, -80, 80);
        for (int i = 1; i <= cols; i++)
            k[i] = i == cols ? len : 33 * i + rng_int(&r, -16, 16);
        for (int i = 0; i < rows; i++)
            for (int c = 0; c < cols; c++)
                if (rng_unit(&r) < DENSITY) {
                    keep[(h * rows + i) * words + c / 32] |= (uint32_t)1 << (c % 32);
                    pairs += (double)(q[i + 1] - q[i]) * (double)(k[c + 1] - k[c]);
                }
    }
    struct attn_plan b = {.n_heads = heads,
                          .per_head = true,
                          .q = {.len = len, .n = rows, .at = q_at, .stride = rows + 1},
                          .k = {.len = len, .n = cols, .at = k_at, .stride = cols + 1},
                          .kept = keep,
                          .may_be_empty = true};
    x->pairs = pairs / heads / ((double)len * len);
    CHECK_OK(attn_ragged_size(&n_rows, &n_runs, &b, ATTN_RAGGED_QUERIES(dim), &e));
    struct attn_ragged_row *row = host_new(n_rows * sizeof *row);
    struct attn_ragged_run *run = host_new(n_runs * sizeof *run);
    CHECK_OK(attn_ragged_fill(&x->ragged, row, run, &b, ATTN_RAGGED_QUERIES(dim), &e));
    x->ragged.row = own(x, gpu_copy(row, n_rows * sizeof *row));
    x->ragged.run = own(x, gpu_copy(run, n_runs * sizeof *run));
    free(row);
    free(run);
    free(q_at);
    free(k_at);
    free(keep);
}

static struct extra *add(struct extras *x, const char *name, const char *beside)
{
    struct extra *r = &x->row[x->n++];
    *r = (struct extra){.name = name, .beside = beside, .call = x->base};
    return r;
}

static int launch(struct extras *x, const struct extra *r, struct err *e)
{
    struct attn_lists l;
    if (r->ragged) return attn_ragged_sm90(&r->call, r->ragged, e);
    if (strcmp(r->name, "mass") == 0) return attn_mass_sm80(x->mass, &r->call, x->lse, 128, 128, e);
    if (strcmp(r->name, "lists made") == 0)
        return attn_expand(&l, x->made[0], x->made[1], x->made[2], x->made[3], &x->plan, x->made[4],
                           NULL, e);
    return attn_sm90(&r->call, e);
}

static double median(struct extra *r)
{
    qsort(r->ms, ROUNDS, sizeof *r->ms, bench_ascending);
    return r->ms[ROUNDS / 2];
}

static void time_shape(int len, int heads, int dim)
{
    struct extras *x = host_new(sizeof *x);
    struct err e = {0};
    cudaEvent_t from, to;
    x->base = (struct attn_cuda){.q = tensor(x, len, heads, dim, 1),
                                 .k = tensor(x, len, heads, dim, 2),
                                 .v = tensor(x, len, heads, dim, 3),
                                 .len_q = len,
                                 .len_k = len,
                                 .n_heads = heads,
                                 .head_dim = dim,
                                 .alive_log2 = -10,
                                 .scratch = own(x, gpu_new(attn_cuda_scratch()))};
    x->base.o = x->base.q;
    x->base.o.at = own(x, gpu_new((size_t)len * (size_t)heads * (size_t)dim * 2));
    x->lse = own(x, gpu_new((size_t)len * (size_t)heads * 4));
    GPU(cudaMemset(x->lse, 0, (size_t)len * (size_t)heads * 4)); /* until a call has written it */
    plans_of(x, len, heads);
    add(x, "dense", "dense");
    add(x, "dense, lse", "dense")->call.lse = x->lse;
    add(x, "list", "dense")->call.lists = &x->lists;
    struct extra *r = add(x, "list, lse", "list");
    r->call.lists = &x->lists;
    r->call.lse = x->lse;
    r = add(x, "list, alive", "list");
    r->call.lists = &x->lists;
    r->call.alive = x->alive;
    r = add(x, "list, mean", "list");
    r->call.lists = &x->with_mean;
    r->call.k_mean = tensor(x, (len + 127) / 128, heads, dim, 4);
    r->call.v_mean = tensor(x, (len + 127) / 128, heads, dim, 5);
    ragged_of(x, len, heads, dim);
    r = add(x, "ragged", "dense");
    r->ragged = &x->ragged;
    r->pairs = x->pairs;
    add(x, "mass", "dense");
    add(x, "lists made", "list");
    GPU(cudaEventCreate(&from));
    GPU(cudaEventCreate(&to));
    struct test_rng rng = {3};
    int order[MOST];
    for (int round = -2; round < ROUNDS; round++) {
        bench_shuffle(order, x->n, &rng);
        for (int k = 0; k < x->n; k++) {
            int i = order[k];
            float ms = 0;
            gpu_pause(60); /* for the host to get ahead */
            GPU(cudaEventRecord(from, NULL));
            CHECK_OK(launch(x, &x->row[i], &e));
            GPU(cudaEventRecord(to, NULL));
            GPU(cudaEventSynchronize(to));
            GPU(cudaEventElapsedTime(&ms, from, to));
            if (round >= 0) x->row[i].ms[round] = (double)ms;
        }
    }
    for (int i = 0; i < x->n; i++) {
        double t = median(&x->row[i]), beside = t;
        for (int j = 0; j < i; j++)
            if (strcmp(x->row[j].name, x->row[i].beside) == 0) beside = median(&x->row[j]);
        printf("%6d %2dx%-3d %-17s %8.3f ms, %.3f of %s", len, heads, dim, x->row[i].name, t,
               t / beside, x->row[i].beside);
        if (x->row[i].pairs > 0)
            printf(", pairs %.3f, r %.3f", x->row[i].pairs, x->row[i].pairs * beside / t);
        printf("\n");
    }
    GPU(cudaEventDestroy(from));
    GPU(cudaEventDestroy(to));
    while (x->n_owned)
        GPU(cudaFree(x->owned[--x->n_owned]));
    free(x);
}

int time_extras(int len)
{
    time_shape(len, 12, 128);
    time_shape(len, 24, 64);
    tally_up();
    printf("extras: %d launches, %d failed\n", tally.done, tally.failed);
    return tally.failed > 0;
}
