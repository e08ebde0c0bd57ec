// quant_qkv: codes and scales of q, k and v for 8-bit attention, and means of blocks for planners,
// in two passes.
//
// SageAttention2 (arXiv 2411.10958), attention-kernels 1.2: smoothing, scales a lane of the tensor
// core's fragment, values transposed. quant_ref.c says what every code must be, given the means and
// value scales of this pass.
//
//   first pass    sums of k and largest |v| a channel, QUANT_CHUNK tokens a block; a small kernel
//   joins them second pass   a block takes 128 tokens of one head of q, k or v: 256 threads, 8
//   channels each of a token
//
// Bytes an element of q, k, v: 4/3 + 2 read, 1 written. sm_80 and later.
#include "attention/kernels/cuda/quant_codes.cuh"

namespace
{

// ---- first pass ----

template <int D>
__global__ void __launch_bounds__(THREADS) key_sums(const __grid_constant__ QuantArgs a)
{
    constexpr int LANES = D / 8, ROWS = THREADS / LANES;
    __shared__ float shared[2][ROWS][D];
    const int head = blockIdx.y, chunk = blockIdx.x, c = threadIdx.x % LANES * 8,
              row = threadIdx.x / LANES;
    const bf16 *k = a.k + head * a.k_head + c, *v = a.v + head * a.v_head + c;
    float sum[8] = {}, most[8] = {};
#pragma unroll 4
    for (int i = 0; i < QUANT_CHUNK / ROWS; i++) {
        const int64_t token = chunk * QUANT_CHUNK + i * ROWS + row;
        const bool there = token < a.c.len_k;
        float x[8], y[8];
        widen(x, load8(k + token * a.k_token, there));
        widen(y, load8(v + token * a.v_token, there));
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j] += x[j];
            most[j] = fmaxf(most[j], fabsf(y[j]));
        }
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        shared[0][row][c + j] = sum[j];
        shared[1][row][c + j] = most[j];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * D;
         i += THREADS) { // always in this order: the same bits each time
        const int which = i / D, at = i % D;
        float x = 0;
        for (int r = 0; r < ROWS; r++)
            x = which ? fmaxf(x, shared[1][r][at]) : x + shared[0][r][at];
        a.c.partial[((static_cast<int64_t>(head) * a.chunks + chunk) * 2 + which) * D + at] = x;
    }
}

template <int D>
__global__ void __launch_bounds__(1024) join_sums(const __grid_constant__ QuantArgs a)
{
    constexpr int PARTS = 1024 / (2 * D);
    __shared__ float shared[PARTS][2 * D];
    const int head = blockIdx.x, at = threadIdx.x % (2 * D), part = threadIdx.x / (2 * D);
    const float *from = a.c.partial + static_cast<int64_t>(head) * a.chunks * 2 * D + at;
    float x = 0;
    for (int i = part; i < a.chunks; i += PARTS)
        x = at < D ? x + from[static_cast<int64_t>(i) * 2 * D]
                   : fmaxf(x, from[static_cast<int64_t>(i) * 2 * D]);
    shared[part][at] = x;
    __syncthreads();
    if (part > 0) return;
    for (int i = 1; i < PARTS; i++)
        x = at < D ? x + shared[i][at] : fmaxf(x, shared[i][at]);
    if (at < D)
        a.c.k_mean[head * D + at] = a.c.how.smooth_k ? x / static_cast<float>(a.c.len_k) : 0;
    else
        a.c.v_scale[head * D + at - D] =
            fmaxf(x, 1e-7f) / (a.c.how.values == QUANT_S8 ? 1.0f : 448.0f);
}

// delta[block, key] = q_mean · (k - k_mean): 32 blocks of queries by 64 keys a block of threads; no
// tensor cores, their fp32 would round what smoothing saved.
template <int D>
__global__ void __launch_bounds__(THREADS) make_delta(const __grid_constant__ QuantArgs a)
{
    __shared__ float q[32][D + 1], k[64][33];
    const int head = blockIdx.z, q0 = blockIdx.y * 32, k0 = blockIdx.x * 64, tx = threadIdx.x % 16,
              ty = threadIdx.x / 16;
    float sum[2][4] = {};
    for (int i = threadIdx.x; i < 32 * D; i += THREADS) {
        const int b = q0 + i / D;
        q[i / D][i % D] =
            b < a.c.q_blocks
                ? a.c.q_mean[(static_cast<int64_t>(head) * a.c.q_blocks + b) * D + i % D]
                : 0;
    }
    for (int d = 0; d < D; d += 32) {
        __syncthreads();
        for (int i = threadIdx.x; i < 64 * 32; i += THREADS) {
            const int token = k0 + i / 32, c = d + i % 32;
            k[i / 32][i % 32] =
                token < a.c.len_k ? __bfloat162float(a.k[token * a.k_token + head * a.k_head + c]) -
                                        a.c.k_mean[head * D + c]
                                  : 0;
        }
        __syncthreads();
        for (int c = 0; c < 32; c++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] += q[ty + 16 * i][d + c] * k[tx + 16 * j][c];
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int b = q0 + ty + 16 * i, token = k0 + tx + 16 * j;
            if (b < a.c.q_blocks)
                a.c.delta[(static_cast<int64_t>(head) * a.c.q_blocks + b) * a.c.k_blocks * BLOCK +
                          token] = sum[i][j];
        }
}

template <int D> cudaError_t enqueue(const QuantArgs &a, cudaStream_t stream)
{
    const unsigned heads = static_cast<unsigned>(a.c.n_heads);
    const int blocks = a.c.q_blocks > a.c.k_blocks ? a.c.q_blocks : a.c.k_blocks;
    key_sums<D><<<dim3(static_cast<unsigned>(a.chunks), heads), THREADS, 0, stream>>>(a);
    join_sums<D><<<heads, 1024, 0, stream>>>(a);
    make_codes<D><<<dim3(static_cast<unsigned>(blocks), heads, 3), THREADS, 0, stream>>>(a);
    if (a.c.how.smooth_q)
        make_delta<D><<<dim3(static_cast<unsigned>(a.c.k_blocks) * 2,
                             static_cast<unsigned>((a.c.q_blocks + 31) / 32), heads),
                        THREADS, 0, stream>>>(a);
    return cudaGetLastError();
}

bool tensor_fits(const attn_tensor &t)
{
    return t.at && reinterpret_cast<uintptr_t>(t.at) % 16 == 0 && t.token > 0 && t.head > 0 &&
           t.token % 8 == 0 && t.head % 8 == 0;
}

} // namespace

int quant_qkv(quant_codes *c, const attn_cuda *w, err *e)
{
    if (sage_check(c, w, e) < 0) return -1;
    if (!tensor_fits(w->q) || !tensor_fits(w->k) || !tensor_fits(w->v))
        return err_set(e, ERR_USAGE,
                       "quant_qkv: q, k or v is not 16-byte aligned, or has strides that are not "
                       "positive multiples of 8");
    QuantArgs a = {};
    a.c = *c;
    a.q = static_cast<const bf16 *>(w->q.at);
    a.k = static_cast<const bf16 *>(w->k.at);
    a.v = static_cast<const bf16 *>(w->v.at);
    a.q_token = w->q.token;
    a.q_head = w->q.head;
    a.k_token = w->k.token;
    a.k_head = w->k.head;
    a.v_token = w->v.token;
    a.v_head = w->v.head;
    a.chunks = quant_chunks(c->len_k);
    const cudaStream_t stream = static_cast<cudaStream_t>(w->stream);
    const cudaError_t r = c->head_dim == 128 ? enqueue<128>(a, stream) : enqueue<64>(a, stream);
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "quant_qkv of %d queries, %d keys, %d heads x %d: %s",
                       c->len_q, c->len_k, c->n_heads, c->head_dim, cudaGetErrorString(r));
    return 0;
}
