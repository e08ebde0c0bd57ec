/* Kernels over codes that this processor can run, row by row, against the judge; --problems N asks
 * for more, --seed N for others. */
#include "tests/kernels/attention_low.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    struct cpu cpu;
    int problems = 60, ran = 0;
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--problems") == 0) problems = atoi(argv[i + 1]);
    cpu_detect(&cpu);
    for (int i = 0; i < attn_kernel_rows(); i++) {
        const struct attn_kernel *k = attn_kernel_row(i);
        if (!(k->can & ATTN_NEED_QK_INT8)) continue;
        if (k->needs > cpu.level) {
            printf("%s: skipped, needs %s\n", k->name, cpu_level_name(k->needs));
            continue;
        }
        struct test_rng own = r;
        check_low(k, &own, problems, false);
        ran++;
    }
    CHECK(ran >= 1);
    return TEST_RESULT();
}
