/* Every attention kernel that this processor can run, on random, ragged and adversarial problems.
 * Prints which rows were skipped, so that the same executable tells the whole story on a larger
 * machine.
 * --problems N asks for more, --seed N for others. */
#include "tests/kernels/attention_checks.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    struct cpu cpu;
    int problems = 60, ran = 0;
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--problems") == 0) problems = atoi(argv[i + 1]);
    cpu_detect(&cpu);
    printf("processor level %s\n", cpu_level_name(cpu.level));
    for (int i = 0; i < attn_kernel_rows(); i++) {
        const struct attn_kernel *k = attn_kernel_row(i);
        if (k->needs > cpu.level) {
            printf("%s: skipped, needs %s\n", k->name, cpu_level_name(k->needs));
            continue;
        }
        struct test_rng own = r; /* the same problems for each */
        check_kernel(k, &own, problems);
        ran++;
    }
    CHECK(ran >= 1);
    return TEST_RESULT();
}
