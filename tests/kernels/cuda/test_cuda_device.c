/* Which attention a GPU takes for a call, decided without one; and a plan put where a launch reads it. */
#include "tests/check.h"

#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/device_cuda.h"
#include "attention/kernels/cuda/sage_cuda.h"

static const struct attn_size bf16 = {.len_q = 300,
                                      .len_k = 300,
                                      .n_heads = 2,
                                      .head_dim = 64,
                                      .rows = 3,
                                      .cols = 3,
                                      .block_q = 128,
                                      .block_k = 128,
                                      .precision = PRECISION_BF16,
                                      .needs = ATTN_NEED_PLANES};

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

/* 8-bit products: the row that has them, whatever else it is asked for; refused in its own words. */
static void codes_picked(struct attn_size codes)
{
    struct attn_size run = codes, small = codes, other = codes, mean = codes, fp32 = codes,
                     odd = codes, dense = codes;
    struct err e = {0};
    run.needs |= ATTN_NEED_PREC; /* values as the run's under codes of q and k */
    small.block_q = small.block_k = 64;
    other.needs |= ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8;
    mean.needs |= ATTN_NEED_MEAN;
    fp32.precision = PRECISION_FP32;
    odd.head_dim = 96;
    picked(90, codes, NULL, "sage");
    picked(90, other, NULL, "sage");
    picked(90, bf16, "sage", "sage"); /* does all of sm90's */
    refused(80, codes, NULL, ERR_DEVICE, "sage is not for this card");
    refused(120, codes, NULL, ERR_DEVICE, "sage is not for this card");
    refused(90, fp32, NULL, ERR_DEVICE, "bf16 alone");
    refused(90, odd, NULL, ERR_USAGE, "64 or 128");
    refused(90, small, NULL, ERR_USAGE, "128 x 128 tokens, not 64 x 64");
    refused(90, mean, NULL, ERR_DEVICE, "sage cannot do plan.mean");
    refused(90, run, NULL, ERR_DEVICE, "pv=fp8");
    refused(90, codes, "sm90", ERR_DEVICE, "sm90 cannot do plan.qk int8");
    /* where it pays by itself: long and dense, of 128 channels */
    const struct attn_device_kernel *k = attn_cuda_pick(90, &codes, NULL, &e);
    unsigned both = ATTN_NEED_QK_INT8 | ATTN_NEED_PV_FP8;
    dense.needs &= ~(unsigned)ATTN_NEED_PLANES, dense.block_q = dense.block_k = 64;
    picked(90, dense, NULL, "sage"); /* blocks are nobody's where every tile is kept */
    dense.len_q = dense.len_k = 32760, dense.head_dim = 128;
    CHECK(k && k->pays(&codes) == 0 && k->pays(&dense) == both);
    dense.head_dim = 64;
    CHECK(k && k->pays(&dense) == 0);
    dense.head_dim = 128, dense.len_k = 2304;
    CHECK(k && k->pays(&dense) == 0);
}

/* Codes lie in the scratch of a call, behind what every launch has, and fit it whatever is asked. */
static void codes_in_scratch(void)
{
    static const enum attn_prec qks[] = {ATTN_PREC_INT8, ATTN_PREC_INT4, ATTN_PREC_RUN},
                                pvs[] = {ATTN_PREC_FP8, ATTN_PREC_INT8, ATTN_PREC_RUN};
    struct attn_size s = {.len_q = 1000, .len_k = 900, .n_heads = 3, .head_dim = 128};
    size_t bytes = sage_scratch(&s);
    char *scratch = aligned_alloc(256, (bytes + 255) / 256 * 256);
    for (int i = 0; i < 18; i++) {
        struct attn_plan plan = {.all = true, .qk = qks[i % 3], .pv = pvs[i / 3 % 3]};
        struct attn_job j = {.q = {.len = 1000 - i, .n = 3 - i % 3, .dim = 128},
                             .k = {.len = i < 9 ? 900 : 1, .n = 3 - i % 3, .dim = 128},
                             .plan = &plan,
                             .scratch = scratch};
        struct quant_codes c;
        struct err e = {0};
        plan.codes = (struct attn_codes){.smooth_k = i & 1, .rotate = i & 2};
        int rc = sage_codes(&c, &j, &e);
        if (plan.qk == ATTN_PREC_RUN || plan.pv == ATTN_PREC_RUN) {
            CHECK(rc < 0 && e.code == ERR_DEVICE && strstr(e.msg, "codes of q and k"));
            continue;
        }
        CHECK_OK(rc);
        CHECK(c.how.bits == (plan.qk == ATTN_PREC_INT4 ? 4 : 8) &&
              (c.how.values == QUANT_S8) == (plan.pv == ATTN_PREC_INT8) &&
              c.how.smooth_k == plan.codes.smooth_k && c.how.rotate == plan.codes.rotate);
        size_t partial = (size_t)c.n_heads * (size_t)quant_chunks(c.len_k) * 2 * 128 * 4;
        CHECK((char *)c.q >= scratch + attn_cuda_scratch() && (uintptr_t)c.q % 256 == 0 &&
              (char *)c.partial + partial <= scratch + bytes); /* the last of them */
        memset(c.partial, 0, partial);
        plan.codes.smooth_q = true;
        CHECK(sage_codes(&c, &j, &e) < 0 && e.code == ERR_DEVICE);
    }
    free(scratch);
}

static void picks(void)
{
    struct attn_size biased = bf16, fp32 = bf16, odd = bf16, wide = bf16, mean = bf16, small = bf16,
                     narrow = bf16, codes = bf16, moved = bf16, ragged = bf16, chosen = bf16;
    biased.needs |= ATTN_NEED_KEY_BIAS;
    fp32.precision = PRECISION_FP32;
    odd.head_dim = 48;
    wide.head_dim = 256;
    mean.needs |= ATTN_NEED_MEAN;
    small.block_q = small.block_k = 48;
    narrow.block_k = 64;
    codes.needs |= ATTN_NEED_QK_INT8 | ATTN_NEED_PV_FP8;
    moved.needs |= ATTN_NEED_Q_ORDER | ATTN_NEED_K_ORDER | ATTN_NEED_HEADS |
                   ATTN_NEED_MAKE_RESIDUAL | ATTN_NEED_ADD_RESIDUAL | ATTN_NEED_LSE |
                   ATTN_NEED_ALIVE | ATTN_NEED_WALK;
    ragged.needs |= ATTN_NEED_BLOCKS | ATTN_NEED_COLUMNS;
    ragged.block_q = ragged.block_k = 0;
    chosen.needs |= ATTN_NEED_SOL;
    picked(90, bf16, NULL, "sm90");
    picked(80, bf16, NULL, "sm80");
    picked(89, bf16, NULL, "sm80");
    picked(120, bf16, NULL, "sm80");
    picked(90, biased, NULL, "sm80");
    picked(90, fp32, NULL, "tf32");
    picked(80, fp32, NULL, "tf32");
    picked(90, fp32, "simt", "simt");
    refused(90, bf16, "tf32", ERR_DEVICE, "fp32 alone");
    fp32.head_dim = 6;
    picked(90, fp32, NULL, "simt");
    refused(90, fp32, "tf32", ERR_USAGE, "multiple of 4");
    fp32.head_dim = 128;
    picked(90, odd, NULL, "simt");
    picked(90, bf16, "sm80", "sm80");
    picked(90, bf16, "simt", "simt");
    refused(80, bf16, "sm90", ERR_DEVICE, "sm_80");
    refused(90, bf16, "avx512", ERR_USAGE, "no attention kernel avx512");
    picked(90, mean, NULL, "sm90");
    picked(80, mean, NULL, "sm80");
    picked(90, wide, NULL, "every");
    picked(90, small, NULL, "sm90"); /* by runs of keys */
    picked(80, small, NULL, "every"); /* tiles that no faster one has */
    picked(90, moved, NULL, "sm90");
    picked(80, moved, NULL, "sm80");
    picked(90, ragged, NULL, "sm90");
    picked(80, ragged, NULL, "every");
    ragged.needs |= ATTN_NEED_MEAN;
    picked(90, ragged, NULL, "every");
    refused(90, ragged, "sm90", ERR_USAGE, "count by their mean");
    refused(90, chosen, "sm90", ERR_DEVICE, "sol_tau");
    picked(90, chosen, NULL, "every");
    refused(90, moved, "simt", ERR_DEVICE, "q_order");
    picked(90, narrow, NULL, "sm80");
    narrow.block_q = 64;
    picked(90, narrow, NULL, "sm90");
    picked(80, narrow, NULL, "sm80");
    narrow.block_k = 128;
    picked(80, narrow, NULL, "sm80");
    picked(90, bf16, "every", "every");
    refused(90, small, "sm80", ERR_USAGE, "48 x 48");
    refused(90, small, "simt", ERR_USAGE, "128 or 64 x 128 or 64");
    codes_picked(codes);
    wide.head_dim = 257;
    refused(90, wide, NULL, ERR_USAGE, "257");
    refused(90, fp32, "sm90", ERR_DEVICE, "bf16");
}

/* A band of tiles of 128, put into memory of the host's device: the words of attn_lists_fill() but for steps,
 * whose bits are there. */
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
    for (int row = 0; row < 3; row++) /* the diagonal */
        CHECK(at[128 + row] == 1u << row && steps[row] == (uint32_t)row);
    CHECK_OK(attn_blocks_equal(&plan.q, 300, 16, &e)); /* 19 x 19 tiles in room for 3 x 3 */
    CHECK_OK(attn_blocks_equal(&plan.k, 300, 16, &e));
    CHECK(k->put(d, at, &plan, &bf16, &e) < 0 && e.code == ERR_BUG);
    device_close(d);
    free(at);
}

/* Which plans a card makes itself, and in how much memory; by which it is known before the run. */
static void plans_made(void)
{
    struct attn_size s = bf16, odd = bf16, by_runs = bf16, means = bf16, large = bf16;
    const struct attn_making k = {.runs = 1, .k = 1}, four = {.runs = 4, .k = 1},
                             eight = {.runs = 8, .k = 1},
                             most = {.pool = ATTN_POOL_MAX, .runs = 4, .k = 1};
    struct err e = {0};
    const struct attn_device_kernel *sm90 = attn_cuda_pick(90, &bf16, "sm90", &e),
                                    *every = attn_cuda_pick(90, &bf16, "every", &e);
    CHECK(sm90 && sm90->planner && every && !every->planner);
    if (!sm90 || !sm90->planner) return;
    size_t one = sm90->planner->scratch(&s, &k), runs = sm90->planner->scratch(&s, &four);
    size_t pools = 2 * 2 * 3 * 64 * 4; /* two sides, two heads, three blocks */
    CHECK(one >= pools + 2 * 9 * 4 && runs >= one + 3 * pools - 512 &&
          runs <= one + 3 * pools + 512);
    odd.head_dim = 40;
    by_runs.block_q = by_runs.block_k = 48;
    means.needs |= ATTN_NEED_MEAN;
    large.rows = large.cols = 2049;
    CHECK(!sm90->planner->scratch(&odd, &k) && !sm90->planner->scratch(&by_runs, &k));
    CHECK(!sm90->planner->scratch(&means, &k) && !sm90->planner->scratch(&large, &k));
    CHECK(!sm90->planner->scratch(&s, &eight) && !sm90->planner->scratch(&s, &most));
    large.rows = large.cols = 2048;
    CHECK(sm90->planner->scratch(&large, &k) > 100 * one);
    struct attn_plan p = {.n_heads = 2, .per_head = true};
    CHECK_OK(attn_blocks_equal(&p.q, 300, 128, &e));
    CHECK_OK(attn_blocks_equal(&p.k, 300, 128, &e));
    CHECK(sm90->planner->kept_at(&p, &s) == 512); /* behind offsets and the order of starting */
}

int main(void)
{
    picks();
    plans_made();
    codes_in_scratch();
    a_plan();
    return TEST_RESULT();
}
