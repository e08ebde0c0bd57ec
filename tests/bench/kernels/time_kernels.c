/* Times dense and sparse attention at the sizes of the models: every contender of a size is
 * launched once a round, so that clocks and heat meet all alike; medians; the short table comes
 * last.
 *
 * Useful work is 4 * heads * head_dim * kept pairs. A sparse row's r is t_dense * density / t,
 * where t_dense is the fastest dense row of the same size and run. Spot checks against the judge:
 * one row of tiles of every head, for each dense kernel and the sparsest plan of each kind. */
#include "tests/bench/kernels/bench_data.h"
#include "tests/bench/kernels/gpu.h"
#include "tests/bench/kernels/kernels_under_test.h"

#ifdef DITGEN_CUDNN
#include "attention/kernels/cuda/cudnn.h"
#endif
#include "model/base/dtype.h"

#define MOST_ROUNDS 60
#define MOST_CONTENDERS 64

static const char *const pattern_names[] = {"dense", "random", "banded", "clustered"};

struct contender {
    char name[80];
    enum pattern pattern;
    double asked, density, ms[MOST_ROUNDS], median, fastest;
    const struct kernel_under_test *kernel; /* NULL: cuDNN */
    struct attn_cuda call;
    struct attn_lists lists; /* device arrays */
    struct attn_lists host; /* the same in host memory */
    void *arrays[6];
    int rounds;
    double off; /* relative L1 of the spot check, -1: none */
};

struct size {
    int len, heads, dim;
};

struct bench {
    struct size size;
    struct attn_cuda call, host; /* device and host tensors */
    uint16_t *data[3];
    void *o, *lse;
    struct contender c[MOST_CONTENDERS];
    int n;
    double flop; /* dense */
    float *dense_want; /* the judge's answer to the dense spot check, once asked */
#ifdef DITGEN_CUDNN
    struct attn_cudnn *cudnn;
    void *workspace;
#endif
};

static struct contender *add(struct bench *b, const char *name, const struct kernel_under_test *k)
{
    struct contender *c = &b->c[b->n++];
    *c = (struct contender){.kernel = k, .call = b->call, .density = 1, .asked = 1, .off = -1};
    snprintf(c->name, sizeof c->name, "%s", name);
    return c;
}

static void add_sparse(struct bench *b, const struct kernel_under_test *k, enum pattern pattern,
                       double density)
{
    struct err e = {0};
    struct arena count = {0}, arena = {0};
    struct block_mask m;
    struct attn_lists_size s;
    struct attn_tile t;
    int len = b->size.len, heads = b->size.heads;
    attn_sm90_variant(k->variant, &t);
    CHECK_OK(block_mask_init(&m, len, len, t.block_q, t.block_k, heads, &count, &e));
    CHECK_OK(arena_open(&arena, count.used, &e));
    CHECK_OK(block_mask_init(&m, len, len, t.block_q, t.block_k, heads, &arena, &e));
    struct bench_keep keeper = {pattern, density, m.rows, m.cols};
    CHECK_OK(block_mask_build(&m, BLOCK_MAP_LIST, bench_keep, &keeper, &e));
    struct attn_plan plan = {.map = &m, .n_heads = heads};
    struct contender *c = add(b, k->name, k);
    CHECK_OK(attn_lists_size(&s, &plan, &e));
    c->arrays[0] = host_new(s.row_ptr * 4);
    c->arrays[1] = host_new(s.steps * 4);
    c->arrays[2] = host_new(s.order * 4);
    CHECK_OK(attn_lists_fill(&c->host, c->arrays[0], c->arrays[1], c->arrays[2], NULL, &plan, &e));
    c->pattern = pattern;
    c->asked = density;
    c->density = block_mask_density(&m);
    c->lists = c->host;
    c->lists.row_ptr = c->arrays[3] = gpu_copy(c->arrays[0], s.row_ptr * 4);
    c->lists.steps = c->arrays[4] = gpu_copy(c->arrays[1], s.steps * 4);
    c->lists.order = c->arrays[5] = gpu_copy(c->arrays[2], s.order * 4);
    c->call.lists = &c->lists;
    arena_close(&arena);
}

static int launch(struct bench *b, struct contender *c, struct err *e)
{
    if (c->kernel) return c->kernel->run(&c->call, c->kernel->variant, e);
#ifdef DITGEN_CUDNN
    return attn_cudnn_run(b->cudnn, &c->call, b->workspace, e);
#else
    (void)b;
    return err_set(e, ERR_BUG, "built without cuDNN");
#endif
}

/* One row of tiles of every head against the judge. */
static void spot_check(struct bench *b, struct contender *c)
{
    struct err e = {0};
    const struct size *s = &b->size;
    size_t row = (size_t)s->heads * (size_t)s->dim, n = (size_t)s->len * row;
    int block = c->call.lists ? c->host.block_q : ATTN_JUDGE_DENSE;
    int tile = (s->len - 1) / block * 2 / 3;
    bool dense = !c->call.lists;
    float *want = dense && b->dense_want ? b->dense_want : host_new(n * 4);
    uint16_t *got = host_new((size_t)block * row * 2);
    struct attn_cuda judge = b->host;
    judge.lists = c->call.lists ? &c->host : NULL;
    GPU(cudaMemset(b->o, 0xff, n * 2));
    CHECK_OK(launch(b, c, &e));
    GPU(cudaDeviceSynchronize());
    if (want != b->dense_want)
        CHECK_OK(attn_ref_plan(&judge, &(struct attn_judge){.o = want, .only_row = tile}, &e));
    size_t from = (size_t)(tile * block) * row, all = (size_t)block * row;
    if (all > n - from) all = n - from;
    gpu_read(got, (char *)b->o + from * 2, all * 2);
    double off = 0, sum = 0;
    for (size_t i = 0; i < all; i++) {
        off += fabs((double)bf16_to_f32(got[i]) - (double)want[from + i]);
        sum += fabs((double)want[from + i]);
    }
    c->off = off / sum;
    CHECK_MSG(c->off <= .0035 && c->off > 1e-4, /* rounding o alone costs more than that */
              "%s, %d tokens, %s density %.2f: relative L1 %.3g against the judge", c->name, s->len,
              pattern_names[c->pattern], c->asked, c->off);
    if (dense)
        b->dense_want = want;
    else
        free(want);
    free(got);
}

static void measure(struct bench *b, double seconds)
{
    struct err e = {0};
    cudaEvent_t from, to;
    double spent = 0;
    struct test_rng r = {3};
    int order[MOST_CONTENDERS];
    GPU(cudaEventCreate(&from));
    GPU(cudaEventCreate(&to));
    for (int round = -2; round < MOST_ROUNDS && (round < 7 || spent < seconds); round++) {
        bench_shuffle(order, b->n, &r);
        for (int i = 0; i < b->n; i++) {
            struct contender *c = &b->c[order[i]];
            float ms = 0;
            GPU(cudaEventRecord(from, NULL));
            CHECK_OK(launch(b, c, &e));
            GPU(cudaEventRecord(to, NULL));
            GPU(cudaEventSynchronize(to));
            GPU(cudaEventElapsedTime(&ms, from, to));
            spent += (double)ms / 1000;
            if (round >= 0) c->ms[c->rounds++] = (double)ms; /* two rounds to warm up */
        }
    }
    for (int i = 0; i < b->n; i++) {
        struct contender *c = &b->c[i];
        qsort(c->ms, (size_t)c->rounds, sizeof *c->ms, bench_ascending);
        c->median = c->ms[c->rounds / 2];
        c->fastest = c->ms[0];
    }
    GPU(cudaEventDestroy(from));
    GPU(cudaEventDestroy(to));
}

static void report(struct bench *b, FILE *csv, char *table, size_t room)
{
    double dense = 0, cudnn = 0;
    for (int i = 0; i < b->n; i++) {
        const struct contender *c = &b->c[i];
        if (c->pattern != DENSE) continue;
        if (!c->kernel) cudnn = c->median;
        if (dense <= 0 || c->median < dense) dense = c->median;
    }
    for (int i = 0; i < b->n; i++) {
        const struct contender *c = &b->c[i];
        double rate = b->flop * c->density / c->median / 1e9;
        char line[256], more[64] = "";
        if (c->pattern == DENSE && cudnn > 0)
            snprintf(more, sizeof more, "%.3f x cudnn", cudnn / c->median);
        if (c->pattern != DENSE)
            snprintf(more, sizeof more, "r %.3f", dense * c->density / c->median);
        snprintf(line, sizeof line, "%6d %2dx%-3d %-9s %4.2f %8.3f ms %6.1f TFLOP/s %-15s %s\n",
                 b->size.len, b->size.heads, b->size.dim, pattern_names[c->pattern], c->density,
                 c->median, rate, more, c->name);
        strncat(table, line, room - strlen(table) - 1);
        if (csv)
            fprintf(csv, "%d,%d,%d,%s,%.2f,%.5f,%s,%d,%.4f,%.4f,%.4f,%.1f,%.3g\n", b->size.len,
                    b->size.heads, b->size.dim, pattern_names[c->pattern], c->asked, c->density,
                    c->name, c->rounds, c->median, c->fastest, c->ms[c->rounds - 1], rate, c->off);
    }
}

static void bench_free(struct bench *b)
{
    for (int i = 0; i < b->n; i++)
        for (int x = 0; x < 6; x++) {
            if (x < 3)
                free(b->c[i].arrays[x]);
            else
                GPU(cudaFree(b->c[i].arrays[x]));
        }
#ifdef DITGEN_CUDNN
    attn_cudnn_close(b->cudnn);
    GPU(cudaFree(b->workspace));
#endif
    free(b->dense_want);
    for (int i = 0; i < 3; i++)
        free(b->data[i]);
    GPU(cudaFree(b->call.q.at));
    GPU(cudaFree(b->call.k.at));
    GPU(cudaFree(b->call.v.at));
    GPU(cudaFree(b->call.scratch));
    GPU(cudaFree(b->o));
    free(b);
}

static void add_dense(struct bench *b)
{
#ifdef DITGEN_CUDNN
    struct err e = {0};
    if (attn_cudnn_open(&b->cudnn, &b->call, NULL, &e) == 0) {
        char name[32];
        b->workspace = gpu_new(attn_cudnn_workspace(b->cudnn));
        snprintf(name, sizeof name, "cudnn %d", attn_cudnn_version(b->cudnn));
        add(b, name, NULL);
    } else {
        printf("no cuDNN row: %s\n", e.msg);
    }
#endif
    for (int i = 0; i < kernels_under_test(); i++)
        if (kernel_takes(kernel_under_test(i), &b->call) &&
            (kernel_under_test(i)->row != ATTN_SM80 || b->size.len <= 8192))
            add(b, kernel_under_test(i)->name, kernel_under_test(i));
}

static struct bench *bench_open(const struct size *s)
{
    struct bench *b = host_new(sizeof *b);
    size_t bytes = (size_t)s->len * (size_t)s->heads * (size_t)s->dim * 2;
    struct attn_tensor t[4];
    b->size = *s;
    b->flop = 4.0 * s->heads * s->dim * (double)s->len * s->len;
    for (int i = 0; i < 3; i++) {
        b->data[i] = bench_numbers(bytes / 2, (uint64_t)i + 1);
        t[i] =
            (struct attn_tensor){gpu_copy(b->data[i], bytes), (int64_t)s->heads * s->dim, s->dim};
    }
    b->o = gpu_new(bytes);
    t[3] = (struct attn_tensor){b->o, t[0].token, t[0].head};
    b->call = (struct attn_cuda){.q = t[0],
                                 .k = t[1],
                                 .v = t[2],
                                 .o = t[3],
                                 .len_q = s->len,
                                 .len_k = s->len,
                                 .n_heads = s->heads,
                                 .head_dim = s->dim,
                                 .scratch = gpu_new(attn_cuda_scratch())};
    b->host = b->call;
    b->host.q.at = b->data[0];
    b->host.k.at = b->data[1];
    b->host.v.at = b->data[2];
    return b;
}

/* all: every kernel at every density, random plans; else the row that calls get in full, what it
 * was measured against in part. */
static void time_size(const struct size *s, double seconds, const double *densities, int n,
                      bool all, FILE *csv, char *table, size_t room)
{
    const enum pattern last = all ? RANDOM : CLUSTERED;
    struct bench *b = bench_open(s);
    bool full = false;
    add_dense(b);
    for (int i = 0; i < kernels_under_test(); i++) {
        const struct kernel_under_test *k = kernel_under_test(i);
        struct attn_tile tile;
        if (k->row != ATTN_SM90 || !attn_sm90_variant(k->variant, &tile)) continue;
        if (tile.head_dim != s->dim || strcmp(tile.kernel, "flash_sm90") == 0) continue;
        bool chosen = strcmp(tile.kernel, "sparse_sm90") == 0 && !full;
        full |= chosen;
        for (int d = 0; d < n; d++)
            for (int p = RANDOM; p <= (int)last; p++)
                if ((densities[d] < 1 || p == RANDOM) && b->n < MOST_CONTENDERS &&
                    (chosen || all || (p == RANDOM && (d == 2 || d == 4))))
                    add_sparse(b, k, (enum pattern)p, densities[d]);
    }
    for (int i = 0; i < b->n; i++)
        if (b->c[i].pattern == DENSE ? s->len <= 40000 : b->c[i].asked <= densities[n - 1])
            spot_check(b, &b->c[i]);
    measure(b, seconds);
    report(b, csv, table, room);
    bench_free(b);
}

/* Every instance once, dense and at density 0.1: what a profiler is pointed at. */
int once_kernels(int len)
{
    struct err e = {0};
    for (int dim = 128; dim >= 64; dim -= 64) {
        struct bench *b = bench_open(&(struct size){len, 12, dim});
        add_dense(b);
        for (int i = 0; i < kernels_under_test(); i++) {
            struct attn_tile tile;
            const struct kernel_under_test *k = kernel_under_test(i);
            if (k->row == ATTN_SM90 && attn_sm90_variant(k->variant, &tile) &&
                tile.head_dim == dim && strcmp(tile.kernel, "flash_sm90") != 0)
                add_sparse(b, k, RANDOM, .1);
        }
        for (int i = 0; i < b->n; i++) {
            CHECK_OK(launch(b, &b->c[i], &e));
            GPU(cudaDeviceSynchronize());
            printf("%d x %d: %s\n", len, dim, b->c[i].name);
        }
        bench_free(b);
    }
    return checks_failed > 0;
}

int time_kernels(double seconds, const char *folder, const char *some_sizes,
                 const char *some_densities)
{
    struct size sizes[8] = {{32760, 12, 128}, {75600, 8, 128}, {32760, 24, 64}, {75600, 16, 64},
                            {8192, 12, 128},  {8192, 24, 64},  {2048, 12, 128}, {2048, 24, 64}};
    double densities[8] = {1, .5, .3, .2, .1, .05};
    int n_sizes = 8, n_densities = 6, read;
    static char table[65536];
    for (n_sizes = some_sizes ? 0 : 8; some_sizes && n_sizes < 8; some_sizes += read) {
        struct size *s = &sizes[n_sizes];
        if (sscanf(some_sizes, "%dx%dx%d%n", &s->len, &s->heads, &s->dim, &read) < 3) break;
        n_sizes++;
        read += some_sizes[read] == ',';
    }
    for (n_densities = some_densities ? 0 : 6; some_densities && n_densities < 8;
         some_densities += read) {
        if (sscanf(some_densities, "%lf%n", &densities[n_densities], &read) < 1) break;
        n_densities++;
        read += some_densities[read] == ',';
    }
    char path[512];
    FILE *csv = NULL;
    if (folder) {
        snprintf(path, sizeof path, "%s/kernels.csv", folder);
        csv = fopen(path, "w");
        if (csv)
            fprintf(csv, "tokens,heads,head_dim,pattern,asked,density,kernel,rounds,median_ms,"
                         "fastest_ms,slowest_ms,tflops,spot_l1\n");
    }
    for (int i = 0; i < n_sizes; i++)
        time_size(&sizes[i], seconds / n_sizes, densities, n_densities, some_sizes != NULL, csv,
                  table, sizeof table);
    if (csv) fclose(csv);
    tally_up();
    printf("%s%d spot checks and launches, %d failed\n", table, tally.done, tally.failed);
    return tally.failed > 0;
}
