// A warp writes the steps of a row; see tiles_list.h.
#include "attention/kernels/cuda/tiles_list.h"
#include "model/base/cuda/launch.h"

namespace
{

constexpr int THREADS = 256;

__global__ void __launch_bounds__(THREADS) list(const __grid_constant__ tiles_listing l)
{
    const int row = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= l.plan_rows) return;
    const size_t first = static_cast<size_t>(row) * l.words;
    uint32_t at = l.row_ptr[row];
    for (int i = 0; i < l.words; i++) {
        const int w = l.falls ? l.words - 1 - i : i;
        const uint32_t on = l.kept[first + w];
        const uint32_t before = l.falls ? on & ~(~0u >> (31 - lane)) : on & ((1u << lane) - 1);
        if (on >> lane & 1) l.steps[at + __popc(before)] = 32 * w + lane;
        at += __popc(on);
    }
    if (!l.mean || lane) return;
    int group = -1;
    for (int w = 0; w < l.words; w++)
        for (uint32_t left = l.mean[first + w]; left; left &= left - 1) {
            const int g = (32 * w + __ffs(left) - 1) / l.block_k;
            if (g != group) l.steps[at++] = ATTN_STEP_MEAN | static_cast<uint32_t>(g);
            group = g;
        }
}

} // namespace

int tiles_list(const tiles_listing *l, void *stream, err *e)
{
    const int blocks = (l->plan_rows + THREADS / 32 - 1) / (THREADS / 32);
    list<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(*l);
    return cuda_launched(e, "lists of %d rows of tiles", l->plan_rows);
}
