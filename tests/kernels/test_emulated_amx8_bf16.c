/* amx8_bf16.c with its instructions done in C: packing, tiling and masking, on any machine. */
#define FLASH_EMULATE
#define attn_amx8_bf16 emulated_amx8_bf16
#include "attention/kernels/amx8_bf16.c"
#include "tests/kernels/attention_low.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_low(&emulated_amx8_bf16, &r, 12, false);
    return TEST_RESULT();
}
