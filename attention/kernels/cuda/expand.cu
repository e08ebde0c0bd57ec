// Plans that are made on the device to the lists that kernels execute: the same words as plan.c's,
// without a trip to the host. State over steps is kept as bits and expanded a layer at a time.
//
//   bits      planes -> what is computed and what counts by its mean
//   offsets   steps of each row, summed up by one block
//   steps     tiles ascending, then groups of mean keys
//   order     each row's place is the number of rows that start before it (plan.c: before())
#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/device.cuh"

namespace
{

constexpr int THREADS = 256;

struct Job {
    const uint32_t *kept, *forced, *dead, *wanted_mean;
    uint32_t *row_ptr, *steps, *order, *mean, *computed;
    unsigned long long *key;
    int rows, cols, words, n_plans, n_heads, block_k, plan_rows;
    bool every; // every tile
};

// one warp a row: words of bits, and the number of steps
__global__ void bits(const __grid_constant__ Job j)
{
    const size_t row = (static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32;
    if (row >= static_cast<size_t>(j.plan_rows)) return;
    uint32_t count = 0;
    int group = -1;
    for (int w = 0; w < j.words; w++) {
        const int tile = 32 * w + lane;
        const size_t at = row * j.words + w;
        const uint32_t all = __ballot_sync(~0u, tile < j.cols);
        uint32_t on = j.every ? all : j.kept ? j.kept[at] & all : 0;
        if (j.dead && !j.every) on &= ~j.dead[at];
        if (j.forced) on |= j.forced[at] & all;
        const uint32_t mean = j.wanted_mean ? j.wanted_mean[at] & ~on & all : 0;
        count += __popc(on);
        for (uint32_t left = mean; left; left &= left - 1) { // groups that begin here
            const int g = (32 * w + __ffs(left) - 1) / j.block_k;
            count += g != group;
            group = g;
        }
        if (lane == 0) {
            j.computed[at] = on;
            if (j.mean) j.mean[at] = mean;
        }
    }
    if (lane == 0) j.row_ptr[row + 1] = count;
    if (lane == 0 && row == 0) j.row_ptr[0] = 0;
}

// one block: running sums of row_ptr[1..]
__global__ void offsets(const __grid_constant__ Job j)
{
    __shared__ uint32_t part[THREADS];
    uint32_t before = 0;
    for (int first = 0; first < j.plan_rows; first += THREADS) {
        const int row = first + threadIdx.x;
        part[threadIdx.x] = row < j.plan_rows ? j.row_ptr[row + 1] : 0;
        __syncthreads();
        for (int step = 1; step < THREADS; step *= 2) {
            const uint32_t add =
                static_cast<int>(threadIdx.x) >= step ? part[threadIdx.x - step] : 0;
            __syncthreads();
            part[threadIdx.x] += add;
            __syncthreads();
        }
        if (row < j.plan_rows) j.row_ptr[row + 1] = before + part[threadIdx.x];
        before += part[THREADS - 1];
        __syncthreads();
    }
}

__global__ void steps(const __grid_constant__ Job j)
{
    const size_t row = (static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32;
    if (row >= static_cast<size_t>(j.plan_rows)) return;
    uint32_t at = j.row_ptr[row];
    for (int w = 0; w < j.words; w++) {
        const uint32_t on = j.computed[row * j.words + w];
        if (on >> lane & 1) j.steps[at + __popc(on & ((1u << lane) - 1))] = 32 * w + lane;
        at += __popc(on);
    }
    int group = -1;
    for (int w = 0; j.mean && w < j.words && lane == 0; w++) {
        for (uint32_t left = j.mean[row * j.words + w]; left; left &= left - 1) {
            const int g = (32 * w + __ffs(left) - 1) / j.block_k;
            if (g != group) j.steps[at++] = ATTN_STEP_MEAN | static_cast<uint32_t>(g);
            group = g;
        }
    }
}

// smaller starts first: outliers, heads, eighths of the average falling, rows
__global__ void keys(const __grid_constant__ Job j)
{
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= j.n_heads * j.rows) return;
    const int head = i / j.rows, row = i % j.rows, at = j.n_plans > 1 ? i : row;
    const uint32_t count = j.row_ptr[at + 1] - j.row_ptr[at];
    const double mean =
        static_cast<double>(j.row_ptr[j.plan_rows]) / (j.n_plans * static_cast<double>(j.rows));
    double times = mean > 0 ? count / mean : 0;
    const unsigned long long eighths = static_cast<unsigned long long>(times * 8);
    unsigned long long outlier = 0;
    for (; times >= 2; times /= 2)
        outlier++;
    // 5 bits, 16, 20, 16: heads and rows up to 65,535, counts up to 65,536 times the average
    j.key[i] = (31 - outlier) << 52 | static_cast<unsigned long long>(head) << 36 |
               (0xfffff - eighths) << 16 | static_cast<unsigned long long>(row);
}

__global__ void order(const __grid_constant__ Job j)
{
    __shared__ unsigned long long others[THREADS];
    const int n = j.n_heads * j.rows, i = blockIdx.x * THREADS + threadIdx.x;
    const unsigned long long mine = i < n ? j.key[i] : 0;
    int place = 0;
    for (int first = 0; first < n; first += THREADS) {
        const int other = first + threadIdx.x;
        others[threadIdx.x] = other < n ? j.key[other] : ~0ull;
        __syncthreads();
        for (int k = 0; k < THREADS; k++)
            place += others[k] < mine;
        __syncthreads();
    }
    if (i < n) j.order[place] = i;
}

size_t padded(size_t bytes) { return (bytes + 15) / 16 * 16; }

} // namespace

size_t attn_expand_scratch(const attn_plan *p)
{
    const size_t rows = static_cast<size_t>(attn_plans(p)) * p->q.n;
    const size_t words = attn_words(p->k.n);
    return padded(rows * words * 4) + static_cast<size_t>(p->n_heads) * p->q.n * 8;
}

size_t attn_expand_steps(const attn_plan *p)
{
    const size_t rows = static_cast<size_t>(attn_plans(p)) * p->q.n;
    const size_t groups = p->mean ? (p->k.n - 1) / p->k.size + 1 : 0;
    return rows * (p->k.n + groups);
}

int attn_expand(attn_lists *l, uint32_t *row_ptr, uint32_t *step_words, uint32_t *order_words,
                uint32_t *mean, const attn_plan *p, void *scratch, void *stream, err *e)
{
    char fields[200];
    const unsigned can = ATTN_NEED_PLANES | ATTN_NEED_MEAN | ATTN_NEED_DEVICE;
    const unsigned missing = attn_plan_needs(p) & ~can;
    const int plans = attn_plans(p), rows = p->q.n, cols = p->k.n;
    if (missing)
        return err_set(e, ERR_USAGE, "lists of tiles cannot hold %s",
                       attn_needs_text(missing, fields, sizeof fields));
    if (p->n_heads < 1 || p->n_heads > 65535)
        return err_set(e, ERR_BUG, "an attention plan of %d heads", p->n_heads);
    if (attn_expand_steps(p) > UINT32_MAX || static_cast<int64_t>(p->n_heads) * rows > INT32_MAX)
        return err_set(e, ERR_USAGE,
                       "%d plans of %d x %d tiles, %d heads, do not fit 32-bit offsets; use larger "
                       "tiles",
                       plans, rows, cols, p->n_heads);
    Job j = {};
    j.kept = p->kept;
    j.every = p->all;
    j.forced = p->forced;
    j.dead = p->dead;
    j.wanted_mean = p->mean;
    j.row_ptr = row_ptr;
    j.steps = step_words;
    j.order = order_words;
    j.mean = p->mean ? mean : nullptr;
    j.rows = rows;
    j.cols = cols;
    j.words = attn_words(cols);
    j.n_plans = plans;
    j.n_heads = p->n_heads;
    j.block_k = p->k.size;
    j.plan_rows = plans * rows;
    j.computed = static_cast<uint32_t *>(scratch);
    j.key = reinterpret_cast<unsigned long long *>(
        static_cast<char *>(scratch) + padded(static_cast<size_t>(j.plan_rows) * j.words * 4));
    const int warps = THREADS / 32, row_blocks = (j.plan_rows + warps - 1) / warps;
    const int tile_blocks = (p->n_heads * rows + THREADS - 1) / THREADS;
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    bits<<<row_blocks, THREADS, 0, s>>>(j);
    offsets<<<1, THREADS, 0, s>>>(j);
    steps<<<row_blocks, THREADS, 0, s>>>(j);
    keys<<<tile_blocks, THREADS, 0, s>>>(j);
    order<<<tile_blocks, THREADS, 0, s>>>(j);
    const cudaError_t r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "lists of %d plans of %d x %d tiles: %s", plans, rows, cols,
                       cudaGetErrorString(r));
    *l = {};
    l->rows = rows;
    l->cols = cols;
    l->block_q = p->q.size;
    l->block_k = p->k.size;
    l->n_plans = plans;
    l->row_ptr = row_ptr;
    l->steps = step_words;
    l->order = order_words;
    l->mean = j.mean;
    l->words = j.words;
    return 0;
}
