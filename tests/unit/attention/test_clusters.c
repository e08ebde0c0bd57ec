/* svg2's variants against the words of attention-sparse.md 1 and 1c: hashing instead of k-means, and
 * clusters that are not kept standing in by their means. */
#include "transcribed.h"

/* Mean of the tokens of a cluster as the plan has them. */
static int cluster_mean(double *m, const struct attn_plan *p, int head, int b, int which)
{
    const struct attn_blocks *blocks = which ? &p->k : &p->q;
    const struct attn_order *order = which ? &p->k_order : &p->q_order;
    int from = attn_block_at(blocks, head, b), to = attn_block_at(blocks, head, b + 1);
    for (int c = 0; c < DIM; c++) {
        m[c] = 0;
        for (int at = from; at < to; at++) {
            int t = attn_token(order, head, at);
            m[c] += (double)qkv[which][(t * HEADS + head) * DIM + c] / (to - from);
        }
    }
    return to - from;
}

static bool keeps(const struct attn_plan *p, int head, int row, int col)
{
    return attn_bit(p->kept, (size_t)(head * p->q.n + row), attn_words(p->k.n), col);
}

static int by_score(const void *a, const void *b)
{
    double x = ((const double *)a)[0], y = ((const double *)b)[0];
    return (x < y) - (x > y);
}

/* o of one token: kept keys, and the others' means as many times as they have keys. */
static void check_output(const struct planned *s, const struct attn_plan *p, int head, bool means)
{
    int wrong = 0;
    for (int row = 0; row < p->q.n; row++)
        for (int at = attn_block_at(&p->q, head, row); at < attn_block_at(&p->q, head, row + 1);
             at += 7) {
            int i = attn_token(&p->q_order, head, at);
            double o[DIM] = {0}, sum = 0;
            for (int b = 0; b < p->k.n; b++) {
                double km[DIM], vm[DIM], z = 0;
                int count = cluster_mean(km, p, head, b, 1);
                if (!count) continue;
                for (int c = 0; c < DIM; c++) {
                    vm[c] = 0;
                    for (int k = attn_block_at(&p->k, head, b);
                         k < attn_block_at(&p->k, head, b + 1); k++)
                        vm[c] +=
                            (double)qkv[2][(attn_token(&p->k_order, head, k) * HEADS + head) * DIM +
                                           c] /
                            count;
                    z += q_of(i, head, c) * km[c] / sqrt((double)DIM);
                }
                if (!keeps(p, head, row, b)) {
                    for (int c = 0; means && c < DIM; c++)
                        o[c] += count * exp(z) * vm[c];
                    if (means) sum += count * exp(z);
                    continue;
                }
                for (int k = attn_block_at(&p->k, head, b); k < attn_block_at(&p->k, head, b + 1);
                     k++) {
                    int j = attn_token(&p->k_order, head, k);
                    double w = exp(dot(i, j, head));
                    for (int c = 0; c < DIM; c++)
                        o[c] += w * (double)qkv[2][(j * HEADS + head) * DIM + c];
                    sum += w;
                }
            }
            for (int c = 0; c < DIM; c++)
                wrong += fabs(o[c] / sum - (double)s->o[(i * HEADS + head) * DIM + c]) > 1e-4;
        }
    CHECK_MSG(wrong == 0, "%d values of o differ", wrong);
}

static void means(void)
{
    fill(5);
    int dropped = 0;
    for (int rest = 0; rest < 2; rest++) {
        struct planned s =
            open_on(rest ? "svg2:q=6,k=14,mass=.5,rest=mean" : "svg2:q=6,k=14,mass=.5");
        const struct attn_plan *p = call(&s, 9);
        for (int head = 0; head < HEADS; head++) {
            for (int i = 0; i < p->q.n * p->k.n; i++)
                dropped += !keeps(p, head, i / p->k.n, i % p->k.n);
            check_output(&s, p, head, rest);
        }
        planned_close(&s);
    }
    CHECK(dropped > 20);
}

/* Section 1c steps 1 to 3: the pairs that top-p would keep, spent where a mean errs most. */
static void errors(void)
{
    fill(6);
    int moved = 0;
    struct planned s = open_on("svg2:q=6,k=14,mass=.5,least=0,rest=error");
    const struct attn_plan *p = call(&s, 9);
    for (int head = 0; head < HEADS; head++) {
        check_output(&s, p, head, true);
        for (int a = 0; a < p->q.n; a++) {
            double q[DIM], share[NB][2], error[NB][2], top = 0, sum = 0, before = 0, z[NB],
                                                       s_all[L];
            int budget = 0, count[NB];
            if (!cluster_mean(q, p, head, a, 0)) continue;
            for (int j = 0; j < L; j++) {
                s_all[j] = 0;
                for (int c = 0; c < DIM; c++)
                    s_all[j] += q[c] * k_of(j, head, c) / sqrt((double)DIM);
                top = fmax(top, s_all[j]);
            }
            for (int b = 0; b < p->k.n; b++) {
                double k[DIM];
                count[b] = cluster_mean(k, p, head, b, 1);
                z[b] = 0;
                for (int c = 0; c < DIM; c++)
                    z[b] += q[c] * k[c] / sqrt((double)DIM);
                top = fmax(top, z[b]);
                share[b][0] = count[b] * exp(z[b]);
                share[b][1] = error[b][1] = b;
                sum += share[b][0];
            }
            for (int b = 0; b < p->k.n; b++) {
                error[b][0] = 0;
                for (int k = attn_block_at(&p->k, head, b); k < attn_block_at(&p->k, head, b + 1);
                     k++)
                    error[b][0] +=
                        pow(exp(z[b] - top) - exp(s_all[attn_token(&p->k_order, head, k)] - top),
                            2) /
                        count[b];
            }
            qsort(share, (size_t)p->k.n, sizeof *share, by_score);
            qsort(error, (size_t)p->k.n, sizeof *error, by_score);
            bool heavy[NB] = {false};
            for (int b = 0; b < p->k.n && (b == 0 || before < .5 * sum); b++) {
                budget += count[(int)share[b][1]];
                heavy[(int)share[b][1]] = true;
                before += share[b][0];
            }
            bool wanted[NB] = {false};
            for (int b = 0; b < p->k.n && budget > 0; b++) {
                int at = (int)error[b][1];
                wanted[at] = true;
                budget -= count[at];
            }
            int wrong = 0;
            for (int b = 0; b < p->k.n; b++) {
                moved += wanted[b] != heavy[b];
                wrong += count[b] && wanted[b] != keeps(p, head, a, b);
            }
            CHECK_MSG(wrong == 0, "head %d, row %d: %d clusters differ", head, a, wrong);
        }
    }
    CHECK(moved > 4); /* or nothing but top-p was tested */
    planned_close(&s);
}

static void hashed(void)
{
    fill(8);
    for (int i = 0; i < L * HEADS * DIM; i++)
        qkv[1][i] = qkv[0][i] + (i % DIM == 3 ? 40 : 0); /* keys are queries, moved: cones */
    struct planned s = open_on("svg2:q=16,k=20,by=lsh");
    static int32_t first[L];
    const struct attn_plan *p = call(&s, 9);
    CHECK(p->q.n == 16 && p->k.n == 16); /* powers of two */
    for (int head = 0; head < HEADS; head++) {
        int filled = 0;
        for (int b = 0; b < 16; b++) {
            int from = attn_block_at(&p->q, head, b), to = attn_block_at(&p->q, head, b + 1);
            CHECK(attn_block_at(&p->k, head, b) == from && attn_block_at(&p->k, head, b + 1) == to);
            filled += to > from;
            CHECK(to - from < L / 2);
        }
        CHECK(filled > 8);
        int apart = 0;
        for (int i = 0; i < L; i++) /* the same planes for both */
            apart += attn_token(&p->q_order, head, i) != attn_token(&p->k_order, head, i);
        CHECK_MSG(apart <= L / 50, "%d of %d queries and keys are sorted apart", apart, L);
    }
    for (int i = 0; i < L; i++)
        first[i] = attn_token(&p->q_order, 0, i);
    p = call(&s, 10); /* planes stay over steps */
    int moved = 0;
    for (int i = 0; i < L; i++)
        moved += attn_token(&p->q_order, 0, i) != first[i];
    CHECK(moved == 0);
    planned_close(&s);
    struct attn_params params = {.method = "svg2:by=lsh", .threads = 1};
    struct attn_forecast f;
    struct err e = {0};
    cpu_detect(&params.cpu);
    CHECK_OK(attn_forecast(&f, &params, &shape, &e));
    CHECK(!f.remembers); /* no centroids */
}

int main(void)
{
    threads_set(2);
    means();
    errors();
    hashed();
    return TEST_RESULT();
}
