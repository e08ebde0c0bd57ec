/* vnni_f32.c with its instructions done in C: packing, tiling and masking, on any machine. */
#define FLASH_EMULATE
#define attn_vnni_f32 emulated_vnni_f32
#include "attention/kernels/vnni_f32.c"
#include "tests/kernels/attention_low.h"

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    check_low(&emulated_vnni_f32, &r, 20, false);
    return TEST_RESULT();
}
