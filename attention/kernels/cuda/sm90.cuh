// The Hopper kernel behind flash_sm90, sparse_sm90, sparse64_sm90 and ragged_sm90.
//
// FlashAttention-3, arXiv 2407.08608: one warp feeds keys and values through a ring of stages, 2 or
// 3 warpgroups own 64 queries each and take turns at the tensor cores (3.1); within one, the scores
// of tile i and the output of tile i - 1 are in flight together (3.2). Differences: blocks take
// rows of tiles from a counter, longest first when the plan is sparse; outputs leave by plain
// 16-byte stores after a transposition inside quads, so that the query buffer is free one tile
// early; a row's last tile, which may be ragged, comes first, so that no other is masked; lists of
// 64 channels have a loop of their own (sm90_ahead.cuh).
//
// Shared memory that is written by ordinary stores is a row's words alone. What a stage holds is
// read from the plan in global memory by those who want to know.
//
//   queries     [column half][64 * WGS][64] bf16, 128-byte swizzle, as the copy engine writes boxes
//   keys        STAGES x [column half][BK][64]: K-major operand of S = Q Kt
//   values      the same: MN-major operand of O += P V; P never leaves registers
//
//   sm90_shape    instances, arguments, shared memory    sm90_softmax   one tile in registers
//   sm90_feed     the feeding thread                     sm90_rows      the loop over a row's tiles
//   sm90_gather   the feeding warpgroup of ragged_sm90   sm90_ahead     that of d64 lists
//
// Included by the files that compile instances of it, for sm_90a alone.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_CUH

#include "attention/kernels/cuda/sm90_ahead.cuh"
#include "attention/kernels/cuda/sm90_feed.cuh"
#include "attention/kernels/cuda/sm90_gather.cuh"

namespace
{

// A consuming warpgroup: its 64 queries of one row after another
template <class S>
__device__ void consume(const Args &a, Control<S::STAGES> &c, int group, uint32_t q_at,
                        uint32_t k_at, uint32_t v_at)
{
    const uint32_t q_full = smem_address(&c.q_full), q_mine = q_at + group * 64 * 128;
    const Matrices m = {wgmma_matrix(q_mine, 16, 1024), wgmma_matrix(k_at, 16, 1024),
                        wgmma_matrix(v_at, S::BK * 128, 1024)};
    uint32_t kv = 0; // key stages used so far; values lag one behind inside a row
    if (S::TURNS && group == S::WGS - 1) named_arrive(1, 2 * WG); // the first's turn
    for (uint32_t turn = 0;; turn++) {
        mbar_wait(q_full, turn & 1);
        const typename Control<S::STAGES>::Words &row = c.words[turn & 1];
        if (peek(row.head) < 0) break;
        const int count = peek(row.count);
        const uint32_t first = static_cast<uint32_t>(peek(row.first));
        if (S::RAGGED && count > 0 && peek(row.q0) + group * 64 >= peek(row.q_end)) {
            skip_row<S>(kv, count, c, group);
            continue;
        }
        float o[S::D / 2];
        Rows r = {{-INFINITY, -INFINITY}, {0, 0}};
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            o[i] = 0;
        if (count == 0)
            release_row(c.q_empty);
        else if constexpr (S::TWO)
            consume_row_ahead<S>(o, r, kv, count, first, row, a, c, group, m);
        else
            consume_row<S>(o, r, kv, count, first, row, a, c, group, q_mine, k_at, v_at);
        finish<S>(o, r, a, peek(row.head), query_of(peek(row.q0), group), peek(row.q_end));
    }
    if (S::TURNS && group == 0) named_wait(1, 2 * WG); // the last arrival is nobody's
}

template <class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    attention(const __grid_constant__ Maps<S> maps, const __grid_constant__ Args a)
{
    extern __shared__ unsigned char raw[];
    __shared__ Control<S::STAGES> c;
    const uint32_t q_at = (smem_address(raw) + 1023) & ~1023u, k_at = q_at + S::Q_BYTES;
    const uint32_t v_at = k_at + S::STAGES * S::KV_BYTES;
    if (threadIdx.x == 0) {
        const int warps = S::WGS * 4; // one arrival each frees a stage
        mbar_init(smem_address(&c.q_full), 1);
        mbar_init(smem_address(&c.q_empty), warps * 32);
        for (int i = 0; i < S::STAGES; i++) {
            mbar_init(smem_address(&c.k_full[i]), S::RAGGED ? WG : 1);
            mbar_init(smem_address(&c.v_full[i]), S::RAGGED ? WG : 1);
            mbar_init(smem_address(&c.k_empty[i]), warps);
            mbar_init(smem_address(&c.v_empty[i]), warps);
        }
        mbar_init_fence();
        tma_prefetch(&maps.q);
        if constexpr (!S::RAGGED) {
            tma_prefetch(&maps.k);
            tma_prefetch(&maps.v);
        }
    }
    __syncthreads();
    if (threadIdx.x < WG) {
        registers_shrink<S::SHRINK>();
        if constexpr (S::RAGGED)
            produce_ragged<S>(a, maps, c, q_at, k_at, v_at);
        else if (threadIdx.x == 0)
            produce<S>(a, maps, c, q_at, k_at, v_at);
    } else {
        registers_grow<S::GROW>();
        // the same for a warp: addresses in uniform registers
        const int group = __shfl_sync(~0u, threadIdx.x / WG, 0) - 1;
        consume<S>(a, c, group, q_at, k_at, v_at);
    }
}

// ---- host ----

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode encode_tiled(err *e) // the driver's, without linking to it
{
    void *at = nullptr;
    cudaDriverEntryPointQueryResult state;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &at, 12000, cudaEnableDefault,
                                         &state) != cudaSuccess ||
        state != cudaDriverEntryPointSuccess)
        err_set(e, ERR_DEVICE,
                "the NVIDIA driver has no cuTensorMapEncodeTiled; it must be 525 or newer");
    return reinterpret_cast<Encode>(at);
}

// Boxes of 64 channels x `rows` tokens of one head; what lies outside the tensor reads as zero.
int tensor_map(Encode encode, CUtensorMap *map, const attn_tensor &t, int len, int heads, int dim,
               int rows, err *e)
{
    const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(dim), static_cast<cuuint64_t>(len),
                                 static_cast<cuuint64_t>(heads)};
    const cuuint64_t strides[2] = {static_cast<cuuint64_t>(t.token) * 2,
                                   static_cast<cuuint64_t>(t.head) * 2};
    const cuuint32_t box[3] = {BOX, static_cast<cuuint32_t>(rows), 1}, one[3] = {1, 1, 1};
    const CUresult r =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, t.at, sizes, strides, box, one,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r != CUDA_SUCCESS)
        return err_set(e, ERR_BUG,
                       "no tensor map of [%d, %d, %d] with strides %lld, %lld: error %d", len,
                       heads, dim, static_cast<long long>(t.token), static_cast<long long>(t.head),
                       static_cast<int>(r));
    return 0;
}

Args outputs_of(const attn_cuda *w)
{
    Args a = {};
    a.o = static_cast<bf16 *>(w->o.at);
    a.o_token = w->o.token;
    a.o_head = w->o.head;
    a.lse = w->lse;
    a.counter = static_cast<unsigned *>(w->scratch);
    a.len_q = w->len_q;
    a.len_k = w->len_k;
    a.scale_log2 = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(w->head_dim)));
    return a;
}

// tiles: rows that wait to be taken
template <class S> int start(const Maps<S> &maps, const Args &a, const attn_cuda *w, err *e)
{
    cudaStream_t stream = static_cast<cudaStream_t>(w->stream);
    int device, processors;
    cudaError_t r = cudaGetDevice(&device);
    if (r == cudaSuccess)
        r = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (r == cudaSuccess)
        r = cudaFuncSetAttribute(attention<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 S::SHARED);
    if (r == cudaSuccess) r = cudaMemsetAsync(w->scratch, 0, sizeof(unsigned), stream);
    if (r == cudaSuccess && a.alive)
        r = cudaMemsetAsync(a.alive, 0, sizeof(uint32_t) * a.tiles * a.words, stream);
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "sm_90 attention cannot start: %s", cudaGetErrorString(r));
    const auto kernel = attention<S>;
    int blocks = processors * S::BLOCKS;
    if (a.tiles < blocks) blocks = a.tiles;
    kernel<<<blocks, S::THREADS, S::SHARED, stream>>>(maps, a);
    r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "sm_90 attention of %d queries, %d keys, %d heads x %d: %s",
                       w->len_q, w->len_k, w->n_heads, S::D, cudaGetErrorString(r));
    return 0;
}

} // namespace

#endif
