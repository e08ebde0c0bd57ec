/* amx8_s8.c with its instructions done in C: packing, tiling and masking, on any machine. */
#define FLASH_EMULATE
#define attn_amx8_s8 emulated_amx8_s8
#include "attention/kernels/amx8_s8.c"
#include "tests/kernels/attention_low.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_low(&emulated_amx8_s8, &r, 12, true);
    return TEST_RESULT();
}
