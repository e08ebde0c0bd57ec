// Comparison of outputs where they are: a thousand repeats would otherwise be a thousand copies.
// And a pause of the card, for the host to get ahead.
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

__global__ void pause(unsigned microseconds)
{
    uint64_t from, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(from));
    do {
        __nanosleep(1000);
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - from < microseconds * 1000ull);
}

} // namespace

extern "C" void gpu_pause(unsigned microseconds) { pause<<<1, 1>>>(microseconds); }

extern "C" void gpu_differ(unsigned *count, const void *a, const void *b, size_t bytes)
{
    differ<<<264, 256>>>(count, static_cast<const uint32_t *>(a), static_cast<const uint32_t *>(b),
                         bytes / 4);
}
