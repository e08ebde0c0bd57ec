/* Orders are permutations with the neighbours they promise; clusters are means of their members. */
#include "attention/policy/cluster.h"
#include "attention/policy/order.h"
#include "tests/check.h"

enum { DIM = 6, LEN = 401, N = 9 };

static void permutation(const int32_t *order, int len)
{
    int32_t *place = malloc((size_t)len * sizeof *place);
    memset(place, -1, (size_t)len * sizeof *place);
    order_inverse(place, order, len);
    for (int t = 0; t < len; t++)
        CHECK_MSG(place[t] >= 0 && order[place[t]] == t, "token %d", t);
    free(place);
}

static void statics(void)
{
    static const struct grid grids[] = {{1, 1, 1}, {5, 6, 7}, {9, 16, 16}, {3, 5, 13}, {8, 1, 3}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        struct grid g = grids[i], tile = {4, 4, 4};
        int len = g.t * g.h * g.w, n = order_tile_count(g, tile);
        int32_t *order = malloc((size_t)len * sizeof *order),
                *offset = malloc(((size_t)n + 1) * sizeof *offset);
        order_tile(order, offset, g, tile);
        permutation(order, len);
        CHECK(offset[0] == 0 && offset[n] == len);
        for (int b = 0; b < n; b++) { /* all of a tile lie within 4 of each other */
            int lo[3] = {999, 999, 999}, hi[3] = {0};
            CHECK(offset[b + 1] > offset[b]);
            for (int p = offset[b]; p < offset[b + 1]; p++) {
                int at[3] = {order[p] / (g.h * g.w), order[p] / g.w % g.h, order[p] % g.w};
                for (int a = 0; a < 3; a++) {
                    lo[a] = at[a] < lo[a] ? at[a] : lo[a];
                    hi[a] = at[a] > hi[a] ? at[a] : hi[a];
                }
            }
            for (int a = 0; a < 3; a++)
                CHECK(hi[a] - lo[a] < 4 && lo[a] / 4 == hi[a] / 4);
        }
        order_token_major(order, g);
        permutation(order, len);
        for (int p = 0; p < len; p++)
            CHECK(order[p] % (g.h * g.w) == p / g.t && order[p] / (g.h * g.w) == p % g.t);
        order_morton(order, g);
        permutation(order, len);
        int64_t last = -1;
        for (int p = 0; p < len; p++) { /* interleaved bits rise */
            int at[3] = {order[p] / (g.h * g.w), order[p] / g.w % g.h, order[p] % g.w};
            int64_t z = 0;
            for (int bit = 0; bit < 8; bit++)
                for (int a = 0; a < 3; a++)
                    z |= (int64_t)(at[a] >> bit & 1) << (bit * 3 + 2 - a);
            CHECK(z > last);
            last = z;
        }
        free(order);
        free(offset);
    }
}

static void hot(struct test_rng *g)
{
    static float weight[LEN];
    static int32_t base[LEN], order[LEN];
    static int scratch[2 * LEN];
    for (int i = 0; i < LEN; i++)
        weight[i] = floorf((float)rng_unit(g) * 50), base[i] = LEN - 1 - i;
    order_hot(order, weight, base, 30, LEN, scratch);
    permutation(order, LEN);
    for (int p = 0; p < LEN; p++) {
        int before = 0; /* how many are heavier, or as heavy and earlier */
        for (int t = 0; t < LEN; t++)
            before +=
                weight[t] > weight[order[p]] || (weight[t] == weight[order[p]] && t < order[p]);
        CHECK(p < 30 ? before == p : before >= 30);
        if (p > 30) CHECK(order[p] < order[p - 1]); /* as in base, which falls */
    }
}

static void clusters(struct test_rng *g)
{
    static float x[LEN * DIM], centroid[N * DIM], seeds[N * DIM];
    static int32_t label[LEN], order[LEN], offset[65];
    static int count[64];
    struct cpu cpu;
    cpu_detect(&cpu);
    dots_fn *dots = dots_pick(cpu.level);
    for (int t = 0; t < LEN; t++) /* nine heaps, one a token number mod 9 */
        for (int c = 0; c < DIM; c++)
            x[t * DIM + c] = (float)(3 * sin(t % N * 7.0 + c * 3.0) + .05 * rng_unit(g));
    struct blocks tokens = {.x = x, .stride = DIM, .len = LEN, .dim = DIM};
    void *scratch = malloc(cluster_scratch(64, &tokens));
    cluster_seed(centroid, N, &tokens);
    memcpy(seeds, centroid, sizeof seeds);
    cluster_means(centroid, label, count, N, &tokens, 1, scratch, dots);
    for (int t = 0; t < LEN; t++) { /* nearest of the seeds, in double */
        int at = 0;
        double least = (double)INFINITY;
        for (int c = 0; c < N; c++) {
            double d = 0;
            for (int i = 0; i < DIM; i++)
                d += pow((double)x[t * DIM + i] - (double)seeds[c * DIM + i], 2);
            if (d < least - 1e-6) least = d, at = c;
        }
        double got = 0;
        for (int i = 0; i < DIM; i++)
            got += pow((double)x[t * DIM + i] - (double)seeds[label[t] * DIM + i], 2);
        CHECK_MSG(label[t] == at || got < least + 1e-5, "token %d: %d, wanted %d", t, label[t], at);
    }
    for (int c = 0; c < N; c++) {
        double sum[DIM] = {0};
        int n = 0;
        for (int t = 0; t < LEN; t++)
            for (int i = 0; label[t] == c && i < DIM; i++)
                sum[i] += (double)x[t * DIM + i], n += i == 0;
        CHECK(n == count[c]);
        for (int i = 0; i < DIM; i++)
            CHECK(n ? fabs((double)centroid[c * DIM + i] - sum[i] / n) < 1e-5
                    : centroid[c * DIM + i] == seeds[c * DIM + i]);
    }
    /* planted heaps are found: seeds one of each kind, then every member has its heap's label */
    memcpy(centroid, x, sizeof centroid);
    cluster_means(centroid, label, count, N, &tokens, 2, scratch, dots);
    for (int t = 0; t < LEN; t++)
        CHECK(label[t] == label[t % N]);
    cluster_order(order, offset, label, count, N, LEN);
    permutation(order, LEN);
    for (int c = 0; c < N; c++)
        for (int p = offset[c]; p < offset[c + 1]; p++) {
            CHECK(label[order[p]] == c);
            if (p > offset[c]) CHECK(order[p] > order[p - 1]); /* stable */
        }
    CHECK(offset[N] == LEN);
    /* hashing: equal tokens meet, tokens opposite about the mean never do, wherever that lies */
    for (int i = 0; i < DIM; i++)
        x[2 * DIM + i] = x[i];
    for (int t = 0; t < LEN; t++)
        for (int i = 0; i < DIM; i++)
            x[t * DIM + i] = t == LEN - 1 && LEN % 2 ? 3
                             : t % 2                 ? 6 - x[(t - 1) * DIM + i]
                                                     : x[t * DIM + i];
    cluster_hash(label, count, 6, 3, &tokens, scratch, dots);
    CHECK(label[0] == label[2]);
    for (int t = 1; t < LEN; t += 2)
        CHECK(label[t] == (~label[t - 1] & 63));
    int all = 0;
    for (int c = 0; c < 64; c++)
        all += count[c];
    CHECK(all == LEN);
    free(scratch);
}

int main(int argc, char **argv)
{
    struct test_rng g = test_seed(argc, argv);
    statics();
    hot(&g);
    clusters(&g);
    return TEST_RESULT();
}
