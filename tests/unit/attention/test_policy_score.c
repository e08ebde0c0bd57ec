/* Poolers and scorers against plain sums over tokens, in double, on ragged and permuted blocks. */
#include "attention/policy/pool.h"
#include "attention/policy/score.h"
#include "tests/check.h"

enum { LEN_Q = 83, LEN_K = 71, DIM = 12, STRIDE = 20, ROWS = 6, COLS = 5 };

static float q[LEN_Q * STRIDE], k[LEN_K * STRIDE];
static int32_t q_order[LEN_Q], k_order[LEN_K];
static const int32_t q_offset[ROWS + 1] = {0, 1, 16, 40, 40, 66, 83}; /* one token; none */
static const int32_t k_offset[COLS + 1] = {0, 13, 14, 45, 70, 71};
static const float scale = .29f;

static double product(int tq, int tk)
{
    double sum = 0;
    for (int c = 0; c < DIM; c++)
        sum += (double)q[tq * STRIDE + c] * (double)k[tk * STRIDE + c];
    return sum;
}

static void shuffle(int32_t *order, int n, struct test_rng *g)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)(rng_unit(g) * (i + 1)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

static void pools(const struct blocks *b)
{
    float mean[ROWS * DIM], max[ROWS * DIM], like[ROWS], runs[ROWS * 4 * DIM], all[DIM];
    int count[ROWS * 4];
    pool_mean(mean, b);
    pool_max(max, b);
    pool_likeness(like, b);
    pool_runs(runs, count, b, 4);
    pool_all(all, b);
    for (int i = 0; i < b->n; i++) {
        int p0 = blocks_begin(b, i), n = blocks_count(b, i), seen = 0;
        for (int c = 0; c < DIM; c++) {
            double sum = 0, top = n ? (double)-INFINITY : 0;
            for (int p = p0; p < p0 + n; p++) {
                double x = (double)blocks_row(b, p)[c];
                sum += x;
                top = x > top ? x : top;
            }
            CHECK(fabs((double)mean[i * DIM + c] - (n ? sum / n : 0)) < 1e-5);
            CHECK((double)max[i * DIM + c] == top);
            double from_runs = 0;
            for (int r = 0; r < 4; r++)
                from_runs += (double)runs[(i * 4 + r) * DIM + c] * count[i * 4 + r];
            CHECK(fabs(from_runs - sum) < 1e-4);
        }
        for (int r = 0; r < 4; r++) {
            seen += count[i * 4 + r];
            CHECK(abs(count[i * 4 + r] * 4 - n) < 4);
        }
        CHECK(seen == n);
        double gram = 0;
        for (int p = p0; p < p0 + n; p++)
            for (int r = p0; r < p0 + n; r++) {
                double d = 0, x = 0, y = 0;
                for (int c = 0; c < DIM; c++) {
                    double u = (double)blocks_row(b, p)[c], v = (double)blocks_row(b, r)[c];
                    d += u * v, x += u * u, y += v * v;
                }
                gram += x > 0 && y > 0 ? d / sqrt(x * y) : 0;
            }
        CHECK(fabs((double)like[i] - (n ? gram / n / n : 0)) < 1e-5);
    }
}

static void dots_of_all_sizes(dots_fn *dots)
{
    float c[40 * 50], want[40 * 50];
    for (int m = 0; m <= 9; m += 3)
        for (int n = 0; n <= 49; n += 7)
            for (int d = 0; d <= DIM; d += 4) {
                for (int i = 0; i < 40 * 50; i++)
                    c[i] = want[i] = 7;
                dots(c, 50, q, STRIDE, k, STRIDE, m, n, d, .5f);
                for (int i = 0; i < m; i++)
                    for (int j = 0; j < n; j++) {
                        double sum = 0;
                        for (int x = 0; x < d; x++)
                            sum += (double)q[i * STRIDE + x] * (double)k[j * STRIDE + x];
                        want[i * 50 + j] = (float)(.5 * sum);
                    }
                check_close("dots", c, want, 40 * 50, 1e-6);
            }
    static float a[3 * 1000], b[17 * 1000], deep[3 * 17];
    for (int i = 0; i < 17 * 1000; i++)
        b[i] = sinf((float)i), a[i % 3000] = cosf((float)i);
    dots(deep, 17, a, 1000, b, 1000, 3, 17, 1000, 2);
    for (int i = 0; i < 3 * 17; i++) {
        double sum = 0; /* eps times the terms, which are at most 2 */
        for (int x = 0; x < 1000; x++)
            sum += 2 * (double)a[i / 17 * 1000 + x] * (double)b[i % 17 * 1000 + x];
        CHECK(fabs((double)deep[i] - sum) < 2 * 1000 * 1000 * 0x1p-24);
    }
}

static void pooled(const struct blocks *bq, const struct blocks *bk, dots_fn *dots)
{
    float qm[ROWS * 3 * DIM], km[COLS * 3 * DIM], s[ROWS * COLS], scratch[3 * COLS * 3];
    int qc[ROWS * 3], kc[COLS * 3], sizes[COLS];
    pool_mean(qm, bq);
    pool_mean(km, bk);
    for (int b = 0; b < COLS; b++)
        sizes[b] = blocks_count(bk, b);
    score_pooled(s, qm, km, sizes, ROWS, COLS, DIM, scale, dots);
    for (int a = 0; a < ROWS; a++)
        for (int b = 0; b < COLS; b++) {
            double mean = 0;
            for (int c = 0; c < DIM; c++)
                mean += (double)qm[a * DIM + c] * (double)km[b * DIM + c];
            CHECK(fabs((double)s[a * COLS + b] - (double)scale * mean - log(sizes[b])) < 1e-4);
        }
    /* one run a block is the size-weighted mean score, and the count of queries besides */
    pool_runs(qm, qc, bq, 1);
    pool_runs(km, kc, bk, 1);
    float one[ROWS * COLS];
    score_runs(one, qm, qc, km, kc, ROWS, COLS, 1, DIM, scale, scratch, dots);
    for (int i = 0; i < ROWS * COLS; i++)
        CHECK(qc[i / COLS] ? fabs((double)(one[i] - s[i]) - log(qc[i / COLS])) < 1e-4
                           : one[i] == -INFINITY);
    pool_runs(qm, qc, bq, 3);
    pool_runs(km, kc, bk, 3);
    score_runs(s, qm, qc, km, kc, ROWS, COLS, 3, DIM, scale, scratch, dots);
    for (int a = 0; a < ROWS; a++)
        for (int b = 0; b < COLS; b++) {
            double sum = 0;
            for (int u = a * 3; u < a * 3 + 3; u++)
                for (int v = b * 3; v < b * 3 + 3; v++) {
                    double z = 0;
                    for (int c = 0; c < DIM; c++)
                        z += (double)qm[u * DIM + c] * (double)km[v * DIM + c];
                    sum += (double)qc[u] * kc[v] * exp((double)scale * z);
                }
            if (sum > 0) CHECK(fabs((double)s[a * COLS + b] - log(sum)) < 1e-4);
        }
}

static void mass(const struct blocks *bq, const struct blocks *bk, dots_fn *dots)
{
    float m[ROWS * COLS], again[ROWS * COLS], lse[LEN_Q];
    void *scratch = malloc(score_mass_scratch(bq, bk));
    score_mass(m, bq, bk, 1, scale, NULL, lse, scratch, dots);
    score_mass(again, bq, bk, 1, scale, lse, NULL, scratch, dots);
    for (int a = 0; a < ROWS; a++) {
        double row = 0;
        for (int b = 0; b < COLS; b++) {
            double sum = 0;
            for (int p = blocks_begin(bq, a); p < blocks_begin(bq, a + 1); p++) {
                int t = bq->order ? bq->order[p] : p;
                double all = 0;
                for (int j = 0; j < LEN_K; j++)
                    all += exp((double)scale * product(t, j));
                for (int c = blocks_begin(bk, b); c < blocks_begin(bk, b + 1); c++)
                    sum += exp((double)scale * product(t, bk->order ? bk->order[c] : c)) / all;
            }
            CHECK(fabs((double)m[a * COLS + b] - sum) < 1e-4);
            CHECK(fabs((double)again[a * COLS + b] - sum) < 1e-4);
            row += (double)m[a * COLS + b];
        }
        CHECK(fabs(row - blocks_count(bq, a)) < 1e-3);
    }
    /* every third row stands for its neighbours: rows still add up */
    score_mass(m, bq, bk, 3, scale, NULL, NULL, scratch, dots);
    for (int a = 0; a < ROWS; a++) {
        double row = 0;
        for (int b = 0; b < COLS; b++)
            row += (double)m[a * COLS + b];
        CHECK(fabs(row - blocks_count(bq, a)) < 1e-3);
    }
    free(scratch);
}

/* The sum along the antidiagonals of the map's own entries, block by block. */
static void antidiagonals(const struct blocks *bq, const struct blocks *bk, int stride,
                          dots_fn *dots)
{
    float m[ROWS * COLS];
    void *scratch = malloc(score_antidiagonal_scratch(bq, bk, stride));
    score_antidiagonal(m, bq, bk, stride, scale, scratch, dots);
    for (int a = 0; a < ROWS; a++) {
        double want[COLS] = {0};
        for (int t = blocks_begin(bq, a); t < blocks_begin(bq, a + 1); t += stride) {
            int nq = blocks_begin(bq, a + 1) - t < stride ? blocks_begin(bq, a + 1) - t : stride;
            double part[COLS] = {0}, all = 0;
            for (int b = 0; b < COLS; b++)
                for (int u = blocks_begin(bk, b); u < blocks_begin(bk, b + 1); u += stride) {
                    int nk =
                        blocks_begin(bk, b + 1) - u < stride ? blocks_begin(bk, b + 1) - u : stride;
                    int pairs = nq < nk ? nq : nk;
                    double sum = 0;
                    for (int j = 0; j < pairs; j++) {
                        int i = t + nq - 1 - j, l = u + j;
                        sum += product(bq->order ? bq->order[i] : i, bk->order ? bk->order[l] : l);
                    }
                    double e = exp(sum / pairs * (double)scale);
                    part[b] += e;
                    all += e;
                }
            for (int b = 0; b < COLS; b++)
                want[b] += part[b] / all;
        }
        for (int b = 0; b < COLS; b++)
            CHECK_MSG(fabs((double)m[a * COLS + b] - want[b]) < 1e-4, "%d %d: %g, wanted %g", a, b,
                      (double)m[a * COLS + b], want[b]);
    }
    free(scratch);
}

static void probes(const struct blocks *bq, const struct blocks *bk, dots_fn *dots)
{
    const int32_t token[3] = {0, 40, LEN_Q - 1};
    float p[3 * LEN_K];
    score_probe(p, bq, token, 3, bk, scale, dots);
    for (int i = 0; i < 3; i++) {
        double all = 0;
        for (int j = 0; j < LEN_K; j++)
            all += exp((double)scale * product(token[i], j));
        for (int j = 0; j < LEN_K; j++)
            CHECK(fabs((double)p[i * LEN_K + j] - exp((double)scale * product(token[i], j)) / all) <
                  1e-5);
    }
}

int main(int argc, char **argv)
{
    struct test_rng g = test_seed(argc, argv);
    struct cpu cpu;
    cpu_detect(&cpu);
    for (int i = 0; i < LEN_Q * STRIDE; i++)
        q[i] = (float)(rng_unit(&g) * 2 - 1);
    for (int i = 0; i < LEN_K * STRIDE; i++)
        k[i] = (float)(rng_unit(&g) * 2 - 1);
    for (int c = 0; c < DIM; c++)
        q[20 * STRIDE + c] = 0; /* a zero vector */
    shuffle(q_order, LEN_Q, &g);
    shuffle(k_order, LEN_K, &g);
    struct blocks bq = {q, STRIDE, LEN_Q, DIM, q_order, q_offset, 0, ROWS},
                  bk = {k, STRIDE, LEN_K, DIM, k_order, k_offset, 0, COLS},
                  even = {q, STRIDE, LEN_Q, DIM, NULL, NULL, 15, ROWS},
                  even_k = {k, STRIDE, LEN_K, DIM, NULL, NULL, 16, COLS};
    for (int level = CPU_REF; level <= CPU_AVX2 && level <= (int)cpu.level; level++) {
        dots_fn *dots = dots_pick((enum cpu_level)level);
        dots_of_all_sizes(dots);
        pooled(&bq, &bk, dots);
        pooled(&even, &even_k, dots);
        mass(&bq, &bk, dots);
        mass(&even, &even_k, dots);
        for (int stride = 1; stride <= 16; stride *= 2) {
            antidiagonals(&bq, &bk, stride, dots);
            antidiagonals(&even, &even_k, stride, dots);
        }
        probes(&bq, &bk, dots);
    }
    pools(&bq);
    pools(&even);
    return TEST_RESULT();
}
