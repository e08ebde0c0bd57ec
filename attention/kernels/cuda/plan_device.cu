// Planning on the device: plan_cuda.h. Everything here is small beside attention; the aim is few launches and no trip to
// the host.
#include "attention/kernels/cuda/device.cuh"
#include "attention/kernels/cuda/plan_cuda.h"

#include <math.h>

namespace
{

constexpr int THREADS = 256, TILE = 32;

// Products of 32 x 32 rows of two pools, 4 a thread; fp32, channels rising
struct ScoreArgs {
    float *scores;
    const float *q, *k;
    int rows, cols, runs, dim, len_q, len_k, block_q, block_k;
    float scale;
    int even;
};

__device__ __forceinline__ int tokens_of(int i, int run, int runs, int block, int len, int even)
{
    if (even) {
        const int64_t left = len - i * block, all = left < block ? left : block;
        return static_cast<int>(all * (run + 1) / runs - all * run / runs);
    }
    const int part = block / runs, n = len - i * block - run * part;
    return n < 0 ? 0 : n < part ? n : part;
}

// One block of threads: 32 runs of queries x 32 runs of keys, then the pairs of blocks that they make up.
__global__ void __launch_bounds__(THREADS) pair_scores(const __grid_constant__ ScoreArgs a)
{
    __shared__ float q[TILE][TILE + 1], k[TILE][TILE + 1], z[TILE][TILE + 1];
    const int head = blockIdx.z, q0 = blockIdx.y * TILE, k0 = blockIdx.x * TILE,
              tx = threadIdx.x % TILE, ty = threadIdx.x / TILE;
    const int q_runs = a.rows * a.runs, k_runs = a.cols * a.runs;
    const float *qs = a.q + static_cast<int64_t>(head) * q_runs * a.dim,
                *ks = a.k + static_cast<int64_t>(head) * k_runs * a.dim;
    float sum[4] = {};
    for (int d = 0; d < a.dim; d += TILE) {
        __syncthreads();
        for (int i = ty; i < TILE; i += THREADS / TILE) {
            q[i][tx] = q0 + i < q_runs ? qs[static_cast<int64_t>(q0 + i) * a.dim + d + tx] : 0;
            k[i][tx] = k0 + i < k_runs ? ks[static_cast<int64_t>(k0 + i) * a.dim + d + tx] : 0;
        }
        __syncthreads();
        for (int c = 0; c < TILE; c++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[i] += q[ty + 8 * i][c] * k[tx][c];
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        z[ty + 8 * i][tx] = sum[i] * a.scale;
    __syncthreads();
    const int side = TILE / a.runs; // pairs of blocks: side x side
    for (int i = threadIdx.x; i < side * side; i += THREADS) {
        const int row = q0 / a.runs + i / side, col = k0 / a.runs + i % side;
        if (row >= a.rows || col >= a.cols) continue;
        float top = -INFINITY, all = 0;
        for (int u = 0; u < a.runs; u++)
            for (int v = 0; v < a.runs; v++)
                if (tokens_of(row, u, a.runs, a.block_q, a.len_q, a.even) > 0 &&
                    tokens_of(col, v, a.runs, a.block_k, a.len_k, a.even) > 0)
                    top = fmaxf(top, z[i / side * a.runs + u][i % side * a.runs + v]);
        if (a.runs == 1) {
            top += logf(static_cast<float>(tokens_of(col, 0, 1, a.block_k, a.len_k, a.even)));
        } else if (top > -INFINITY) {
            for (int u = 0; u < a.runs; u++)
                for (int v = 0; v < a.runs; v++)
                    all +=
                        static_cast<float>(tokens_of(row, u, a.runs, a.block_q, a.len_q, a.even)) *
                        static_cast<float>(tokens_of(col, v, a.runs, a.block_k, a.len_k, a.even)) *
                        expf(z[i / side * a.runs + u][i % side * a.runs + v] - top);
            top += logf(all);
        }
        a.scores[(static_cast<int64_t>(head) * a.rows + row) * a.cols + col] = top;
    }
}

// One warp a row
__global__ void __launch_bounds__(THREADS) softmax_rows(float *scores, int rows, int cols)
{
    const int row = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float *s = scores + static_cast<int64_t>(row) * cols, top = -INFINITY;
    double sum = 0;
    for (int c = lane; c < cols; c += 32)
        top = fmaxf(top, s[c]);
    for (int h = 16; h; h /= 2)
        top = fmaxf(top, __shfl_xor_sync(~0u, top, h));
    for (int c = lane; c < cols; c += 32) {
        const float x = top == -INFINITY ? 0 : expf(s[c] - top);
        s[c] = x;
        sum += static_cast<double>(x);
    }
    for (int h = 16; h; h /= 2)
        sum += __shfl_xor_sync(~0u, sum, h);
    const float part = sum > 0 ? static_cast<float>(1 / sum) : 0;
    for (int c = lane; c < cols; c += 32)
        s[c] *= part;
}

// Scores order as these do; 0 for what is never taken: -inf and NaN. Equals: the lower index is the larger number.
__device__ __forceinline__ unsigned long long rank_of(float s, int col)
{
    if (!(s > -INFINITY)) return 0;
    const uint32_t b = __float_as_uint(s + 0.0f); // -0 is 0
    const uint32_t key = b & 0x80000000u ? ~b : b | 0x80000000u;
    return static_cast<unsigned long long>(key) << 32 | (0xffffffffu - static_cast<uint32_t>(col));
}

// The best first, in shared memory: a bitonic sort of `size`, a power of two
__device__ void sort_falling(unsigned long long *x, int size)
{
    for (int span = 2; span <= size; span *= 2)
        for (int step = span / 2; step; step /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < size / 2; i += THREADS) {
                const int at = 2 * i - (i & (step - 1)), to = at + step;
                const unsigned long long a = x[at], b = x[to];
                if ((a < b) == !(at & span)) {
                    x[at] = b;
                    x[to] = a;
                }
            }
        }
    __syncthreads();
}

struct SelectArgs {
    uint32_t *bits;
    const float *scores;
    int cols, words, size, k; // size: cols, rounded up to a power of two; k: -1 for top-p
    double p;
    int least;
};

__device__ __forceinline__ float score_of(unsigned long long rank)
{
    const uint32_t key = static_cast<uint32_t>(rank >> 32);
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__global__ void __launch_bounds__(THREADS) select_rows(const __grid_constant__ SelectArgs a)
{
    extern __shared__ unsigned long long order[];
    __shared__ int kept;
    float *score = reinterpret_cast<float *>(order + a.size);
    const int64_t row = blockIdx.x;
    for (int c = threadIdx.x; c < a.size; c += THREADS) {
        const float s = c < a.cols ? a.scores[row * a.cols + c] : 0;
        score[c] = s;
        order[c] = c < a.cols ? rank_of(s, c) : 0;
    }
    sort_falling(order, a.size);
    if (threadIdx.x == 0) {
        int n = 0;
        if (a.k >= 0) {
            n = a.k < a.cols ? a.k : a.cols;
        } else { // in the order of select_top_p(), for its sums
            double sum = 0, before = 0;
            for (int c = 0; c < a.cols; c++)
                sum += static_cast<double>(score[c]);
            for (; n < a.cols && order[n] && (n == 0 || n < a.least || before < a.p * sum); n++)
                before += static_cast<double>(score_of(order[n]));
        }
        kept = n;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kept; i += THREADS) {
        if (!order[i]) continue;
        const uint32_t col = 0xffffffffu - static_cast<uint32_t>(order[i]);
        atomicOr(&a.bits[row * a.words + col / 32], 1u << (col % 32));
    }
}

__global__ void __launch_bounds__(THREADS)
    retire(uint32_t *dead, const uint32_t *computed, const uint32_t *alive, size_t n)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < n) dead[i] |= computed[i] & ~alive[i];
}

int check(const plan_shape *s, const char *what, err *e)
{
    if (s->n_heads < 1 || s->n_heads > 65535 || s->rows < 1 || s->cols < 1 ||
        s->cols > PLAN_MOST_COLS || s->rows > PLAN_MOST_COLS)
        return err_set(
            e, ERR_USAGE,
            "%s over %d heads of %d x %d blocks: 1 to 65535 heads, 1 to %d blocks a side", what,
            s->n_heads, s->rows, s->cols, PLAN_MOST_COLS);
    return 0;
}

int launched(const char *what, const plan_shape *s, err *e)
{
    const cudaError_t r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "%s over %d heads of %d x %d blocks: %s", what, s->n_heads,
                       s->rows, s->cols, cudaGetErrorString(r));
    return 0;
}

int select(uint32_t *bits, const float *scores, int k, double p, int least, const char *what,
           const plan_shape *s, err *e)
{
    if (check(s, what, e) < 0) return -1;
    SelectArgs a = {bits, scores, s->cols, (s->cols + 31) / 32, 2, k, p, least};
    while (a.size < s->cols)
        a.size *= 2;
    select_rows<<<static_cast<unsigned>(s->n_heads) * static_cast<unsigned>(s->rows), THREADS,
                  (sizeof(unsigned long long) + sizeof(float)) * static_cast<size_t>(a.size),
                  static_cast<cudaStream_t>(s->stream)>>>(a);
    return launched(what, s, e);
}

} // namespace

int plan_scores(float *scores, const float *q_pool, const float *k_pool, const plan_shape *s,
                err *e)
{
    if (check(s, "plan_scores", e) < 0) return -1;
    if (s->runs != 1 && s->runs != 2 && s->runs != 4)
        return err_set(e, ERR_USAGE, "plan_scores: %d means a block, wanted 1, 2 or 4", s->runs);
    if (s->head_dim < TILE || s->head_dim % TILE ||
        (!s->even && (s->block_q % s->runs || s->block_k % s->runs)))
        return err_set(e, ERR_USAGE,
                       "plan_scores: %d channels must be a multiple of %d, blocks of %d x %d of %d",
                       s->head_dim, TILE, s->block_q, s->block_k, s->runs);
    const ScoreArgs a = {
        scores,      q_pool,     k_pool,
        s->rows,     s->cols,    s->runs,
        s->head_dim, s->len_q,   s->len_k,
        s->block_q,  s->block_k, static_cast<float>(1 / sqrt(static_cast<double>(s->head_dim))),
        s->even};
    pair_scores<<<dim3(static_cast<unsigned>((s->cols * s->runs + TILE - 1) / TILE),
                       static_cast<unsigned>((s->rows * s->runs + TILE - 1) / TILE),
                       static_cast<unsigned>(s->n_heads)),
                  THREADS, 0, static_cast<cudaStream_t>(s->stream)>>>(a);
    return launched("plan_scores", s, e);
}

int plan_softmax(float *scores, const plan_shape *s, err *e)
{
    if (check(s, "plan_softmax", e) < 0) return -1;
    const int rows = s->n_heads * s->rows;
    softmax_rows<<<static_cast<unsigned>((rows + THREADS / 32 - 1) / (THREADS / 32)), THREADS, 0,
                   static_cast<cudaStream_t>(s->stream)>>>(scores, rows, s->cols);
    return launched("plan_softmax", s, e);
}

int plan_top_k(uint32_t *bits, const float *scores, int k, const plan_shape *s, err *e)
{
    if (k < 0) return err_set(e, ERR_USAGE, "plan_top_k: %d blocks a row, wanted 0 or more", k);
    return select(bits, scores, k, 0, 0, "plan_top_k", s, e);
}

int plan_top_p(uint32_t *bits, const float *mass, double p, int least, const plan_shape *s, err *e)
{
    if (!(p >= 0)) return err_set(e, ERR_USAGE, "plan_top_p: a share of %g, wanted 0 to 1", p);
    return select(bits, mass, -1, p, least, "plan_top_p", s, e);
}

int plan_retire(uint32_t *dead, const uint32_t *computed, const uint32_t *alive, size_t words,
                void *stream, err *e)
{
    retire<<<static_cast<unsigned>((words + THREADS - 1) / THREADS), THREADS, 0,
             static_cast<cudaStream_t>(stream)>>>(dead, computed, alive, words);
    const cudaError_t r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "plan_retire of %zu words: %s", words, cudaGetErrorString(r));
    return 0;
}
