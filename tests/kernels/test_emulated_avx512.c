/* avx512.c with its instructions done in C: packing, tiling and masking checked on any machine. */
#define FLASH_EMULATE
#define attn_avx512 emulated_avx512
#include "attention/kernels/avx512.c"
#include "tests/kernels/attention_checks.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_kernel(&emulated_avx512, &r, 20);
    return TEST_RESULT();
}
