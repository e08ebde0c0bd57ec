/* Plans of blocks of any length, on the host: every kept key of a row counts once, in order, and
 * nothing else does; stages are full; rows cover every query once. */
#include "attention/kernels/cuda/attn_cuda.h"
#include "tests/check.h"

static void *must(void *p)
{
    if (!p) exit(70);
    return p;
}

static void cut(struct test_rng *r, int32_t *at, int n, int len)
{
    for (int i = 1; i < n; i++)
        at[i] = rng_int(r, 0, len);
    at[0] = 0;
    at[n] = len;
    for (int i = 1; i < n; i++) /* insertion sort: few */
        for (int k = i; k > 0 && at[k] < at[k - 1]; k--) {
            int32_t t = at[k];
            at[k] = at[k - 1];
            at[k - 1] = t;
        }
}

static int block_of(const int32_t *at, int n, int token)
{
    int i = 0;
    while (i + 1 < n && at[i + 1] <= token)
        i++;
    return i;
}

/* A row's keys in their order, into tokens[], as the 128 threads of the feeding warpgroup walk its
 * runs: each by itself, key t of every stage. Returns their number, -1 for a token that does not
 * exist. */
static int walked(const struct attn_ragged_run *run, int stages, int len_k, int *tokens, int room)
{
    int n = 0, lead = stages ? run[0].token : 0;
    for (int t = 0; t < ATTN_RAGGED_KEYS; t++) {
        const struct attn_ragged_run *now = run + 1;
        for (int i = 0; i < stages; i++) {
            int position = ATTN_RAGGED_KEYS * i + t;
            while (now[1].at <= position)
                now++;
            if (i == 0 && t >= lead) continue;
            int token = now->token + position - now->at,
                at = i == 0 ? t : lead + position - ATTN_RAGGED_KEYS;
            if (token < 0 || token >= len_k || at >= room) return -1;
            tokens[at] = token;
            n++;
        }
    }
    return n;
}

static void check_plan(struct test_rng *r)
{
    struct err e = {0};
    int heads = rng_int(r, 1, 3), plans = rng_int(r, 0, 1) ? heads : 1;
    int rows = rng_int(r, 1, 9), cols = rng_int(r, 1, 40), words = (cols + 31) / 32;
    int len_q = rng_int(r, 1, 700), len_k = rng_int(r, 1, 900),
        block_q = ATTN_RAGGED_QUERIES(rng_int(r, 0, 1) ? 64 : 128);
    int32_t *q_at = must(calloc((size_t)(plans * (rows + 1)), 4));
    int32_t *k_at = must(calloc((size_t)(plans * (cols + 1)), 4));
    uint32_t *keep = must(calloc((size_t)(plans * rows * words), 4));
    int chance = rng_int(r, 0, 4);
    for (int p = 0; p < plans; p++) {
        cut(r, q_at + p * (rows + 1), rows, len_q);
        cut(r, k_at + p * (cols + 1), cols, len_k);
    }
    for (int i = 0; i < plans * rows; i++)
        for (int c = 0; c < cols; c++)
            if (rng_int(r, 1, 4) <= chance) keep[i * words + c / 32] |= (uint32_t)1 << (c % 32);
    struct attn_plan b = {.n_heads = heads,
                          .per_head = plans > 1,
                          .q = {.len = len_q, .n = rows, .at = q_at, .stride = rows + 1},
                          .k = {.len = len_k, .n = cols, .at = k_at, .stride = cols + 1},
                          .kept = keep,
                          .may_be_empty = true};
    struct attn_ragged plan;
    size_t n_rows, n_runs;
    CHECK_OK(attn_ragged_size(&n_rows, &n_runs, &b, block_q, &e));
    struct attn_ragged_row *row = must(malloc(n_rows * sizeof *row + 1));
    struct attn_ragged_run *run = must(malloc(n_runs * sizeof *run + 1));
    CHECK_OK(attn_ragged_fill(&plan, row, run, &b, block_q, &e));
    CHECK((size_t)plan.rows == n_rows);
    int *covered = must(calloc((size_t)(heads * len_q), sizeof *covered));
    int *tokens = must(malloc((size_t)len_k * sizeof *tokens));
    int wrong = 0;
    for (size_t i = 0; i < n_rows; i++) {
        int p = plans > 1 ? row[i].head : 0, from = 0;
        int block = block_of(q_at + p * (rows + 1), rows, row[i].q0);
        CHECK(row[i].queries >= 1 && row[i].queries <= block_q);
        for (int q = row[i].q0; q < row[i].q0 + row[i].queries; q++) {
            wrong += block_of(q_at + p * (rows + 1), rows, q) != block;
            covered[row[i].head * len_q + q]++;
        }
        int n = walked(run + row[i].first, row[i].stages, len_k, tokens, len_k);
        for (int k = 0; k < len_k; k++) {
            int c = block_of(k_at + p * (cols + 1), cols, k);
            if (!(keep[(p * rows + block) * words + c / 32] >> (c % 32) & 1)) continue;
            wrong += from >= n || tokens[from] != k;
            from++;
        }
        wrong += from != n || row[i].stages != (n + ATTN_RAGGED_KEYS - 1) / ATTN_RAGGED_KEYS;
        wrong += i > 0 && row[i].late < row[i - 1].late;
    }
    for (int i = 0; i < heads * len_q; i++)
        wrong += covered[i] != 1;
    CHECK_MSG(!wrong, "%d differences: %d x %d blocks of %d x %d tokens", wrong, rows, cols, len_q,
              len_k);
    free(q_at);
    free(k_at);
    free(keep);
    free(row);
    free(run);
    free(covered);
    free(tokens);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    for (int n = 0; n < 300; n++)
        check_plan(&r);
    int32_t bad[3] = {0, 9, 5}, good[2] = {0, 5};
    uint32_t keep[2] = {1, 1};
    struct attn_plan b = {.n_heads = 1,
                          .q = {.len = 5, .n = 2, .at = bad},
                          .k = {.len = 5, .n = 1, .at = good},
                          .kept = keep};
    struct err e = {0};
    size_t rows, runs;
    CHECK(attn_ragged_size(&rows, &runs, &b, 128, &e) < 0 && strstr(e.msg, "do not rise"));
    b.mean = keep;
    CHECK(attn_ragged_size(&rows, &runs, &b, 128, &e) < 0 && strstr(e.msg, "plan.mean"));
    return TEST_RESULT();
}
