/* Masks: encodings name the same set, runs are the longest possible, broken plans are found. */
#include "attention/block_mask.h"
#include "tests/check.h"

struct plan {
    const struct block_mask *m;
    bool *keep;
};

static bool keep(void *ctx, int plan, int row, int col)
{
    const struct plan *p = ctx;
    return p->keep[((size_t)plan * (size_t)p->m->rows + (size_t)row) * (size_t)p->m->cols +
                   (size_t)col];
}

static void open_mask(struct block_mask *m, struct arena *a, int lq, int lk, int bq, int bk,
                      int plans)
{
    struct arena count = {0};
    struct err e = {0};
    CHECK_OK(block_mask_init(m, lq, lk, bq, bk, plans, &count, &e));
    CHECK_OK(arena_open(a, count.used, &e));
    CHECK_OK(block_mask_init(m, lq, lk, bq, bk, plans, a, &e));
}

/* The walk against the question asked tile by tile. */
static void check_runs(const struct block_mask *m)
{
    for (int p = 0; p < m->n_plans; p++) {
        for (int i = 0; i < m->rows; i++) {
            int at = 0; /* first key not yet accounted for */
            bool ok = true;
            for (struct block_run r = block_run_begin(m, p, i); block_run_next(&r);) {
                ok = ok && r.k0 >= at && r.k1 > r.k0 && r.k1 <= m->len_k && (r.k0 > at || at == 0);
                for (int j = at; ok && j < r.k0; j++)
                    ok = !block_mask_kept(m, p, i, j / m->block_k);
                for (int j = r.k0; ok && j < r.k1; j++)
                    ok = block_mask_kept(m, p, i, j / m->block_k);
                at = r.k1;
            }
            for (int j = at; ok && j < m->len_k; j++)
                ok = !block_mask_kept(m, p, i, j / m->block_k);
            CHECK_MSG(ok, "map %d, plan %d, row %d of %d", (int)m->map, p, i, m->rows);
        }
    }
}

static void test_encodings(struct test_rng *r)
{
    static const enum block_map maps[] = {BLOCK_MAP_BITS, BLOCK_MAP_RANGES, BLOCK_MAP_LIST};
    for (int n = 0; n < 200; n++) {
        struct block_mask m;
        struct arena a;
        struct err e = {0};
        open_mask(&m, &a, rng_int(r, 1, 300), rng_int(r, 1, 900), rng_int(r, 1, 130),
                  rng_int(r, 1, 130), rng_int(r, 1, 3));
        size_t tiles = (size_t)m.n_plans * (size_t)m.rows * (size_t)m.cols;
        struct plan p = {&m, calloc(tiles, sizeof(bool))};
        double chance = rng_unit(r) * 1.2, kept = 0;
        bool empty_row = false;
        for (size_t i = 0; i < tiles; i++)
            p.keep[i] = rng_unit(r) < chance;
        for (int pl = 0; pl < m.n_plans; pl++) {
            for (int i = 0; i < m.rows; i++) {
                int any = 0;
                for (int j = 0; j < m.cols; j++) {
                    if (!keep(&p, pl, i, j)) continue;
                    int q1 = (i + 1) * m.block_q < m.len_q ? (i + 1) * m.block_q : m.len_q;
                    int k1 = (j + 1) * m.block_k < m.len_k ? (j + 1) * m.block_k : m.len_k;
                    kept += (double)(q1 - i * m.block_q) * (k1 - j * m.block_k);
                    any = 1;
                }
                empty_row = empty_row || !any;
            }
        }
        for (size_t k = 0; k < ARRAY_LEN(maps); k++) {
            CHECK_OK(block_mask_build(&m, maps[k], keep, &p, &e));
            bool same = true;
            for (int pl = 0; pl < m.n_plans; pl++)
                for (int i = 0; i < m.rows; i++)
                    for (int j = 0; j < m.cols; j++)
                        same = same && block_mask_kept(&m, pl, i, j) == keep(&p, pl, i, j);
            CHECK(same);
            check_runs(&m);
            CHECK(block_mask_check(&m, &e) == (empty_row ? -1 : 0));
            if (empty_row) CHECK(e.code == ERR_BUG && strstr(e.msg, "keeps nothing"));
            double want = kept / ((double)m.n_plans * m.len_q * m.len_k);
            CHECK(fabs(block_mask_density(&m) - want) < 1e-12);
        }
        CHECK_OK(block_mask_build(&m, BLOCK_MAP_DENSE, NULL, NULL, &e));
        check_runs(&m);
        CHECK(block_mask_density(&m) == 1);
        free(p.keep);
        arena_close(&a);
    }
}

static void test_band(void)
{
    static const int sizes[][4] = {{2304, 2304, 128, 128}, {300, 300, 64, 32}, {300, 300, 32, 64},
                                   {7, 7, 128, 128},       {500, 90, 32, 32},  {90, 500, 32, 32}};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        for (int tiles = 0; tiles < 20; tiles += 3) {
            struct block_mask m;
            struct arena a;
            struct err e = {0};
            open_mask(&m, &a, sizes[s][0], sizes[s][1], sizes[s][2], sizes[s][3], 2);
            CHECK_OK(block_mask_band(&m, tiles, &e));
            CHECK_OK(block_mask_check(&m, &e));
            check_runs(&m);
            bool ok = true;
            for (int i = 0; i < m.rows; i++) {
                int first = i * m.block_q,
                    last = first + m.block_q < m.len_q ? first + m.block_q - 1 : m.len_q - 1;
                int lo = first / m.block_k,
                    hi = last / m.block_k; /* tiles of the row's own tokens */
                if (lo >= m.cols) lo = m.cols - 1;
                for (int j = 0; j < m.cols; j++)
                    ok = ok && block_mask_kept(&m, 1, i, j) == (j >= lo - tiles && j <= hi + tiles);
                if (m.block_q == m.block_k && m.len_q == m.len_k)
                    for (int j = 0; j < m.cols; j++)
                        ok = ok && block_mask_kept(&m, 0, i, j) == (abs(i - j) <= tiles);
            }
            CHECK_MSG(ok, "size %zu, %d tiles", s, tiles);
            arena_close(&a);
        }
    }
}

static void test_broken(void)
{
    struct block_mask m, fixed;
    struct arena a;
    struct err e = {0};
    open_mask(&m, &a, 256, 300, 128, 100, 1); /* 2 x 3 tiles */
    m.map = BLOCK_MAP_LIST;
    memcpy(m.row_ptr, (uint32_t[]){0, 2, 3}, 3 * sizeof(uint32_t));
    memcpy(m.tiles, (uint16_t[]){0, 2, 1}, 3 * sizeof(uint16_t));
    CHECK_OK(block_mask_check(&m, &e));
    m.tiles[1] = 3;
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "past the last"));
    m.tiles[1] = 0;
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "ascend"));
    m.tiles[1] = 2;
    m.row_ptr[1] = 9; /* more than the arrays hold */
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "out of order"));
    m.row_ptr[1] = 0;
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "keeps nothing"));
    m.row_ptr[0] = 1;
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "start at 0"));
    memcpy(m.row_ptr, (uint32_t[]){0, 2, 4000000000u}, 3 * sizeof(uint32_t));
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "out of order"));
    m.map = BLOCK_MAP_RANGES;
    memcpy(m.row_ptr, (uint32_t[]){0, 1, 2}, 3 * sizeof(uint32_t));
    memcpy(m.tiles, (uint16_t[]){0, 3, 1, 1}, 4 * sizeof(uint16_t));
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "empty range"));
    m.map = BLOCK_MAP_BITS;
    m.bits[0] = 1, m.bits[1] = 8;
    CHECK(block_mask_check(&m, &e) == -1 && strstr(e.msg, "past the last"));
    CHECK(block_mask_band(&m, -1, &e) == -1 && e.code == ERR_BUG);
    arena_close(&a);

    struct arena count = {0};
    CHECK(block_mask_init(&m, 0, 5, 1, 1, 1, &count, &e) == -1 && e.code == ERR_USAGE);
    CHECK(block_mask_init(&m, 5, 5, 0, 1, 1, &count, &e) == -1 && e.code == ERR_USAGE);
    CHECK(block_mask_init(&m, 5, 5, 1, 1, 0, &count, &e) == -1 && e.code == ERR_USAGE);
    CHECK(block_mask_init(&m, 70000, 5, 1, 1, 1, &count, &e) == -1 && e.code == ERR_USAGE);
    CHECK(block_mask_init(&m, 65535, 65535, 1, 1, 2, &count, &e) == -1 && e.code == ERR_USAGE);
    CHECK(count.used == 0);
    CHECK_OK(block_mask_dense(&fixed, 3, 9, &e));
    CHECK_OK(block_mask_check(&fixed, &e));
    check_runs(&fixed);
    CHECK(block_mask_band(&fixed, 1, &e) == -1 && e.code == ERR_BUG);
    CHECK(block_mask_build(&fixed, BLOCK_MAP_LIST, keep, NULL, &e) == -1 && e.code == ERR_BUG);
    CHECK(block_mask_dense(&fixed, 3, 0, &e) == -1 && e.code == ERR_USAGE);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    test_encodings(&r);
    test_band();
    test_broken();
    return TEST_RESULT();
}
