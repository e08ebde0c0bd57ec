// flash_sm80 and sparse_sm80: mma.sync and cp.async, for every card since Ampere; second judge of
// the Hopper kernels, and the one to debug with.
//
// FlashAttention-2, arXiv 2307.08691: a block owns 128 queries of one head, or 64 where a plan's rows
// are 64, 4 warps of 32 or 16; keys and values pass through two stages of 64. A step of a plan with
// 128-key tiles is two such passes.
//
//   shared      queries [128 or 64][D], then STAGES x keys [64][D], STAGES x values [64][D], bf16;
//               16-byte chunk c of row r lies at chunk c ^ (r % 8), so that the 8 rows of an
//               ldmatrix meet 8 different banks groups
#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/device.cuh"
#include "model/base/cuda/ptx.cuh"

namespace
{

constexpr int BQ = 128, BK = 64, WARPS = 4, STAGES = 2, THREADS = 32 * WARPS;
constexpr int MT = BQ / WARPS / 16; // 16-row pieces a warp owns, of 128 queries

struct Args {
    const bf16 *q, *k, *v, *k_mean, *v_mean;
    int64_t q_token, q_head, k_token, k_head, v_token, v_head;
    int64_t km_token, km_head, vm_token, vm_head, o_token, o_head;
    bf16 *o;
    const float *key_bias;
    float *lse;
    uint32_t *alive;
    const uint32_t *row_ptr, *steps, *order, *mean;
    int len_q, len_k, rows, per_head, words, cols, block_k;
    float scale_log2, alive_log2, mean_full, mean_last;
};

template <int D> __device__ __forceinline__ uint32_t chunk(uint32_t tile, int row, int c)
{
    return tile + row * (D * 2) + ((c ^ (row & 7)) << 4);
}

// rows [first, first + N) of one head into a tile; rows past `len` are zero
template <int D, int N>
__device__ __forceinline__ void load(uint32_t tile, const bf16 *x, int64_t token, int first,
                                     int len)
{
    constexpr int CHUNKS = D / 8;
    static_assert(N * CHUNKS % THREADS == 0, "every thread copies the same number of chunks");
#pragma unroll
    for (int i = 0; i < N * CHUNKS / THREADS; i++) {
        const int n = i * THREADS + threadIdx.x, row = n / CHUNKS, c = n % CHUNKS;
        const bool inside = first + row < len;
        copy16_async(chunk<D>(tile, row, c), x + (inside ? first + row : 0) * token + c * 8,
                     inside);
    }
}

struct Pass { // 64 keys of a step
    uint32_t step;
    int key0; // first key, or first mean key
};

template <bool LIST>
__device__ __forceinline__ Pass pass_at(const Args &a, const uint32_t *steps, int i)
{
    if (!LIST) return {0, i * BK};
    const int per = a.block_k / BK;
    const uint32_t step = steps[i / per];
    return {step, static_cast<int>(ATTN_STEP_TILE(step)) * a.block_k + i % per * BK};
}

template <int D>
__device__ __forceinline__ void load_pass(const Args &a, const Pass &p, uint32_t tile, int head,
                                          bool values)
{
    if (p.step & ATTN_STEP_MEAN) {
        if (values)
            load<D, BK>(tile, a.v_mean + head * a.vm_head, a.vm_token, p.key0, a.cols);
        else
            load<D, BK>(tile, a.k_mean + head * a.km_head, a.km_token, p.key0, a.cols);
    } else if (values) {
        load<D, BK>(tile, a.v + head * a.v_head, a.v_token, p.key0, a.len_k);
    } else {
        load<D, BK>(tile, a.k + head * a.k_head, a.k_token, p.key0, a.len_k);
    }
}

// What is added to the score of a column, unscaled; -inf hides it
__device__ __forceinline__ float column_bias(const Args &a, const Pass &p, int column, int plan_row)
{
    const int key = p.key0 + column;
    if (p.step & ATTN_STEP_MEAN) {
        if (key >= a.cols) return -INFINITY;
        const uint32_t bits = a.mean[static_cast<size_t>(plan_row) * a.words + key / 32];
        if (!(bits >> (key % 32) & 1)) return -INFINITY;
        return key + 1 < a.cols ? a.mean_full : a.mean_last;
    }
    if (key >= a.len_k) return -INFINITY;
    return a.key_bias ? a.key_bias[key] * 1.4426950408889634f / a.scale_log2 : 0;
}

template <int D, bool LIST, int MT>
__global__ void __launch_bounds__(THREADS, D == 64 || MT == 1 ? 2 : 1)
    attention(const __grid_constant__ Args a)
{
    constexpr int BQ = MT * WARPS * 16;
    extern __shared__ unsigned char raw[];
    const uint32_t q_at = smem_address(raw), k_at = q_at + BQ * D * 2;
    const uint32_t v_at = k_at + STAGES * BK * D * 2;
    const int head_row =
        LIST ? static_cast<int>(a.order[blockIdx.x]) : static_cast<int>(blockIdx.x);
    const int head = head_row / a.rows, row = head_row - head * a.rows;
    const int plan_row = a.per_head ? head_row : row;
    const uint32_t *steps = LIST ? a.steps + a.row_ptr[plan_row] : nullptr;
    const int passes =
        LIST ? static_cast<int>(a.row_ptr[plan_row + 1] - a.row_ptr[plan_row]) * (a.block_k / BK)
             : (a.len_k + BK - 1) / BK;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    const int row0 = warp * MT * 16; // of this warp in the tile
    float o[MT][D / 8][4], most[MT][2], sum[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            o[m][i][0] = o[m][i][1] = o[m][i][2] = o[m][i][3] = 0;
        most[m][0] = most[m][1] = -INFINITY;
        sum[m][0] = sum[m][1] = 0;
    }
    Pass now = {}, next = {};
    if (passes > 0) {
        now = pass_at<LIST>(a, steps, 0);
        load<D, BQ>(q_at, a.q + head * a.q_head, a.q_token, row * BQ, a.len_q);
        load_pass<D>(a, now, k_at, head, false);
        load_pass<D>(a, now, v_at, head, true);
    }
    copy_commit();
    for (int n = 0; n < passes; n++) {
        const uint32_t k_now = k_at + n % STAGES * BK * D * 2,
                       v_now = v_at + n % STAGES * BK * D * 2;
        if (n + 1 < passes) {
            const uint32_t other = (n + 1) % STAGES * BK * D * 2;
            next = pass_at<LIST>(a, steps, n + 1);
            load_pass<D>(a, next, k_at + other, head, false);
            load_pass<D>(a, next, v_at + other, head, true);
        }
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        float s[MT][BK / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            uint32_t q[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++)
                ldmatrix4(q[m], chunk<D>(q_at, row0 + m * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
            for (int j = 0; j < BK / 16; j++) {
                uint32_t k[4];
                ldmatrix4(k,
                          chunk<D>(k_now, j * 16 + lane / 16 * 8 + lane % 8, 2 * d + lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma_bf16(s[m][2 * j], q[m], k[0], k[1]);
                    mma_bf16(s[m][2 * j + 1], q[m], k[2], k[3]);
                }
            }
        }
        if (a.key_bias || now.step & ATTN_STEP_MEAN || now.key0 + BK > a.len_k) {
#pragma unroll
            for (int j = 0; j < BK / 8; j++) {
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    const float more = column_bias(a, now, 8 * j + 2 * t + x, plan_row);
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        s[m][j][x] += more;
                        s[m][j][2 + x] += more;
                    }
                }
            }
        }
        bool wanted = false;
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = -INFINITY;
#pragma unroll
                for (int j = 0; j < BK / 8; j++)
                    top = fmaxf(top, fmaxf(s[m][j][2 * h], s[m][j][2 * h + 1]));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
                const int query = row * BQ + row0 + m * 16 + lane / 4 + 8 * h;
                const float rise =
                    (top - most[m][h]) * a.scale_log2; // NaN: nothing yet, nothing now
                if (query < a.len_q && (most[m][h] == -INFINITY || rise > a.alive_log2))
                    wanted = true;
                top = fmaxf(top, most[m][h]);
                const float base = top == -INFINITY ? 0 : top * a.scale_log2;
                const float shrink = exp2_fast(most[m][h] * a.scale_log2 - base);
                most[m][h] = top;
                float all = 0;
#pragma unroll
                for (int j = 0; j < BK / 8; j++) {
#pragma unroll
                    for (int x = 0; x < 2; x++) {
                        float &e = s[m][j][2 * h + x];
                        e = exp2_fast(fmaf(e, a.scale_log2, -base));
                        all += e;
                    }
                }
                sum[m][h] = sum[m][h] * shrink + all;
#pragma unroll
                for (int i = 0; i < D / 8; i++) {
                    o[m][i][2 * h] *= shrink;
                    o[m][i][2 * h + 1] *= shrink;
                }
            }
        }
        // a pass wholly past the last key wants nothing that its twin did not
        if (LIST && a.alive && !(now.step & ATTN_STEP_MEAN) && now.key0 < a.len_k) {
            const uint32_t tile = ATTN_STEP_TILE(now.step);
            if (__any_sync(~0u, wanted) && lane == 0)
                atomicOr(&a.alive[static_cast<size_t>(head_row) * a.words + tile / 32],
                         1u << tile % 32);
        }
#pragma unroll
        for (int j = 0; j < BK / 16; j++) {
            uint32_t p[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                p[m][0] = pack_bf16(s[m][2 * j][0], s[m][2 * j][1]);
                p[m][1] = pack_bf16(s[m][2 * j][2], s[m][2 * j][3]);
                p[m][2] = pack_bf16(s[m][2 * j + 1][0], s[m][2 * j + 1][1]);
                p[m][3] = pack_bf16(s[m][2 * j + 1][2], s[m][2 * j + 1][3]);
            }
#pragma unroll
            for (int d = 0; d < D / 16; d++) {
                uint32_t v[4];
                ldmatrix4_trans(v, chunk<D>(v_now, j * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma_bf16(o[m][2 * d], p[m], v[0], v[1]);
                    mma_bf16(o[m][2 * d + 1], p[m], v[2], v[3]);
                }
            }
        }
        __syncthreads(); // before the copy of pass n + 2 overwrites this stage
        now = next;
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float all = sum[m][h];
            all += __shfl_xor_sync(~0u, all, 1);
            all += __shfl_xor_sync(~0u, all, 2);
            const float by = all > 0 ? 1 / all : 0;
            const int query = row * BQ + row0 + m * 16 + lane / 4 + 8 * h;
            const bool inside = query < a.len_q;
            if (a.lse && t == 0 && inside)
                a.lse[static_cast<size_t>(head) * a.len_q + query] =
                    all > 0 ? (most[m][h] * a.scale_log2 + log2f(all)) * 0.693147180559945f
                            : -INFINITY;
            bf16 *out = a.o + query * a.o_token + head * a.o_head;
#pragma unroll
            for (int j = 0; j < D / 8; j += 4) {
                uint32_t x[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    x[i] = pack_bf16(o[m][j + i][2 * h] * by, o[m][j + i][2 * h + 1] * by);
                quad_transpose(x);
                if (inside)
                    *reinterpret_cast<uint4 *>(out + 8 * (j + t)) =
                        make_uint4(x[0], x[1], x[2], x[3]);
            }
        }
    }
}

// mass[head_row][tile]: QKt once more, under the logarithm of the sum that is known. One block a
// (row of tiles, tile); warps own 32 queries each and are summed in a fixed order.
template <int D>
__global__ void __launch_bounds__(THREADS) mass(float *out, const __grid_constant__ Args a)
{
    extern __shared__ unsigned char raw[];
    __shared__ float part[WARPS];
    const uint32_t q_at = smem_address(raw), k_at = q_at + BQ * D * 2;
    const int tile = blockIdx.x, row = blockIdx.y, head = blockIdx.z;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4, row0 = warp * MT * 16;
    float all = 0;
    load<D, BQ>(q_at, a.q + head * a.q_head, a.q_token, row * BQ, a.len_q);
    for (int n = 0; n < a.block_k / BK; n++) {
        const int key0 = tile * a.block_k + n * BK;
        load<D, BK>(k_at, a.k + head * a.k_head, a.k_token, key0, a.len_k);
        copy_commit();
        copy_wait<0>();
        __syncthreads();
#pragma unroll
        for (int m = 0; m < MT; m++) {
            float s[BK / 8][4] = {};
#pragma unroll
            for (int d = 0; d < D / 16; d++) {
                uint32_t q[4];
                ldmatrix4(q, chunk<D>(q_at, row0 + m * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
                for (int j = 0; j < BK / 16; j++) {
                    uint32_t k[4];
                    ldmatrix4(
                        k, chunk<D>(k_at, j * 16 + lane / 16 * 8 + lane % 8, 2 * d + lane / 8 % 2));
                    mma_bf16(s[2 * j], q, k[0], k[1]);
                    mma_bf16(s[2 * j + 1], q, k[2], k[3]);
                }
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int query = row * BQ + row0 + m * 16 + lane / 4 + 8 * h;
                if (query >= a.len_q) continue;
                const float lse = a.lse[static_cast<size_t>(head) * a.len_q + query];
                if (lse == -INFINITY) continue;
                const float base = lse * 1.4426950408889634f;
#pragma unroll
                for (int j = 0; j < BK / 8; j++)
#pragma unroll
                    for (int x = 0; x < 2; x++)
                        if (key0 + 8 * j + 2 * t + x < a.len_k)
                            all += exp2_fast(fmaf(s[j][2 * h + x], a.scale_log2, -base));
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int x = 16; x; x /= 2)
        all += __shfl_xor_sync(~0u, all, x);
    if (lane == 0) part[warp] = all;
    __syncthreads();
    if (threadIdx.x) return;
    const int queries = min(BQ, a.len_q - row * BQ);
    out[(static_cast<size_t>(head) * a.rows + row) * a.cols + tile] =
        (part[0] + part[1] + part[2] + part[3]) / queries;
}

// ---- host ----

Args arguments(const attn_cuda *w, const attn_lists *l)
{
    Args a = {};
    a.q = static_cast<const bf16 *>(w->q.at);
    a.q_token = w->q.token;
    a.q_head = w->q.head;
    a.k = static_cast<const bf16 *>(w->k.at);
    a.k_token = w->k.token;
    a.k_head = w->k.head;
    a.v = static_cast<const bf16 *>(w->v.at);
    a.v_token = w->v.token;
    a.v_head = w->v.head;
    a.o = static_cast<bf16 *>(w->o.at);
    a.o_token = w->o.token;
    a.o_head = w->o.head;
    a.key_bias = w->key_bias;
    a.lse = w->lse;
    a.len_q = w->len_q;
    a.len_k = w->len_k;
    a.rows = l ? l->rows : (w->len_q + BQ - 1) / BQ;
    const double scale = 1.4426950408889634 / sqrt(static_cast<double>(w->head_dim));
    a.scale_log2 = static_cast<float>(scale);
    if (!l) return a;
    a.k_mean = static_cast<const bf16 *>(w->k_mean.at);
    a.km_token = w->k_mean.token;
    a.km_head = w->k_mean.head;
    a.v_mean = static_cast<const bf16 *>(w->v_mean.at);
    a.vm_token = w->v_mean.token;
    a.vm_head = w->v_mean.head;
    a.row_ptr = l->row_ptr;
    a.steps = l->steps;
    a.order = l->order;
    a.mean = l->mean;
    a.per_head = l->n_plans > 1;
    a.words = l->words;
    a.cols = l->cols;
    a.block_k = l->block_k;
    a.alive = w->alive;
    a.alive_log2 = w->alive_log2;
    a.mean_full = static_cast<float>(log2(static_cast<double>(l->block_k)) / scale);
    a.mean_last = static_cast<float>(
        log2(static_cast<double>(w->len_k - (l->cols - 1) * l->block_k)) / scale);
    return a;
}

template <int D, bool LIST, int PIECES = MT> int launch(const attn_cuda *w, err *e)
{
    constexpr int SHARED = (PIECES * WARPS * 16 + 2 * STAGES * BK) * D * 2;
    const Args a = arguments(w, LIST ? w->lists : nullptr);
    cudaStream_t stream = static_cast<cudaStream_t>(w->stream);
    const auto kernel = attention<D, LIST, PIECES>;
    cudaError_t r =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (r == cudaSuccess && LIST && a.alive)
        r = cudaMemsetAsync(a.alive, 0, sizeof(uint32_t) * a.rows * w->n_heads * a.words, stream);
    if (r == cudaSuccess) {
        const int blocks = a.rows * w->n_heads;
        kernel<<<blocks, THREADS, SHARED, stream>>>(a);
        r = cudaGetLastError();
    }
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "sm_80 attention of %d queries, %d keys, %d heads x %d: %s",
                       w->len_q, w->len_k, w->n_heads, D, cudaGetErrorString(r));
    return 0;
}

template <int D> int launch_mass(float *out, const Args &a, int heads, cudaStream_t stream, err *e)
{
    constexpr int SHARED = (BQ + BK) * D * 2;
    const auto kernel = mass<D>;
    cudaError_t r =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (r == cudaSuccess) {
        const dim3 grid(a.cols, a.rows, heads);
        kernel<<<grid, THREADS, SHARED, stream>>>(out, a);
        r = cudaGetLastError();
    }
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "mass of %d x %d tiles, %d heads: %s", a.rows, a.cols, heads,
                       cudaGetErrorString(r));
    return 0;
}

} // namespace

int attn_sm80(const attn_cuda *w, err *e)
{
    attn_tile t;
    if (attn_tile_pick(&t, ATTN_SM80, w, e) < 0) return -1;
    if (w->lists && t.block_q == 64)
        return w->head_dim == 128 ? launch<128, true, 1>(w, e) : launch<64, true, 1>(w, e);
    if (w->head_dim == 128) return w->lists ? launch<128, true>(w, e) : launch<128, false>(w, e);
    return w->lists ? launch<64, true>(w, e) : launch<64, false>(w, e);
}

int attn_mass_sm80(float *out, const attn_cuda *w, const float *lse, int block_q, int block_k,
                   err *e)
{
    attn_tile t;
    attn_cuda dense = *w;
    dense.lists = nullptr;
    dense.alive = nullptr;
    if (attn_tile_pick(&t, ATTN_SM80, &dense, e) < 0) return -1;
    Args a = arguments(&dense, nullptr);
    a.lse = const_cast<float *>(lse);
    a.block_k = block_k;
    a.cols = (w->len_k - 1) / (block_k > 0 ? block_k : 1) + 1;
    if (block_q != BQ || (block_k != 64 && block_k != 128) || a.rows > 65535)
        return err_set(
            e, ERR_USAGE,
            "the mass of %d rows of tiles of %d x %d: wanted tiles of 128 x 64 or 128, and "
            "65535 rows or fewer",
            a.rows, block_q, block_k);
    cudaStream_t stream = static_cast<cudaStream_t>(w->stream);
    return w->head_dim == 128 ? launch_mass<128>(out, a, w->n_heads, stream, e)
                              : launch_mass<64>(out, a, w->n_heads, stream, e);
}
