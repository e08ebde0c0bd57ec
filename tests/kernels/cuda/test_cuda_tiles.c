/* Plans of the room in the words of kernels for tiles, without a GPU: every head and row of blocks starts once and meets
 * the tiles, or the keys, that the plan keeps; tables of orders; and all of it in the bytes that were asked for. */
#include "attention/kernels/cuda/tiles_cuda.h"
#include "tests/kernels/attention_problems.h"

static int most_columns(const struct attn_plan *p)
{
    int most = 0;
    for (size_t r = 0; p->column_ptr && r < (size_t)attn_plans(p) * (size_t)p->q.n; r++) {
        int n = (int)(p->column_ptr[r + 1] - p->column_ptr[r]);
        if (n > most) most = n;
    }
    return most;
}

/* The row's bits against its fates; n: of the steps that they make. */
static int check_row(const uint32_t *kept, const uint32_t *mean, uint32_t n,
                     const struct attn_plan *p, int plan, int row)
{
    uint32_t steps = 0;
    int wrong = 0, group = -1;
    for (int t = 0; t < 32 * attn_words(p->k.n); t++) {
        enum attn_fate fate = t < p->k.n ? attn_plan_fate(p, plan, row, t) : ATTN_LEFT_OUT;
        bool by_mean = fate == ATTN_BY_MEAN;
        wrong += (kept[t / 32] >> (t % 32) & 1) != (fate == ATTN_COMPUTED);
        wrong += mean ? (mean[t / 32] >> (t % 32) & 1) != by_mean : by_mean;
        steps += fate == ATTN_COMPUTED || (by_mean && t / p->k.size != group);
        if (by_mean) group = t / p->k.size;
    }
    return wrong + (steps != n);
}

static int check_lists(const uint32_t *at, const struct tiles_parts *t, const struct attn_plan *p)
{
    int wrong = 0;
    size_t rows = (size_t)p->q.n, words = (size_t)attn_words(p->k.n);
    uint8_t *started = must(calloc(rows * (size_t)p->n_heads, 1));
    for (int i = 0, end; i < p->n_heads; i = end) {
        end = tiles_heads_end(p, i);
        for (int k = i + 1; k < end; k++)
            wrong += attn_head(p, k) != attn_head(p, k - 1) + 1;
        for (size_t k = (size_t)i * rows; k < (size_t)end * rows; k++) {
            size_t own = (size_t)i * rows + at[t->order + k];
            if (own >= (size_t)end * rows)
                wrong++;
            else
                started[own]++;
        }
    }
    for (size_t k = 0; k < rows * (size_t)p->n_heads; k++)
        wrong += started[k] != 1;
    for (int i = 0; i < attn_plans(p); i++)
        for (size_t r = 0; r < rows; r++) {
            size_t row = (size_t)i * rows + r;
            wrong +=
                check_row(at + t->kept + row * words, t->mean ? at + t->mean + row * words : NULL,
                          at[row + 1] - at[row], p, i, (int)r);
        }
    free(started);
    return wrong;
}

/* How often each query of each head of the job is in a row, and whether rows are the plan's heads'. */
static int check_runs(const uint32_t *at, const struct tiles_parts *t, const struct attn_plan *p)
{
    const struct attn_ragged_row *row = (const void *)(at + t->rows);
    uint8_t *times = must(calloc((size_t)p->q.len * 256, 1));
    int wrong = 0;
    for (size_t i = 0; i < t->n_rows; i++)
        for (int q = row[i].q0; q < row[i].q0 + row[i].queries; q++)
            times[row[i].head * p->q.len + q]++;
    for (int i = 0; i < p->n_heads; i++)
        for (int q = 0; q < p->q.len; q++)
            wrong += times[attn_head(p, i) * p->q.len + q]++ != 1;
    for (int h = 0; h < 256 * p->q.len; h++)
        wrong += times[h] != 0 && times[h] != 2;
    free(times);
    return wrong;
}

static int check_order(const uint32_t *at, const struct attn_order *o, const struct attn_plan *p,
                       int len)
{
    int wrong = 0;
    for (int i = 0; o->token && i < (o->stride ? attn_plans(p) : 1); i++)
        for (int k = 0; k < len; k++)
            wrong += (int)at[(size_t)i * (size_t)len + (size_t)k] != attn_token(o, i, k);
    return wrong;
}

static void check_plan(struct problem *x, struct device *d)
{
    struct attn_plan p = x->plan;
    struct attn_size s = x->size;
    struct err e = {0};
    if (p.heads) p.heads = x->heads;
    if (p.all && p.rule == ATTN_COMPUTE && !p.q_order.token && !p.k_order.token) return; /* dense */
    p.key_bias = NULL;
    s.needs = attn_plan_needs(&p) | (x->alive ? ATTN_NEED_ALIVE : 0);
    s.columns = most_columns(&p);
    s.block_q = p.q.size, s.block_k = p.k.size;
    const char *why;
    bool sm80 = s.needs & ~TILES_CAN_SM80 ? false : tiles_take_sm80(&s, &why);
    if (!sm80 && (s.needs & ~TILES_CAN_SM90 || !tiles_take_sm90(&s, &why))) return;
    size_t bytes = tiles_plan_bytes(&s, p.n_heads, attn_plans(&p));
    CHECK(bytes <= (size_t)p.n_heads * tiles_plan_bytes(&s, 1, 1));
    uint32_t *at = aligned_alloc(256, (bytes + 511) / 256 * 256);
    memset(at, 0xff, bytes + 256);
    CHECK_OK(tiles_put(d, at, &p, &s, &e));
    CHECK_MSG(at[bytes / 4] == ~0u, "more than %zu bytes: %s", bytes, x->what);
    struct tiles_parts t = tiles_parts(&p, &s);
    CHECK(t.runs == tiles_by_runs(&s) && !(sm80 && t.runs));
    int wrong = t.runs ? check_runs(at, &t, &p) : check_lists(at, &t, &p);
    wrong += check_order(at + t.q_token, &p.q_order, &p, p.q.len);
    wrong += check_order(at + t.k_token, &p.k_order, &p, p.k.len);
    CHECK_MSG(!wrong, "%d words say something else: %s", wrong, x->what);
    s.rows = s.cols = 1, s.needs = 0, s.columns = 0;
    if (p.q.n > 70) CHECK(tiles_put(d, at, &p, &s, &e) < 0 && e.code == ERR_BUG);
    free(at);
}

/* Scratch is for what the run may ask: tokens in order, a second output, a record that nobody reads. */
static void check_scratch(void)
{
    struct attn_size s = {
        .len_q = 256, .len_k = 128, .n_heads = 2, .head_dim = 64, .rows = 2, .cols = 1};
    s.block_q = s.block_k = 128;
    size_t none = tiles_scratch(&s), row = 2 * 64 * 2; /* none: steps, and what any launch needs */
    s.needs = ATTN_NEED_K_ORDER;
    CHECK(tiles_scratch(&s) == none + (256 + 2 * 128) * row);
    s.needs |= ATTN_NEED_LSE;
    CHECK(tiles_scratch(&s) == none + (256 + 2 * 128) * row + 2 * 256 * 4);
    s.needs = ATTN_NEED_MAKE_RESIDUAL;
    CHECK(tiles_scratch(&s) == none + 256 * row);
    s.needs = ATTN_NEED_ALIVE;
    CHECK(tiles_scratch(&s) == none);
    s.needs |= ATTN_NEED_WALK;
    CHECK(tiles_scratch(&s) == none + 256);
}

int main(int argc, char **argv)
{
    static const int cuts[][2] = {{128, 128}, {64, 64}, {128, 64}, {64, 128}, {0, 0}};
    struct test_rng r = test_seed(argc, argv);
    struct device *d;
    struct err e = {0};
    CHECK_OK(device_open(&d, "cpu", &e));
    check_scratch();
    for (int i = 0; i < 600; i++) {
        memcpy(problem_cut, cuts[i % 5], sizeof problem_cut);
        struct problem x = problem_random(&r, PRECISION_BF16);
        check_plan(&x, d);
        problem_free(&x);
    }
    device_close(d);
    return TEST_RESULT();
}
