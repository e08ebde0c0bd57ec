/* Scorers on their own, and plans shared over layers: against the words of their sections, and on
 * planted structure against as many blocks at random. */
#include "transcribed.h"

/* Symmetric eigenvectors by Jacobi: c[DIM][DIM] → rows of v, by falling eigenvalue. */
static void eigen(double c[DIM][DIM], double v[DIM][DIM])
{
    for (int i = 0; i < DIM; i++)
        for (int j = 0; j < DIM; j++)
            v[i][j] = i == j;
    for (int sweep = 0; sweep < 60; sweep++)
        for (int p = 0; p < DIM; p++)
            for (int q = p + 1; q < DIM; q++) {
                if (fabs(c[p][q]) < 1e-14) continue;
                double angle = .5 * atan2(2 * c[p][q], c[q][q] - c[p][p]), s = sin(angle),
                       co = cos(angle);
                for (int i = 0; i < DIM; i++) { /* columns */
                    double x = c[i][p], y = c[i][q];
                    c[i][p] = co * x - s * y, c[i][q] = s * x + co * y;
                }
                for (int i = 0; i < DIM; i++) {
                    double x = c[p][i], y = c[q][i];
                    c[p][i] = co * x - s * y, c[q][i] = s * x + co * y;
                    x = v[p][i], y = v[q][i];
                    v[p][i] = co * x - s * y, v[q][i] = s * x + co * y;
                }
            }
    for (int i = 0; i < DIM; i++)
        for (int j = i + 1; j < DIM; j++)
            if (c[j][j] > c[i][i]) {
                double swap = c[i][i];
                c[i][i] = c[j][j], c[j][j] = swap;
                for (int x = 0; x < DIM; x++)
                    swap = v[i][x], v[i][x] = v[j][x], v[j][x] = swap;
            }
}

static double seen[2][L][DIM]; /* queries and keys as a scorer sees them */

static void see_rank(int head, int rank)
{
    double c[DIM][DIM] = {{0}}, v[DIM][DIM], mean[DIM] = {0};
    for (int t = 0; t < L; t++)
        for (int i = 0; i < DIM; i++)
            mean[i] += k_of(t, head, i) / L;
    for (int t = 0; t < L; t++)
        for (int i = 0; i < DIM; i++)
            for (int j = 0; j < DIM; j++)
                c[i][j] += (k_of(t, head, i) - mean[i]) * (k_of(t, head, j) - mean[j]);
    eigen(c, v);
    CHECK(c[rank - 1][rank - 1] > 4 * c[rank][rank]); /* else which ones is a toss */
    for (int t = 0; t < L; t++)
        for (int r = 0; r < DIM; r++) {
            seen[0][t][r] = seen[1][t][r] = 0;
            for (int i = 0; r < rank && i < DIM; i++) {
                seen[0][t][r] += v[r][i] * q_of(t, head, i);
                seen[1][t][r] += v[r][i] * k_of(t, head, i);
            }
        }
}

static void see_codes(int head)
{
    double mean[DIM] = {0};
    for (int t = 0; t < L; t++)
        for (int i = 0; i < DIM; i++)
            mean[i] += k_of(t, head, i) / L;
    for (int side = 0; side < 2; side++)
        for (int t = 0; t < L; t++) {
            double x[DIM], most = 0;
            for (int i = 0; i < DIM; i++) {
                x[i] = side ? k_of(t, head, i) - mean[i] : q_of(t, head, i);
                most = fmax(most, fabs(x[i]));
            }
            for (int i = 0; i < DIM; i++) {
                double code = nearbyint(x[i] / most * 7);
                CHECK(code >= -7 && code <= 7);
                seen[side][t][i] = code * most / 7;
            }
        }
}

static void see_all(int head)
{
    for (int t = 0; t < L; t++)
        for (int i = 0; i < DIM; i++)
            seen[0][t][i] = q_of(t, head, i), seen[1][t][i] = k_of(t, head, i);
}

/* Weight of every stride-th query of a block, as seen, summed over blocks of keys. */
static void score_seen(int stride)
{
    for (int a = 0; a < n; a++) {
        int looked = (count_of(a) + stride - 1) / stride;
        for (int b = 0; b < n; b++)
            score[a][b] = 0;
        for (int p = a * block; p < a * block + count_of(a); p += stride) {
            double w[L], sum = 0;
            for (int j = 0; j < L; j++) {
                double s = 0;
                for (int i = 0; i < DIM; i++)
                    s += seen[0][token_at[p]][i] * seen[1][key_at[j]][i];
                sum += w[j] = exp(s / sqrt((double)DIM));
            }
            for (int j = 0; j < L; j++)
                score[a][j / block] += w[j] / sum * count_of(a) / looked;
        }
        for (int b = 0; b < n; b++)
            score[a][b] = log(score[a][b]);
    }
}

static void score_max_of(int head)
{
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            score[a][b] = log(count_of(b));
            for (int i = 0; i < DIM; i++) {
                double q = -1e9, k = -1e9;
                for (int p = a * block; p < a * block + count_of(a); p++)
                    q = fmax(q, q_of(token_at[p], head, i));
                for (int p = b * block; p < b * block + count_of(b); p++)
                    k = fmax(k, k_of(key_at[p], head, i));
                score[a][b] += q * k / sqrt((double)DIM);
            }
        }
}

/* few directions hold most of what keys are: Loki's premise */
static void flatten(void)
{
    struct test_rng r = {5};
    for (int t = 0; t < L; t++)
        for (int h = 0; h < HEADS; h++)
            for (int c = 0; c < DIM; c++)
                qkv[1][(t * HEADS + h) * DIM + c] *= (c + 3 * h) % DIM < 4 ? 2 : .1f;
    (void)r;
}

static void chosen(void)
{
    static const struct {
        const char *stack;
        int by; /* 0 mean 1 max 2 runs 3 antidiagonal 4 rank 5 int4 6 mass */
        int keep; /* 0 top-k 1 top-p 2 above 3 percentile */
    } cases[] = {
        {"score:block=32", 0, 0},
        {"score:block=32,by=max", 1, 0},
        {"score:block=32,by=runs,keep=top-p,mass=.5", 2, 1},
        {"score:block=32,by=antidiagonal,keep=above", 3, 2},
        {"score:block=32,by=rank,rank=4,stride=2", 4, 0},
        {"score:block=32,by=int4,keep=top-p,mass=.5,stride=3", 5, 1},
        {"score:block=32,by=mass,keep=percentile", 6, 3},
        {"score:block=32,by=int4,tile=2x4x4,density=.1", 5, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fill(40 + i);
        if (cases[i].by == 4) flatten();
        struct planned p = open_on(cases[i].stack);
        const struct attn_plan *plan = call(&p, 9);
        fresh(32);
        for (int head = 0; head < HEADS; head++) {
            if (strstr(cases[i].stack, ",tile=")) {
                tile[0] = 2, tile[1] = tile[2] = 4;
                order_by(tile_key);
            } else {
                order_by(raster_key);
            }
            if (cases[i].by == 0) score_runs_of(head, 1);
            if (cases[i].by == 1) score_max_of(head);
            if (cases[i].by == 2) score_runs_of(head, 4);
            if (cases[i].by == 3) score_antidiagonals_of(head, 8);
            if (cases[i].by == 4) see_rank(head, 4), score_seen(2);
            if (cases[i].by == 5)
                see_codes(head), score_seen(strstr(cases[i].stack, "stride") ? 3 : 8);
            if (cases[i].by == 6) see_all(head), score_seen(8);
            if (cases[i].keep == 0) keep_best_of(strstr(cases[i].stack, "density") ? .1 : .25);
            if (cases[i].keep == 1) keep_mass_of(.5);
            if (cases[i].keep == 2) keep_above_of(1);
            if (cases[i].keep == 3) keep_share_of(.25);
            compare(cases[i].stack, plan, head);
        }
        planned_close(&p);
    }
}

/* Exact weight of what a plan keeps, against its density: what as many blocks at random would have. */
static double above_random(const struct attn_plan *p)
{
    double kept = 0;
    for (int head = 0; head < HEADS; head++)
        for (int row = 0; row < p->q.n; row++)
            for (int at = attn_block_at(&p->q, head, row); at < attn_block_at(&p->q, head, row + 1);
                 at += 5) {
                double all = 0, mine = 0;
                int i = attn_token(&p->q_order, head, at);
                for (int j = 0; j < L; j++)
                    all += exp(dot(i, j, head));
                for (struct attn_run r = attn_run_begin(p, head, row); attn_run_next(&r);)
                    for (int j = r.k0; j < r.k1; j++)
                        mine += exp(dot(i, attn_token(&p->k_order, head, j), head));
                kept += mine / all / HEADS;
            }
    double rows = 0;
    for (int row = 0; row < p->q.n; row++)
        rows += (attn_block_at(&p->q, 0, row + 1) - attn_block_at(&p->q, 0, row) + 4) / 5;
    return kept / rows - attn_plan_density(p, L);
}

static void planted(void)
{
    static const char *const stacks[] = {
        "score:by=mean,density=.15",
        "score:by=max,density=.15",
        "score:by=runs,density=.15",
        "score:by=antidiagonal,density=.15",
        "score:by=rank,density=.15,rank=4",
        "score:by=int4,density=.15",
        "score:by=mass,density=.15",
        "score:keep=top-p,mass=.5",
        "score:keep=above",
        "score:keep=percentile,density=.15",
        "svg2:by=lsh,mass=.5,q=16,k=16",
    };
    fill(7);
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++) {
        char stack[100];
        snprintf(stack, sizeof stack, strncmp(stacks[i], "score", 5) ? "%s" : "%s,block=16",
                 stacks[i]);
        struct planned p = open_on(stack);
        double gain = above_random(call(&p, 9));
        printf("%-45s %.2f above random\n", stack, gain);
        CHECK_MSG(gain > .15, "%s: %.3f", stack, gain);
        planned_close(&p);
    }
}

/* --- layers --- */

static int bits_differ(const uint32_t *a, const uint32_t *b, size_t words)
{
    int different = 0;
    for (size_t i = 0; i < words; i++)
        different += a[i] != b[i];
    return different;
}

static uint32_t kept_by[6][HEADS * NB * ((NB + 31) / 32)];

/* A step of six layers, each with q and k of its own. Returns uint32s of a plane. */
static size_t six(struct planned *p, int step, uint64_t seed)
{
    struct err e = {0};
    size_t words = 0;
    for (int layer = 0; layer < 6; layer++) {
        fill(seed + (uint64_t)layer);
        struct attn_call c = {
            .q = qkv[0], .k = qkv[1], .v = qkv[2], .o = p->o, .at = {.step = step, .layer = layer}};
        CHECK_OK(attn_run(p->a, &c, &e));
        const struct attn_plan *plan = &p->a->launches[0].plan;
        words = attn_plane_size(plan);
        memcpy(kept_by[layer], plan->kept, words * sizeof(uint32_t));
    }
    return words;
}

static void shared_by_layers(void)
{
    struct attn_shape deep = shape;
    struct planned p;
    struct err e = {0};
    deep.n_layers = 6;
    CHECK_OK(planned_open(&p, "layers:group=3,block=32", &deep, &e));
    six(&p, 9, 60);
    fill(60); /* layer 0: shares of rows by means, summed over heads */
    fresh(32);
    order_by(raster_key);
    static double sum[NB][NB];
    memset(sum, 0, sizeof sum);
    for (int head = 0; head < HEADS; head++) {
        score_runs_of(head, 1);
        softmax_rows();
        for (int i = 0; i < n * n; i++)
            sum[i / n][i % n] += score[i / n][i % n];
    }
    for (int i = 0; i < n * n; i++)
        score[i / n][i % n] = log(sum[i / n][i % n]);
    keep_best_of(.25);
    struct attn_plan as = p.a->launches[0].plan;
    as.kept = kept_by[2]; /* the third layer has the first one's */
    compare("layers", &as, 0);
    planned_close(&p);

    /* beside another selection, with exact layers before, and plans that stand for two steps */
    CHECK_OK(planned_open(&p, "xattn:block=32,mass=.5+layers:group=2,every=2", &deep, &e));
    size_t words = six(&p, 4, 80); /* the first step that is not exact */
    static uint32_t first[HEADS * NB * ((NB + 31) / 32)];
    memcpy(first, kept_by[0], sizeof first);
    for (int layer = 0; layer < 6; layer += 2) {
        CHECK(bits_differ(kept_by[layer], kept_by[layer + 1], words) == 0);
        if (layer) CHECK(bits_differ(kept_by[layer], kept_by[0], words) > 0);
    }
    six(&p, 5, 90);
    CHECK(bits_differ(first, kept_by[0], words) == 0);
    six(&p, 6, 90);
    CHECK(bits_differ(first, kept_by[0], words) > 0);
    planned_close(&p);

    /* a group whose first layer was never computed makes its plan where it begins */
    CHECK_OK(planned_open(&p, "layers:group=3,block=32", &deep, &e));
    for (int layer = 1; layer < 3; layer++) {
        fill(99);
        struct attn_call c = {
            .q = qkv[0], .k = qkv[1], .v = qkv[2], .o = p.o, .at = {.step = 9, .layer = layer}};
        CHECK_OK(attn_run(p.a, &c, &e));
    }
    planned_close(&p);

    struct attn_params params = {.threads = 1};
    struct attn_forecast f;
    cpu_detect(&params.cpu);
    params.method = "layers"; /* forgotten with the step */
    CHECK_OK(attn_forecast(&f, &params, &deep, &e));
    CHECK(!f.remembers);
    params.method = "layers:every=2";
    CHECK_OK(attn_forecast(&f, &params, &deep, &e));
    CHECK(f.remembers);

    /* columns of another layer's plan go with it */
    CHECK_OK(planned_open(&p, "minference:block=32,columns=.1+layers:group=6", &deep, &e));
    six(&p, 9, 70);
    const struct attn_plan *plan = &p.a->launches[0].plan;
    CHECK(plan->column_ptr[1] == (uint32_t)ceil(.1 * L));
    planned_close(&p);
}

int main(void)
{
    threads_set(2);
    chosen();
    planted();
    shared_by_layers();
    return TEST_RESULT();
}
