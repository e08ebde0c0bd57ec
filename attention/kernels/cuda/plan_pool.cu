// What stands for blocks, the best pairs of a head, and what follows from bits that were picked: plan_pool.h.
//
// Sums of a pool are fp32, tokens rising, as attention/policy/pool.c has them: the same numbers. A block of threads
// is one run of one head, a thread a pair of channels (or one, where they are not aligned), which it loads for
// several tokens at once.
#include "attention/kernels/cuda/plan_pool.h"
#include "model/base/cuda/launch.h"

#include <cuda_bf16.h>

namespace
{

constexpr int THREADS = 256, WIDE = 1024;
constexpr int AHEAD = 8; // tokens in flight a thread

struct two {
    float x, y;
};
__device__ __forceinline__ two load(const __nv_bfloat162 *p)
{
    const float2 f = __bfloat1622float2(*p);
    return {f.x, f.y};
}
__device__ __forceinline__ two load(const float2 *p) { return {p->x, p->y}; }
__device__ __forceinline__ two load(const __nv_bfloat16 *p) { return {__bfloat162float(*p), 0}; }
__device__ __forceinline__ two load(const float *p) { return {*p, 0}; }

__device__ __forceinline__ float join(float sum, float x, bool max, bool first)
{
    if (!max) return __fadd_rn(sum, x);
    return first || x > sum ? x : sum;
}

// T: what a thread loads; W channels of it
template <typename T, int W> __global__ void pool(float *to, const __grid_constant__ plan_tokens a)
{
    const int run = blockIdx.x % a.runs, block = blockIdx.x / a.runs, head = blockIdx.y;
    const int p0 = block * a.block, left = a.len - p0, n = left < a.block ? left : a.block;
    const int from = p0 + static_cast<int>(static_cast<int64_t>(n) * run / a.runs),
              end = p0 + static_cast<int>(static_cast<int64_t>(n) * (run + 1) / a.runs);
    const int c = threadIdx.x * W;
    if (c >= a.dim) return;
    const T *x = reinterpret_cast<const T *>(a.at) + (head * a.head + c) / W;
    two sum = {0, 0};
    for (int p = from; p < end; p += AHEAD) {
        two got[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int at = p + i < end ? p + i : end - 1;
            const int64_t token = a.order ? a.order[at] : at;
            got[i] = load(x + token * a.token / W);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (p + i < end) {
                sum.x = join(sum.x, got[i].x, a.max, p + i == from);
                sum.y = join(sum.y, got[i].y, a.max, p + i == from);
            }
    }
    if (!a.max && end > from) {
        const float part = 1.0f / static_cast<float>(end - from);
        sum.x = __fmul_rn(sum.x, part), sum.y = __fmul_rn(sum.y, part);
    }
    float *o = to + (static_cast<int64_t>(head) * gridDim.x + blockIdx.x) * a.dim + c;
    o[0] = sum.x;
    if (W > 1) o[1] = sum.y;
}

// The value that so many of a head's are below, in order of size: four passes over 8 bits of it, from the top. Shares
// are not negative, so that their bits order as they do. One block of threads a head.
__global__ void __launch_bounds__(WIDE)
    cut_of(float *cut, const float *shares, size_t n, size_t below)
{
    __shared__ unsigned count[256], prefix, rank;
    const float *x = shares + blockIdx.x * n;
    if (threadIdx.x == 0) prefix = 0, rank = static_cast<unsigned>(below);
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256) count[threadIdx.x] = 0;
        __syncthreads();
        const unsigned want = prefix, high = shift == 24 ? 0 : ~0u << (shift + 8);
        for (size_t first = 0; first < n; first += WIDE) {
            const size_t i = first + threadIdx.x;
            const unsigned bits = i < n ? __float_as_uint(x[i] + 0.0f) : 0;
            const bool mine = i < n && (bits & high) == want;
            const unsigned bin = mine ? bits >> shift & 255 : 256;
            const unsigned same = __match_any_sync(~0u, bin);
            if (mine && (threadIdx.x & 31) == __ffs(same) - 1) atomicAdd(&count[bin], __popc(same));
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned left = rank, bin = 0;
            while (bin < 255 && left >= count[bin])
                left -= count[bin++];
            prefix = want | bin << shift, rank = left;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) cut[blockIdx.x] = __uint_as_float(prefix);
}

// One warp a row: what reaches the cut, else its best
__global__ void __launch_bounds__(THREADS)
    reach(uint32_t *bits, const float *shares, const float *cut, int rows, int cols, int heads)
{
    const int row = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows * heads) return;
    const float *x = shares + static_cast<int64_t>(row) * cols;
    const float from = cut ? cut[row / rows] : -INFINITY; // none: all that is a number
    uint32_t *to = bits + static_cast<int64_t>(row) * ((cols + 31) / 32), any = 0;
    float best = -INFINITY;
    int at = 0;
    for (int first = 0; first < cols; first += 32) {
        const int c = first + lane;
        const float s = c < cols ? x[c] : -INFINITY;
        const uint32_t on = __ballot_sync(~0u, s > -INFINITY && s >= from);
        if (lane == 0) to[first / 32] = on;
        any |= on;
        if (s > best) best = s, at = c; // the first of equals
    }
    if (any) return;
    for (int h = 16; h; h /= 2) {
        const float s = __shfl_xor_sync(~0u, best, h);
        const int c = __shfl_xor_sync(~0u, at, h);
        if (s > best || (s == best && c < at)) best = s, at = c;
    }
    if (lane == 0 && best > -INFINITY) to[at / 32] |= 1u << (at % 32);
}

__global__ void __launch_bounds__(THREADS) finish(const __grid_constant__ plan_finishing f)
{
    const int row = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= f.n_heads * f.rows) return;
    const int words = (f.cols + 31) / 32, own = row % f.rows;
    uint32_t *bits = f.bits + static_cast<int64_t>(row) * words, any = 0;
    for (int w = lane; w < words; w += 32) {
        const uint32_t on =
            bits[w] | (f.forced ? f.forced[static_cast<int64_t>(own) * words + w] : 0);
        bits[w] = on;
        any |= on;
    }
    unsigned long long keys = 0;
    if (!__any_sync(~0u, any != 0)) {
        const int c = static_cast<int>(static_cast<int64_t>(own) * f.cols / f.rows);
        if (lane == c / 32 % 32) bits[c / 32] = 1u << (c % 32); // whose word it is
    }
    for (int w = lane; w < words; w += 32) {
        const uint32_t on = bits[w];
        keys += static_cast<unsigned long long>(__popc(on)) * f.block_k;
        const int last = f.cols - 1; // may be shorter
        if (w == last / 32 && on >> (last % 32) & 1) keys -= f.cols * f.block_k - f.len_k;
    }
    for (int h = 16; h; h /= 2)
        keys += __shfl_xor_sync(~0u, keys, h);
    const int left = f.len_q - own * f.block_q;
    if (lane == 0)
        atomicAdd(reinterpret_cast<unsigned long long *>(f.pairs),
                  keys * static_cast<unsigned long long>(left < f.block_q ? left : f.block_q));
}

__global__ void add(uint64_t *sum, const uint64_t *pairs) { *sum += *pairs; }

template <typename T, int W> int pooled(float *to, const plan_tokens *x, err *e)
{
    const int threads = (x->dim / W + 31) / 32 * 32;
    pool<T, W><<<dim3(static_cast<unsigned>(x->n * x->runs), static_cast<unsigned>(x->n_heads)),
                 static_cast<unsigned>(threads), 0, static_cast<cudaStream_t>(x->stream)>>>(to, *x);
    return cuda_launched(e, "plan_pool of %d heads, %d blocks of %d tokens", x->n_heads, x->n,
                         x->block);
}

} // namespace

int plan_pool(float *to, const plan_tokens *x, err *e)
{
    const size_t each = x->fp32 ? 4 : 2;
    const bool pairs = x->dim % 2 == 0 && x->token % 2 == 0 && x->head % 2 == 0 &&
                       reinterpret_cast<uintptr_t>(x->at) % (2 * each) == 0;
    if (x->n_heads < 1 || x->n_heads > 65535 || x->dim < 1 || x->dim > 1024 || x->runs < 1 ||
        x->block < 1 || x->n != (x->len + x->block - 1) / x->block)
        return err_set(e, ERR_USAGE,
                       "plan_pool of %d heads of %d channels, %d blocks of %d tokens of %d",
                       x->n_heads, x->dim, x->n, x->block, x->len);
    if (x->fp32) return pairs ? pooled<float2, 2>(to, x, e) : pooled<float, 1>(to, x, e);
    return pairs ? pooled<__nv_bfloat162, 2>(to, x, e) : pooled<__nv_bfloat16, 1>(to, x, e);
}

int plan_percentile(uint32_t *bits, float *cut, const float *shares, double share,
                    const plan_shape *s, err *e)
{
    const size_t n = static_cast<size_t>(s->rows) * static_cast<size_t>(s->cols),
                 below = static_cast<size_t>((1 - share) * static_cast<double>(n));
    const int rows = s->n_heads * s->rows;
    cudaStream_t stream = static_cast<cudaStream_t>(s->stream);
    if (!(share > 0) || below >= n || n > UINT32_MAX)
        return err_set(e, ERR_USAGE, "plan_percentile: a share of %g of %d x %d blocks", share,
                       s->rows, s->cols);
    if (below > 0)
        cut_of<<<static_cast<unsigned>(s->n_heads), WIDE, 0, stream>>>(cut, shares, n, below);
    reach<<<static_cast<unsigned>((rows + THREADS / 32 - 1) / (THREADS / 32)), THREADS, 0,
            stream>>>(bits, shares, below > 0 ? cut : nullptr, s->rows, s->cols, s->n_heads);
    return cuda_launched(e, "plan_percentile over %d heads of %d x %d blocks", s->n_heads, s->rows,
                         s->cols);
}

int plan_clear(uint32_t *bits, size_t words, uint64_t *pairs, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (cuda_said(e, cudaMemsetAsync(bits, 0, words * sizeof *bits, s), "bits of a plan") < 0)
        return -1;
    return cuda_said(e, cudaMemsetAsync(pairs, 0, sizeof *pairs, s), "pairs of a plan");
}

int plan_finish(const plan_finishing *f, err *e)
{
    const int rows = f->n_heads * f->rows;
    finish<<<static_cast<unsigned>((rows + THREADS / 32 - 1) / (THREADS / 32)), THREADS, 0,
             static_cast<cudaStream_t>(f->stream)>>>(*f);
    return cuda_launched(e, "plan_finish over %d heads of %d x %d blocks", f->n_heads, f->rows,
                         f->cols);
}

int plan_tally(uint64_t *sum, const uint64_t *pairs, void *stream, err *e)
{
    add<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(sum, pairs);
    return cuda_launched(e, "plan_tally");
}
