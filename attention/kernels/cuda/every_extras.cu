// What stands beside attention by any plan: the mass of tiles, tiles chosen by their means, heads that are
// left out or copied. See every_cuda.h.
#include "attention/kernels/cuda/every.cuh"
#include "model/base/cuda/launch.h"

namespace
{

constexpr int BK = 32, COLS = 4; // tiles of a block of threads in turn

// Sum over all threads, in a fixed order; everybody gets it
template <int THREADS, class T> __device__ __forceinline__ T sum_all(T x, T *room)
{
#pragma unroll
    for (int m = 16; m; m /= 2)
        x += __shfl_xor_sync(~0u, x, m);
    __syncthreads();
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < THREADS / 32; i++)
        x += room[i];
    return x;
}

// Mean over the queries of a row of the weight of each tile: grid (tiles / COLS, rows, heads)
template <int D, int BQ>
__global__ void __launch_bounds__(BQ * 4) mass_of(const __grid_constant__ Args a)
{
    constexpr int THREADS = BQ * 4;
    extern __shared__ float room[];
    __shared__ int tokens[BQ], keys[BK];
    __shared__ float add[BK], less[BQ], sums[THREADS / 32];
    float *q = room, *k = q + BQ * D;
    const Plan x = plan_of(a, blockIdx.z);
    const every_plan &p = *x.p;
    const int row = blockIdx.y, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    if (row >= p.q_n) return;
    const int first = q_begin(x, row), end = q_begin(x, row + 1);
    int loaded = -1; // the queries that are in `q`
    for (int t = blockIdx.x * COLS; t < min(p.k_n, static_cast<int>(blockIdx.x + 1) * COLS); t++) {
        float mine = 0;
        for (int q0 = first; q0 < end; q0 += BQ) {
            if (q0 != loaded) {
                __syncthreads();
                for (int i = threadIdx.x; i < BQ; i += THREADS) {
                    tokens[i] = q0 + i < end ? q_token(x, q0 + i) : -1;
                    less[i] = tokens[i] < 0
                                  ? -INFINITY
                                  : a.lse[static_cast<size_t>(x.head) * a.len_q + tokens[i]];
                }
                __syncthreads();
                load_rows<D, BQ, D, THREADS>(q, a.q, x.head, tokens, a.dim);
                loaded = q0;
            }
            for (int k0 = k_begin(x, t); k0 < k_begin(x, t + 1); k0 += BK) {
                __syncthreads();
                if (threadIdx.x < BK) {
                    const int at = k0 + threadIdx.x;
                    const bool in = at < k_begin(x, t + 1);
                    keys[threadIdx.x] = in ? k_token(x, at) : -1;
                    add[threadIdx.x] = in ? (a.key_bias ? a.key_bias[at] : 0) : -INFINITY;
                }
                __syncthreads();
                load_rows<D, BK, D + 4, THREADS>(k, a.k, x.head, keys, a.dim);
                __syncthreads();
                float score[4][2] = {};
                dots<D, D + 4>(score, q, k, tx, ty);
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const float by = add[tx + 16 * j], lse = less[4 * ty + i];
                        if (by != -INFINITY && lse != -INFINITY)
                            mine += expf(score[i][j] * a.scale + by - lse);
                    }
            }
        }
        const float all = sum_all<THREADS>(mine, sums);
        if (threadIdx.x == 0)
            a.mass[(static_cast<size_t>(x.head) * p.q_n + row) * p.k_n + t] =
                end > first ? all / (end - first) : 0;
    }
}

template <int D, int BQ> int start_mass(const Args &a, int rows, int cols, cudaStream_t s, err *e)
{
    constexpr int BYTES = (BQ * D + BK * (D + 4)) * 4;
    static_assert(BYTES <= 99328, "fits a block of sm_86, the least of all since sm_80");
    if (cuda_said(e,
                  cudaFuncSetAttribute(mass_of<D, BQ>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       BYTES),
                  "mass of tiles") < 0)
        return -1;
    mass_of<D, BQ><<<dim3((cols + COLS - 1) / COLS, rows, a.n_heads), BQ * 4, BYTES, s>>>(a);
    return cuda_launched(e, "mass of %d x %d tiles, %d heads", rows, cols, a.n_heads);
}

__global__ void set(uint32_t *plane, const __grid_constant__ Args a, int by_index, size_t words,
                    uint32_t value)
{
    const Plan x = plan_of(a, blockIdx.y);
    uint32_t *mine = plane + (by_index ? x.index : x.head) * words;
    for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < words;
         i += static_cast<size_t>(gridDim.x) * blockDim.x)
        mine[i] = value;
}

// sol_tau (kernels/ref_sol.c): a tile is computed where its mean key scores above mu + tau * sqrt(var + 1e-6)
// on average over the row's queries, beside the diagonal, or forced. In double, as the judge: a tile that
// lies between would change the whole row. Grid (rows, heads), a thread a channel, then a warp a tile.
constexpr int SOL = 256;
__global__ void __launch_bounds__(SOL) choose_sol(const __grid_constant__ Args a)
{
    __shared__ double weight[SOL], sums[SOL / 32]; // weight: beta times the mean query
    __shared__ int tokens[SOL];
    const Plan x = plan_of(a, blockIdx.y);
    const every_plan &p = *x.p;
    const int row = blockIdx.x, c = threadIdx.x;
    if (row >= p.q_n) return;
    const int q0 = q_begin(x, row), q1 = q_begin(x, row + 1);
    const double beta = 1.4426950408889634 / sqrt(static_cast<double>(a.dim));
    double mean = 0;
    for (int first = q0; first < q1; first += SOL) {
        __syncthreads();
        if (first + c < q1) tokens[c] = q_token(x, first + c);
        __syncthreads();
        for (int i = 0; c < a.dim && i < min(SOL, q1 - first); i++)
            mean += element(a.q, x.head * a.q.head + tokens[i] * a.q.token + c);
    }
    if (q1 > q0) mean /= q1 - q0;
    double sum = 0, squares = 0;
    for (int t = 0; c < a.dim && t < p.k_n; t++) {
        const double y = element(a.k_mean, x.head * a.k_mean.head + t * a.k_mean.token + c);
        sum += y / p.k_n, squares += y * y / p.k_n;
    }
    weight[c] = c < a.dim ? beta * mean : 0;
    const double mu = sum_all<SOL>(c < a.dim ? beta * mean * sum : 0, sums),
                 var = sum_all<SOL>(
                     c < a.dim ? beta * beta * mean * mean * (squares - sum * sum) : 0, sums);
    const double bound = mu + static_cast<double>(a.sol_tau) * sqrt(var + 1e-6);
    const size_t at = (static_cast<size_t>(x.index) * p.q_n + row) * p.words;
    const uint32_t *forced =
        p.kept ? x.at + p.kept + (static_cast<size_t>(x.plan) * p.q_n + row) * p.words : nullptr;
    for (int w = threadIdx.x / 32; w < p.words; w += SOL / 32) {
        uint32_t word = forced ? forced[w] : 0;
        for (int b = 0; b < 32 && 32 * w + b < p.k_n; b++) {
            const int t = 32 * w + b;
            double z = 0;
            for (int i = threadIdx.x % 32; i < a.dim; i += 32)
                z += weight[i] * element(a.k_mean, x.head * a.k_mean.head + t * a.k_mean.token + i);
#pragma unroll
            for (int m = 16; m; m /= 2)
                z += __shfl_xor_sync(~0u, z, m);
            if (z > bound || abs(t - row) <= 1) word |= 1u << b;
        }
        if (threadIdx.x % 32 == 0) a.picked[at + w] = word;
    }
}

__global__ void fill(const __grid_constant__ Args a, int copy)
{
    const Plan x = plan_of(a, blockIdx.y);
    const size_t all = static_cast<size_t>(a.len_q) * a.dim;
    for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < all;
         i += static_cast<size_t>(gridDim.x) * blockDim.x) {
        const int64_t token = i / a.dim, c = i % a.dim;
        float y = copy ? element(a.resid, token * a.resid.token + x.head * a.resid.head + c) : 0;
        store(a.o, token * a.o.token + x.head * a.o.head + c, y);
    }
}

int blocks_of(size_t n) { return static_cast<int>(n < 256 * 1024 ? (n + 255) / 256 : 1024); }

} // namespace

int every_mass(const every_args *a, int rows, int cols, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (a->dim <= 32) return start_mass<32, 64>(*a, rows, cols, s, e);
    if (a->dim <= 64) return start_mass<64, 64>(*a, rows, cols, s, e);
    if (a->dim <= 128) return start_mass<128, 64>(*a, rows, cols, s, e);
    return start_mass<256, 16>(*a, rows, cols, s, e);
}

int every_set(const every_args *a, uint32_t *plane, int by_index, int rows, int words,
              uint32_t value, void *stream, err *e)
{
    const size_t n = static_cast<size_t>(rows) * words;
    set<<<dim3(blocks_of(n), a->n_heads), 256, 0, static_cast<cudaStream_t>(stream)>>>(
        plane, *a, by_index, n, value);
    return cuda_launched(e, "planes of %d rows of %d words, %d heads", rows, words, a->n_heads);
}

int every_choose_sol(const every_args *a, int rows, void *stream, err *e)
{
    choose_sol<<<dim3(rows, a->n_heads), SOL, 0, static_cast<cudaStream_t>(stream)>>>(*a);
    return cuda_launched(e, "tiles by their means of %d rows, %d heads", rows, a->n_heads);
}

int every_fill(const every_args *a, int copy, void *stream, err *e)
{
    const size_t n = static_cast<size_t>(a->len_q) * a->dim;
    fill<<<dim3(blocks_of(n), a->n_heads), 256, 0, static_cast<cudaStream_t>(stream)>>>(*a, copy);
    return cuda_launched(e, "%d heads of %d queries, %s", a->n_heads, a->len_q,
                         copy ? "copied" : "zeroed");
}
