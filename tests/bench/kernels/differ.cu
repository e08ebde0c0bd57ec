// Comparison of outputs where they are: a thousand repeats would otherwise be a thousand copies.
#include <stddef.h>
#include <stdint.h>

namespace
{

__global__ void differ(unsigned *count, const uint32_t *a, const uint32_t *b, size_t n)
{
    unsigned mine = 0;
    for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<size_t>(gridDim.x) * blockDim.x)
        mine += a[i] != b[i];
    if (mine) atomicAdd(count, mine);
}

} // namespace

extern "C" void gpu_differ(unsigned *count, const void *a, const void *b, size_t bytes)
{
    differ<<<264, 256>>>(count, static_cast<const uint32_t *>(a), static_cast<const uint32_t *>(b),
                         bytes / 4);
}
