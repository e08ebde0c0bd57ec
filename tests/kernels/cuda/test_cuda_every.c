/* Any plan in the form of the kernels for any plan, without a GPU: what each word says, and that it fits the bytes
 * that were asked for. */
#include "attention/kernels/cuda/every_cuda.h"
#include "model/base/device.h"
#include "tests/kernels/attention_problems.h"

static bool bit(const uint32_t *at, uint32_t plane, size_t row, int words, int t)
{
    return plane && at[plane + row * (size_t)words + (size_t)(t / 32)] >> (t % 32) & 1;
}

static int table(const uint32_t *at, uint32_t where, int stride, int plan, int i)
{
    return (int)at[where + (uint32_t)(plan * stride + i)];
}

/* Every query of a plan in one piece of its row, none longer than a block of threads. */
static int check_pieces(const uint32_t *at, const struct every_plan *h, const struct attn_plan *p,
                        int plan, int piece)
{
    const uint32_t *x = at + h->pieces + 2 * (size_t)plan * (size_t)h->most_pieces;
    int next = 0, wrong = 0;
    for (int i = 0; i < h->most_pieces; i++) {
        int row = (int)x[2 * i], q0 = (int)x[2 * i + 1];
        if (row < 0) continue;
        int end = attn_block_at(&p->q, plan, row + 1);
        wrong += q0 != next || q0 < attn_block_at(&p->q, plan, row) || q0 >= end;
        next = end - q0 < piece ? end : q0 + piece;
    }
    return wrong + (next != p->q.len);
}

static void check_words(const struct problem *x)
{
    struct attn_plan p = x->plan;
    struct attn_size s = x->size;
    struct err e = {0};
    struct every_plan h;
    int wrong = 0, plans = attn_plans(&p);
    if (p.heads) p.heads = x->heads;
    s.needs = attn_plan_needs(&p);
    for (size_t r = 0; p.column_ptr && r < (size_t)plans * (size_t)p.q.n; r++) {
        int n = (int)(p.column_ptr[r + 1] - p.column_ptr[r]);
        if (n > s.columns) s.columns = n;
    }
    size_t bytes = every_plan_bytes(&s, p.n_heads, plans);
    CHECK_MSG(bytes <= (size_t)plans * every_plan_bytes(&s, 1, 1), "%d plans of %zu bytes", plans,
              bytes);
    uint32_t *at = must(malloc(bytes + 64));
    memset(at, 0xff, bytes + 64);
    size_t n = every_words(at, &p, &s, &e);
    CHECK_OK(n ? 0 : -1);
    CHECK_MSG(n * 4 <= bytes && at[bytes / 4] == ~0u, "%zu words in %zu bytes", n, bytes);
    memcpy(&h, at, sizeof h);
    CHECK(h.q_n == p.q.n && h.k_n == p.k.n && h.q_len == p.q.len && h.k_len == p.k.len &&
          h.q_size == p.q.size && h.k_size == p.k.size && !h.all == !p.all &&
          !h.per_head == !p.per_head);
    for (int i = 0; i < plans; i++) {
        for (int row = 0; !p.all && row < p.q.n; row++)
            for (int t = 0; t < p.k.n; t++) {
                size_t r = (size_t)i * (size_t)p.q.n + (size_t)row;
                enum attn_fate fate = attn_plan_fate(&p, i, row, t);
                wrong += bit(at, h.kept, r, h.words, t) != (fate == ATTN_COMPUTED);
                wrong += bit(at, h.mean, r, h.words, t) != (fate == ATTN_BY_MEAN);
            }
        for (int k = 0; p.q_order.token && k < p.q.len; k++)
            wrong += table(at, h.q_token, h.q_token_stride, i, k) != attn_token(&p.q_order, i, k);
        for (int k = 0; p.k_order.token && k < p.k.len; k++)
            wrong += table(at, h.k_token, h.k_token_stride, i, k) != attn_token(&p.k_order, i, k);
        for (int k = 0; !p.q.size && k <= p.q.n; k++)
            wrong += table(at, h.q_at, h.q_at_stride, i, k) != attn_block_at(&p.q, i, k);
        for (int k = 0; !p.k.size && k <= p.k.n; k++)
            wrong += table(at, h.k_at, h.k_at_stride, i, k) != attn_block_at(&p.k, i, k);
        if (!p.q.size) wrong += check_pieces(at, &h, &p, i, every_piece(s.head_dim));
    }
    size_t rows = (size_t)plans * (size_t)p.q.n;
    if (p.column_ptr && !p.all) {
        wrong += memcmp(at + h.column_ptr, p.column_ptr, (rows + 1) * 4) != 0;
        wrong += memcmp(at + h.columns, p.columns, p.column_ptr[rows] * sizeof *p.columns) != 0;
    }
    CHECK_MSG(!wrong, "%d words say something else: %s", wrong, x->what);
    CHECK(!p.q.size || every_pieces(&p, s.rows, s.head_dim) >= p.q.n);
    CHECK(p.q.size || every_pieces(&p, s.rows, s.head_dim) == h.most_pieces);
    s.rows = s.cols = 0; /* opened for dense calls */
    s.needs = 0;
    if (!p.all) {
        CHECK(every_words(at, &p, &s, &e) == 0 && e.code == ERR_BUG);
        CHECK_MSG(strstr(e.msg, "does not fit"), "%s", e.msg);
    }
    free(at);
}

/* Planes of tiles that the kernels choose: one for each of the two, over all heads. */
static void check_scratch(void)
{
    struct attn_size s = {.n_heads = 3, .rows = 5, .cols = 40};
    size_t none = every_scratch(&s), plane = 3 * 5 * 2 * 4;
    s.needs = ATTN_NEED_SKIP;
    CHECK(every_scratch(&s) == none + plane);
    s.needs |= ATTN_NEED_SOL;
    CHECK(every_scratch(&s) == none + 2 * plane);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_scratch();
    for (int i = 0; i < 300; i++) {
        struct problem x = problem_random(&r, PRECISION_FP32);
        check_words(&x);
        problem_free(&x);
    }
    return TEST_RESULT();
}
