/* Recipes with members of their own, against the words of their sections. */
#include "transcribed.h"

static long long place_key(int t) { return (long long)(t % (H * W)) * T + t / (H * W); }

/* head 0 looks along frames of its own, head 1 along its own place in all frames */
static void fill_kinds(void)
{
    struct test_rng r = {77};
    static float frame[T][DIM], place[H * W][DIM];
    for (int i = 0; i < T * DIM; i++)
        frame[i / DIM][i % DIM] = rng_normal(&r);
    for (int i = 0; i < H * W * DIM; i++)
        place[i / DIM][i % DIM] = rng_normal(&r);
    for (int t = 0; t < L; t++)
        for (int h = 0; h < HEADS; h++)
            for (int c = 0; c < DIM; c++) {
                int at = (t * HEADS + h) * DIM + c;
                float x = h ? place[t % (H * W)][c] : frame[t / (H * W)][c];
                qkv[0][at] = 2 * x + .1f * rng_normal(&r);
                qkv[1][at] = 2 * x + .1f * rng_normal(&r);
                qkv[2][at] = rng_normal(&r);
            }
}

/* 1 - (1 - half)^2 of the map is share; the blocks at the same place always */
static void keep_band_of(double share)
{
    double half = share < 1 ? 1 - sqrt(1 - share) : 2;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            double d = fabs((double)(a - b)) / n;
            want[a][b] = a == b ? 1 : fabs(d - half) < 1e-9 ? 2 : d < half;
        }
}

static bool block_meets(const int *at, int b, int frame)
{
    for (int p = b * block; p < b * block + count_of(b); p++)
        if (at[p] / (H * W) == frame) return true;
    return false;
}

static void force_frame(int frame, bool rows)
{
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            if (block_meets(key_at, b, frame) || (rows && block_meets(token_at, a, frame)))
                want[a][b] = 1;
}

static void bands(void)
{
    fill_kinds();
    struct planned p = open_on("svg1:block=16,density=.3,front=1");
    const struct attn_plan *plan = call(&p, 9);
    fresh(16);
    for (int head = 0; head < HEADS; head++) {
        order_by(head ? place_key : raster_key);
        keep_band_of(.3);
        for (int a = 0; a < n; a++)
            for (int b = 0; b * block < H * W; b++)
                want[a][b] = 1;
        compare("svg1", plan, head);
    }
    planned_close(&p);

    /* half width .25: 7/16 of the map */
    p = open_on("rainfusion:block=16,recall=.8");
    plan = call(&p, 9);
    for (int head = 0; head < HEADS; head++) {
        order_by(head ? place_key : raster_key);
        keep_band_of(7. / 16);
        compare("rainfusion, bands", plan, head);
    }
    planned_close(&p);

    p = open_on("rainfusion:block=16,recall=1"); /* nothing holds it all */
    plan = call(&p, 9);
    static int board[L];
    int at = 0, thinned;
    order_by(raster_key);
    for (int round = 0; round < 2; round++) {
        for (int t = 0; t < L; t++)
            if ((t / W % H % 2 == t % W % 2) == !round) board[at++] = t;
        if (!round) thinned = at;
    }
    key_at = board;
    CHECK(thinned == L / 2);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            want[a][b] = b * block < thinned;
    for (int head = 0; head < HEADS; head++)
        compare("rainfusion, thinned", plan, head);
    key_at = token_at;
    planned_close(&p);
}

static long long cube_key(int t)
{
    tile[0] = 2, tile[1] = tile[2] = 8;
    return t < H * W ? (1LL << 50) + t : tile_key(t - H * W);
}

static void frames(void)
{
    fill(3);
    struct planned p = open_on("rainfusion2:block=32");
    const struct attn_plan *plan = call(&p, 9);
    fresh(32);
    order_by(cube_key);
    for (int head = 0; head < HEADS; head++) {
        score_runs_of(head, 1);
        keep_best_of(.2);
        force_frame(0, true);
        compare("rainfusion2", plan, head);
    }
    planned_close(&p);

    p = open_on("vdit:block=32,references=2");
    plan = call(&p, 9);
    order_by(raster_key);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            want[a][b] = 0;
            for (int f = 0; f < T; f++)
                if (block_meets(token_at, a, f) && block_meets(token_at, b, f)) want[a][b] = 1;
        }
    force_frame(0, true);
    force_frame(T - 1, true);
    compare("vdit", plan, 0);
    planned_close(&p);

    p = open_on("lvsa:block=32,anchors=2,move=1");
    for (int step = 9; step < 12; step++) {
        plan = call(&p, step);
        keep_band_of(.2);
        force_frame(step % T, false);
        force_frame((step + T / 2) % T, false);
        compare("lvsa", plan, 0);
    }
    planned_close(&p);
}

/* mean of all cosines of pairs of a block */
static double likeness(int b, int head, bool keys)
{
    double mean[DIM] = {0}, sum = 0;
    for (int t = 0; keys && t < L; t++)
        for (int c = 0; c < DIM; c++)
            mean[c] += k_of(t, head, c) / L;
    for (int i = b * block; i < b * block + count_of(b); i++)
        for (int j = b * block; j < b * block + count_of(b); j++) {
            double xy = 0, xx = 0, yy = 0;
            for (int c = 0; c < DIM; c++) {
                double x = (keys ? k_of : q_of)(token_at[i], head, c) - mean[c];
                double y = (keys ? k_of : q_of)(token_at[j], head, c) - mean[c];
                xy += x * y, xx += x * x, yy += y * y;
            }
            sum += xy / sqrt(xx * yy);
        }
    return sum / count_of(b) / count_of(b);
}

static void alike(void)
{
    const double like = .55, mass = .8;
    int unlike = 0, left = 0;
    fill(11);
    struct planned p = open_on("sparge:block=16,like=.55,mass=.8");
    const struct attn_plan *plan = call(&p, 9);
    fresh(16);
    order_by(raster_key);
    for (int head = 0; head < HEADS; head++) {
        double k_like[NB], q_like[NB];
        for (int b = 0; b < n; b++) {
            k_like[b] = likeness(b, head, true), q_like[b] = likeness(b, head, false);
            CHECK(fabs(k_like[b] - like) > 1e-5 && fabs(q_like[b] - like) > 1e-5);
            unlike += (k_like[b] <= like) + (q_like[b] <= like);
        }
        score_runs_of(head, 1);
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++)
                if (k_like[b] <= like) score[a][b] = (double)-INFINITY;
        softmax_rows();
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++) {
                double upto = 0, before = 0; /* with it; without it */
                for (int c = 0; c < n; c++) {
                    if (score[a][c] >= score[a][b]) upto += score[a][c];
                    if (score[a][c] > score[a][b]) before += score[a][c];
                }
                want[a][b] = fabs(upto - mass) < 1e-4 ? 2 : before == 0 || upto <= mass;
                if (k_like[b] <= like || q_like[a] <= like) want[a][b] = 1;
                left += want[a][b] == 0;
            }
        compare("sparge", plan, head);
    }
    CHECK(unlike > 0 && left > 0);
    planned_close(&p);
}

static void hot(void)
{
    fill(21);
    for (int t = 0; t < L; t += 37) /* keys that all like */
        for (int i = 0; i < HEADS * DIM; i++)
            qkv[1][t * HEADS * DIM + i] += 1.5f * qkv[0][t * HEADS * DIM + i];
    struct planned p = open_on("pbs:block=16,hot=.05,mass=.6,rows=60");
    const struct attn_plan *plan = call(&p, 9);
    const int n_hot = L / 20;
    fresh(16);
    tile[0] = tile[1] = tile[2] = 4;
    for (int head = 0; head < HEADS; head++) {
        static double weight[L];
        static int keys[L];
        order_by(tile_key);
        memset(weight, 0, sizeof weight);
        for (int r = 0; r < 60; r++) {
            double row[L], sum = 0;
            for (int j = 0; j < L; j++)
                sum += row[j] = exp(dot((2 * r + 1) * L / 120, j, head));
            for (int j = 0; j < L; j++)
                weight[j] += row[j] / sum;
        }
        int at = n_hot;
        for (int i = 0; i < L; i++) {
            int before = 0;
            for (int j = 0; j < L; j++)
                before += weight[j] > weight[token_at[i]];
            if (before < n_hot)
                keys[before] = token_at[i];
            else
                keys[at++] = token_at[i];
        }
        key_at = keys;
        score_runs_of(head, 1);
        keep_mass_of(.6);
        for (int a = 0; a < n; a++)
            for (int b = 0; b * block < n_hot; b++)
                want[a][b] = 1;
        compare("pbs", plan, head);
        key_at = token_at;
    }
    planned_close(&p);
}

int main(void)
{
    threads_set(2);
    bands();
    frames();
    alike();
    hot();
    return TEST_RESULT();
}
