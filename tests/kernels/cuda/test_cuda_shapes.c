/* What the host says about Hopper's kernels is what was compiled: tile, threads, shared memory. No
 * GPU: nothing is launched. */
#include "attention/kernels/cuda/attn_cuda.h"
#include "tests/check.h"

static void check_pick(int dim, int block_q, int block_k)
{
    static _Alignas(16) char memory[16];
    struct err e = {0};
    struct attn_tile said, compiled;
    struct attn_tensor x = {memory, dim, dim};
    struct attn_lists l = {
        .rows = 1, .cols = 1, .block_q = block_q, .block_k = block_k, .n_plans = 1, .words = 1};
    struct attn_cuda w = {.q = x,
                          .k = x,
                          .v = x,
                          .o = x,
                          .len_q = 1,
                          .len_k = 1,
                          .n_heads = 1,
                          .head_dim = dim,
                          .lists = block_q ? &l : NULL,
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
    printf("%s d%d: %d x %d, %d stages, %d threads, %zu bytes, %d a processor\n", said.kernel, dim,
           said.block_q, said.block_k, said.stages, said.threads, said.shared, said.blocks_per_sm);
}

int main(void)
{
    for (int dim = 64; dim <= 128; dim += 64) {
        check_pick(dim, 0, 0);
        check_pick(dim, 128, 128);
        check_pick(dim, 64, 64);
    }
    return TEST_RESULT();
}
