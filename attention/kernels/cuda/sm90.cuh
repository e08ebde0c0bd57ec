// The Hopper kernel behind flash_sm90, sparse_sm90, sparse64_sm90 and ragged_sm90.
//
// FlashAttention-3, arXiv 2407.08608: one warp feeds keys and values through a ring of stages, 2 or
// 3 warpgroups own 64 queries each and take turns at the tensor cores (3.1); within one, the scores
// of tile i and the output of tile i - 1 are in flight together (3.2). Differences: blocks take
// rows of tiles from a counter, longest first when the plan is sparse; outputs leave by plain
// 16-byte stores after a transposition inside quads, so that the query buffer is free one tile
// early.
//
//   queries     [column half][64 * WGS][64] bf16, 128-byte swizzle, as the copy engine writes boxes
//   keys        STAGES x [column half][BK][64]: K-major operand of S = Q Kt
//   values      the same: MN-major operand of O += P V; P never leaves registers
//
// Included by the files that compile instances of it, for sm_90a alone.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_CUH

#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/device.cuh"
#include "model/base/cuda/ptx.cuh"

#include <cuda.h>

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "these kernels are for sm_90a"
#endif

namespace
{

constexpr int WG = 128; // threads of a warpgroup
constexpr int BOX = 64; // bf16 of a 128-byte swizzle row

// What an instance does beyond the plain kernel
enum : unsigned {
    BY_LIST = 1, // steps from a plan; dense counts
    BY_RUNS = 2, // stages are put together from runs of 8 keys and more
    BY_TURNS = 4, // warpgroups take turns at issuing products
    BY_TWO = 16, // scores of the next tile are computed during the softmax of this one
    BY_PLAIN = 32, // lists without mean tiles, nothing recorded
    BY_KEPT = 256, // queries are kept in registers, and their buffer is free at once
    BY_CHAIN = 512, // a row's first scores are computed while the outputs of the one before leave
    BY_PASS = 1024, // * n of TWO and TURNS: a turn passes on after n of BK / 8 groups of exp2
};

template <int D_, int BK_, int WGS_, int STAGES_, unsigned WAYS> struct Shape {
    static constexpr int D = D_, BK = BK_, WGS = WGS_, STAGES = STAGES_;
    static constexpr bool LIST = WAYS & BY_LIST, RAGGED = WAYS & BY_RUNS;
    static constexpr bool TURNS = WAYS & BY_TURNS;
    static constexpr bool KEPT = WAYS & BY_KEPT;
    static constexpr bool CHAINED = WAYS & BY_CHAIN;
    static constexpr bool TWO = WAYS & BY_TWO, PLAIN = WAYS & BY_PLAIN || !LIST;
    // the last tile comes first, so that one place masks the keys past the end
    static constexpr bool TAIL_FIRST = PLAIN && !RAGGED;
    static constexpr int PASS_ON = WAYS / BY_PASS;
    static constexpr int CHAINS = 2;
    static constexpr int BQ = 64 * WGS, THREADS = WG * (WGS + 1);
    static constexpr int Q_BYTES = BQ * D * 2, KV_BYTES = BK * D * 2;
    static constexpr int SHARED = 1024 /* to align */ + Q_BYTES + 2 * STAGES * KV_BYTES;
    static constexpr int BLOCKS = WGS == 1 ? 2 : 1; // per processor: one computes, one waits
    // 65,536 registers: 128 * (40 + 2 * 232), 128 * (32 + 3 * 160), 2 * 128 * (40 + 216)
    static constexpr int GROW = WGS == 1 ? 216 : WGS == 2 ? (TWO && KEPT ? 240 : 232) : 160;
    static constexpr int SHRINK = WGS == 3 ? 32 : TWO && KEPT ? 24 : 40;
    static_assert(!TWO || (WGS <= 2 && D == 64 && BK <= 128), "registers for two tiles of scores");
    static_assert(D % BOX == 0, "a row of a box is 64 channels");
    static_assert(!RAGGED || (BK == ATTN_RAGGED_KEYS && !LIST),
                  "a stage of a ragged plan is a tile, and the plan has its own rows");
    static_assert(!KEPT || WGS <= 2, "registers for queries");
    static_assert(KEPT || !CHAINED, "the next row's queries want a place");
    static_assert(BK % 16 == 0, "P is cut into steps of 16 keys");
    static_assert((BQ * 128) % 1024 == 0 && (BK * 128) % 1024 == 0, "swizzle atoms are 1024 bytes");
    static_assert(BQ <= 256 && BK <= 256, "a box has at most 256 rows");
    static_assert(BLOCKS * (SHARED + 2048) <= 233472,
                  "shared memory of a processor; 2048: static and reserved");
};

struct Args {
    bf16 *o;
    int64_t o_token, o_head;
    float *lse;
    uint32_t *alive;
    unsigned *counter;
    const uint32_t *row_ptr, *steps, *order, *mean;
    int len_q, len_k, rows, tiles; // tiles: rows of all heads
    int per_head, words, cols;
    float scale_log2, alive_log2;
    const attn_ragged_row *ragged;
    const attn_ragged_stage *stages;
    float mean_full, mean_last; // what the keys of a tile add to the score of their mean, unscaled
};

struct PlainMaps { // copied to constant memory with the launch; the copy engine reads them there
    CUtensorMap q, k, v, k_mean, v_mean;
};
struct RaggedMaps { // boxes of 8, 16, 32, 64 and 128 tokens
    CUtensorMap q, k[ATTN_RAGGED_BOXES], v[ATTN_RAGGED_BOXES];
};
template <bool RAGGED> struct MapsOf {
    using type = PlainMaps;
};
template <> struct MapsOf<true> {
    using type = RaggedMaps;
};
template <class S> using Maps = typename MapsOf<S::RAGGED>::type;

// Everything in shared memory that is not a tile
template <int STAGES> struct Control {
    uint64_t q_full, q_empty;
    uint64_t k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    struct Words { // what the queries of a turn are; head < 0: no more
        int head, row, q0, q_end, count;
        int first; // of its steps or stages
    } words[4]; // of turns: those of one are good until the queries of the next but two are there
};

template <class S> __device__ __forceinline__ int tile_of(uint32_t step)
{
    return static_cast<int>(S::LIST ? ATTN_STEP_TILE(step) : step);
}

// What is done i-th in a row of tiles
template <class S>
__device__ __forceinline__ uint32_t step_of(const uint32_t *steps, int i, int count)
{
    const int at = !S::TAIL_FIRST ? i : i == 0 ? count - 1 : i - 1;
    return S::LIST ? steps[at] : at;
}

// One tile of keys or values into its stage; n counts stages of this ring.
template <class S>
__device__ __forceinline__ void feed(uint32_t n, uint32_t step, int head, const uint64_t *full,
                                     const uint64_t *empty, uint32_t ring, const CUtensorMap *tiles,
                                     const CUtensorMap *means)
{
    const uint32_t s = n % S::STAGES, bar = smem_address(&full[s]);
    mbar_wait(smem_address(&empty[s]), (n / S::STAGES & 1) ^ 1);
    mbar_arrive_expect(bar, S::KV_BYTES);
    const CUtensorMap *map = S::LIST && step & ATTN_STEP_MEAN ? means : tiles;
#pragma unroll
    for (int x = 0; x < S::D; x += BOX)
        tma_load(ring + s * S::KV_BYTES + x * 2 * S::BK, map, bar, x, tile_of<S>(step) * S::BK,
                 head);
}

// One stage put together from runs
template <class S>
__device__ __forceinline__ void feed_runs(uint32_t n, const attn_ragged_stage &stage, int head,
                                          const uint64_t *full, const uint64_t *empty,
                                          uint32_t ring, const CUtensorMap *boxes)
{
    const uint32_t s = n % S::STAGES, bar = smem_address(&full[s]);
    mbar_wait(smem_address(&empty[s]), (n / S::STAGES & 1) ^ 1);
    mbar_arrive_expect(bar, S::KV_BYTES);
    for (int i = 0, at = 0; at < S::BK / 8; i++) {
        const uint32_t run = stage.run[i], size = run >> ATTN_RAGGED_SHIFT;
        const int token = run & ((1u << ATTN_RAGGED_SHIFT) - 1);
#pragma unroll
        for (int x = 0; x < S::D; x += BOX)
            tma_load(ring + s * S::KV_BYTES + x * 2 * S::BK + at * 1024, &boxes[size], bar, x,
                     token, head);
        at += 1 << size;
    }
}

// produce() for plans of runs: rows come in their order, with everything that is to know
template <class S>
__device__ void produce_runs(const Args &a, const RaggedMaps &maps, Control<S::STAGES> &c,
                             uint32_t q_at, uint32_t k_at, uint32_t v_at)
{
    const uint32_t q_full = smem_address(&c.q_full), q_empty = smem_address(&c.q_empty);
    uint32_t kv = 0;
    unsigned next = atomicAdd(a.counter, 1u);
    for (uint32_t turn = 0;; turn++) {
        const unsigned id = next;
        if (id >= static_cast<unsigned>(a.tiles)) {
            mbar_wait(q_empty, (turn & 1) ^ 1);
            c.words[turn % 4].head = -1;
            mbar_arrive(q_full);
            return;
        }
        next = atomicAdd(a.counter, 1u);
        const attn_ragged_row row = a.ragged[id];
        const attn_ragged_stage *stages = a.stages + row.first;
        const int count = row.stages;
        if (count > 0) feed_runs<S>(kv, stages[0], row.head, c.k_full, c.k_empty, k_at, maps.k);
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.words[turn % 4] = {
            row.head, 0, row.q0, row.q0 + row.queries, count, static_cast<int>(row.first)};
        if (count == 0) {
            mbar_arrive(q_full);
            continue;
        }
        mbar_arrive_expect(q_full, S::Q_BYTES);
#pragma unroll
        for (int x = 0; x < S::D; x += BOX)
            tma_load(q_at + x * 2 * S::BQ, &maps.q, q_full, x, row.q0, row.head);
        for (int i = 1; i <= count; i++, kv++) {
            if (i < count)
                feed_runs<S>(kv + 1, stages[i], row.head, c.k_full, c.k_empty, k_at, maps.k);
            feed_runs<S>(kv, stages[i - 1], row.head, c.v_full, c.v_empty, v_at, maps.v);
        }
    }
}

template <class S>
__device__ void produce(const Args &a, const PlainMaps &maps, Control<S::STAGES> &c, uint32_t q_at,
                        uint32_t k_at, uint32_t v_at)
{
    const uint32_t q_full = smem_address(&c.q_full), q_empty = smem_address(&c.q_empty);
    uint32_t kv = 0; // key stages filled so far, never reset; values lag one behind inside a row
    unsigned next = atomicAdd(a.counter, 1u);
    for (uint32_t turn = 0;; turn++) {
        const unsigned id = next;
        if (id >= static_cast<unsigned>(a.tiles)) {
            mbar_wait(q_empty, (turn & 1) ^ 1);
            c.words[turn % 4].head = -1;
            mbar_arrive(q_full);
            return;
        }
        next = atomicAdd(a.counter, 1u); // its latency passes while this row is fed
        const int head_row = S::LIST ? static_cast<int>(a.order[id]) : static_cast<int>(id);
        const int head = head_row / a.rows, row = head_row - head * a.rows;
        const uint32_t *steps = nullptr;
        uint32_t first = 0;
        int count = (a.len_k + S::BK - 1) / S::BK;
        if (S::LIST) {
            const uint32_t *at = a.row_ptr + (a.per_head ? head_row : row);
            first = at[0];
            steps = a.steps + first;
            count = static_cast<int>(at[1] - first);
        }
        // the first keys do not wait for the queries before to be done with
        uint32_t step = count > 0 ? step_of<S>(steps, 0, count) : 0, before;
        if (count > 0) feed<S>(kv, step, head, c.k_full, c.k_empty, k_at, &maps.k, &maps.k_mean);
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.words[turn % 4] = {head, row, row * S::BQ, a.len_q, count, static_cast<int>(first)};
        if (count == 0) {
            mbar_arrive(q_full);
            continue;
        }
        mbar_arrive_expect(q_full, S::Q_BYTES);
#pragma unroll
        for (int x = 0; x < S::D; x += BOX)
            tma_load(q_at + x * 2 * S::BQ, &maps.q, q_full, x, row * S::BQ, head);
        uint32_t ahead = count > 1 ? step_of<S>(steps, 1, count) : 0;
        for (int i = 1; i <= count; i++) { // keys run one tile ahead of values
            before = step;
            step = ahead;
            ahead = i + 1 < count ? step_of<S>(steps, i + 1, count) : 0;
            if (i < count)
                feed<S>(kv + 1, step, head, c.k_full, c.k_empty, k_at, &maps.k, &maps.k_mean);
            feed<S>(kv, before, head, c.v_full, c.v_empty, v_at, &maps.v, &maps.v_mean);
            kv++;
        }
    }
}

// Queries as the A operand in registers: each quarter of a step of 16 channels is 8 rows of 16
// bytes, where the 128-byte swizzle has put them.
template <class S> struct Kept {
    uint32_t q[S::KEPT ? S::D / 16 : 1][4];
};
template <class S> __device__ __forceinline__ void keep_queries(Kept<S> &kept, uint32_t q)
{
    const int row = threadIdx.x % WG / 32 * 16 + threadIdx.x % 16, half = threadIdx.x % 32 / 16;
#pragma unroll
    for (int i = 0; i < S::D / 16; i++)
        ldmatrix4(kept.q[i],
                  q + i / 4 * BOX * 2 * S::BQ + row * 128 + ((i % 4 * 2 + half) ^ (row % 8)) * 16);
}

// S = Q Kt of this warpgroup's 64 rows
template <class S>
__device__ __forceinline__ void scores(float (&s)[S::BK / 2], uint32_t q, uint32_t k,
                                       const Kept<S> &kept)
{
    if constexpr (S::KEPT) {
#pragma unroll
        for (int d = 0; d < S::D; d += 16)
            wgmma_rk<S::BK>(s, kept.q[d / 16],
                            wgmma_matrix(k + d / BOX * BOX * 2 * S::BK + d % BOX * 2, 16, 1024),
                            d > 0);
    } else {
#pragma unroll
        for (int d = 0; d < S::D; d += 16) {
            const uint32_t in = d % BOX * 2, x = d / BOX * BOX * 2;
            wgmma_ss<S::BK>(s, wgmma_matrix(q + x * S::BQ + in, 16, 1024),
                            wgmma_matrix(k + x * S::BK + in, 16, 1024), d > 0);
        }
    }
}

// O += P V
template <class S>
__device__ __forceinline__ void outputs(float (&o)[S::D / 2], const uint32_t (&p)[S::BK / 16][4],
                                        uint32_t v)
{
#pragma unroll
    for (int i = 0; i < S::BK / 16; i++)
        wgmma_rs<S::D>(o, p[i], wgmma_matrix(v + i * 16 * 128, S::BK * 128, 1024));
}

template <class S>
__device__ __forceinline__ void pack(uint32_t (&p)[S::BK / 16][4], const float (&s)[S::BK / 2],
                                     int from = 0, int to = S::BK / 8)
{
#pragma unroll
    for (int i = 2 * from; i < 2 * to; i++)
        p[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

// Keys past the last, and for mean keys those that are computed, cost nothing; a mean key weighs as
// many keys as its tile has.
template <class S>
__device__ __forceinline__ void mask(float (&s)[S::BK / 2], const Args &a, uint32_t step,
                                     int plan_row)
{
    const int first = tile_of<S>(step) * S::BK + 2 * (threadIdx.x % 4);
    if (S::PLAIN || !(step & ATTN_STEP_MEAN)) {
#pragma unroll
        for (int i = 0; i < S::BK / 2; i++)
            if (first + i / 4 * 8 + i % 2 >= a.len_k) s[i] = -INFINITY;
        return;
    }
    const uint32_t *bits = a.mean + static_cast<size_t>(plan_row) * a.words;
#pragma unroll
    for (int i = 0; i < S::BK / 8; i++) { // two columns a group of 8
#pragma unroll
        for (int x = 0; x < 2; x++) {
            const int tile = first + 8 * i + x;
            float more = -INFINITY;
            if (tile < a.cols && bits[tile / 32] >> (tile % 32) & 1)
                more = tile + 1 < a.cols ? a.mean_full : a.mean_last;
            s[4 * i + x] += more;
            s[4 * i + 2 + x] += more;
        }
        asm volatile("" ::: "memory"); // one load at a time: registers are scarcer than time here
    }
}

// Ragged: bits say which keys of the stage count.
template <class S>
__device__ __forceinline__ void mask_runs(float (&s)[S::BK / 2], const uint32_t (&shown)[4])
{
    if ((shown[0] & shown[1] & shown[2] & shown[3]) == ~0u) return;
#pragma unroll
    for (int w = 0; w < 4; w++) {
        const uint32_t mine = shown[w] >> 2 * (threadIdx.x % 4);
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (!(mine >> (i / 4 * 8 + i % 2) & 1)) s[16 * w + i] = -INFINITY;
    }
}

struct Rows { // two rows a thread: g and g + 8 of its warp's 16
    float most[2], sum[2]; // largest raw score; this thread's part of the sum of weights
};

// By what the sums and outputs so far must shrink under the scores of one more tile. Largest scores
// are over quads. CHAINS a row, rows side by side: one chain alone would wait for itself, unless
// other warps fill the time.
template <class S>
__device__ __forceinline__ void raise(const float (&s)[S::BK / 2], Rows &r, float (&base)[2],
                                      float (&shrink)[2], float (&rise)[2], float scale)
{
    float most[2][S::CHAINS];
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int x = 0; x < S::CHAINS; x++)
            most[h][x] = s[2 * h + x];
#pragma unroll
    for (int i = 0; i < S::BK / 8; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int x = 0; x < 2; x++)
                if (i > 0 || x >= S::CHAINS)
                    most[h][x % S::CHAINS] = fmaxf(most[h][x % S::CHAINS], s[4 * i + 2 * h + x]);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = S::CHAINS == 2 ? fmaxf(most[h][0], most[h][S::CHAINS - 1]) : most[h][0];
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        rise[h] = !S::PLAIN ? (top - r.most[h]) * scale : 0; // NaN or inf at the first: alive
        top = fmaxf(top, r.most[h]);
        base[h] = top == -INFINITY ? 0 : top * scale;
        shrink[h] = exp2_fast(r.most[h] * scale - base[h]);
        r.most[h] = top;
        r.sum[h] *= shrink[h];
    }
}

// Scores of these groups of 8 keys become weights.
template <class S>
__device__ __forceinline__ void weights(float (&s)[S::BK / 2], Rows &r, const float (&base)[2],
                                        float scale, int from = 0, int to = S::BK / 8)
{
    float sum[2][S::CHAINS] = {};
#pragma unroll
    for (int i = from; i < to; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int x = 0; x < 2; x++) {
                float &e = s[4 * i + 2 * h + x];
                const float power = fmaf(e, scale, -base[h]);
                e = exp2_fast(power);
                sum[h][x % S::CHAINS] += e;
            }
#pragma unroll
    for (int h = 0; h < 2; h++)
        r.sum[h] += S::CHAINS == 2 ? sum[h][0] + sum[h][S::CHAINS - 1] : sum[h][0];
}

template <class S>
__device__ __forceinline__ void rescale(float (&o)[S::D / 2], const float (&by)[2])
{
#pragma unroll
    for (int i = 0; i < S::D / 2; i++)
        o[i] *= by[i / 2 % 2];
}

// One bit for a tile that some query of this warp wants
__device__ __forceinline__ void record(const Args &a, uint32_t step, int head_row, int query,
                                       int q_end, const float (&rise)[2])
{
    const bool wanted = (query < q_end && !(rise[0] <= a.alive_log2)) ||
                        (query + 8 < q_end && !(rise[1] <= a.alive_log2));
    if (__any_sync(~0u, wanted) && threadIdx.x % 32 == 0) {
        const uint32_t tile = ATTN_STEP_TILE(step);
        atomicOr(&a.alive[static_cast<size_t>(head_row) * a.words + tile / 32], 1u << tile % 32);
    }
}

template <class S>
__device__ __forceinline__ void finish(float (&o)[S::D / 2], Rows &r, const Args &a, int head,
                                       int query, int q_end)
{
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = r.sum[h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const float by = sum > 0 ? 1 / sum : 0;
        const bool inside = query + 8 * h < q_end;
        if (a.lse && t == 0 && inside)
            a.lse[static_cast<size_t>(head) * a.len_q + query + 8 * h] =
                sum > 0 ? (r.most[h] * a.scale_log2 + log2f(sum)) * 0.693147180559945f : -INFINITY;
        bf16 *row = a.o + (query + 8 * h) * a.o_token + head * a.o_head;
#pragma unroll
        for (int j = 0; j < S::D / 8; j += 4) {
            // this lane holds columns 2t, 2t + 1 of four groups of 8; wanted: all 8 of group t
            uint32_t x[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                x[i] = pack_bf16(o[4 * (j + i) + 2 * h] * by, o[4 * (j + i) + 2 * h + 1] * by);
            quad_transpose(x);
            if (inside)
                *reinterpret_cast<uint4 *>(row + 8 * (j + t)) = make_uint4(x[0], x[1], x[2], x[3]);
        }
    }
}

// A word of this turn's row. Those of a row that are rarely wanted are not kept in registers.
__device__ __forceinline__ int peek(const int &word)
{
    return *const_cast<const volatile int *>(&word);
}

// The upper one of the two queries that this thread has of its warp's 16; block: which 64 of the
// row
__device__ __forceinline__ int query_of(int q0, int block)
{
    return q0 + block * 64 + threadIdx.x % WG / 32 * 16 + threadIdx.x % 32 / 4;
}

// What a stage holds, from global memory, asked for before its products are: for masks. Nothing
// where only the first tile of a row may be masked, but for that.
struct What {
    uint32_t step, shown[4];
};
template <class S>
__device__ __forceinline__ void look_up(What &w, const Args &a, uint32_t first, int i, int count)
{
    if constexpr (S::RAGGED)
        load_words(w.shown, a.stages[first + i].shown);
    else if (!S::TAIL_FIRST || i == 0)
        w.step = S::LIST ? load_word(a.steps + first + (S::TAIL_FIRST ? count - 1 : i))
                         : static_cast<uint32_t>(count - 1);
}

// Keys that do not count, in scores that are in registers by now; rare, and a branch for the whole
// warpgroup.
template <class S>
__device__ __forceinline__ void mask_tile(float (&s)[S::BK / 2], const Args &a, const What &what,
                                          const typename Control<S::STAGES>::Words &row)
{
    if constexpr (S::RAGGED) {
        mask_runs<S>(s, what.shown);
    } else if ((!S::PLAIN && what.step & ATTN_STEP_MEAN) ||
               (tile_of<S>(what.step) + 1) * S::BK > a.len_k) {
        mask<S>(s, a, what.step, (a.per_head ? peek(row.head) * a.rows : 0) + peek(row.row));
    }
}

// Whether a tile was worth it. Before its exp2: a branch after them would keep them from what
// follows.
template <class S>
__device__ __forceinline__ void record_tile(const Args &a, const What &what, int block,
                                            const typename Control<S::STAGES>::Words &row,
                                            const float (&rise)[2])
{
    if (!S::PLAIN && a.alive && !(what.step & ATTN_STEP_MEAN))
        record(a, what.step, peek(row.head) * a.rows + peek(row.row), query_of(peek(row.q0), block),
               peek(row.q_end), rise);
}

// Every thread that reads the words of a row says itself that it has: as often as rows, it is
// cheap.
__device__ __forceinline__ void release_row(const uint64_t &empty)
{
    mbar_arrive(smem_address(&empty));
}

// One arrival of this warp frees a stage: its products are waited for warp by warp.
__device__ __forceinline__ void release(const uint64_t &empty, int lane)
{
    if (lane == 0) mbar_arrive(smem_address(&empty));
}

// The first scores of a row, if it has any: what is issued without is not looked at.
template <class S>
__device__ __forceinline__ void begin_row(float (&s)[S::BK / 2], Kept<S> &kept, uint32_t kv,
                                          uint32_t turn, Control<S::STAGES> &c, uint32_t q_mine,
                                          uint32_t k_at)
{
    const uint32_t ks = kv % S::STAGES;
    const typename Control<S::STAGES>::Words &row = c.words[turn % 4];
    if (S::KEPT) {
        mbar_wait(smem_address(&c.q_full), turn & 1);
        if (peek(row.head) >= 0) {
            if (peek(row.count) > 0) {
                keep_queries<S>(kept, q_mine);
                mbar_wait(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
            }
            release_row(c.q_empty);
        }
    } else {
        mbar_wait(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
    }
    wgmma_pin(s);
    wgmma_fence();
    scores<S>(s, q_mine, k_at + ks * S::KV_BYTES, kept);
    wgmma_commit();
}

// Products of tile i and the softmax of tile i + 1 in flight together: two tiles of scores at once.
template <class S>
__device__ __forceinline__ void consume_row(float (&o)[S::D / 2], float (&s)[S::BK / 2],
                                            Kept<S> &kept, Rows &r, uint32_t &kv, uint32_t turn,
                                            const Args &a, Control<S::STAGES> &c, int group,
                                            uint32_t q_mine, uint32_t k_at, uint32_t v_at)
{
    const typename Control<S::STAGES>::Words &row = c.words[turn % 4];
    const int count = peek(row.count);
    const uint32_t first = static_cast<uint32_t>(peek(row.first));
    // barrier 0 is __syncthreads
    const int turn_mine = 1 + group, turn_next = 1 + (group + 1) % S::WGS;
    const int lane = threadIdx.x % 32;
    float base[2], shrink[2], rise[2];
    uint32_t p[S::BK / 16][4];
    What what;
    uint32_t ks = kv % S::STAGES;
    look_up<S>(what, a, first, 0, count);
    if (!S::CHAINED) begin_row<S>(s, kept, kv, turn, c, q_mine, k_at);
    wgmma_wait<0>();
    wgmma_pin(s);
    release(c.k_empty[ks], lane);
    mask_tile<S>(s, a, what, row);
    raise<S>(s, r, base, shrink, rise, a.scale_log2);
    record_tile<S>(a, what, group, row, rise);
    weights<S>(s, r, base, a.scale_log2);
    pack<S>(p, s);
    for (int i = 1; i < count; i++) {
        const uint32_t vs = ks, v_parity = kv / S::STAGES & 1;
        kv++;
        ks = kv % S::STAGES;
        if (!S::TAIL_FIRST) look_up<S>(what, a, first, i, count);
        mbar_wait(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
        if (S::TURNS) named_wait(turn_mine, 2 * WG);
        wgmma_pin(s);
        wgmma_pin(o);
        wgmma_fence();
        scores<S>(s, q_mine, k_at + ks * S::KV_BYTES, kept);
        wgmma_commit();
        mbar_wait(smem_address(&c.v_full[vs]), v_parity);
        wgmma_fence();
        outputs<S>(o, p, v_at + vs * S::KV_BYTES);
        wgmma_commit();
        if (S::TURNS) named_arrive(turn_next, 2 * WG);
        wgmma_wait<1>();
        wgmma_pin(s);
        release(c.k_empty[ks], lane);
        if (!S::TAIL_FIRST) mask_tile<S>(s, a, what, row);
        raise<S>(s, r, base, shrink, rise, a.scale_log2);
        record_tile<S>(a, what, group, row, rise);
        weights<S>(s, r, base, a.scale_log2);
        wgmma_wait<0>();
        wgmma_pin(o);
        release(c.v_empty[vs], lane);
        rescale<S>(o, shrink);
        pack<S>(p, s);
    }
    if (!S::KEPT) release_row(c.q_empty);
    const uint32_t v_parity = kv / S::STAGES & 1;
    mbar_wait(smem_address(&c.v_full[ks]), v_parity);
    wgmma_pin(o);
    wgmma_fence();
    outputs<S>(o, p, v_at + ks * S::KV_BYTES);
    wgmma_commit();
    kv++;
    // the next row's first scores while this row's outputs leave
    if (S::CHAINED) begin_row<S>(s, kept, kv, turn + 1, c, q_mine, k_at);
    wgmma_wait<S::CHAINED ? 1 : 0>();
    wgmma_pin(o);
    release(c.v_empty[ks], lane);
}

// One tile of a row whose scores are there (now), while those of the next are computed, unless it
// is the last. In flight at its beginning: the product with the values of the tile before.
template <class S, bool LAST>
__device__ __forceinline__ void
consume_tile(float (&now)[S::BK / 2], float (&next)[S::BK / 2], uint32_t (&p)[S::BK / 16][4],
             float (&o)[S::D / 2], const Kept<S> &kept, Rows &r, What &what, uint32_t &kv, int i,
             uint32_t first, const typename Control<S::STAGES>::Words &row, const Args &a,
             Control<S::STAGES> &c, int group, uint32_t q_mine, uint32_t k_at, uint32_t v_at)
{
    const int lane = threadIdx.x % 32;
    const uint32_t stage = kv % S::STAGES, parity = kv / S::STAGES & 1;
    const uint32_t before = (kv + S::STAGES - 1) % S::STAGES, after = (kv + 1) % S::STAGES;
    const What mine = what;
    float base[2], shrink[2], rise[2];
    if (S::TURNS) named_wait(1 + group, 2 * WG);
    if (!LAST) {
        if (!S::TAIL_FIRST) look_up<S>(what, a, first, i + 1, 0);
        mbar_wait(smem_address(&c.k_full[after]), (kv + 1) / S::STAGES & 1);
        wgmma_pin(next);
        wgmma_fence();
        scores<S>(next, q_mine, k_at + after * S::KV_BYTES, kept);
        wgmma_commit();
    } else if (!S::KEPT) {
        release_row(c.q_empty);
    }
    if (!S::TAIL_FIRST) mask_tile<S>(now, a, mine, row);
    raise<S>(now, r, base, shrink, rise, a.scale_log2);
    record_tile<S>(a, mine, group, row, rise);
    weights<S>(now, r, base, a.scale_log2, 0, S::PASS_ON);
    if (S::TURNS) named_arrive(2 - group, 2 * WG); // the other's
    weights<S>(now, r, base, a.scale_log2, S::PASS_ON, S::BK / 8);
    wgmma_wait<LAST ? 0 : 1>();
    wgmma_pin(o);
    if (i > 0) release(c.v_empty[before], lane);
    rescale<S>(o, shrink);
    pack<S>(p, now);
    mbar_wait(smem_address(&c.v_full[stage]), parity);
    wgmma_pin(o);
    wgmma_fence();
    outputs<S>(o, p, v_at + stage * S::KV_BYTES);
    wgmma_commit();
    wgmma_wait<LAST ? 0 : 1>();
    if (LAST) {
        wgmma_pin(o);
        release(c.v_empty[stage], lane);
    } else {
        wgmma_pin(next);
        release(c.k_empty[after], lane);
    }
    kv++;
}

// Both products of a tile hide behind softmaxes, so that two warpgroups fill the exp2 pipe: needs
// registers for two tiles of scores.
template <class S>
__device__ __forceinline__ void
consume_row_ahead(float (&o)[S::D / 2], Rows &r, uint32_t &kv, int count, uint32_t first,
                  const typename Control<S::STAGES>::Words &row, const Args &a,
                  Control<S::STAGES> &c, int group, uint32_t q_mine, uint32_t k_at, uint32_t v_at)
{
    const int lane = threadIdx.x % 32;
    float s[2][S::BK / 2];
    uint32_t p[S::BK / 16][4];
    const uint32_t stage = kv % S::STAGES;
    What what;
    Kept<S> kept;
    if (S::KEPT) {
        keep_queries<S>(kept, q_mine);
        release_row(c.q_empty);
    }
    look_up<S>(what, a, first, 0, count);
    mbar_wait(smem_address(&c.k_full[stage]), kv / S::STAGES & 1);
    wgmma_pin(s[0]);
    wgmma_fence();
    scores<S>(s[0], q_mine, k_at + stage * S::KV_BYTES, kept);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(s[0]);
    release(c.k_empty[stage], lane);
    if (S::TAIL_FIRST) mask_tile<S>(s[0], a, what, row);
#define ARGS p, o, kept, r, what, kv, i, first, row, a, c, group, q_mine, k_at, v_at
    for (int i = 0;; i++) {
        if (i + 1 == count) {
            consume_tile<S, true>(s[0], s[1], ARGS);
            break;
        }
        consume_tile<S, false>(s[0], s[1], ARGS);
        if (++i + 1 == count) {
            consume_tile<S, true>(s[1], s[0], ARGS);
            break;
        }
        consume_tile<S, false>(s[1], s[0], ARGS);
    }
#undef ARGS
}

template <class S>
__device__ void consume(const Args &a, Control<S::STAGES> &c, int group, uint32_t q_at,
                        uint32_t k_at, uint32_t v_at)
{
    const uint32_t q_full = smem_address(&c.q_full), q_mine = q_at + group * 64 * 128;
    uint32_t kv = 0; // key stages used so far; values lag one behind inside a row
    float s[S::BK / 2];
    Kept<S> kept;
    if (S::TURNS && group == S::WGS - 1) named_arrive(1, 2 * WG); // the first's turn
    if (S::CHAINED) begin_row<S>(s, kept, kv, 0, c, q_mine, k_at);
    for (uint32_t turn = 0;; turn++) {
        if (!S::CHAINED) mbar_wait(q_full, turn & 1);
        const typename Control<S::STAGES>::Words &row = c.words[turn % 4];
        if (peek(row.head) < 0) break;
        const int count = peek(row.count);
        const uint32_t first = static_cast<uint32_t>(peek(row.first));
        float o[S::D / 2];
        Rows r = {{-INFINITY, -INFINITY}, {0, 0}};
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            o[i] = 0;
        if (count == 0) {
            if (S::CHAINED)
                begin_row<S>(s, kept, kv, turn + 1, c, q_mine, k_at);
            else
                release_row(c.q_empty);
        } else if constexpr (S::TWO)
            consume_row_ahead<S>(o, r, kv, count, first, row, a, c, group, q_mine, k_at, v_at);
        else
            consume_row<S>(o, s, kept, r, kv, turn, a, c, group, q_mine, k_at, v_at);
        finish<S>(o, r, a, peek(row.head), query_of(peek(row.q0), group), peek(row.q_end));
    }
    if (S::CHAINED) wgmma_wait<0>(); // issued for a row that never came
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
            mbar_init(smem_address(&c.k_full[i]), 1);
            mbar_init(smem_address(&c.v_full[i]), 1);
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
        if (threadIdx.x == 0) {
            if constexpr (S::RAGGED)
                produce_runs<S>(a, maps, c, q_at, k_at, v_at);
            else
                produce<S>(a, maps, c, q_at, k_at, v_at);
        }
    } else {
        registers_grow<S::GROW>();
        // the same for a warp: addresses in uniform registers
        consume<S>(a, c, __shfl_sync(~0u, threadIdx.x / WG, 0) - 1, q_at, k_at, v_at);
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
