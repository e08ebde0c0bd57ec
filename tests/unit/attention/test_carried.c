/* Recipes that keep something over steps, against the words of their sections: searches, centroids,
 * dead tiles. */
#include "transcribed.h"

/* exact mass; of two heads the richer keeps .2 and the poorer .6 when one holds .8 */
static void searched(void)
{
    fill(31);
    for (int i = 0; i < L * HEADS * DIM; i++) /* head 1 is sharp */
        qkv[0][i] *= i / DIM % HEADS ? 3 : .5f;
    struct planned p = open_on("adaspa:block=32,density=.4");
    const struct attn_plan *plan = call(&p, 4);
    double recall[HEADS];
    static double mass[HEADS][NB][NB];
    fresh(32);
    order_by(raster_key);
    for (int head = 0; head < HEADS; head++) {
        memset(mass[head], 0, sizeof mass[head]);
        for (int i = 0; i < L; i++) {
            double row[L], sum = 0;
            for (int j = 0; j < L; j++)
                sum += row[j] = exp(dot(i, j, head));
            for (int j = 0; j < L; j++)
                mass[head][i / block][j / block] += row[j] / sum;
        }
        memcpy(score, mass[head], sizeof score);
        keep_best_of(.4);
        recall[head] = 0;
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++)
                recall[head] += want[a][b] ? mass[head][a][b] / L : 0;
    }
    CHECK_MSG(recall[1] > .8 && recall[0] < recall[1], "recalls %g %g", recall[0], recall[1]);
    for (int head = 0; head < HEADS; head++) {
        memcpy(score, mass[head], sizeof score);
        keep_best_of(head ? .2 : .6);
        compare("adaspa", plan, head);
    }
    /* searches of 20 steps, the first 4 exact: 4 and 12 */
    fill(32);
    call(&p, 11);
    for (int head = 0; head < HEADS; head++) {
        memcpy(score, mass[head], sizeof score);
        keep_best_of(head ? .2 : .6);
        compare("adaspa, between searches", &p.a->launches[0].plan, head);
    }
    uint32_t old[HEADS * NB];
    size_t words = attn_plane_size(&p.a->launches[0].plan);
    CHECK(words <= ARRAY_LEN(old));
    memcpy(old, p.a->launches[0].plan.kept, words * sizeof *old);
    plan = call(&p, 12);
    CHECK(memcmp(old, plan->kept, words * sizeof *old) != 0);
    planned_close(&p);
}

/* k-means from even seeds; centroids that were kept start the next plan */
static void clusters(void)
{
    enum { CQ = 6, CK = 9 };
    static double centroid[HEADS][2][CK][DIM];
    static int label[HEADS][2][L];
    fill(41);
    struct planned p = open_on("svg2:q=6,k=9,begin=5,again=2,mass=.7,least=.2");
    for (int step = 9; step < 11; step++) {
        if (step == 10) fill(41), qkv[0][5] += 1; /* nearly the same */
        const struct attn_plan *plan = call(&p, step);
        CHECK(plan->q.n == CQ && plan->k.n == CK && !plan->q.size);
        for (int head = 0; head < HEADS; head++) {
            int wrong = 0, kept = 0;
            for (int keys = 0; keys < 2; keys++) {
                int many = keys ? CK : CQ, rounds = step == 9 ? 5 : 2;
                double(*c)[DIM] = centroid[head][keys];
                for (int i = 0; step == 9 && i < many * DIM; i++)
                    c[i / DIM][i % DIM] = (keys ? k_of : q_of)(i / DIM * L / many, head, i % DIM);
                while (rounds--) {
                    double sum[CK][DIM] = {{0}};
                    int count[CK] = {0};
                    for (int t = 0; t < L; t++) {
                        double best = HUGE_VAL;
                        for (int j = 0; j < many; j++) {
                            double far = 0;
                            for (int x = 0; x < DIM; x++)
                                far += pow((keys ? k_of : q_of)(t, head, x) - c[j][x], 2);
                            if (far < best) best = far, label[head][keys][t] = j;
                        }
                        count[label[head][keys][t]]++;
                        for (int x = 0; x < DIM; x++)
                            sum[label[head][keys][t]][x] += (keys ? k_of : q_of)(t, head, x);
                    }
                    for (int j = 0; j < many; j++)
                        for (int x = 0; count[j] && x < DIM; x++)
                            c[j][x] = sum[j][x] / count[j];
                }
                const struct attn_blocks *b = keys ? &plan->k : &plan->q;
                const struct attn_order *o = keys ? &plan->k_order : &plan->q_order;
                for (int j = 0; j < many; j++)
                    for (int at = attn_block_at(b, head, j); at < attn_block_at(b, head, j + 1);
                         at++)
                        wrong += label[head][keys][attn_token(o, head, at)] != j;
            }
            CHECK_MSG(wrong == 0, "step %d, head %d: %d tokens in other clusters", step, head,
                      wrong);
            for (int a = 0; a < CQ; a++) { /* softmax of S + ln size */
                double w[CK], sum = 0;
                for (int b = 0; b < CK; b++) {
                    double s = 0;
                    for (int x = 0; x < DIM; x++)
                        s += centroid[head][0][a][x] * centroid[head][1][b][x];
                    int size =
                        attn_block_at(&plan->k, head, b + 1) - attn_block_at(&plan->k, head, b);
                    sum += w[b] = size * exp(s / sqrt((double)DIM));
                }
                for (int b = 0; b < CK; b++) {
                    double before = 0;
                    int rank = 0;
                    for (int c = 0; c < CK; c++)
                        if (w[c] > w[b]) before += w[c] / sum, rank++;
                    bool got = attn_bit(plan->kept, (size_t)(head * CQ + a), 1, b);
                    kept += got;
                    if (fabs(before - .7) < 1e-4) continue;
                    CHECK_MSG(got == (rank == 0 || before < .7 || rank < (int)(.2 * CK)),
                              "svg2: step %d, head %d, row %d, cluster %d", step, head, a, b);
                }
            }
            CHECK(kept > CQ && kept < CQ * CK);
        }
    }
    planned_close(&p);
}

/* a tile is dead when no query of its row came within 2^threshold of its largest before */
static void dead_tiles(void)
{
    fill(51);
    for (int i = 0; i < L * HEADS * DIM; i++)
        qkv[0][i] *= 3;
    struct planned p = open_on("lite:block=32,threshold=-8");
    fresh(32);
    order_by(raster_key);
    static bool dead[HEADS][NB][NB];
    int all = 0;
    memset(dead, 0, sizeof dead);
    for (int step = 9; step < 12; step++) {
        const struct attn_plan *plan = call(&p, step);
        for (int head = 0; head < HEADS; head++) {
            for (int a = 0; a < n; a++)
                for (int b = 0; b < n; b++)
                    want[a][b] = attn_plan_fate(plan, head, a, b) == ATTN_COMPUTED;
            for (int a = 0; a < n; a++) {
                bool alive[NB] = {0};
                for (int i = a * block; i < a * block + count_of(a); i++) {
                    double most = (double)-INFINITY;
                    for (int v = 0; v < n; v++) {
                        int b = step % 2 ? n - 1 - v : v;
                        double here = (double)-INFINITY;
                        if (dead[head][a][b] && a != b) continue;
                        for (int j = b * block; j < b * block + count_of(b); j++)
                            here = fmax(here, dot(i, j, head));
                        alive[b] = alive[b] || (here - most) * 1.4426950408889634 > -8;
                        most = fmax(most, here);
                    }
                }
                for (int b = 0; b < n; b++) {
                    CHECK_MSG(want[a][b] == (!dead[head][a][b] || a == b),
                              "lite: step %d, head %d, row %d, tile %d", step, head, a, b);
                    if (!alive[b]) dead[head][a][b] = true;
                    all += step == 11 && dead[head][a][b];
                }
            }
        }
    }
    CHECK_MSG(all > n, "lite: %d dead tiles", all);
    attn_reset(p.a);
    const struct attn_plan *plan = call(&p, 9);
    CHECK(attn_plan_density(plan, L) == 1);
    planned_close(&p);
}

int main(void)
{
    threads_set(2);
    searched();
    clusters();
    dead_tiles();
    return TEST_RESULT();
}
