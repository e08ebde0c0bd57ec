/* Growth: dense and sparse attention over lengths, densities and kinds of plans. Each size prints
 * one line a kind as soon as it is timed; the figures in full go to FOLDER/growth.csv.
 *
 * Useful work is 4 * heads * head_dim * kept pairs. A sparse row's r is t_dense * density / t,
 * where t_dense is the fastest dense row of the same size and run. Spot checks against the judge:
 * one row of tiles of every head, for each dense kernel and the sparsest plan of each kind. */
#include "tests/bench/kernels/contest.h"
#include "tests/bench/kernels/gpu.h"

#define WARM_S .5

static double rate(const struct contest *b, const struct contender *c)
{
    return b->flop * c->density / c->median / 1e9;
}

static void report(const struct contest *b, FILE *csv)
{
    const struct contender *dense = contest_dense(b, false), *cudnn = contest_dense(b, true);
    const struct contest_size *s = &b->size;
    char name[32];
    snprintf(name, sizeof name, "%d x %d x %d", s->len, s->heads, s->dim);
    printf("%-16s dense ", name);
    for (int i = 0; i < b->n; i++)
        if (b->c[i].pattern == DENSE) printf("  %s %.0f", b->c[i].name, rate(b, &b->c[i]));
    if (cudnn) printf("  (best %.3f x cudnn)", cudnn->median / dense->median);
    printf(" TFLOP/s; %d rounds\n", b->rounds);
    for (int i = 0; i < b->n; i++) { /* one line: r of a kernel under one kind of plan */
        const struct contender *c = &b->c[i];
        if (c->pattern == DENSE) continue;
        bool seen = false;
        for (const struct contender *x = b->c; x < c; x++)
            seen |= x->kernel == c->kernel && x->pattern == c->pattern;
        if (seen) continue;
        printf("%-16s %-9s r", "", pattern_names[c->pattern]);
        for (const struct contender *x = c; x < b->c + b->n; x++)
            if (x->kernel == c->kernel && x->pattern == c->pattern)
                printf("  %g: %.3f", x->asked, dense->median * x->density / x->median);
        printf("  %s\n", c->name);
    }
    fflush(stdout);
    for (int i = 0; csv && i < b->n; i++) {
        const struct contender *c = &b->c[i];
        fprintf(csv, "%d,%d,%d,%s,%.2f,%.5f,%s,%d,%.4f,%.4f,%.4f,%.1f,%.4f,%.0f,%.0f,%.3g\n",
                s->len, s->heads, s->dim, pattern_names[c->pattern], c->asked, c->density, c->name,
                b->rounds, c->median, c->fastest, c->slowest, rate(b, c),
                dense->median * c->density / c->median, c->mhz, c->watt, c->off);
    }
    if (csv) fflush(csv);
}

/* all: every kernel at every density, random plans; else the row that calls get in full, what it
 * was measured against in part. */
static void time_size(const struct contest_size *s, double seconds, const double *densities, int n,
                      bool all, FILE *csv)
{
    const enum pattern last = all ? RANDOM : CLUSTERED;
    struct contest *b = contest_open(s);
    bool full = false;
    contest_add_dense(b);
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
                    contest_add_list(b, k, (enum pattern)p, densities[d]);
    }
    for (int i = 0; i < b->n; i++)
        if (b->c[i].pattern == DENSE ? s->len <= 40000 : b->c[i].asked <= densities[n - 1])
            contest_check(b, &b->c[i]);
    contest_measure(b, seconds, WARM_S);
    report(b, csv);
    contest_close(b);
}

/* Every instance once, dense and at density 0.1: what a profiler is pointed at. */
int once_kernels(int len)
{
    struct err e = {0};
    for (int dim = 128; dim >= 64; dim -= 64) {
        struct contest *b = contest_open(&(struct contest_size){len, 12, dim});
        contest_add_dense(b);
        for (int i = 0; i < kernels_under_test(); i++) {
            struct attn_tile tile;
            const struct kernel_under_test *k = kernel_under_test(i);
            if (k->row == ATTN_SM90 && attn_sm90_variant(k->variant, &tile) &&
                tile.head_dim == dim && strcmp(tile.kernel, "flash_sm90") != 0)
                contest_add_list(b, k, RANDOM, .1);
        }
        for (int i = 0; i < b->n; i++) {
            CHECK_OK(contest_launch(b, &b->c[i], &e));
            GPU(cudaDeviceSynchronize());
            printf("%d x %d: %s\n", len, dim, b->c[i].name);
        }
        contest_close(b);
    }
    return checks_failed > 0;
}

int time_kernels(double seconds, const char *folder, const char *some_sizes,
                 const char *some_densities)
{
    struct contest_size sizes[8] = {{32760, 12, 128}, {32760, 24, 64}, {75600, 8, 128},
                                    {75600, 16, 64},  {8192, 12, 128}, {8192, 24, 64},
                                    {2048, 12, 128},  {2048, 24, 64}};
    double densities[8] = {1, .5, .3, .2, .1, .05};
    int n_sizes = 8, n_densities = 6, read;
    for (n_sizes = some_sizes ? 0 : 8; some_sizes && n_sizes < 8; some_sizes += read) {
        struct contest_size *s = &sizes[n_sizes];
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
        snprintf(path, sizeof path, "%s/growth.csv", folder);
        csv = fopen(path, "w");
        if (csv)
            fprintf(csv, "tokens,heads,head_dim,pattern,asked,density,kernel,rounds,median_ms,"
                         "fastest_ms,slowest_ms,tflops,r,mhz,watt,spot_l1\n");
    }
    for (int i = 0; i < n_sizes; i++)
        time_size(&sizes[i], seconds / n_sizes, densities, n_densities, some_sizes != NULL, csv);
    if (csv) fclose(csv);
    tally_up();
    printf("growth: %d sizes, %d spot checks and launches, %d failed\n", n_sizes, tally.done,
           tally.failed);
    return tally.failed > 0;
}
