/* What a GPU's row kernels take, decided without one: every width is covered by its shape, and what they
 * cannot do is refused with a sentence. */
#include "tests/check.h"

#include "model/ops/cuda/shape_cuda.h"

static float room[64] __attribute__((aligned(16)));

static void refused(int r, const struct err *e, enum err_code code, const char *word)
{
    CHECK(r < 0);
    CHECK_MSG(e->code == code && strstr(e->msg, word), "%d: %s; wanted %d with \"%s\"",
              (int)e->code, e->msg, (int)code, word);
}

static void shapes(void)
{
    for (int f = 8; f <= CUDA_MOST_FEATURES; f += 8) {
        struct cuda_row_shape s = cuda_row_shape(f);
        CHECK_MSG(256 * s.warps * s.vecs >= f, "%d features: %d warps of %d", f, s.warps, s.vecs);
        CHECK(s.warps == 1 || s.warps == 2 || s.warps == 4 || s.warps == 8);
        CHECK(s.vecs <= 4); /* 32 numbers a thread stay in registers */
    }
    CHECK(cuda_row_shape(1536).warps * cuda_row_shape(1536).vecs * 256 == 1536); /* no idle lane */
}

static struct cuda_norm norm_ok(void)
{
    return (struct cuda_norm){.rows = 4,
                              .features = 16,
                              .type = DTYPE_BF16,
                              .y_type = DTYPE_F32,
                              .add_type = DTYPE_BF16,
                              .x = room,
                              .y = room + 32,
                              .x_row = 16,
                              .y_row = 16,
                              .mods = 1};
}

static void norms(void)
{
    struct err e = {0};
    struct cuda_norm p = norm_ok();
    CHECK_OK(cuda_norm_takes(&p, &e));
    CHECK(cuda_norm_by_eights(&p));
    p.features = 20;
    CHECK_OK(cuda_norm_takes(&p, &e));
    CHECK(!cuda_norm_by_eights(&p)); /* number by number */
    p.features = CUDA_MOST_FEATURES + 8, refused(cuda_norm_takes(&p, &e), &e, ERR_USAGE, "8192");
    p = norm_ok(), p.rows = 0, refused(cuda_norm_takes(&p, &e), &e, ERR_USAGE, "0 rows");
    p = norm_ok(), p.type = DTYPE_F16, refused(cuda_norm_takes(&p, &e), &e, ERR_USAGE, "F16");
    p = norm_ok(), p.y_type = DTYPE_I8, refused(cuda_norm_takes(&p, &e), &e, ERR_USAGE, "I8");
    p = norm_ok(), p.add = room, p.add_type = DTYPE_F16;
    refused(cuda_norm_takes(&p, &e), &e, ERR_USAGE, "sum with F16");
    p = norm_ok(), p.y = NULL, refused(cuda_norm_takes(&p, &e), &e, ERR_BUG, "nothing to do");
    p = norm_ok(), p.add = room, p.y = room,
    refused(cuda_norm_takes(&p, &e), &e, ERR_BUG, "y is x");
    p = norm_ok(), p.scale = room, refused(cuda_norm_takes(&p, &e), &e, ERR_BUG, "pairs");
    p = norm_ok(), p.x_row = 17, p.x = (char *)room + 4;
    CHECK_OK(cuda_norm_takes(&p, &e));
    CHECK(!cuda_norm_by_eights(&p));
    p = norm_ok(), p.x = (char *)room + 4,
    refused(cuda_norm_takes(&p, &e), &e, ERR_BUG, "16 bytes");
    p = norm_ok(), p.scale = p.shift = room, p.mods = 3, p.rows_per_mod = 0;
    refused(cuda_norm_takes(&p, &e), &e, ERR_BUG, "3 sets");
}

static void ropes(void)
{
    struct err e = {0};
    const struct cuda_rope ok = {
        .rows = 2,
        .features = 24,
        .type = DTYPE_F32,
        .n_parts = 1,
        .part = {{.x = room, .y = room, .x_row = 24, .y_row = 24, .y_head = 12}},
        .tokens = 2,
        .turns = 1,
        .head_dim = 12};
    struct cuda_rope p = ok;
    CHECK_OK(cuda_rope_takes(&p, &e));
    p.head_dim = 7, refused(cuda_rope_takes(&p, &e), &e, ERR_USAGE, "heads of 7");
    p = ok, p.n_parts = 4, refused(cuda_rope_takes(&p, &e), &e, ERR_BUG, "4 parts");
    p = ok, p.part[0].turn = true, refused(cuda_rope_takes(&p, &e), &e, ERR_BUG, "angles");
    p = ok, p.turns = 0, refused(cuda_rope_takes(&p, &e), &e, ERR_BUG, "0 turns");
    p = ok, p.head_dim = 8, p.part[0].y_head = 12;
    CHECK_OK(cuda_rope_takes(&p, &e));
    CHECK(!cuda_rope_by_eights(&p));
    p = ok, p.head_dim = 3, p.part[0].y_head = 3; /* no positions: any heads */
    CHECK_OK(cuda_rope_takes(&p, &e));
    p.part[0].turn = true, p.cos_t = p.sin_t = room;
    refused(cuda_rope_takes(&p, &e), &e, ERR_USAGE, "heads of 3");
}

static void others(void)
{
    struct err e = {0};
    struct cuda_grid g = {16, 3, 8, 12, 2, 2, 64};
    CHECK_OK(cuda_grid_takes(&g, &e));
    g.width = 13, refused(cuda_grid_takes(&g, &e), &e, ERR_USAGE, "2 x 2");
    g = (struct cuda_grid){16, 1 << 20, 1 << 10, 12, 2, 2, 64};
    refused(cuda_grid_takes(&g, &e), &e, ERR_USAGE, "31 bits");
    g = (struct cuda_grid){16, 3, 8, 12, 2, 2, 63};
    refused(cuda_grid_takes(&g, &e), &e, ERR_BUG, "rows of 63");
    struct cuda_few f = {.rows = CUDA_FEW_ROWS + 1, .in = 8, .out = 1, .x = room, .weight = room};
    refused(cuda_few_takes(&f, &e), &e, ERR_USAGE, "1 to 64 rows");
    f.rows = 1, f.weight_type = DTYPE_F16;
    refused(cuda_few_takes(&f, &e), &e, ERR_USAGE, "F16");
    struct cuda_map m = {.from = DTYPE_I64, .to = DTYPE_F32};
    refused(cuda_map_takes(&m, &e), &e, ERR_USAGE, "I64");
    m = (struct cuda_map){.from = DTYPE_F8_E4M3, .to = DTYPE_F8_E4M3};
    refused(cuda_map_takes(&m, &e), &e, ERR_USAGE, "F8_E4M3");
    struct cuda_sum s = {.n_terms = CUDA_TERMS + 1};
    refused(cuda_sum_takes(&s, &e), &e, ERR_BUG, "5 terms");
}

int main(void)
{
    shapes();
    norms();
    ropes();
    others();
    return TEST_RESULT();
}
