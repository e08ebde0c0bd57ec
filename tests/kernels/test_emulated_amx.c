/* amx.c with its instructions done in C: packing, tiling and masking checked on any machine. */
#define FLASH_EMULATE
#define attn_amx emulated_amx
#include "attention/kernels/amx.c"
#include "tests/kernels/attention_checks.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_kernel(&emulated_amx, &r, 20);
    return TEST_RESULT();
}
