/* vnni_s8.c with its instructions done in C: packing, tiling and masking, on any machine. */
#define FLASH_EMULATE
#define attn_vnni_s8 emulated_vnni_s8
#include "attention/kernels/vnni_s8.c"
#include "tests/kernels/attention_low.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_low(&emulated_vnni_s8, &r, 20, true);
    return TEST_RESULT();
}
