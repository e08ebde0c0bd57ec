/* What the host says about Hopper's kernels is what was compiled: tile, threads, shared memory. No
 * GPU: nothing is launched. */
#include "attention/kernels/cuda/attn_cuda.h"
#include "tests/check.h"

/* Returns the number of the variant. full: a plan with mean tiles. */
static int check_pick(int dim, int block_q, int block_k, bool full)
{
    static _Alignas(16) char memory[16];
    struct err e = {0};
    struct attn_tile said, compiled;
    struct attn_tensor x = {memory, dim, dim};
    static const uint32_t bits[1];
    struct attn_lists l = {.rows = 1,
                           .cols = 1,
                           .block_q = block_q,
                           .block_k = block_k,
                           .n_plans = 1,
                           .words = 1,
                           .mean = full ? bits : NULL};
    struct attn_cuda w = {.q = x,
                          .k = x,
                          .v = x,
                          .o = x,
                          .len_q = 1,
                          .len_k = 1,
                          .n_heads = 1,
                          .head_dim = dim,
                          .lists = block_q ? &l : NULL,
                          .k_mean = x,
                          .v_mean = x,
                          .scratch = memory};
    int variant = 0;
    CHECK_OK(attn_tile_pick(&said, ATTN_SM90, &w, &e));
    while (attn_sm90_variant(variant, NULL) && !attn_sm90_takes(&w, variant))
        variant++;
    CHECK(attn_sm90_variant(variant, &compiled) != NULL);
    CHECK_STR(said.kernel, compiled.kernel);
    CHECK_MSG(
        said.head_dim == compiled.head_dim && said.block_q == compiled.block_q &&
            said.block_k == compiled.block_k && said.stages == compiled.stages &&
            said.threads == compiled.threads && said.blocks_per_sm == compiled.blocks_per_sm &&
            said.shared == compiled.shared,
        "%s d%d: said %d x %d, %d stages, %d threads, %zu bytes; compiled %d x %d, %d, %d, %zu",
        said.kernel, dim, said.block_q, said.block_k, said.stages, said.threads, said.shared,
        compiled.block_q, compiled.block_k, compiled.stages, compiled.threads, compiled.shared);
    printf("%s d%d%s: %d x %d, %d stages, %d threads, %zu bytes, %d a processor\n", said.kernel,
           dim, full ? " with means" : "", said.block_q, said.block_k, said.stages, said.threads,
           said.shared, said.blocks_per_sm);
    l.mean = NULL;
    w.alive = full ? (void *)memory : NULL;
    CHECK_MSG(attn_sm90_takes(&w, variant), "%s d%d: another instance for a call that %s",
              said.kernel, dim, full ? "records" : "does not record");
    return variant;
}

/* Blocks of any length: what the kernels do not take is refused before anything is launched. */
static void check_refusals(void)
{
    static _Alignas(16) char memory[16];
    struct err e = {0};
    struct attn_tensor x = {memory, 128, 128};
    struct attn_lists l = {
        .rows = 1, .cols = 1, .block_q = 128, .block_k = 128, .n_plans = 1, .words = 1};
    struct attn_cuda w = {.q = x,
                          .k = x,
                          .v = x,
                          .o = x,
                          .len_q = 1,
                          .len_k = 1,
                          .n_heads = 1,
                          .head_dim = 128,
                          .scratch = memory};
    struct attn_ragged r = {.rows = 1, .block_q = 192};
    CHECK(attn_ragged_sm90(&w, &r, &e) < 0 && strstr(e.msg, "of 128 for heads of 128"));
    r.block_q = 128;
    w.len_k = 1 << 20;
    w.v.token = 1 << 15;
    CHECK(attn_ragged_sm90(&w, &r, &e) < 0 && strstr(e.msg, "too far"));
    w.lists = &l;
    CHECK(attn_ragged_sm90(&w, &r, &e) < 0 && strstr(e.msg, "no lists"));
}

int main(void)
{
    check_refusals();
    for (int dim = 64; dim <= 128; dim += 64) {
        check_pick(dim, 0, 0, false);
        for (int block = 128; block >= 64; block -= 64)
            CHECK(check_pick(dim, block, block, false) != check_pick(dim, block, block, true));
    }
    return TEST_RESULT();
}
