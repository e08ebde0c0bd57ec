/* Which row of a GPU's kernels each method gets, by its own sizes and needs and without a GPU: matrix units on Hopper
 * in bf16, something everywhere. */
#include "attention/kernels/cuda/device_cuda.h"
#include "attention/room.h"
#include "tests/check.h"

static const struct attn_shape shape = {.n_heads = 3,
                                        .head_dim = 64,
                                        .grid_t = 5,
                                        .grid_h = 16,
                                        .grid_w = 16,
                                        .n_layers = 2,
                                        .n_branches = 2,
                                        .n_steps = 20};

static const char *row_of(int arch, const struct attn_size *size, enum precision precision)
{
    static struct err e;
    struct attn_size s = *size;
    e = (struct err){0};
    s.precision = precision;
    s.needs |= ATTN_NEED_DEVICE | (precision == PRECISION_FP32 ? 0 : ATTN_NEED_BF16);
    s.needs &= ~(unsigned)(ATTN_NEED_LOW | ATTN_NEED_PREC); /* codes: test_cuda_device */
    const struct attn_device_kernel *k = attn_cuda_pick(arch, &s, NULL, &e);
    if (!k) return e.msg;
    CHECK_MSG(s.rows == 0 || k->plan_bytes(&s, 3, 3) <= 3 * k->plan_bytes(&s, 1, 1),
              "%s: three plans take more than thrice one", k->name);
    return k->name;
}

static bool is_row(const char *text)
{
    static const char *const rows[] = {"sm90", "sm80", "tf32", "simt", "every"};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(text, rows[i]) == 0) return true;
    return false;
}

static void check_stack(const char *stack)
{
    struct err e = {0};
    struct attn *a = NULL;
    struct arena count = {0}, arena = {0};
    struct attn_params p = {.method = stack, .precision = PRECISION_BF16, .threads = 1};
    cpu_detect(&p.cpu);
    CHECK_OK(attn_open(&a, &p, &shape, &count, &e));
    CHECK_OK(arena_open(&arena, count.used, &e));
    CHECK_OK(attn_open(&a, &p, &shape, &arena, &e));
    if (a) {
        const char *hopper = row_of(90, &a->size, PRECISION_BF16);
        CHECK_MSG(strcmp(hopper, "sm90") == 0 || strcmp(hopper, "sm80") == 0, "%s on sm_90: %s",
                  stack, hopper);
        printf("%-24s %s", stack, hopper);
        for (int i = 0; i < 3; i++) {
            const char *row =
                row_of(i ? 80 : 90, &a->size, i == 1 ? PRECISION_BF16 : PRECISION_FP32);
            CHECK_MSG(is_row(row), "%s: %s", stack, row);
            printf(" %s", row);
        }
        printf("\n");
    }
    attn_close(a);
    arena_close(&arena);
}

int main(void)
{
    static const char *const stacks[] = {"tile+resid:every=5", "svg1+resid:every=5", "lite+tile",
                                         "svg2+haste"};
    for (int i = 0; i < attn_methods(); i++)
        check_stack(attn_method_info(i).name);
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++)
        check_stack(stacks[i]);
    return TEST_RESULT();
}
