/* Which attention a GPU takes for a call, decided without one; and a plan put where a launch reads it. */
#include "tests/check.h"

#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/device_cuda.h"

static const struct attn_size bf16 = {.len_q = 300,
                                      .len_k = 300,
                                      .n_heads = 2,
                                      .head_dim = 64,
                                      .rows = 3,
                                      .cols = 3,
                                      .block_q = 128,
                                      .block_k = 128,
                                      .precision = PRECISION_BF16};

static void picked(int arch, struct attn_size s, const char *only, const char *name)
{
    struct err e = {0};
    const struct attn_device_kernel *k = attn_cuda_pick(arch, &s, only, &e);
    CHECK_STR(k ? k->name : e.msg, name);
    CHECK_MSG(e.code == ERR_NONE, "a pick that worked says: %s", e.msg);
}

static void refused(int arch, struct attn_size s, const char *only, enum err_code code,
                    const char *word)
{
    struct err e = {0};
    CHECK(attn_cuda_pick(arch, &s, only, &e) == NULL);
    CHECK_MSG(e.code == code && strstr(e.msg, word), "%d: %s; wanted %d with %s", (int)e.code,
              e.msg, (int)code, word);
}

static void picks(void)
{
    struct attn_size biased = bf16, fp32 = bf16, odd = bf16, wide = bf16, mean = bf16, small = bf16,
                     narrow = bf16, codes = bf16;
    biased.needs = ATTN_NEED_KEY_BIAS;
    fp32.precision = PRECISION_FP32;
    odd.head_dim = 48;
    wide.head_dim = 256;
    mean.needs = ATTN_NEED_MEAN;
    small.block_q = small.block_k = 48;
    narrow.block_k = 64;
    codes.needs = ATTN_NEED_QK_INT8;
    picked(90, bf16, NULL, "sm90");
    picked(80, bf16, NULL, "sm80");
    picked(89, bf16, NULL, "sm80");
    picked(120, bf16, NULL, "sm80");
    picked(90, biased, NULL, "sm80");
    picked(90, fp32, NULL, "simt");
    picked(90, odd, NULL, "simt");
    picked(90, bf16, "sm80", "sm80");
    picked(90, bf16, "simt", "simt");
    refused(80, bf16, "sm90", ERR_DEVICE, "sm_80");
    refused(90, bf16, "avx512", ERR_USAGE, "no attention kernel avx512");
    picked(90, mean, NULL, "every");
    picked(90, wide, NULL, "every");
    picked(90, small, NULL, "every"); /* tiles that no faster one has */
    picked(90, narrow, NULL, "sm80");
    picked(90, bf16, "every", "every");
    refused(90, small, "sm90", ERR_USAGE, "48 x 48");
    refused(90, small, "simt", ERR_USAGE, "multiples of 64 x 32");
    refused(90, codes, NULL, ERR_DEVICE, "qk int8");
    wide.head_dim = 257;
    refused(90, wide, NULL, ERR_USAGE, "257");
    refused(90, fp32, "sm90", ERR_DEVICE, "bf16");
}

/* A band of tiles of 128, put into memory of the host's device: the words of attn_lists_fill(). */
static void a_plan(void)
{
    struct err e = {0};
    struct attn_plan plan;
    struct attn_lists_size size;
    struct attn_lists lists;
    struct device *d;
    uint32_t plane[19] = {0}, row_ptr[64], steps[64], order[64];
    const struct attn_device_kernel *k = attn_cuda_pick(90, &bf16, NULL, &e);
    CHECK_OK(attn_plan_dense(&plan, 300, 300, 2, &e));
    CHECK_OK(attn_blocks_equal(&plan.q, 300, 128, &e));
    CHECK_OK(attn_blocks_equal(&plan.k, 300, 128, &e));
    plan.all = false;
    CHECK(attn_plane_size(&plan) <= ARRAY_LEN(plane));
    attn_plane_band(plane, &plan, 0);
    plan.kept = plane;
    CHECK_OK(attn_lists_size(&size, &plan, &e));
    CHECK_OK(attn_lists_fill(&lists, row_ptr, steps, order, NULL, &plan, &e));
    size_t bytes = k->plan_bytes(&bf16, 2, 1);
    uint32_t *at = aligned_alloc(64, (bytes + 63) / 64 * 64);
    CHECK_OK(device_open(&d, "cpu", &e));
    CHECK_OK(k->put(d, at, &plan, &bf16, &e));
    CHECK(memcmp(at, row_ptr, size.row_ptr * 4) == 0);
    CHECK(memcmp(at + 64, order, size.order * 4) == 0); /* parts begin at multiples of 256 bytes */
    CHECK(memcmp(at + 128, steps, size.steps * 4) == 0);
    CHECK_OK(attn_blocks_equal(&plan.q, 300, 16, &e)); /* 19 x 19 tiles in room for 3 x 3 */
    CHECK_OK(attn_blocks_equal(&plan.k, 300, 16, &e));
    CHECK(k->put(d, at, &plan, &bf16, &e) < 0 && e.code == ERR_BUG);
    device_close(d);
    free(at);
}

int main(void)
{
    picks();
    a_plan();
    return TEST_RESULT();
}
