// attn_pair_sm90: rows of 64 queries over tiles of 64 keys, two of which make up a step of 128.
//
// A product of 64 x 64 scores reads as many bytes of queries as of keys from shared memory, and a step's maxima, shuffles
// and barriers are paid for half as many keys. Two tiles a step halve both; two blocks a processor, as sparse64_sm90.
// The row's last tile comes first; alone, where their number is odd: so only the first step is masked.
#include "attention/kernels/cuda/pair_cuda.h"
#include "attention/kernels/cuda/sm90_part.cuh"

namespace
{

constexpr int HALF = 64; // keys of a tile of the plan

// Tiles x and y of keys or values into stage n of a ring
template <class S>
__device__ __forceinline__ void feed_pair(uint32_t n, int x, int y, int head, const uint64_t *full,
                                          const uint64_t *empty, uint32_t ring,
                                          const CUtensorMap *map)
{
    const uint32_t s = n % S::STAGES, bar = smem_address(&full[s]), to = ring + s * S::KV_BYTES;
    mbar_wait(smem_address(&empty[s]), (n / S::STAGES & 1) ^ 1);
    mbar_arrive_expect(bar, S::KV_BYTES);
    tma_load(to, map, bar, 0, x * HALF, head);
    tma_load(to + S::KV_BYTES / 2, map, bar, 0, y * HALF, head);
}

// The i-th step of a row of `count` tiles: which two. Alone: the same twice, the second does not count.
struct Pair {
    int x, y;
};
__device__ __forceinline__ Pair pair_of(const uint32_t *steps, int i, int count)
{
    const int last =
        count - 1; // stands first; then 0, 1, ... in pairs, after 0 itself where the number is even
    if (i == 0) {
        const int x = static_cast<int>(steps[last]);
        return {x, count % 2 ? x : static_cast<int>(steps[0])};
    }
    const int at = 2 * i - 1 - count % 2;
    return {static_cast<int>(steps[at]), static_cast<int>(steps[at + 1])};
}

template <class S>
__device__ void pair_produce(const Args &a, const PlainMaps &maps, Control<S::STAGES> &c,
                             uint32_t q_at, uint32_t k_at, uint32_t v_at)
{
    const uint32_t q_full = smem_address(&c.q_full), q_empty = smem_address(&c.q_empty);
    uint32_t kv = 0; // key stages filled so far, never reset; values lag one behind inside a row
    unsigned next = atomicAdd(a.counter, 1u);
    for (uint32_t turn = 0;; turn++) {
        const unsigned id = next;
        if (id >= static_cast<unsigned>(a.tiles)) {
            mbar_wait(q_empty, (turn & 1) ^ 1);
            c.words[turn & 1].head = -1;
            mbar_arrive(q_full);
            return;
        }
        next = atomicAdd(a.counter, 1u); // its latency passes while this row is fed
        const int head_row = static_cast<int>(a.order[id]), head = head_row / a.rows,
                  row = head_row - head * a.rows;
        const uint32_t *at = a.row_ptr + (a.per_head ? head_row : row), first = at[0],
                       *steps = a.steps + first;
        const int count = static_cast<int>(at[1] - first), n = (count + 1) / 2;
        Pair p = {0, 0};
        if (count > 0) {
            p = pair_of(steps, 0, count);
            feed_pair<S>(kv, p.x, p.y, head, c.k_full, c.k_empty, k_at, &maps.k);
        }
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.words[turn & 1] = {head, row, row * S::BQ, a.len_q, count, static_cast<int>(first)};
        if (count == 0) {
            mbar_arrive(q_full);
            continue;
        }
        mbar_arrive_expect(q_full, S::Q_BYTES);
        tma_load(q_at, &maps.q, q_full, 0, row * S::BQ, head);
#pragma unroll 1
        for (int i = 1; i <= n; i++) { // keys run one step ahead of values
            const Pair before = p;
            if (i < n) {
                p = pair_of(steps, i, count);
                feed_pair<S>(kv + 1, p.x, p.y, head, c.k_full, c.k_empty, k_at, &maps.k);
            }
            feed_pair<S>(kv, before.x, before.y, head, c.v_full, c.v_empty, v_at, &maps.v);
            kv++;
        }
    }
}

template <class S>
__device__ void pair_consume(const Args &a, Control<S::STAGES> &c, uint32_t q_at, uint32_t k_at,
                             uint32_t v_at)
{
    const uint32_t q_full = smem_address(&c.q_full);
    uint32_t kv = 0;
    for (uint32_t turn = 0;; turn++) {
        mbar_wait(q_full, turn & 1);
        const typename Control<S::STAGES>::Words &row = c.words[turn & 1];
        const int head = peek(row.head);
        if (head < 0) break;
        const int count = peek(row.count), query = query_of(peek(row.q0), 0),
                  first = peek(row.first);
        float o[S::D / 2];
        Rows r = {{-INFINITY, -INFINITY}, {0, 0}};
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            o[i] = 0;
        Kept<S> kept;
        if (count > 0) {
            const int last = static_cast<int>(load_word(a.steps + first + count - 1));
            const Halves keys = {{min(a.len_k - last * HALF, HALF), count % 2 ? 0 : HALF}};
            if constexpr (S::KEPT) {
                keep_queries<S>(kept, q_at);
                release_row(c.q_empty);
            }
            consume_part<S>(o, r, kv, (count + 1) / 2, keys, kept, a.scale_log2, c, 0, q_at, k_at,
                            v_at);
        }
        if (!S::KEPT || count == 0) release_row(c.q_empty);
        finish<S>(o, r, a, head, query, a.len_q);
    }
}

template <class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    pair_attention(const __grid_constant__ PlainMaps maps, const __grid_constant__ Args a)
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
            mbar_init(smem_address(&c.k_full[i]), 1);
            mbar_init(smem_address(&c.v_full[i]), 1);
            mbar_init(smem_address(&c.k_empty[i]), warps);
            mbar_init(smem_address(&c.v_empty[i]), warps);
        }
        mbar_init_fence();
        tma_prefetch(&maps.q);
        tma_prefetch(&maps.k);
        tma_prefetch(&maps.v);
    }
    __syncthreads();
    if (threadIdx.x < WG) {
        registers_shrink<S::SHRINK>();
        if (threadIdx.x == 0) pair_produce<S>(a, maps, c, q_at, k_at, v_at);
    } else {
        registers_grow<S::GROW>();
        pair_consume<S>(a, c, q_at, k_at, v_at);
    }
}

} // namespace

int attn_pair_sm90(const attn_cuda *w, err *e)
{
    using S = Shape<64, 128, 1, 3, BY_LIST | BY_PLAIN | BY_KEPT>;
    static_assert(S::SHARED == ATTN_PAIR_SHARED, "what shape.c says");
    attn_tile t;
    const attn_lists *l = w->lists;
    if (!l || l->block_q != HALF || l->block_k != HALF || l->mean || w->alive ||
        w->head_dim != S::D)
        return err_set(e, ERR_USAGE,
                       "attn_pair_sm90 takes heads of 64 channels and a plan of 64 x 64 tiles "
                       "without means and without a "
                       "record; use sparse64_sm90");
    if (attn_tile_pick(&t, ATTN_SM90, w, e) < 0) return -1;
    cudaStream_t stream = static_cast<cudaStream_t>(w->stream);
    PlainMaps maps;
    const Encode encode = encode_tiled(e);
    if (!encode) return -1;
    if (tensor_map(encode, &maps.q, w->q, w->len_q, w->n_heads, S::D, S::BQ, e) < 0 ||
        tensor_map(encode, &maps.k, w->k, w->len_k, w->n_heads, S::D, HALF, e) < 0 ||
        tensor_map(encode, &maps.v, w->v, w->len_k, w->n_heads, S::D, HALF, e) < 0)
        return -1;
    maps.k_mean = maps.k;
    maps.v_mean = maps.v;
    Args a = outputs_of(w);
    a.rows = l->rows;
    a.tiles = l->rows * w->n_heads;
    a.row_ptr = l->row_ptr;
    a.steps = l->steps;
    a.order = l->order;
    a.per_head = l->n_plans > 1;
    a.cols = l->cols;
    const auto kernel = pair_attention<S>;
    int device, processors;
    cudaError_t r = cudaGetDevice(&device);
    if (r == cudaSuccess)
        r = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (r == cudaSuccess)
        r = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
    if (r == cudaSuccess) r = cudaMemsetAsync(w->scratch, 0, sizeof(unsigned), stream);
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "attn_pair_sm90 cannot start: %s", cudaGetErrorString(r));
    int blocks = processors * S::BLOCKS;
    if (a.tiles < blocks) blocks = a.tiles;
    kernel<<<blocks, S::THREADS, S::SHARED, stream>>>(maps, a);
    r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "attn_pair_sm90 of %d queries, %d keys, %d heads: %s",
                       w->len_q, w->len_k, w->n_heads, cudaGetErrorString(r));
    return 0;
}
