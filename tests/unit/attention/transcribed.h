/* Sections of attention-sparse.md in plain loops and double: orders, scores and selections that tests
 * hold recipes against. Blocks within 1e-4 of a cut may fall on either side (C7). */
#ifndef DITGEN_TESTS_TRANSCRIBED_H
#define DITGEN_TESTS_TRANSCRIBED_H

#include "planned.h"

enum { T = 6, H = 8, W = 10, L = T * H * W, HEADS = 2, DIM = 16, NB = 32 };

static const struct attn_shape shape = {.n_heads = HEADS,
                                        .head_dim = DIM,
                                        .grid_t = T,
                                        .grid_h = H,
                                        .grid_w = W,
                                        .n_layers = 1,
                                        .n_branches = 1,
                                        .n_steps = 20};

static float qkv[3][L * HEADS * DIM];
static int token_at[L]; /* of each place */
static int *key_at = token_at; /* of each place of keys */
static int block, n; /* tokens a block, blocks */
static double score[NB][NB]; /* natural logarithm of mass */
static int want[NB][NB]; /* 0 left out, 1 kept, 2 either */

static inline double q_of(int token, int head, int c)
{
    return (double)qkv[0][(token * HEADS + head) * DIM + c];
}
static inline double k_of(int token, int head, int c)
{
    return (double)qkv[1][(token * HEADS + head) * DIM + c];
}

static inline double dot(int i, int j, int head)
{
    double sum = 0;
    for (int c = 0; c < DIM; c++)
        sum += q_of(i, head, c) * k_of(j, head, c);
    return sum / sqrt((double)DIM);
}

/* content that changes slowly over the clip, and noise */
static inline void fill(uint64_t seed)
{
    struct test_rng r = {seed};
    float dir[4][DIM];
    for (int i = 0; i < 4 * DIM; i++)
        dir[i / DIM][i % DIM] = rng_normal(&r);
    for (int i = 0; i < 3 * L * HEADS * DIM; i++) {
        int token = i % (L * HEADS * DIM) / (HEADS * DIM), c = i % DIM;
        int kind = token / (H * W) / 3 * 2 + token / W % H / 4;
        qkv[i / (L * HEADS * DIM)][i % (L * HEADS * DIM)] = dir[kind][c] + .7f * rng_normal(&r);
    }
}

/* --- orders --- */

static int tile[3];
static inline long long tile_key(int t)
{
    int f = t / (H * W), y = t / W % H, x = t % W;
    const int parts[] = {f / tile[0], y / tile[1], x / tile[2], f, y, x};
    long long key = 0;
    for (int i = 0; i < 6; i++)
        key = key * 64 + parts[i];
    return key;
}
static inline long long morton_key(int t)
{
    int f = t / (H * W), y = t / W % H, x = t % W;
    long long key = 0;
    for (int bit = 5; bit >= 0; bit--)
        key = key * 8 + ((f >> bit & 1) * 4 + (y >> bit & 1) * 2 + (x >> bit & 1));
    return key;
}
static inline long long raster_key(int t) { return t; }

static inline void order_by(long long (*key)(int))
{
    for (int t = 0; t < L; t++) {
        int place = 0;
        for (int u = 0; u < L; u++)
            place += key(u) < key(t);
        token_at[place] = t;
    }
}

/* --- scores --- */

static inline int count_of(int b) { return b < n - 1 ? block : L - (n - 1) * block; }

/* mean of the places from .. from + len - 1 */
static inline void mean_of(double *m, int from, int len, int head, bool keys)
{
    for (int c = 0; c < DIM; c++) {
        m[c] = 0;
        for (int p = from; p < from + len; p++)
            m[c] += (keys ? k_of(key_at[p], head, c) : q_of(token_at[p], head, c)) / len;
    }
}

/* sections 12.3; one run: means with sizes */
static inline void score_runs_of(int head, int runs)
{
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            double sum = 0;
            for (int u = 0; u < runs; u++)
                for (int v = 0; v < runs; v++) {
                    double qm[DIM], km[DIM], s = 0;
                    int q0 = count_of(a) * u / runs, q1 = count_of(a) * (u + 1) / runs;
                    int k0 = count_of(b) * v / runs, k1 = count_of(b) * (v + 1) / runs;
                    if (q1 == q0 || k1 == k0) continue;
                    mean_of(qm, a * block + q0, q1 - q0, head, false);
                    mean_of(km, b * block + k0, k1 - k0, head, true);
                    for (int c = 0; c < DIM; c++)
                        s += qm[c] * km[c];
                    sum += (double)(q1 - q0) * (k1 - k0) * exp(s / sqrt((double)DIM));
                }
            score[a][b] = log(sum);
        }
}

/* section 8; L is a multiple of the stride */
static inline void score_antidiagonals_of(int head, int stride)
{
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            score[a][b] = 0;
    for (int t = 0; t < L / stride; t++) {
        double g[L], sum = 0;
        for (int u = 0; u < L / stride; u++) {
            g[u] = 0;
            for (int j = 0; j < stride; j++)
                g[u] += dot(token_at[t * stride + stride - 1 - j], key_at[u * stride + j], head);
            sum += exp(g[u] / stride);
        }
        for (int u = 0; u < L / stride; u++)
            score[t * stride / block][u * stride / block] += exp(g[u] / stride) / sum;
    }
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            score[a][b] = log(score[a][b]);
}

/* --- selections --- */

static inline void cut_at(int a, int b, double x, double cut) /* keeps x above cut */
{
    want[a][b] = fabs(x - cut) < 1e-4 * (1e-9 + fabs(cut)) ? 2 : x > cut;
}

static inline void softmax_rows(void)
{
    for (int a = 0; a < n; a++) {
        double sum = 0;
        for (int b = 0; b < n; b++)
            sum += exp(score[a][b]);
        for (int b = 0; b < n; b++)
            score[a][b] = exp(score[a][b]) / sum;
    }
}

static inline void keep_best_of(double density)
{
    int k = (int)ceil(density * n);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            int before = 0, close = 0;
            for (int c = 0; c < n; c++) {
                before += score[a][c] > score[a][b];
                close += c != b && fabs(score[a][c] - score[a][b]) < 1e-5;
            }
            want[a][b] = close ? 2 : before < k;
        }
}

static inline void keep_mass_of(double p)
{
    softmax_rows();
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            double before = 0; /* of those that weigh more */
            for (int c = 0; c < n; c++)
                if (score[a][c] > score[a][b]) before += score[a][c];
            want[a][b] = before == 0 ? 1 : fabs(before - p) < 1e-4 ? 2 : before < p;
        }
}

static inline void keep_share_of(double share)
{
    softmax_rows();
    int below = (int)((1 - share) * n * n);
    for (int a = 0; a < n; a++) {
        int best = 0, any = 0;
        for (int b = 0; b < n; b++) {
            int less = 0;
            for (int i = 0; i < n * n; i++)
                less += score[i / n][i % n] < score[a][b];
            want[a][b] = abs(less - below) <= 1 ? 2 : less > below;
            if (score[a][b] > score[a][best]) best = b;
            any += want[a][b];
        }
        if (!any) want[a][best] = 1;
    }
}

static inline void keep_above_of(double tau)
{
    for (int a = 0; a < n; a++) {
        double mean = 0, var = 0;
        for (int b = 0; b < n; b++)
            mean += score[a][b] / n;
        for (int b = 0; b < n; b++)
            var += (score[a][b] - mean) * (score[a][b] - mean) / n;
        for (int b = 0; b < n; b++) {
            cut_at(a, b, score[a][b], mean + tau * sqrt(var + 1e-6));
            if (abs(a - b) <= 1) want[a][b] = 1;
        }
    }
}

static inline void keep_picked_of(int head, double density)
{
    int k = (int)ceil(density * n);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            want[a][b] = 0;
    for (int i = 0; i < L; i++) {
        double z[NB];
        int a = i / block;
        for (int b = 0; b < n; b++) {
            double km[DIM];
            mean_of(km, b * block, count_of(b), head, true);
            z[b] = log(count_of(b));
            for (int c = 0; c < DIM; c++)
                z[b] += q_of(token_at[i], head, c) * km[c] / sqrt((double)DIM);
        }
        for (int b = 0; b < n; b++) {
            int before = 0, close = 0;
            for (int c = 0; c < n; c++) {
                before += z[c] > z[b];
                close += c != b && fabs(z[c] - z[b]) < 1e-5;
            }
            if (close && !want[a][b]) want[a][b] = 2;
            if (!close && before < k) want[a][b] = 1;
        }
    }
}

static inline void keep_near_of(double rt, double ry, double rx, bool ball)
{
    double m[NB][3];
    for (int a = 0; a < n; a++)
        for (int c = 0; c < 3; c++) {
            m[a][c] = 0;
            for (int p = a * block; p < a * block + count_of(a); p++) {
                int t = token_at[p], at[] = {t / (H * W), t / W % H, t % W};
                m[a][c] += (double)at[c] / count_of(a);
            }
        }
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            double d[] = {fabs(m[a][0] - m[b][0]) / rt, fabs(m[a][1] - m[b][1]) / ry,
                          fabs(m[a][2] - m[b][2]) / rx};
            double far =
                ball ? sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) : fmax(d[0], fmax(d[1], d[2]));
            want[a][b] = ball && fabs(far - 1) < 1e-5 ? 2 : ball ? far < 1 : far <= 1;
            if (a == b) want[a][b] = 1;
        }
}

/* --- comparing --- */

static inline void compare(const char *what, const struct attn_plan *p, int head)
{
    int wrong = 0, either = 0, kept = 0;
    CHECK_MSG(p->q.n == n && p->k.n == n && p->q.len == L, "%s: %d blocks, wanted %d", what, p->q.n,
              n);
    if (p->q.n != n || p->k.n != n) return;
    for (int i = 0; i < L; i++)
        wrong += attn_token(&p->q_order, head, i) != token_at[i] ||
                 attn_token(&p->k_order, head, i) != key_at[i];
    CHECK_MSG(wrong == 0, "%s: %d tokens stand elsewhere", what, wrong);
    wrong = 0;
    int plan = p->per_head ? head : 0;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            bool got = attn_bit(p->kept, (size_t)(plan * n + a), attn_words(n), b);
            either += want[a][b] == 2;
            wrong += want[a][b] != 2 && got != want[a][b];
            kept += got;
        }
    CHECK_MSG(wrong == 0, "%s, head %d: %d blocks of %d differ (%d kept)", what, head, wrong, n * n,
              kept);
    CHECK_MSG(either * 10 <= n * n, "%s: %d near the cut", what, either);
    CHECK_MSG(kept < n * n, "%s keeps everything here", what);
}

static inline void fresh(int tokens) { block = tokens, n = (L + tokens - 1) / tokens; }

static inline struct planned open_on(const char *stack)
{
    struct planned p;
    struct err e = {0};
    CHECK_OK(planned_open(&p, stack, &shape, &e));
    return p;
}

static inline const struct attn_plan *call(struct planned *p, int step)
{
    return planned_call(p, qkv[0], qkv[1], qkv[2], step);
}

#endif
