// attn_resid_sm90: the kernel of sm90.cuh over a plan's tiles, then, to make a residual, over the
// rest of the row.
//
// A row has two parts: the plan's tiles, last first, as in lists; then the tiles that the plan
// leaves out, the row's last one first when it is among them. So a tile that may be ragged is
// always the first of its part, which alone is masked. Between the parts the plan's output goes to
// the residual's place; at the end the difference replaces it, by the thread that wrote it.
#include "attention/kernels/cuda/resid_cuda.h"
#include "attention/kernels/cuda/sm90_part.cuh"

namespace
{

struct ResidArgs {
    Args a;
    bf16 *resid;
    int64_t token, head;
    int make; // else add
};

// Tiles of a row in the order of the parts
struct Walk {
    const uint32_t *steps;
    int count, cols; // of the plan; of the row
    int i, listed, next, end; // next: the candidate of the second part; listed: steps passed there
};
__device__ __forceinline__ int walk(Walk &w)
{
    const int i = w.i++;
    if (i < w.count) return static_cast<int>(w.steps[i == 0 ? w.count - 1 : i - 1]);
    if (i == w.count) {
        const int last = w.count > 0 ? static_cast<int>(w.steps[w.count - 1]) : -1;
        w.end = w.cols;
        if (last != w.cols - 1) return --w.end;
    }
    while (w.listed < w.count && static_cast<int>(w.steps[w.listed]) == w.next) {
        w.listed++;
        w.next++;
    }
    return w.next++;
}

template <class S>
__device__ __forceinline__ void feed_tile(uint32_t n, int tile, int head, const uint64_t *full,
                                          const uint64_t *empty, uint32_t ring,
                                          const CUtensorMap *map)
{
    feed<S>(n, static_cast<uint32_t>(tile), head, full, empty, ring, map, map);
}

template <class S>
__device__ void resid_produce(const ResidArgs &ra, const PlainMaps &maps, Control<S::STAGES> &c,
                              uint32_t q_at, uint32_t k_at, uint32_t v_at)
{
    const Args &a = ra.a;
    const uint32_t q_full = smem_address(&c.q_full), q_empty = smem_address(&c.q_empty);
    uint32_t kv = 0; // key stages filled so far, never reset; values lag one behind inside a row
    for (uint32_t turn = 0;; turn++) {
        const unsigned id = atomicAdd(a.counter, 1u);
        if (id >= static_cast<unsigned>(a.tiles)) {
            mbar_wait(q_empty, (turn & 1) ^ 1);
            c.words[turn & 1].head = -1;
            mbar_arrive(q_full);
            return;
        }
        const int head_row = static_cast<int>(a.order[id]), head = head_row / a.rows,
                  row = head_row - head * a.rows;
        const uint32_t *at = a.row_ptr + (a.per_head ? head_row : row);
        const int first = static_cast<int>(at[0]), count = static_cast<int>(at[1] - at[0]);
        const int rest = ra.make ? a.cols - count : 0, all = count + rest;
        Walk w = {a.steps + first, count, a.cols, 0, 0, 0, 0};
        int tile = all > 0 ? walk(w) : 0;
        if (all > 0) feed_tile<S>(kv, tile, head, c.k_full, c.k_empty, k_at, &maps.k);
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.words[turn & 1] = {head, row, row * S::BQ, rest, count, first};
        if (all == 0) {
            mbar_arrive(q_full);
            continue;
        }
        mbar_arrive_expect(q_full, S::Q_BYTES);
#pragma unroll
        for (int x = 0; x < S::D; x += BOX)
            tma_load(q_at + x * 2 * S::BQ, &maps.q, q_full, x, row * S::BQ, head);
#pragma unroll 1
        for (int i = 1; i <= all; i++) { // keys run one tile ahead of values
            const int before = tile;
            if (i < all) {
                tile = walk(w);
                feed_tile<S>(kv + 1, tile, head, c.k_full, c.k_empty, k_at, &maps.k);
            }
            feed_tile<S>(kv, before, head, c.v_full, c.v_empty, v_at, &maps.v);
            kv++;
        }
    }
}

__device__ __forceinline__ float bf16_low(uint32_t x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float bf16_high(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

enum Leave { SET_ASIDE, DIFFERENCE, SUM };

// Outputs so far. SET_ASIDE: to the residual's place alone. DIFFERENCE: to o, and less what was set
// aside to the residual. SUM: with the residual to o.
template <class S, Leave LEAVE>
__device__ __forceinline__ void leave(const float (&o)[S::D / 2], const Rows &r,
                                      const ResidArgs &ra, int head, int query)
{
    const Args &a = ra.a;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int at = query + 8 * h;
        const bool inside = at < a.len_q;
        float sum = r.sum[h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const float by = sum > 0 ? 1 / sum : 0;
        if (LEAVE != SET_ASIDE && a.lse && t == 0 && inside)
            a.lse[static_cast<size_t>(head) * a.len_q + at] =
                sum > 0 ? (r.most[h] * a.scale_log2 + log2f(sum)) * 0.693147180559945f : -INFINITY;
        bf16 *row = a.o + at * a.o_token + head * a.o_head,
             *aside = ra.resid + at * ra.token + head * ra.head;
#pragma unroll
        for (int j = 0; j < S::D / 8; j += 4) {
            // this lane holds columns 2t, 2t + 1 of four groups of 8; wanted: all 8 of group t
            uint32_t x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i] = __float_as_uint(o[4 * (j + i) + 2 * h] * by);
                y[i] = __float_as_uint(o[4 * (j + i) + 2 * h + 1] * by);
            }
            quad_transpose(x);
            quad_transpose(y);
            if (!inside) continue;
            uint4 *there = reinterpret_cast<uint4 *>(aside + 8 * (j + t));
            uint32_t out[4], rest[4];
            uint4 old = make_uint4(0, 0, 0, 0);
            if (LEAVE != SET_ASIDE) old = *there;
            const uint32_t was[4] = {old.x, old.y, old.z, old.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float lo = __uint_as_float(x[i]), hi = __uint_as_float(y[i]);
                out[i] = LEAVE == SUM ? pack_bf16(lo + bf16_low(was[i]), hi + bf16_high(was[i]))
                                      : pack_bf16(lo, hi);
                rest[i] = pack_bf16(lo - bf16_low(was[i]), hi - bf16_high(was[i]));
            }
            if (LEAVE != SET_ASIDE)
                *reinterpret_cast<uint4 *>(row + 8 * (j + t)) =
                    make_uint4(out[0], out[1], out[2], out[3]);
            if (LEAVE == SET_ASIDE) *there = make_uint4(out[0], out[1], out[2], out[3]);
            if (LEAVE == DIFFERENCE) *there = make_uint4(rest[0], rest[1], rest[2], rest[3]);
        }
    }
}

template <class S>
__device__ void resid_consume(const ResidArgs &ra, Control<S::STAGES> &c, int group, uint32_t q_at,
                              uint32_t k_at, uint32_t v_at)
{
    const Args &a = ra.a;
    const uint32_t q_full = smem_address(&c.q_full), q_mine = q_at + group * 64 * 128;
    uint32_t kv = 0;
    if (S::TURNS && group == S::WGS - 1) named_arrive(1, 2 * WG); // the first's turn
    for (uint32_t turn = 0;; turn++) {
        mbar_wait(q_full, turn & 1);
        const typename Control<S::STAGES>::Words &row = c.words[turn & 1];
        const int head = peek(row.head);
        if (head < 0) break;
        const int count = peek(row.count), rest = peek(row.q_end),
                  query = query_of(peek(row.q0), group);
        const int first = peek(row.first);
        float o[S::D / 2];
        Rows r = {{-INFINITY, -INFINITY}, {0, 0}};
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            o[i] = 0;
        Kept<S> kept;
        if (S::KEPT && count + rest > 0) keep_queries<S>(kept, q_mine);
        if (S::KEPT || count + rest == 0) release_row(c.q_empty);
        const int last = count > 0 ? static_cast<int>(load_word(a.steps + first + count - 1)) : -1;
        const int keys = a.len_k - (a.cols - 1) * S::BK; // of the row's last tile
        const bool with_last = last == a.cols - 1;
        const Halves end = {{min(keys, S::BK / 2), max(keys - S::BK / 2, 0)}};
        Halves one, two;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            one.keys[i] = with_last ? end.keys[i] : S::BK / 2;
            two.keys[i] = with_last ? S::BK / 2 : end.keys[i];
        }
        if (count > 0)
            consume_part<S>(o, r, kv, count, one, kept, a.scale_log2, c, group, q_mine, k_at, v_at);
        if (ra.make) {
            leave<S, SET_ASIDE>(o, r, ra, head, query);
            if (rest > 0)
                consume_part<S>(o, r, kv, rest, two, kept, a.scale_log2, c, group, q_mine, k_at,
                                v_at);
            if (!S::KEPT && count + rest > 0) release_row(c.q_empty);
            leave<S, DIFFERENCE>(o, r, ra, head, query);
        } else {
            if (!S::KEPT && count + rest > 0) release_row(c.q_empty);
            leave<S, SUM>(o, r, ra, head, query);
        }
    }
    if (S::TURNS && group == 0) named_wait(1, 2 * WG); // the last arrival is nobody's
}

template <class S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    resid_attention(const __grid_constant__ PlainMaps maps, const __grid_constant__ ResidArgs a)
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
        if (threadIdx.x == 0) resid_produce<S>(a, maps, c, q_at, k_at, v_at);
    } else {
        registers_grow<S::GROW>();
        const int group = __shfl_sync(~0u, threadIdx.x / WG, 0) - 1;
        resid_consume<S>(a, c, group, q_at, k_at, v_at);
    }
}

template <class S>
int resid_launch(const attn_cuda *w, const attn_tensor *resid, attn_out what, err *e)
{
    const attn_lists *l = w->lists;
    cudaStream_t stream = static_cast<cudaStream_t>(w->stream);
    PlainMaps maps;
    const Encode encode = encode_tiled(e);
    if (!encode) return -1;
    if (tensor_map(encode, &maps.q, w->q, w->len_q, w->n_heads, S::D, S::BQ, e) < 0 ||
        tensor_map(encode, &maps.k, w->k, w->len_k, w->n_heads, S::D, S::BK, e) < 0 ||
        tensor_map(encode, &maps.v, w->v, w->len_k, w->n_heads, S::D, S::BK, e) < 0)
        return -1;
    maps.k_mean = maps.k;
    maps.v_mean = maps.v;
    ResidArgs a = {};
    a.a = outputs_of(w);
    a.a.rows = l->rows;
    a.a.tiles = l->rows * w->n_heads;
    a.a.row_ptr = l->row_ptr;
    a.a.steps = l->steps;
    a.a.order = l->order;
    a.a.per_head = l->n_plans > 1;
    a.a.cols = l->cols;
    a.resid = static_cast<bf16 *>(resid->at);
    a.token = resid->token;
    a.head = resid->head;
    a.make = what == ATTN_MAKE_RESIDUAL;
    const auto kernel = resid_attention<S>;
    int device, blocks;
    cudaError_t r = cudaGetDevice(&device);
    if (r == cudaSuccess)
        r = cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device);
    if (r == cudaSuccess)
        r = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
    if (r == cudaSuccess) r = cudaMemsetAsync(w->scratch, 0, sizeof(unsigned), stream);
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "residual attention cannot start: %s", cudaGetErrorString(r));
    if (a.a.tiles < blocks) blocks = a.a.tiles;
    kernel<<<blocks, S::THREADS, S::SHARED, stream>>>(maps, a);
    r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE,
                       "residual attention of %d queries, %d keys, %d heads x %d: %s", w->len_q,
                       w->len_k, w->n_heads, S::D, cudaGetErrorString(r));
    return 0;
}

} // namespace

int attn_resid_sm90(const attn_cuda *w, const attn_tensor *resid, attn_out what, err *e)
{
    attn_tile t;
    if (what != ATTN_MAKE_RESIDUAL && what != ATTN_ADD_RESIDUAL)
        return err_set(e, ERR_BUG, "residual attention makes or adds a residual, not rule %d",
                       static_cast<int>(what));
    if (!w->lists)
        return err_set(e, ERR_USAGE,
                       "residual attention wants a plan: without one there is no residual");
    if (w->lists->block_q != 128 || w->lists->block_k != 128 || w->lists->mean || w->alive)
        return err_set(e, ERR_USAGE,
                       "residual attention takes tiles of 128 x 128 without means and without a "
                       "record, this plan has "
                       "%d x %d%s%s",
                       w->lists->block_q, w->lists->block_k, w->lists->mean ? ", means" : "",
                       w->alive ? ", a record" : "");
    if (attn_tile_pick(&t, ATTN_SM90, w, e) < 0) return -1;
    if (!resid->at || reinterpret_cast<uintptr_t>(resid->at) % 16 || resid->token < 1 ||
        resid->head < 1 || resid->token % 8 || resid->head % 8)
        return err_set(e, ERR_USAGE,
                       "residual at %p with strides %lld, %lld; wanted 16-byte alignment and "
                       "strides that are positive "
                       "multiples of 8 elements",
                       resid->at, static_cast<long long>(resid->token),
                       static_cast<long long>(resid->head));
    return w->head_dim == 128
               ? resid_launch<Shape<128, 128, 2, 2, BY_LIST | BY_PLAIN | BY_TURNS | BY_KEPT>>(
                     w, resid, what, e)
               : resid_launch<Shape<64, 128, 2, 3, BY_LIST | BY_PLAIN | BY_TURNS>>(w, resid, what,
                                                                                   e);
}
