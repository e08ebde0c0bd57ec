/* amx8_f32.c with its instructions done in C: packing, tiling and masking, on any machine. */
#define FLASH_EMULATE
#define attn_amx8_f32 emulated_amx8_f32
#include "attention/kernels/amx8_f32.c"
#include "tests/kernels/attention_low.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_low(&emulated_amx8_f32, &r, 12, false);
    return TEST_RESULT();
}
