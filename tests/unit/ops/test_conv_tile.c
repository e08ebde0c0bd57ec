/* Which instance of the GPU's convolution takes a shape, and what it needs. No GPU: nothing is
 * launched. */
#include "model/ops/cuda/frames/conv_cuda.h"
#include "tests/check.h"

#define H200 232448 /* bytes of shared memory a block may ask for */
#define A100 166912
#define RTX 101376

static struct conv_cuda shape(int in, int out, int kt, int ks)
{
    return (struct conv_cuda){.in = in,
                              .out = out,
                              .kt = kt,
                              .ks = ks,
                              .stride = 1,
                              .step = 1,
                              .h = 8,
                              .w = 8,
                              .frames = 1};
}

static void check_pick(struct conv_cuda c, size_t shared, int columns, int depth)
{
    struct err e = {0};
    struct conv_tile t = {0};
    CHECK_OK(conv_tile_pick(&t, &c, shared, &e));
    CHECK_MSG(t.columns == columns && t.depth == depth && t.shared <= shared,
              "%d to %d channels: %d columns, %d deep, %zu bytes; wanted %d and %d within %zu",
              c.in, c.out, t.columns, t.depth, t.shared, columns, depth, shared);
}

static void check_refused(struct conv_cuda c, const char *words)
{
    struct err e = {0};
    struct conv_tile t;
    CHECK(conv_tile_pick(&t, &c, H200, &e) < 0);
    CHECK_MSG(e.code == ERR_BUG && strstr(e.msg, words), "%s", e.msg);
}

int main(void)
{
    struct err e = {0};
    struct conv_tile t;
    struct conv_cuda c = shape(96, 96, 3, 3);
    check_pick(c, H200, 96, 32);
    check_pick(c, A100, 96, 32);
    check_pick(c, RTX, 32, 32); /* three blocks of columns, none of them wasted */
    c = shape(384, 384, 3, 3);
    check_pick(c, H200, 128, 32);
    check_pick(c, A100, 96, 32);
    check_pick(shape(96, 3, 3, 3), H200, 32, 32);
    check_pick(shape(384, 1152, 1, 1), H200, 128, 32);
    check_pick(shape(24, 48, 3, 3), H200, 32, 32);
    check_pick(shape(1024, 1024, 3, 3), H200, 128, 32);
    c = shape(96, 96, 1, 3);
    c.stride = 2;
    check_pick(c, H200, 96, 16);
    CHECK(conv_tile_pick(&t, &c, 1024, &e) < 0);
    CHECK_MSG(e.code == ERR_DEVICE && strstr(e.msg, "this card has 1024") &&
                  strstr(e.msg, "--device cpu"),
              "%s", e.msg);
    check_refused(shape(0, 8, 3, 3), "0 to 8 channels");
    check_refused(shape(8, 8, 2, 3), "2x3x3");
    check_refused(shape(8, 8, 3, 5), "3x5x5");
    c = shape(8, 8, 1, 1);
    c.up = true;
    check_refused(c, "1x1x1");
    c = shape(8, 8, 1, 1);
    c.stride = 2;
    check_refused(c, "stride 2");
    c = shape(8, 8, 3, 3);
    c.frames = CONV_CUDA_FRAMES + 1;
    check_refused(c, "17 frames");
    c.frames = 9;
    c.step = 2; /* reads 19 frames */
    check_refused(c, "9 frames");
    return TEST_RESULT();
}
