/* What is demanded of the defaults at the sizes of the models, and what contenders to them would
 * give: many interleaved rounds of few launches.
 *
 * Each ratio in three ways: of the medians; of the times that each one's fastest tenth of launches
 * keeps within (a single fastest launch is luck: a twentieth off); and round by round, where what
 * the card's clock does over minutes falls out, with its quartiles. `met` is by all three, `unsure`
 * by some. */
#include "tests/bench/kernels/contest.h"
#include "tests/bench/kernels/gpu.h"

#define WARM_S 3

static const struct {
    struct contest_size size;
    double seconds, dense /* of cuDNN */,
        fa3; /* FlashAttention-3's TFLOP/s of that size, 0: none */
} shapes[] = {{{32760, 24, 64}, 2, 1.10, 534},
              {{32760, 12, 128}, 1, 1.05, 698},
              {{75600, 16, 64}, 4, 1.10, 0},
              {{75600, 8, 128}, 1, 1.05, 698}};
static const struct {
    double density, r, wanted; /* wanted: against FlashAttention-3's rate */
} lists[] = {{.3, .90, .97}, {.1, .85, .94}};

struct ratio {
    double medians, tenth, rounds, quarter[2];
};

/* x's time times share, over y's */
static struct ratio ratio_of(const struct contest *b, const struct contender *x,
                             const struct contender *y, double share)
{
    double by[MOST_ROUNDS];
    for (int i = 0; i < b->rounds; i++)
        by[i] = x->ms[i] * share / y->ms[i];
    qsort(by, (size_t)b->rounds, sizeof *by, bench_ascending);
    return (struct ratio){x->median * share / y->median,
                          x->tenth * share / y->tenth,
                          by[b->rounds / 2],
                          {by[b->rounds / 4], by[b->rounds * 3 / 4]}};
}

static const char *verdict(const struct ratio *r, double wanted)
{
    int n = (r->medians >= wanted) + (r->tenth >= wanted) + (r->rounds >= wanted);
    return n == 3 ? "met" : n ? "unsure" : "MISSED";
}

static void row(FILE *csv, const struct contest *b, const struct contender *c, const char *what,
                double wanted, const struct ratio *r, bool contends)
{
    const struct contest_size *s = &b->size;
    const char *word = verdict(r, wanted);
    double rate = b->flop * c->density / c->median / 1e9;
    printf("%6d x%-3d %-11s %-17s %5.2f  %.3f  %.3f  %.3f (%.3f-%.3f)  %4.0f  %4.0f MHz %3.0f W  "
           "%s%s\n",
           s->len, s->dim, what, c->name, wanted, r->medians, r->tenth, r->rounds, r->quarter[0],
           r->quarter[1], rate, c->mhz, c->watt, contends ? "contender: " : "", word);
    if (csv)
        fprintf(csv, "%d,%d,%d,%s,%s,%s,%.2f,%.4f,%.4f,%.4f,%.4f,%.4f,%d,%.4f,%.1f,%.0f,%.0f,%s\n",
                s->len, s->heads, s->dim, what, c->name, contends ? "contender" : "default", wanted,
                r->medians, r->tenth, r->rounds, r->quarter[0], r->quarter[1], b->rounds, c->median,
                rate, c->mhz, c->watt, word);
}

static void report(const struct contest *b, FILE *csv, double dense_wanted, double fa3)
{
    const struct contender *dense = contest_dense(b, false), *cudnn = contest_dense(b, true);
    struct ratio r;
    bool listed = false;
    if (cudnn) {
        printf(
            "%6d x%-3d cuDNN %.3f ms, half within %.1f %% and all within %.1f %% of it; %.0f MHz "
            "%.0f W; %d rounds after %.1f s\n",
            b->size.len, b->size.dim, cudnn->median,
            100 * (cudnn->quarter[1] - cudnn->quarter[0]) / cudnn->median,
            100 * (cudnn->slowest - cudnn->fastest) / cudnn->median, cudnn->mhz, cudnn->watt,
            b->rounds, b->warm_s);
        for (int i = 0; i < b->n; i++)
            if (b->c[i].pattern == DENSE && b->c[i].kernel) {
                r = ratio_of(b, cudnn, &b->c[i], 1);
                row(csv, b, &b->c[i], "/ cuDNN", dense_wanted, &r, listed);
                listed = true; /* the first is what calls get */
            }
    }
    if (fa3 > 0)
        printf("%6d x%-3d dense at %.3f of FlashAttention-3's %.0f\n", b->size.len, b->size.dim,
               b->flop / dense->median / 1e9 / fa3, fa3);
    for (size_t d = 0; d < ARRAY_LEN(lists); d++) {
        listed = false;
        for (int i = 0; i < b->n; i++) {
            const struct contender *c = &b->c[i];
            char what[32];
            if (c->pattern == DENSE || c->asked != lists[d].density) continue;
            r = ratio_of(b, dense, c, c->density);
            snprintf(what, sizeof what, "r at %g", c->asked);
            row(csv, b, c, what, lists[d].r, &r, listed);
            if (fa3 > 0 && !listed)
                printf("%6d x%-3d %-11s %.3f of FlashAttention-3's %.0f, wanted %.2f\n",
                       b->size.len, b->size.dim, what, b->flop * c->density / c->median / 1e9 / fa3,
                       fa3, lists[d].wanted);
            listed = true;
        }
    }
    fflush(stdout);
    if (csv) fflush(csv);
}

int time_musts(double seconds, const char *folder)
{
    char path[512];
    FILE *csv = NULL;
    if (folder) {
        snprintf(path, sizeof path, "%s/musts.csv", folder);
        csv = fopen(path, "w");
        if (csv)
            fprintf(csv, "tokens,heads,head_dim,what,kernel,as,wanted,medians,tenth,rounds_median,"
                         "rounds_q1,rounds_q3,rounds,median_ms,tflops,mhz,watt,verdict\n");
    }
    printf("size        what        kernel            must   of medians, of tenths, by rounds "
           "(quartiles)  TFLOP/s\n");
    double shares = 0;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        shares += shapes[i].seconds;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct contest *b = contest_open(&shapes[i].size);
        contest_add_dense(b);
        for (int k = 0; k < kernels_under_test(); k++) {
            const struct kernel_under_test *x = kernel_under_test(k);
            struct attn_tile tile;
            if (x->row != ATTN_SM90 || !attn_sm90_variant(x->variant, &tile)) continue;
            if (tile.head_dim != shapes[i].size.dim || strcmp(tile.kernel, "sparse_sm90") != 0)
                continue;
            if (strstr(x->name, "full")) continue; /* not what these calls get */
            for (size_t d = 0; d < ARRAY_LEN(lists); d++)
                contest_add_list(b, x, RANDOM, lists[d].density);
        }
        contest_measure(b, seconds * shapes[i].seconds / shares, WARM_S);
        report(b, csv, shapes[i].dense, shapes[i].fa3);
        contest_close(b);
    }
    if (csv) fclose(csv);
    tally_up();
    printf("musts: %d sizes, %d launches, %d failed\n", (int)ARRAY_LEN(shapes), tally.done,
           tally.failed);
    return tally.failed > 0;
}
