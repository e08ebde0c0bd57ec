// UMT5's own operations: RMS norm, the product of gate and up, attention with a relative bias a head.
#include "model/ops/cuda/frames/launch.cuh"
#include "model/ops/cuda/text_cuda.h"

namespace
{

constexpr int THREADS = 256, WARPS = THREADS / 32, MOST_DIM = 256;

// A block a row.
template <class T>
__global__ void __launch_bounds__(THREADS)
    norm(T *y, const T *x, const float *weight, int features, float eps)
{
    __shared__ float part[WARPS];
    const T *from = x + static_cast<size_t>(blockIdx.x) * features;
    T *to = y + static_cast<size_t>(blockIdx.x) * features;
    float sum = 0;
    for (int i = threadIdx.x; i < features; i += THREADS)
        sum += to_float(from[i]) * to_float(from[i]);
#pragma unroll
    for (int i = 16; i; i /= 2)
        sum += __shfl_xor_sync(~0u, sum, i);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < WARPS; i++)
        sum += part[i];
    const float scale = 1.0f / sqrtf(sum / static_cast<float>(features) + eps);
    for (int i = threadIdx.x; i < features; i += THREADS)
        to[i] = from_float<T>(rounded<T>(to_float(from[i]) * scale) * weight[i]);
}

template <class T> __global__ void multiply(T *y, const T *x, size_t n)
{
    const size_t step = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += step)
        y[i] = from_float<T>(to_float(y[i]) * to_float(x[i]));
}

__global__ void spread(float *bias, const float *table, const int *bucket, int heads, int span)
{
    const int i = blockIdx.x * THREADS + threadIdx.x, h = blockIdx.y;
    if (i < span) bias[static_cast<size_t>(h) * span + i] = table[bucket[i] * heads + h];
}

// A warp a query, any width of heads: a lane scores one key of 32, then owns channels lane, lane + 32..
// A warp reads its own query before it writes it, so o may be q.
template <class T>
__global__ void __launch_bounds__(THREADS)
    attend(T *o, const T *q, const T *k, const T *v, const float *bias, int n, int heads, int dim)
{
    __shared__ float query[WARPS][MOST_DIM];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = blockIdx.x * WARPS + warp, head = blockIdx.y;
    if (row >= n) return; // whole warps: nothing below waits for other warps
    const size_t stride = static_cast<size_t>(heads) * dim,
                 column = static_cast<size_t>(head) * dim;
    const float *by_key = bias + static_cast<size_t>(head) * (2 * n - 1) + n - 1 - row;
    for (int c = lane; c < dim; c += 32)
        query[warp][c] = to_float(q[row * stride + column + c]);
    __syncwarp();
    float most = -INFINITY, total = 0, sum[MOST_DIM / 32];
#pragma unroll
    for (int i = 0; i < MOST_DIM / 32; i++)
        sum[i] = 0;
    for (int first = 0; first < n; first += 32) {
        const int key = first + lane;
        float s = -INFINITY;
        if (key < n) {
            const T *at = k + key * stride + column;
            s = 0;
            for (int c = 0; c < dim; c++)
                s += query[warp][c] * to_float(at[c]);
            s += by_key[key];
        }
        float top = s;
#pragma unroll
        for (int i = 16; i; i /= 2)
            top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
        top = fmaxf(top, most);
        const float shrink = expf(most - top), p = expf(s - top);
        most = top;
        float all = p;
#pragma unroll
        for (int i = 16; i; i /= 2)
            all += __shfl_xor_sync(~0u, all, i);
        total = total * shrink + all;
#pragma unroll
        for (int i = 0; i < MOST_DIM / 32; i++)
            sum[i] *= shrink;
        const float held = rounded<T>(p);
        for (int j = 0; j < 32 && first + j < n; j++) {
            const float pj = __shfl_sync(~0u, held, j);
            const T *at = v + (first + j) * stride + column;
#pragma unroll
            for (int i = 0; i < MOST_DIM / 32; i++)
                if (lane + 32 * i < dim) sum[i] += pj * to_float(at[lane + 32 * i]);
        }
    }
    const float by = 1 / total;
#pragma unroll
    for (int i = 0; i < MOST_DIM / 32; i++)
        if (lane + 32 * i < dim)
            o[row * stride + column + lane + 32 * i] = from_float<T>(sum[i] * by);
}

// Heads of 64 in bf16: 64 queries a block, a warp 16 of them; keys and values 64 at a time.
constexpr int D = 64, BQ = 64, BK = 64, FLASH_THREADS = 128;

__device__ __forceinline__ uint32_t chunk(uint32_t tile, int row, int c)
{
    return tile + row * (D * 2) + ((c ^ (row & 7)) << 4);
}

__device__ __forceinline__ void load(uint32_t tile, const bf16 *x, size_t stride, int first, int n)
{
#pragma unroll
    for (int i = 0; i < BK * D / 8 / FLASH_THREADS; i++) {
        const int at = i * FLASH_THREADS + threadIdx.x, row = at / (D / 8), c = at % (D / 8);
        const bool inside = first + row < n;
        copy16_async(chunk(tile, row, c), x + (inside ? first + row : 0) * stride + c * 8, inside);
    }
}

__global__ void __launch_bounds__(FLASH_THREADS)
    flash(bf16 *o, const bf16 *q, const bf16 *k, const bf16 *v, const float *bias, int n, int heads)
{
    __shared__ __align__(128) unsigned char raw[(BQ + 4 * BK) * D * 2];
    constexpr int TILE = BK * D * 2;
    const uint32_t q_at = smem_address(raw), k_at = q_at + TILE, v_at = k_at + 2 * TILE;
    const int head = blockIdx.y, row0 = blockIdx.x * BQ;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    const size_t stride = static_cast<size_t>(heads) * D;
    const float *by = bias + static_cast<size_t>(head) * (2 * n - 1) + n - 1;
    const float log2e = 1.4426950408889634f;
    q += static_cast<size_t>(head) * D;
    k += static_cast<size_t>(head) * D;
    v += static_cast<size_t>(head) * D;
    o += static_cast<size_t>(head) * D;
    float sum[D / 8][4], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < D / 8; i++)
        sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0;
    const int passes = (n + BK - 1) / BK;
    load(q_at, q, stride, row0, n);
    load(k_at, k, stride, 0, n);
    load(v_at, v, stride, 0, n);
    copy_commit();
    for (int pass = 0; pass < passes; pass++) {
        const uint32_t k_now = k_at + pass % 2 * TILE, v_now = v_at + pass % 2 * TILE;
        if (pass + 1 < passes) {
            load(k_at + (pass + 1) % 2 * TILE, k, stride, (pass + 1) * BK, n);
            load(v_at + (pass + 1) % 2 * TILE, v, stride, (pass + 1) * BK, n);
        }
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        float s[BK / 8][4];
#pragma unroll
        for (int j = 0; j < BK / 8; j++)
            s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            uint32_t a[4];
            ldmatrix4(a, chunk(q_at, warp * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
            for (int j = 0; j < BK / 16; j++) {
                uint32_t b[4];
                ldmatrix4(b, chunk(k_now, j * 16 + lane / 16 * 8 + lane % 8, 2 * d + lane / 8 % 2));
                mma_bf16(s[2 * j], a, b[0], b[1]);
                mma_bf16(s[2 * j + 1], a, b[2], b[3]);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int query = row0 + warp * 16 + lane / 4 + 8 * h;
            float top = most[h];
#pragma unroll
            for (int j = 0; j < BK / 8; j++)
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    const int key = pass * BK + 8 * j + 2 * t + x;
                    float &e = s[j][2 * h + x];
                    e = key < n && query < n ? e + by[key - query] : -INFINITY;
                    top = fmaxf(top, e);
                }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            const float base = top == -INFINITY ? 0 : top * log2e;
            const float shrink = exp2_fast(most[h] * log2e - base);
            most[h] = top;
            float all = 0;
#pragma unroll
            for (int j = 0; j < BK / 8; j++)
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    float &e = s[j][2 * h + x];
                    e = exp2_fast(fmaf(e, log2e, -base));
                    all += e;
                }
            total[h] = total[h] * shrink + all;
#pragma unroll
            for (int i = 0; i < D / 8; i++) {
                sum[i][2 * h] *= shrink;
                sum[i][2 * h + 1] *= shrink;
            }
        }
#pragma unroll
        for (int j = 0; j < BK / 16; j++) {
            uint32_t p[4];
            p[0] = pack_bf16(s[2 * j][0], s[2 * j][1]);
            p[1] = pack_bf16(s[2 * j][2], s[2 * j][3]);
            p[2] = pack_bf16(s[2 * j + 1][0], s[2 * j + 1][1]);
            p[3] = pack_bf16(s[2 * j + 1][2], s[2 * j + 1][3]);
#pragma unroll
            for (int d = 0; d < D / 16; d++) {
                uint32_t b[4];
                ldmatrix4_trans(b, chunk(v_now, j * 16 + lane % 16, 2 * d + lane / 16));
                mma_bf16(sum[2 * d], p, b[0], b[1]);
                mma_bf16(sum[2 * d + 1], p, b[2], b[3]);
            }
        }
        __syncthreads(); // before the copy of pass + 2 overwrites this stage
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float all = total[h];
        all += __shfl_xor_sync(~0u, all, 1);
        all += __shfl_xor_sync(~0u, all, 2);
        const int query = row0 + warp * 16 + lane / 4 + 8 * h;
        const float scale = all > 0 ? 1 / all : 0;
        if (query >= n) continue;
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            *reinterpret_cast<uint32_t *>(o + query * stride + 8 * i + 2 * t) =
                pack_bf16(sum[i][2 * h] * scale, sum[i][2 * h + 1] * scale);
    }
}

unsigned each(size_t n, size_t a_block)
{
    return static_cast<unsigned>((n + a_block - 1) / a_block);
}

} // namespace

int text_norm_cuda(void *y, const void *x, const float *weight, int n, int features, float eps,
                   bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (is_bf16)
        norm<bf16><<<n, THREADS, 0, s>>>(static_cast<bf16 *>(y), static_cast<const bf16 *>(x),
                                         weight, features, eps);
    else
        norm<float><<<n, THREADS, 0, s>>>(static_cast<float *>(y), static_cast<const float *>(x),
                                          weight, features, eps);
    return launched(cudaGetLastError(), e, "norm of the text encoder");
}

int text_multiply_cuda(void *y, const void *x, size_t n, bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    const unsigned blocks = each(n, THREADS * 4);
    if (is_bf16)
        multiply<bf16>
            <<<blocks, THREADS, 0, s>>>(static_cast<bf16 *>(y), static_cast<const bf16 *>(x), n);
    else
        multiply<float>
            <<<blocks, THREADS, 0, s>>>(static_cast<float *>(y), static_cast<const float *>(x), n);
    return launched(cudaGetLastError(), e, "gate of the text encoder");
}

int text_spread_bias_cuda(float *bias, const float *table, const int *bucket, int heads, int span,
                          void *stream, err *e)
{
    const dim3 grid(each(static_cast<size_t>(span), THREADS), heads);
    spread<<<grid, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(bias, table, bucket, heads,
                                                                    span);
    return launched(cudaGetLastError(), e, "bias of the text encoder");
}

int text_attend_cuda(void *o, const void *q, const void *k, const void *v, const float *bias, int n,
                     int heads, int dim, bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (n < 1 || heads < 1 || heads > 65535 || dim < 1 || dim > MOST_DIM)
        return err_set(e, ERR_BUG, "text attention of %d tokens, %d heads of %d", n, heads, dim);
    const dim3 grid(each(static_cast<size_t>(n), WARPS), heads);
    if (is_bf16 && dim == D) {
        const dim3 tiles(each(static_cast<size_t>(n), BQ), heads);
        flash<<<tiles, FLASH_THREADS, 0, s>>>(static_cast<bf16 *>(o), static_cast<const bf16 *>(q),
                                              static_cast<const bf16 *>(k),
                                              static_cast<const bf16 *>(v), bias, n, heads);
    } else if (is_bf16) {
        attend<bf16><<<grid, THREADS, 0, s>>>(static_cast<bf16 *>(o), static_cast<const bf16 *>(q),
                                              static_cast<const bf16 *>(k),
                                              static_cast<const bf16 *>(v), bias, n, heads, dim);
    } else {
        attend<float><<<grid, THREADS, 0, s>>>(
            static_cast<float *>(o), static_cast<const float *>(q), static_cast<const float *>(k),
            static_cast<const float *>(v), bias, n, heads, dim);
    }
    return launched(cudaGetLastError(), e, "attention of the text encoder");
}
