// Which kernel a convolution of this device is done by, and the norm behind those that cannot make it.
#include "model/ops/cuda/frames/conv_kernels.h"
#include "model/ops/cuda/frames/launch.cuh"

namespace
{

struct Pick {
    bool sm90;
    conv_tile tile; // of sm_80's
    int columns; // of a block
};

int pick(Pick *p, const conv_cuda *c, err *e)
{
    int device = 0, shared = 0, major = 0;
    *p = {};
    if (conv_cuda_check(c, e) < 0) return -1;
    if (!c->bf16) return 0;
    cudaError_t r = cudaGetDevice(&device);
    if (r == cudaSuccess)
        r = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (r == cudaSuccess)
        r = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (launched(r, e, "what this card can") < 0) return -1;
    p->sm90 = major == 9 && c->arch != 80 && conv_takes_sm90(c);
    p->columns = CONV_SM90_COLUMNS;
    if (p->sm90) return 0;
    if (conv_tile_pick(&p->tile, c, static_cast<size_t>(shared), e) < 0) return -1;
    p->columns = p->tile.columns;
    return 0;
}

int run(const Pick &p, const conv_cuda *c, err *e)
{
    if (!c->bf16) return conv_f32(c, e);
    return p.sm90 ? conv_bf16_sm90(c, e) : conv_bf16_sm80(c, &p.tile, e);
}

} // namespace

int conv_cuda_run(const conv_cuda *c, err *e)
{
    Pick p;
    if (pick(&p, c, e) < 0) return -1;
    // a block that makes norms multiplies nothing meanwhile: where there are many blocks a pass behind
    // them is faster (96 channels, 832x480, 8 frames: 5.49 ms against 5.97), else a launch is saved
    const bool many =
        static_cast<int64_t>(conv_cuda_h(c)) * conv_cuda_w(c) * c->frames * c->out > 1 << 25;
    if (!c->norm[0] || (c->bf16 && !many && c->out <= p.columns)) return run(p, c, e);
    conv_cuda sums = *c; // y, and then its norm: in place where only that is wanted
    for (int i = 0; i < c->frames; i++) {
        if (!c->y[i]) sums.y[i] = c->norm[i];
        sums.norm[i] = nullptr;
    }
    if (run(p, &sums, e) < 0) return -1;
    pixel_norm n = {};
    n.y = c->norm;
    n.x = const_cast<const void *const *>(sums.y);
    n.frames = c->frames;
    n.channels = c->out;
    n.n = static_cast<size_t>(conv_cuda_h(c)) * conv_cuda_w(c);
    n.gamma = c->gamma;
    n.silu = c->silu;
    n.bf16 = c->bf16;
    n.stream = c->stream;
    return pixel_norm_cuda(&n, e);
}
