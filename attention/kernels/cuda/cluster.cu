// k-means of cluster_cuda.h: an iteration is five launches.
//
//   split      centroids to two bf16 parts, and half their squared lengths
//   assign     128 tokens a block by mma.sync against all centroids, 32 at a time: |x - c|^2 falls as x.c - |c|^2 / 2
//              rises
//   count      labels of 256 tokens, a warp a chunk
//   place      from counts to offsets: chunks of a cluster, then clusters; then every token to its place, stably
//   mean       of each cluster's tokens in their order, so that bits do not depend on who came first
#include "attention/kernels/cuda/cluster_cuda.h"
#include "attention/kernels/cuda/device.cuh"
#include "model/base/cuda/ptx.cuh"

namespace
{

constexpr int STRIP = 128, GROUP = 32,
              CHUNK = 256; // tokens a block of assign, centroids at a time, tokens a counting warp

struct Job {
    const bf16 *x;
    int64_t token, head;
    int len, n, padded, chunks; // padded: clusters to a multiple of GROUP
    float *centroid, *half;
    bf16 *high, *low;
    int32_t *label, *order, *offset, *counts; // counts [N, chunks, n]
};

template <int D> __global__ void split(const __grid_constant__ Job j)
{
    const int head = blockIdx.y, c = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32,
              lane = threadIdx.x % 32;
    if (c >= j.padded) return;
    const int64_t at = static_cast<int64_t>(head) * j.padded + c;
    float half = 0;
    for (int i = lane; i < D; i += 32) {
        const float x = c < j.n ? j.centroid[(static_cast<int64_t>(head) * j.n + c) * D + i] : 0;
        const bf16 high = __float2bfloat16(x);
        j.high[at * D + i] = high;
        j.low[at * D + i] = __float2bfloat16(x - __bfloat162float(high));
        half += x * x / 2;
    }
    for (int h = 16; h; h /= 2)
        half += __shfl_xor_sync(~0u, half, h);
    if (lane == 0) j.half[at] = c < j.n ? half : INFINITY;
}

template <int D> __global__ void __launch_bounds__(128) assign(const __grid_constant__ Job j)
{
    constexpr int STEPS = D / 16, PITCH = D + 8; // rows 4 banks apart
    __shared__ bf16 parts[2][GROUP][PITCH];
    __shared__ float half[GROUP];
    const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4,
              t = lane % 4;
    const int first = blockIdx.x * STRIP + warp * 32;
    uint32_t a[2][STEPS][4];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int token = first + m * 16 + g + i % 2 * 8, c = s * 16 + 2 * t + i / 2 * 8;
                a[m][s][i] = token < j.len ? *reinterpret_cast<const uint32_t *>(
                                                 j.x + token * j.token + head * j.head + c)
                                           : 0;
            }
    float best[2][2];
    int who[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            best[m][h] = -INFINITY, who[m][h] = 0;
    for (int from = 0; from < j.padded; from += GROUP) {
        __syncthreads();
        const int64_t at = static_cast<int64_t>(head) * j.padded + from;
        for (int i = threadIdx.x; i < GROUP * D / 8; i += 128) {
            const int row = i / (D / 8), c = i % (D / 8) * 8;
            *reinterpret_cast<uint4 *>(&parts[0][row][c]) =
                *reinterpret_cast<const uint4 *>(j.high + (at + row) * D + c);
            *reinterpret_cast<uint4 *>(&parts[1][row][c]) =
                *reinterpret_cast<const uint4 *>(j.low + (at + row) * D + c);
        }
        if (threadIdx.x < GROUP) half[threadIdx.x] = j.half[at + threadIdx.x];
        __syncthreads();
#pragma unroll
        for (int n = 0; n < GROUP / 8; n++) {
            float z[2][4] = {};
#pragma unroll
            for (int s = 0; s < STEPS; s++)
#pragma unroll
                for (int p = 0; p < 2; p++) {
                    const bf16 *row = &parts[p][n * 8 + g][s * 16 + 2 * t];
                    const uint32_t b0 = *reinterpret_cast<const uint32_t *>(row),
                                   b1 = *reinterpret_cast<const uint32_t *>(row + 8);
                    mma_bf16(z[0], a[0][s], b0, b1);
                    mma_bf16(z[1], a[1][s], b0, b1);
                }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) { // columns rise: an equal one does not replace
                    const int c = n * 8 + 2 * t + i % 2;
                    const float s = z[m][i] - half[c];
                    if (s > best[m][i / 2]) {
                        best[m][i / 2] = s;
                        who[m][i / 2] = from + c;
                    }
                }
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int x = 1; x < 4; x *= 2) {
                const float s = __shfl_xor_sync(~0u, best[m][h], x);
                const int c = __shfl_xor_sync(~0u, who[m][h], x);
                if (s > best[m][h] || (s == best[m][h] && c < who[m][h])) {
                    best[m][h] = s;
                    who[m][h] = c;
                }
            }
            const int token = first + m * 16 + g + h * 8;
            if (t == 0 && token < j.len)
                j.label[static_cast<int64_t>(head) * j.len + token] = who[m][h];
        }
}

// One warp a chunk of tokens; PLACE: its places are known, else they are counted. Lanes of one label find each other.
template <bool PLACE> __global__ void __launch_bounds__(32) walk(const __grid_constant__ Job j)
{
    extern __shared__ int32_t at[];
    const int head = blockIdx.y, chunk = blockIdx.x, lane = threadIdx.x;
    int32_t *counts = j.counts + (static_cast<int64_t>(head) * j.chunks + chunk) * j.n;
    for (int c = lane; c < j.n; c += 32)
        at[c] = PLACE ? counts[c] : 0;
    __syncwarp();
    for (int i = 0; i < CHUNK; i += 32) {
        const int token = chunk * CHUNK + i + lane;
        const int label = token < j.len ? j.label[static_cast<int64_t>(head) * j.len + token] : -1;
        const unsigned same = __match_any_sync(~0u, label);
        const int before = __popc(same & ((1u << lane) - 1));
        if (PLACE && label >= 0)
            j.order[static_cast<int64_t>(head) * j.len + at[label] + before] = token;
        __syncwarp();
        if (label >= 0 && before == 0) at[label] += __popc(same);
        __syncwarp();
    }
    if (!PLACE)
        for (int c = lane; c < j.n; c += 32)
            counts[c] = at[c];
}

// Counts of chunks to places: one block a head
__global__ void __launch_bounds__(1024) offsets(const __grid_constant__ Job j)
{
    __shared__ int32_t warps[32];
    __shared__ int32_t carry;
    const int head = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t *counts = j.counts + static_cast<int64_t>(head) * j.chunks * j.n,
            *offset = j.offset + head * (j.n + 1);
    if (threadIdx.x == 0) carry = 0;
    for (int from = 0; from < j.n; from += 1024) {
        const int c = from + threadIdx.x;
        int32_t all = 0;
        for (int i = 0; c < j.n && i < j.chunks; i++)
            all += counts[static_cast<int64_t>(i) * j.n + c];
        int32_t sum = all; // of this warp's clusters up to this one
        for (int h = 1; h < 32; h *= 2) {
            const int32_t below = __shfl_up_sync(~0u, sum, h);
            if (lane >= h) sum += below;
        }
        if (lane == 31) warps[warp] = sum;
        __syncthreads();
        int32_t at = carry + sum - all;
        for (int w = 0; w < warp; w++)
            at += warps[w];
        if (c < j.n) offset[c] = at;
        for (int i = 0; c < j.n && i < j.chunks; i++) {
            const int64_t place = static_cast<int64_t>(i) * j.n + c;
            const int32_t here = counts[place];
            counts[place] = at;
            at += here;
        }
        __syncthreads();
        if (threadIdx.x == 1023) carry = at; // past the last cluster: nothing is added there
        __syncthreads();
    }
    if (threadIdx.x == 0) offset[j.n] = j.len;
}

template <int D> __global__ void __launch_bounds__(D) mean(const __grid_constant__ Job j)
{
    const int head = blockIdx.y, c = blockIdx.x;
    const int32_t *offset = j.offset + head * (j.n + 1) + c;
    const int from = offset[0], to = offset[1];
    float sum = 0;
    if (from == to) return; // keeps its place
    const int32_t *order = j.order + static_cast<int64_t>(head) * j.len;
#pragma unroll 4
    for (int i = from; i < to; i++)
        sum += __bfloat162float(j.x[order[i] * j.token + head * j.head + threadIdx.x]);
    j.centroid[(static_cast<int64_t>(head) * j.n + c) * D + threadIdx.x] =
        sum / static_cast<float>(to - from);
}

template <int D> __global__ void __launch_bounds__(D) seed(const __grid_constant__ Job j)
{
    const int head = blockIdx.y, c = blockIdx.x;
    const int64_t token = static_cast<int64_t>(c) * j.len / j.n;
    j.centroid[(static_cast<int64_t>(head) * j.n + c) * D + threadIdx.x] =
        __bfloat162float(j.x[token * j.token + head * j.head + threadIdx.x]);
}

size_t rounded(size_t n) { return (n + 255) / 256 * 256; }

// Cuts the scratch; returns its size.
size_t job_of(Job *j, const cluster_call *c)
{
    char *at = static_cast<char *>(c->scratch);
    size_t used = 0;
    *j = {};
    j->x = static_cast<const bf16 *>(c->x.at);
    j->token = c->x.token;
    j->head = c->x.head;
    j->len = c->len;
    j->n = c->n;
    j->padded = (c->n + GROUP - 1) / GROUP * GROUP;
    j->chunks = (c->len + CHUNK - 1) / CHUNK;
    j->centroid = c->centroid;
    j->label = c->label;
    j->order = c->order;
    j->offset = c->offset;
    const size_t rows = static_cast<size_t>(c->n_heads) * static_cast<size_t>(j->padded),
                 part = rows * static_cast<size_t>(c->head_dim) * sizeof(bf16);
    j->high = reinterpret_cast<bf16 *>(at + used);
    used += rounded(part);
    j->low = reinterpret_cast<bf16 *>(at + used);
    used += rounded(part);
    j->half = reinterpret_cast<float *>(at + used);
    used += rounded(rows * sizeof(float));
    j->counts = reinterpret_cast<int32_t *>(at + used);
    used += rounded(static_cast<size_t>(c->n_heads) * static_cast<size_t>(j->chunks) *
                    static_cast<size_t>(c->n) * sizeof(int32_t));
    return used;
}

int check(const cluster_call *c, err *e)
{
    if (c->head_dim != 64 && c->head_dim != 128)
        return err_set(e, ERR_USAGE,
                       "k-means on the device takes heads of 64 or 128 channels, these have %d",
                       c->head_dim);
    if (c->len < 1 || c->n_heads < 1 || c->n_heads > 65535 || c->n < 1 || c->n > CLUSTER_MOST ||
        c->n > c->len || c->iterations < 1)
        return err_set(e, ERR_USAGE,
                       "k-means on the device: %d clusters of %d tokens, %d heads, %d iterations; "
                       "wanted 1 to %d clusters, "
                       "no more than tokens, 1 to 65535 heads, 1 or more iterations",
                       c->n, c->len, c->n_heads, c->iterations, CLUSTER_MOST);
    if (!c->x.at || reinterpret_cast<uintptr_t>(c->x.at) % 16 || c->x.token < 1 || c->x.head < 1 ||
        c->x.token % 8 || c->x.head % 8)
        return err_set(e, ERR_USAGE,
                       "k-means on the device: tokens at %p with strides %lld, %lld; wanted "
                       "16-byte alignment and strides "
                       "that are positive multiples of 8 elements",
                       c->x.at, static_cast<long long>(c->x.token),
                       static_cast<long long>(c->x.head));
    return 0;
}

int launched(const cluster_call *c, err *e)
{
    const cudaError_t r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "k-means of %d tokens, %d heads x %d, %d clusters: %s",
                       c->len, c->n_heads, c->head_dim, c->n, cudaGetErrorString(r));
    return 0;
}

template <int D> void iterate(const Job &j, int n_heads, int iterations, cudaStream_t stream)
{
    const unsigned heads = static_cast<unsigned>(n_heads), n = static_cast<unsigned>(j.n),
                   chunks = static_cast<unsigned>(j.chunks);
    const size_t counters = static_cast<size_t>(j.n) * sizeof(int32_t);
    for (int i = 0; i < iterations; i++) {
        split<D><<<dim3(static_cast<unsigned>(j.padded) / 8, heads), 256, 0, stream>>>(j);
        assign<D>
            <<<dim3(static_cast<unsigned>((j.len + STRIP - 1) / STRIP), heads), 128, 0, stream>>>(
                j);
        walk<false><<<dim3(chunks, heads), 32, counters, stream>>>(j);
        offsets<<<heads, 1024, 0, stream>>>(j);
        walk<true><<<dim3(chunks, heads), 32, counters, stream>>>(j);
        mean<D><<<dim3(n, heads), D, 0, stream>>>(j);
    }
}

} // namespace

size_t cluster_cuda_scratch(const cluster_call *c)
{
    Job j;
    return job_of(&j, c);
}

int cluster_cuda_seed(const cluster_call *c, err *e)
{
    Job j;
    if (check(c, e) < 0) return -1;
    job_of(&j, c);
    const dim3 grid(static_cast<unsigned>(c->n), static_cast<unsigned>(c->n_heads));
    const cudaStream_t stream = static_cast<cudaStream_t>(c->stream);
    if (c->head_dim == 128)
        seed<128><<<grid, 128, 0, stream>>>(j);
    else
        seed<64><<<grid, 64, 0, stream>>>(j);
    return launched(c, e);
}

int cluster_cuda(const cluster_call *c, err *e)
{
    Job j;
    if (check(c, e) < 0) return -1;
    if (!c->scratch || reinterpret_cast<uintptr_t>(c->scratch) % 256)
        return err_set(e, ERR_BUG,
                       "k-means on the device: scratch at %p, wanted 256-byte aligned memory",
                       c->scratch);
    job_of(&j, c);
    if (c->head_dim == 128)
        iterate<128>(j, c->n_heads, c->iterations, static_cast<cudaStream_t>(c->stream));
    else
        iterate<64>(j, c->n_heads, c->iterations, static_cast<cudaStream_t>(c->stream));
    return launched(c, e);
}
