// The 8-bit Hopper kernel behind sage_sm90 and sage_sparse_sm90: SageAttention2 (arXiv 2411.10958)
// on the skeleton of sm90.cuh. One thread feeds a ring of stages; 2 or 3 warpgroups own 64 queries
// each.
//
//   S = Q8 K8t   s8 x s8 to 32-bit integers, exact; scales of a thread's rows and columns fold into
//   exp2's multiply-add T = P8 V8    e4m3 x e4m3 (or u8 x s8) of one tile of 128 keys, begun anew
//   each tile, because the tensor core's fp32
//                sum of 8-bit products keeps only some 13 bits behind the point
//   O = O by + T in fp32; by, what the largest score of the tile asks, is applied where T is added
//
//   queries     [64 * WGS][D] s8, 128-byte swizzle (D = 64: 64-byte), as the copy engine writes
//   keys        STAGES x [128][D] s8
//   values      STAGES x [D][128] e4m3 or s8, keys in the order of quant_slot(): P never leaves
//               registers, nor its lane
//
//   sage_shape     instances, arguments      sage_softmax   one tile in registers
//   sage_feed      the feeding thread        this file      the loop over a row's tiles
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SAGE_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SAGE_CUH

#include "attention/kernels/cuda/sage_softmax.cuh"

namespace
{

// Where a warpgroup is in its row, and what of it lies where
struct SageRow {
    int group, head, row, count;
    uint32_t first; // of its steps
    float q_scale; // of this thread's two queries, times log2 e / sqrt(D)
    uint32_t q; // shared memory address of its 64 queries
    const float *k_scale, *delta; // of this thread's columns: of the head's first block of keys
};

// Which tile is done now and next, and what its scores are multiplied with: from global memory, asked for one tile ahead,
// so that all that is read of a stage are operands of products.
struct SageAhead {
    int tile, next;
    float scale, factor;
};
template <class S>
__device__ __forceinline__ int tile_at(const SageRow &w, const SageArgs &a, int i)
{
    const int at = i == 0 ? w.count - 1 : i < w.count ? i - 1 : 0; // past the row: any of it
    return S::LIST ? static_cast<int>(load_word(a.steps + w.first + at)) : at;
}
template <class S> __device__ __forceinline__ void ask(SageAhead &n, const SageRow &w)
{
    const float *words = w.k_scale + n.next * QUANT_K_SCALES;
    n.scale = __uint_as_float(load_word(reinterpret_cast<const uint32_t *>(words)));
    if (S::U8)
        n.factor = __uint_as_float(
            load_word(reinterpret_cast<const uint32_t *>(words) + 4 - threadIdx.x % 4));
}

// Keys of the i-th tile are there: what their scores will be multiplied with.
template <class S>
__device__ __forceinline__ void scores_await(Scores<S> &x, SageAhead &n, uint32_t kv, int i,
                                             const SageRow &w, const SageArgs &a,
                                             Control<S::STAGES> &c)
{
    const uint32_t stage = kv % S::STAGES;
    x.f = n.scale * w.q_scale;
    if (S::U8) x.factor = n.factor;
    n.tile = n.next;
    if (S::DELTA) x.delta = w.delta + n.tile * S::BK;
    n.next = tile_at<S>(w, a, i + 1);
    mbar_wait(smem_address(&c.k_full[stage]), kv / S::STAGES & 1);
}

template <class S>
__device__ __forceinline__ void scores_begin(Scores<S> &x, uint32_t kv, const SageRow &w,
                                             const Rings &at)
{
    wgmma_pin(x.s);
    wgmma_fence();
    begin_products<S>(x, w.q, at.k + kv % S::STAGES * S::K_BYTES);
    wgmma_commit();
}

// The scores of the tile are there: what they make of the rows.
template <class S, bool FIRST>
__device__ __forceinline__ void scores_end(Base8 &b, Scores<S> &x, SageAhead &n, uint32_t kv,
                                           const SageRow &w, SageRows &r, const SageArgs &a,
                                           Control<S::STAGES> &c)
{
    float rise[2];
    Most m;
    wgmma_pin(x.s);
    release(c.k_empty[kv % S::STAGES], threadIdx.x % 32);
    ask<S>(n, w); // of the next tile, which is known by now
    look_for_most<S>(m, x);
    rise_to<S>(b, x, m, r, rise, a.scale_log2);
    if (S::RECORD && a.alive) {
        Args to = {};
        to.alive = a.alive;
        to.alive_log2 = a.alive_log2;
        to.words = a.words;
        record(to, static_cast<uint32_t>(n.tile), w.head * a.rows + w.row,
               query_of(w.row * S::BQ, w.group), a.len_q, rise);
    }
}

// The scores of a row's first tile, from beginning to end; its keys alone may be masked.
template <class S>
__device__ __forceinline__ void first_scores(Base8 &b, Scores<S> &x, SageAhead &n, uint32_t kv,
                                             const SageRow &w, SageRows &r, const SageArgs &a,
                                             Control<S::STAGES> &c, const Rings &at)
{
    n.next = tile_at<S>(w, a, 0);
    ask<S>(n, w);
    scores_await<S>(x, n, kv, 0, w, a, c);
    scores_begin<S>(x, kv, w, at);
    wgmma_wait<0>();
    wgmma_pin(x.s);
    const int keys = a.len_k - n.tile * S::BK;
    if (keys < S::BK) mask_keys<S>(x, keys);
    scores_end<S, true>(b, x, n, kv, w, r, a, c);
}

template <class S> using Sum = typename std::conditional<S::U8, int, float>::type;

// Weights of a tile, 32 keys at a time, each time at once into a product with the values of stage
// kv. These products run while the next weights are found; that they need them is also what keeps
// the compiler from moving either.
template <class S, bool MASK, bool PASS_ON>
__device__ __forceinline__ void weave(Sum<S> (&t)[S::D / 2], uint32_t (&p)[4][4],
                                      const Scores<S> &x, const Base8 &b, uint32_t kv, SageRows &r,
                                      int turn_next, Control<S::STAGES> &c, const Rings &at)
{
    const uint32_t stage = kv % S::STAGES;
    Sums<S> sums = {};
    mbar_wait(smem_address(&c.v_full[stage]), kv / S::STAGES & 1);
    wgmma_pin(t);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        weigh<S, MASK>(p[k], sums, x, b, k);
        wgmma_fence();
        sum_values<S>(t, p[k], at.v + stage * S::V_BYTES, k);
        wgmma_commit();
        if (S::TURNS && PASS_ON && k + 1 == SAGE_PASS_ON) named_arrive(turn_next, 2 * WG);
    }
    add_sums<S>(r, sums, x);
}

template <class S>
__device__ __forceinline__ void consume_row8(float (&o)[S::D / 2], SageRows &r, uint32_t &kv,
                                             const SageRow &w, const SageArgs &a,
                                             Control<S::STAGES> &c, const Rings &at)
{
    const int turn_mine = 1 + w.group,
              turn_next = 1 + (w.group + 1) % S::WGS; // barrier 0 is __syncthreads
    const int lane = threadIdx.x % 32;
    Scores<S> x;
    Base8 b;
    Sum<S> t[S::D / 2];
    uint32_t p[4][4];
    SageAhead n;
    first_scores<S>(b, x, n, kv, w, r, a, c, at);
    weave<S, true, false>(t, p, x, b, kv, r, turn_next, c, at);
    for (int i = 1; i < w.count; i++) {
        // Not while the last product still runs: its stage, which reads scores, would then have
        // them as results too, and the compiler serialises (C7514). The other warpgroup has the
        // tensor cores meanwhile.
        scores_await<S>(x, n, kv + 1, i, w, a, c);
        wgmma_wait<0>();
        wgmma_pin(t);
        release(c.v_empty[kv % S::STAGES], lane);
        if (S::TURNS) named_wait(turn_mine, 2 * WG);
        scores_begin<S>(x, kv + 1, w, at);
        absorb<S>(o, t, r);
        wgmma_pin(o);
        kv++;
        wgmma_wait<0>();
        scores_end<S, false>(b, x, n, kv, w, r, a, c);
        weave<S, false, true>(t, p, x, b, kv, r, turn_next, c, at);
    }
    release_row(c.q_empty);
    wgmma_wait<0>();
    wgmma_pin(t);
    release(c.v_empty[kv % S::STAGES], lane);
    absorb<S>(o, t, r);
    kv++;
}

// AHEAD: one tile of a row whose scores are there (now), while those of the next are computed,
// unless it is the last.
template <class S, bool FIRST, bool LAST>
__device__ __forceinline__ void
consume_tile8(Scores<S> &now, Scores<S> &next, SageAhead &n, Base8 &b, Sum<S> (&t)[S::D / 2],
              float (&o)[S::D / 2], SageRows &r, uint32_t &kv, int i, const SageRow &w,
              const SageArgs &a, Control<S::STAGES> &c, const Rings &at)
{
    const int turn_mine = 1 + w.group, turn_next = 1 + (w.group + 1) % S::WGS;
    uint32_t p[4][4];
    if (LAST) {
        release_row(c.q_empty);
    } else {
        scores_await<S>(next, n, kv + 1, i + 1, w, a, c);
        if (S::TURNS) named_wait(turn_mine, 2 * WG);
        scores_begin<S>(next, kv + 1, w, at);
    }
    weave<S, FIRST, !LAST>(t, p, now, b, kv, r, turn_next, c, at);
    wgmma_wait<0>();
    wgmma_pin(t);
    release(c.v_empty[kv % S::STAGES], threadIdx.x % 32);
    absorb<S>(o, t, r);
    kv++;
    if (!LAST) scores_end<S, false>(b, next, n, kv, w, r, a, c);
}

template <class S>
__device__ __forceinline__ void consume_row8_ahead(float (&o)[S::D / 2], SageRows &r, uint32_t &kv,
                                                   const SageRow &w, const SageArgs &a,
                                                   Control<S::STAGES> &c, const Rings &at)
{
    Scores<S> x[2];
    Base8 b;
    Sum<S> t[S::D / 2];
    SageAhead n;
    first_scores<S>(b, x[0], n, kv, w, r, a, c, at);
#define ARGS n, b, t, o, r, kv, i, w, a, c, at
    int i = 0;
    if (w.count == 1) {
        consume_tile8<S, true, true>(x[0], x[1], ARGS);
        return;
    }
    consume_tile8<S, true, false>(x[0], x[1], ARGS);
    for (i = 1;; i++) {
        if (i + 1 == w.count) {
            consume_tile8<S, false, true>(x[1], x[0], ARGS);
            break;
        }
        consume_tile8<S, false, false>(x[1], x[0], ARGS);
        if (++i + 1 == w.count) {
            consume_tile8<S, false, true>(x[0], x[1], ARGS);
            break;
        }
        consume_tile8<S, false, false>(x[0], x[1], ARGS);
    }
#undef ARGS
}

template <class S>
__device__ void sage_consume(const SageArgs &a, Control<S::STAGES> &c, int group, const Rings &at)
{
    const uint32_t q_full = smem_address(&c.q_full);
    uint32_t kv = 0; // key stages used so far; values lag one behind inside a row
    if (S::TURNS && group == S::WGS - 1) named_arrive(1, 2 * WG); // the first's turn
    for (uint32_t turn = 0;; turn++) {
        mbar_wait(q_full, turn & 1);
        const typename Control<S::STAGES>::Words &words = c.words[turn & 1];
        SageRow w;
        w.head = peek(words.head);
        if (w.head < 0) break;
        w.group = group;
        w.row = peek(words.row);
        w.count = peek(words.count);
        w.first = static_cast<uint32_t>(peek(words.first));
        w.q = at.q + group * 64 * S::D;
        const int64_t blocks = static_cast<int64_t>(w.head) * a.k_blocks, t = threadIdx.x % 4;
        w.k_scale = a.k_scale + blocks * QUANT_K_SCALES + t;
        if (S::DELTA)
            w.delta = a.delta +
                      (static_cast<int64_t>(w.head) * a.q_blocks + w.row) * a.k_blocks * S::BK +
                      2 * t;
        const int query = query_of(w.row * S::BQ, group), scales = a.q_blocks * (QUANT_BLOCK / 2);
        const int scale = query / 16 * 8 + query % 8; // the rows past the last block are nobody's
        w.q_scale = scale < scales
                        ? a.q_scale[static_cast<int64_t>(w.head) * scales + scale] * a.scale_log2
                        : 0;
        float o[S::D / 2];
        SageRows r = {{-INFINITY, -INFINITY}, {0, 0}, {0, 0}, {0, 0}};
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            o[i] = 0;
        if (w.count == 0)
            release_row(c.q_empty);
        else if constexpr (S::AHEAD)
            consume_row8_ahead<S>(o, r, kv, w, a, c, at);
        else
            consume_row8<S>(o, r, kv, w, a, c, at);
        sage_finish<S>(o, r, a, w.head, query);
    }
    if (S::TURNS && group == 0) named_wait(1, 2 * WG); // the last arrival is nobody's
}

template <class S>
__global__ void __launch_bounds__(S::THREADS, 1)
    sage_attention(const __grid_constant__ SageMaps maps, const __grid_constant__ SageArgs a)
{
    extern __shared__ unsigned char raw[];
    __shared__ Control<S::STAGES> c;
    Rings at;
    at.q = (smem_address(raw) + 1023) & ~1023u;
    at.k = at.q + S::Q_BYTES;
    at.v = at.k + S::STAGES * S::K_BYTES;
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
        if (threadIdx.x == 0) sage_produce<S>(a, maps, c, at);
    } else {
        registers_grow<S::GROW>();
        // the same for a warp: addresses in uniform registers
        const int group = __shfl_sync(~0u, threadIdx.x / WG, 0) - 1;
        sage_consume<S>(a, c, group, at);
    }
}

} // namespace

#endif
