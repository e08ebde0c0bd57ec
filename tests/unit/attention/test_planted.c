/* What every sparse method must be good for: on structure planted into q and k it finds more of the
 * weight than as many blocks at random would (whose recall is their density). No method keeps what
 * another does; every pair of methods composes or is refused in words. Walks the list, names none. */
#include "planned.h"

enum { T = 8, H = 16, W = 16, L = T * H * W, HEADS = 2, DIM = 16, EVERY = 16, ROWS = L / EVERY };

static const struct attn_shape shape = {.n_heads = HEADS,
                                        .head_dim = DIM,
                                        .grid_t = T,
                                        .grid_h = H,
                                        .grid_w = W,
                                        .n_layers = 1,
                                        .n_branches = 1,
                                        .n_steps = 20};

static float qkv[3][L * HEADS * DIM];
static float mass[HEADS][ROWS][L]; /* exact softmax of every EVERY-th query */

enum plant { NEAR, PLACES, CONTENT, SCATTERED, LINES, FRAMES, PLANTS };
static const char *const plant_names[PLANTS] = {"near",      "places", "content",
                                                "scattered", "lines",  "frames"};

/* kernels that fall with distance on an axis: cosines of two wavelengths */
static void position(float *x, double at, double extent, float strength)
{
    for (int w = 0; w < 2; w++) {
        double phase = 3.14159265 * at / extent * (w + 1);
        x[2 * w] = strength * (float)cos(phase);
        x[2 * w + 1] = strength * (float)sin(phase);
    }
}

static void plant(enum plant what, uint64_t seed)
{
    struct test_rng r = {seed};
    float dir[24][DIM];
    for (int i = 0; i < 24 * DIM; i++)
        dir[i / DIM][i % DIM] = 1.3f * rng_normal(&r);
    for (int token = 0; token < L; token++) {
        int f = token / (H * W), y = token / W % H, x = token % W;
        int kind = what == CONTENT ? f / 4 * 4 + y / 4 : rng_int(&r, 0, 15);
        if (what == FRAMES) kind = f;
        bool hot = what == LINES && rng_int(&r, 0, 19) == 0;
        for (int head = 0; head < HEADS; head++) {
            float *q = qkv[0] + (token * HEADS + head) * DIM, *k = qkv[1] + (q - qkv[0]);
            for (int c = 0; c < DIM; c++)
                q[c] = k[c] = 0;
            if (what == NEAR) position(q, f, T, 2);
            if (what == NEAR || what == PLACES) {
                float much = what == NEAR ? 2.f : 3.f;
                position(q + 4, y, H, much);
                position(q + 8, x, W, much);
                memcpy(k, q, DIM * sizeof *k);
            } else {
                for (int c = 0; c < DIM; c++) {
                    q[c] = what == LINES ? dir[20][c] : dir[kind][c];
                    k[c] = what == LINES ? (hot ? dir[20][c] : 0) : dir[kind][c];
                    if (what == FRAMES) q[c] *= 2;
                }
            }
            for (int c = 0; c < DIM; c++) {
                q[c] += .3f * rng_normal(&r);
                k[c] += .3f * rng_normal(&r);
                qkv[2][(token * HEADS + head) * DIM + c] = rng_normal(&r);
            }
        }
    }
    for (int head = 0; head < HEADS; head++)
        for (int i = 0; i < ROWS; i++) {
            const float *q = qkv[0] + (i * EVERY * HEADS + head) * DIM;
            double sum = 0;
            for (int j = 0; j < L; j++) {
                float s = 0;
                for (int c = 0; c < DIM; c++)
                    s += q[c] * qkv[1][(j * HEADS + head) * DIM + c];
                mass[head][i][j] = expf(s / 4);
                sum += (double)mass[head][i][j];
            }
            for (int j = 0; j < L; j++)
                mass[head][i][j] /= (float)sum;
        }
}

/* --- what a call keeps, by token --- */

struct seen {
    double recall, density;
    uint64_t set; /* a hash of every pair of the looked-at queries */
};

static void look(struct seen *s, const struct attn_plan *p)
{
    static bool keeps[L];
    for (int i = 0; i < p->n_heads; i++) {
        int head = attn_head(p, i), plan = p->per_head ? i : 0;
        for (int row = 0; row < p->q.n; row++)
            for (int at = attn_block_at(&p->q, plan, row); at < attn_block_at(&p->q, plan, row + 1);
                 at++) {
                int token = attn_token(&p->q_order, plan, at);
                if (token % EVERY) continue;
                memset(keeps, p->all, sizeof keeps);
                for (struct attn_run r = attn_run_begin(p, plan, row); attn_run_next(&r);)
                    for (int k = r.k0; k < r.k1; k++)
                        keeps[attn_token(&p->k_order, plan, k)] = true;
                uint64_t sum = 0;
                for (int j = 0; j < L; j++) {
                    if (!keeps[j]) continue;
                    s->recall += (double)mass[head][token / EVERY][j] / (HEADS * ROWS);
                    s->density += 1. / ((double)L * HEADS * ROWS);
                    struct test_rng mix = {((uint64_t)head * L + (uint64_t)token) * L +
                                           (uint64_t)j};
                    sum += rng_u64(&mix);
                }
                s->set += sum;
            }
    }
}

static bool see(struct seen *s, const struct attn_method *m)
{
    struct planned p;
    struct err e = {0};
    *s = (struct seen){0};
    if (planned_open(&p, m->name, &shape, &e) < 0) {
        CHECK_MSG(0, "%s: %s", m->name, e.msg);
        return false;
    }
    planned_call(&p, qkv[0], qkv[1], qkv[2], 9);
    planned_call(&p, qkv[0], qkv[1], qkv[2], 10);
    struct attn_calls all = {.at = p.a->launches};
    for (double heads = 0; heads < HEADS; heads += all.at[all.n++].plan.n_heads)
        look(s, &all.at[all.n].plan);
    planned_close(&p);
    return true;
}

/* Methods that leave nothing out: exact ones, and those whose say is the precision alone. */
static bool keeps_all(const struct attn_method *m)
{
    struct attn_recipe alone = {.precision = m->recipe.precision};
    return m->exact ||
           (alone.precision && !m->plan && memcmp(&alone, &m->recipe, sizeof alone) == 0);
}

/* Names that keep the same at their defaults: none but those that keep all. */
static bool may_be_same(const struct attn_method *a, const struct attn_method *b)
{
    return keeps_all(a) && keeps_all(b);
}

static void planted(void)
{
    static struct seen all[PLANTS][64];
    int n = attn_method_count();
    CHECK(n < 64);
    for (int what = 0; what < PLANTS; what++) {
        plant((enum plant)what, (uint64_t)what + 5);
        for (int i = 0; i < n; i++)
            see(&all[what][i], attn_method_at(i));
    }
    for (int i = 0; i < n; i++) {
        const struct attn_method *m = attn_method_at(i);
        double best = -1;
        printf("%-11s", m->name);
        for (int what = 0; what < PLANTS; what++) {
            const struct seen *s = &all[what][i];
            printf("  %s %.2f of %.2f", plant_names[what], s->recall, s->density);
            if (s->density < .9) best = fmax(best, s->recall - s->density);
        }
        printf("\n");
        if (keeps_all(m) || !m->recipe.select) continue; /* whole heads: no pairs are chosen */
        CHECK_MSG(best > .15, "%s finds no structure: %.3f above random at best", m->name, best);
        for (int j = 0; j < i; j++) {
            bool same = true;
            for (int what = 0; what < PLANTS; what++)
                same = same && all[what][i].set == all[what][j].set;
            CHECK_MSG(!same || may_be_same(m, attn_method_at(j)), "%s and %s keep the same",
                      m->name, attn_method_at(j)->name);
        }
    }
}

/* Every pair, in both orders: composes and runs, or is refused with both names or the reason. */
static void pairs(void)
{
    struct err e = {0};
    int composed = 0, refused = 0;
    struct attn_shape small = shape;
    small.grid_t = 3, small.grid_h = 7, small.grid_w = 9;
    for (int i = 0; i < attn_method_count(); i++)
        for (int j = 0; j < attn_method_count(); j++) {
            const struct attn_method *a = attn_method_at(i), *b = attn_method_at(j);
            char stack[80];
            struct planned p;
            if (i == j) continue;
            snprintf(stack, sizeof stack, "%s+%s", a->name, b->name);
            if (planned_open(&p, stack, &small, &e) < 0) {
                CHECK_MSG(e.code == ERR_USAGE && strstr(e.msg, a->name) && strstr(e.msg, b->name),
                          "%s is refused with: %s", stack, e.msg);
                refused++;
            } else {
                for (int step = 8; step < 11; step++)
                    planned_call(&p, qkv[0], qkv[1], qkv[2], step);
                composed++;
            }
            planned_close(&p);
        }
    printf("%d pairs compose, %d are refused\n", composed, refused);
    CHECK(composed > 0 && refused > 0);
}

/* Beside a residual, what is kept stands until the next refresh. */
static void frozen(void)
{
    struct err e = {0};
    int stood = 0;
    for (int i = 0; i < attn_method_count(); i++) {
        const struct attn_method *m = attn_method_at(i);
        char stack[80];
        struct planned p;
        struct seen first = {0}, next = {0};
        if (m->exact || m->recipe.compensate) continue;
        snprintf(stack, sizeof stack, "%s+resid:every=4,last=0", m->name);
        if (planned_open(&p, stack, &shape, &e) < 0) {
            CHECK_MSG((m->recipe.reuse && !m->recipe.mild_reuse) || m->recipe.ask || m->plan,
                      "%s: %s", stack, e.msg);
        } else {
            plant(CONTENT, 5);
            look(&first, planned_call(&p, qkv[0], qkv[1], qkv[2], 4));
            plant(SCATTERED, 6);
            look(&next, planned_call(&p, qkv[0], qkv[1], qkv[2], 5));
            CHECK_MSG(first.set == next.set, "%s changes between refreshes", stack);
            CHECK(p.a->launches[0].plan.rule == ATTN_ADD_RESIDUAL);
            stood++;
        }
        planned_close(&p);
    }
    CHECK(stood > 0);
}

int main(void)
{
    threads_set(2);
    planted();
    threads_set(1); /* many small calls */
    pairs();
    frozen();
    return TEST_RESULT();
}
