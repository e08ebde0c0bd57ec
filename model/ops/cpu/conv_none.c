/* conv.h in builds without oneDNN: there are none, and conv3d_available() says so. */
#include "model/ops/conv.h"

bool conv3d_available(bool bf16) { return (void)bf16, false; }

size_t conv3d_packed_bytes(const struct conv3d_params *p) { return (void)p, (size_t)0; }

int conv3d_open(struct conv3d **c, const struct conv3d_params *p, const void *weight, void *packed,
                struct err *e)
{
    (void)p, (void)weight, (void)packed;
    *c = NULL;
    return err_set(e, ERR_DEVICE, "this build has no oneDNN convolutions");
}

void conv3d_close(struct conv3d *c) { (void)c; }

size_t conv3d_scratch_bytes(const struct conv3d_params *p) { return (void)p, (size_t)0; }

int conv3d_run(struct conv3d *c, float *y, const void *x, void *scratch, struct err *e)
{
    (void)c, (void)y, (void)x, (void)scratch;
    return err_set(e, ERR_BUG, "a convolution that was never opened");
}
