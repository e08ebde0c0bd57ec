// Rows of bf16 from tokens to positions and back, 16 bytes a thread; see moved_cuda.h.
#include "attention/kernels/cuda/moved_cuda.h"
#include "model/base/cuda/launch.h"

#include <cuda_bf16.h>

namespace
{

typedef __nv_bfloat16 bf16;
constexpr int THREADS = 256;

__device__ __forceinline__ int head_of(const moved &m)
{
    return m.named ? m.heads[blockIdx.y] : blockIdx.y;
}
__device__ __forceinline__ int64_t token_of(const moved_order &o, int row)
{
    return o.token ? o.token[blockIdx.y * o.stride + row] : row;
}
__device__ __forceinline__ uint4 *at(const attn_tensor &t, int64_t token, int head, int chunk)
{
    return reinterpret_cast<uint4 *>(static_cast<bf16 *>(t.at) + token * t.token + head * t.head +
                                     8 * chunk);
}

__global__ void __launch_bounds__(THREADS)
    there(bf16 *to, const attn_tensor from, const moved_order order, int rows,
          const __grid_constant__ moved m)
{
    const int chunks = m.head_dim / 8, head = head_of(m);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    const int row = static_cast<int>(i / chunks), chunk = static_cast<int>(i % chunks);
    if (row >= rows) return;
    const uint4 x = *at(from, token_of(order, row), head, chunk);
    *reinterpret_cast<uint4 *>(to + (static_cast<int64_t>(head) * rows + row) * m.head_dim +
                               8 * chunk) = x;
}

// Of two neighbours: sum or difference, in fp32
__device__ __forceinline__ uint32_t pair(uint32_t x, uint32_t y, bool less)
{
    const float a = __uint_as_float(x << 16), b = __uint_as_float(x & 0xffff0000u),
                c = __uint_as_float(y << 16), d = __uint_as_float(y & 0xffff0000u);
    const uint32_t low = __bfloat16_as_ushort(__float2bfloat16(less ? a - c : a + c)),
                   high = __bfloat16_as_ushort(__float2bfloat16(less ? b - d : b + d));
    return low | high << 16;
}
__device__ __forceinline__ uint4 pairs(const uint4 &x, const uint4 &y, bool less)
{
    return make_uint4(pair(x.x, y.x, less), pair(x.y, y.y, less), pair(x.z, y.z, less),
                      pair(x.w, y.w, less));
}

__global__ void __launch_bounds__(THREADS)
    back(const __grid_constant__ moved_result b, const __grid_constant__ moved m)
{
    const int chunks = m.head_dim / 8, head = head_of(m);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    const int row = static_cast<int>(i / chunks), chunk = static_cast<int>(i % chunks);
    if (row >= b.rows) return;
    const int64_t token = token_of(b.order, row);
    uint4 x = *at(b.x, row, head, chunk);
    if (b.what == MOVED_ADD) x = pairs(x, *at(b.residual, token, head, chunk), false);
    if (b.what == MOVED_LESS)
        *at(b.residual, token, head, chunk) = pairs(x, *at(b.y, row, head, chunk), true);
    if (b.what == MOVED_BOTH) *at(b.residual, token, head, chunk) = *at(b.y, row, head, chunk);
    *at(b.o, token, head, chunk) = x;
    if (b.lse_from && chunk == 0) {
        const int64_t first = static_cast<int64_t>(head) * b.rows;
        b.lse[first + token] = b.lse_from[first + row];
    }
}

int check(const attn_tensor &t, const char *what, err *e)
{
    if (reinterpret_cast<uintptr_t>(t.at) % 16 == 0 && t.token % 8 == 0 && t.head % 8 == 0)
        return 0;
    return err_set(
        e, ERR_USAGE,
        "%s at %p with strides %lld, %lld; wanted 16-byte alignment and strides that are "
        "multiples of 8 elements; try --kernel every",
        what, t.at, static_cast<long long>(t.token), static_cast<long long>(t.head));
}

dim3 grid_of(int rows, const moved &m)
{
    const int64_t n = static_cast<int64_t>(rows) * (m.head_dim / 8);
    return dim3(static_cast<unsigned>((n + THREADS - 1) / THREADS), m.n_heads);
}

} // namespace

int moved_there(void *to, const attn_tensor *from, const moved_order *order, int rows,
                const moved *m, err *e)
{
    if (check(*from, "a tensor to be put in order", e) < 0) return -1;
    there<<<grid_of(rows, *m), THREADS, 0, static_cast<cudaStream_t>(m->stream)>>>(
        static_cast<bf16 *>(to), *from, *order, rows, *m);
    return cuda_launched(e, "%d tokens of %d heads put in order", rows, m->n_heads);
}

int moved_back(const struct moved_result *b, const moved *m, err *e)
{
    if (check(b->o, "o", e) < 0) return -1;
    if (b->what != MOVED_BACK && check(b->residual, "a residual", e) < 0) return -1;
    back<<<grid_of(b->rows, *m), THREADS, 0, static_cast<cudaStream_t>(m->stream)>>>(*b, *m);
    return cuda_launched(e, "%d tokens of %d heads put back", b->rows, m->n_heads);
}
