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
    BY_FIRST = 16, // control words are read by the lane that frees them, and handed to its warp
    BY_VOTE = 8, // a warp leaves its outputs alone when no maximum of its rows has risen
};

template <int D_, int BK_, int WGS_, int STAGES_, unsigned WAYS> struct Shape {
    static constexpr int D = D_, BK = BK_, WGS = WGS_, STAGES = STAGES_;
    static constexpr bool LIST = WAYS & BY_LIST, RAGGED = WAYS & BY_RUNS;
    static constexpr bool TURNS = WAYS & BY_TURNS, VOTE = WAYS & BY_VOTE;
    static constexpr bool FIRST = WAYS & BY_FIRST;
    static constexpr int BQ = 64 * WGS, THREADS = WG * (WGS + 1);
    static constexpr int Q_BYTES = BQ * D * 2, KV_BYTES = BK * D * 2;
    static constexpr int SHARED = 1024 /* to align */ + Q_BYTES + 2 * STAGES * KV_BYTES;
    static constexpr int BLOCKS = WGS == 1 ? 2 : 1; // per processor: one computes, one waits
    // 65,536 registers: 128 * (40 + 2 * 232), 128 * (32 + 3 * 160), 2 * 128 * (40 + 216)
    static constexpr int GROW = WGS == 1 ? 216 : WGS == 2 ? 232 : 160, SHRINK = WGS == 3 ? 32 : 40;
    static_assert(D % BOX == 0, "a row of a box is 64 channels");
    static_assert(!RAGGED || (BK == ATTN_RAGGED_KEYS && !LIST),
                  "a stage of a ragged plan is a tile, and the plan has its own rows");
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

// Everything in shared memory that is not a tile. info of a key stage: its step, for masks; shown:
// bits of its keys that count, of ragged plans.
template <int STAGES> struct Control {
    uint64_t q_full, q_empty;
    uint64_t k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    uint32_t info[STAGES], shown[STAGES][4];
    int head, row, q0, q_end, count; // what the queries of this turn are; head < 0: no more
};

template <class S> __device__ __forceinline__ int tile_of(uint32_t step)
{
    return static_cast<int>(S::LIST ? ATTN_STEP_TILE(step) : step);
}

// One tile of keys or values into its stage; n counts stages of this ring.
template <class S>
__device__ __forceinline__ void feed(uint32_t n, uint32_t step, int head, const uint64_t *full,
                                     const uint64_t *empty, uint32_t ring, const CUtensorMap *tiles,
                                     const CUtensorMap *means, uint32_t *info)
{
    const uint32_t s = n % S::STAGES, bar = smem_address(&full[s]);
    mbar_wait(smem_address(&empty[s]), (n / S::STAGES & 1) ^ 1);
    if (info) info[s] = step;
    mbar_arrive_expect(bar, S::KV_BYTES);
    const CUtensorMap *map = S::LIST && step & ATTN_STEP_MEAN ? means : tiles;
#pragma unroll
    for (int x = 0; x < S::D; x += BOX)
        tma_load(ring + s * S::KV_BYTES + x * 2 * S::BK, map, bar, x, tile_of<S>(step) * S::BK,
                 head);
}

// One stage put together from runs
template <class S>
__device__ __forceinline__ void
feed_runs(uint32_t n, const attn_ragged_stage &stage, int head, const uint64_t *full,
          const uint64_t *empty, uint32_t ring, const CUtensorMap *boxes, uint32_t (*shown)[4])
{
    const uint32_t s = n % S::STAGES, bar = smem_address(&full[s]);
    mbar_wait(smem_address(&empty[s]), (n / S::STAGES & 1) ^ 1);
    for (int i = 0; shown && i < 4; i++)
        shown[s][i] = stage.shown[i];
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
            c.head = -1;
            mbar_arrive(q_full);
            return;
        }
        next = atomicAdd(a.counter, 1u);
        const attn_ragged_row row = a.ragged[id];
        const attn_ragged_stage *stages = a.stages + row.first;
        const int count = row.stages;
        if (count > 0)
            feed_runs<S>(kv, stages[0], row.head, c.k_full, c.k_empty, k_at, maps.k, c.shown);
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.head = row.head;
        c.row = 0;
        c.q0 = row.q0;
        c.q_end = row.q0 + row.queries;
        c.count = count;
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
                feed_runs<S>(kv + 1, stages[i], row.head, c.k_full, c.k_empty, k_at, maps.k,
                             c.shown);
            feed_runs<S>(kv, stages[i - 1], row.head, c.v_full, c.v_empty, v_at, maps.v, nullptr);
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
            c.head = -1;
            mbar_arrive(q_full);
            return;
        }
        next = atomicAdd(a.counter, 1u); // its latency passes while this row is fed
        const int head_row = S::LIST ? static_cast<int>(a.order[id]) : static_cast<int>(id);
        const int head = head_row / a.rows, row = head_row - head * a.rows;
        const uint32_t *steps = nullptr;
        int count = (a.len_k + S::BK - 1) / S::BK;
        if (S::LIST) {
            const uint32_t *at = a.row_ptr + (a.per_head ? head_row : row);
            steps = a.steps + at[0];
            count = static_cast<int>(at[1] - at[0]);
        }
        // the first keys do not wait for the queries before to be done with
        uint32_t step = S::LIST && count > 0 ? steps[0] : 0, before;
        if (count > 0)
            feed<S>(kv, step, head, c.k_full, c.k_empty, k_at, &maps.k, &maps.k_mean, c.info);
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.head = head;
        c.row = row;
        c.q0 = row * S::BQ;
        c.q_end = a.len_q;
        c.count = count;
        if (count == 0) {
            mbar_arrive(q_full);
            continue;
        }
        mbar_arrive_expect(q_full, S::Q_BYTES);
#pragma unroll
        for (int x = 0; x < S::D; x += BOX)
            tma_load(q_at + x * 2 * S::BQ, &maps.q, q_full, x, row * S::BQ, head);
        uint32_t ahead = S::LIST ? (count > 1 ? steps[1] : 0) : 1;
        for (int i = 1; i <= count; i++) { // keys run one tile ahead of values
            before = step;
            step = ahead;
            ahead = S::LIST ? (i + 1 < count ? steps[i + 1] : 0) : i + 1;
            if (i < count)
                feed<S>(kv + 1, step, head, c.k_full, c.k_empty, k_at, &maps.k, &maps.k_mean,
                        c.info);
            feed<S>(kv, before, head, c.v_full, c.v_empty, v_at, &maps.v, &maps.v_mean, nullptr);
            kv++;
        }
    }
}

// S = Q Kt of this warpgroup's 64 rows
template <class S>
__device__ __forceinline__ void scores(float (&s)[S::BK / 2], uint32_t q, uint32_t k)
{
#pragma unroll
    for (int d = 0; d < S::D; d += 16) {
        const uint32_t in = d % BOX * 2, x = d / BOX * BOX * 2;
        wgmma_ss<S::BK>(s, wgmma_matrix(q + x * S::BQ + in, 16, 1024),
                        wgmma_matrix(k + x * S::BK + in, 16, 1024), d > 0);
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
__device__ __forceinline__ void pack(uint32_t (&p)[S::BK / 16][4], const float (&s)[S::BK / 2])
{
#pragma unroll
    for (int i = 0; i < S::BK / 4; i++)
        p[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

// Keys past the last, and for mean keys those that are computed, cost nothing; a mean key weighs as
// many keys as its tile has.
template <class S>
__device__ __forceinline__ void mask(float (&s)[S::BK / 2], const Args &a, uint32_t step,
                                     int plan_row)
{
    const int first = tile_of<S>(step) * S::BK + 2 * (threadIdx.x % 4);
    if (!S::LIST || !(step & ATTN_STEP_MEAN)) {
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

// s becomes weights; returns by what O must shrink. Largest scores are over quads. Two chains a
// row, rows side by side: one chain alone would wait for itself.
template <class S>
__device__ __forceinline__ void softmax(float (&s)[S::BK / 2], Rows &r, float (&shrink)[2],
                                        float (&rise)[2], float scale)
{
    constexpr int N = S::BK / 8;
    float most[2][2], base[2], sum[2][2] = {};
#pragma unroll
    for (int h = 0; h < 2; h++)
        most[h][0] = s[2 * h], most[h][1] = s[2 * h + 1];
#pragma unroll
    for (int i = 1; i < N; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int x = 0; x < 2; x++)
                most[h][x] = fmaxf(most[h][x], s[4 * i + 2 * h + x]);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = fmaxf(most[h][0], most[h][1]);
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        rise[h] = S::LIST ? (top - r.most[h]) * scale : 0; // NaN or inf at the first: alive
        top = fmaxf(top, r.most[h]);
        base[h] = top == -INFINITY ? 0 : top * scale;
        shrink[h] = exp2_fast(r.most[h] * scale - base[h]);
        r.most[h] = top;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int x = 0; x < 2; x++) {
                float &e = s[4 * i + 2 * h + x];
                e = exp2_fast(fmaf(e, scale, -base[h]));
                sum[h][x] += e;
            }
#pragma unroll
    for (int h = 0; h < 2; h++)
        r.sum[h] = r.sum[h] * shrink[h] + (sum[h][0] + sum[h][1]);
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

// Scores of a tile that is in registers by now to weights; what depends on the step is rare, and a
// branch for the whole warpgroup.
template <class S>
__device__ __forceinline__ void weigh(float (&s)[S::BK / 2], Rows &r, float (&shrink)[2],
                                      const Args &a, uint32_t step, int head_row, int plan_row,
                                      int query, int q_end, const uint32_t (&shown)[4])
{
    if constexpr (S::RAGGED) mask_runs<S>(s, shown);
    const bool mean = S::LIST && step & ATTN_STEP_MEAN;
    if (!S::RAGGED && (mean || (tile_of<S>(step) + 1) * S::BK > a.len_k))
        mask<S>(s, a, step, plan_row);
    float rise[2];
    softmax<S>(s, r, shrink, rise, a.scale_log2);
    if (S::LIST && a.alive && !mean) record(a, step, head_row, query, q_end, rise);
}

// A control word in shared memory, for all lanes of a warp. Read by all, it is right as well, since
// they are converged when one of them frees the buffer, but racecheck cannot know.
template <class S, class T> __device__ __forceinline__ T peek(const T &word)
{
    const volatile T &at = word;
    if constexpr (!S::FIRST) return at;
    T x = 0;
    if (threadIdx.x % 32 == 0) x = at;
    return __shfl_sync(~0u, x, 0);
}

template <class S>
__device__ __forceinline__ void read_shown(uint32_t (&shown)[4], Control<S::STAGES> &c, uint32_t s)
{
    if constexpr (S::RAGGED)
        for (int i = 0; i < 4; i++)
            shown[i] = peek<S>(c.shown[s][i]);
}

// One arrival of this warp frees a buffer, once all lanes have read what they want of it.
__device__ __forceinline__ void release(const uint64_t &empty, int lane)
{
    __syncwarp();
    if (lane == 0) mbar_arrive(smem_address(&empty));
}

template <class S>
__device__ void consume(const Args &a, Control<S::STAGES> &c, uint32_t q_at, uint32_t k_at,
                        uint32_t v_at)
{
    const int group = threadIdx.x / WG - 1, lane = threadIdx.x % 32;
    const int turn_mine = 1 + group, turn_next = 1 + (group + 1) % S::WGS; // 0 is __syncthreads
    const uint32_t q_full = smem_address(&c.q_full), q_empty = smem_address(&c.q_empty);
    const uint32_t q_mine = q_at + group * 64 * 128;
    uint32_t kv = 0; // key stages used so far; values lag one behind inside a row
    if (S::TURNS && group == S::WGS - 1) named_arrive(turn_next, 2 * WG);
    for (uint32_t turn = 0;; turn++) {
        mbar_wait(q_full, turn & 1);
        const int head = peek<S>(c.head);
        const int row = peek<S>(c.row);
        const int q0 = peek<S>(c.q0);
        const int q_end = peek<S>(c.q_end);
        const int count = peek<S>(c.count);
        if (head < 0) break;
        const int head_row = head * a.rows + row, plan_row = a.per_head ? head_row : row;
        const int query = q0 + group * 64 + threadIdx.x % WG / 32 * 16 + lane / 4;
        float o[S::D / 2];
        Rows r = {{-INFINITY, -INFINITY}, {0, 0}};
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            o[i] = 0;
        if (count == 0) {
            release(c.q_empty, lane);
        } else {
            float s[S::BK / 2], shrink[2];
            uint32_t p[S::BK / 16][4];
            uint32_t ks = kv % S::STAGES;
            mbar_wait(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
            uint32_t step = peek<S>(c.info[ks]), shown[4];
            read_shown<S>(shown, c, ks);
            wgmma_pin(s);
            wgmma_fence();
            scores<S>(s, q_mine, k_at + ks * S::KV_BYTES);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_pin(s);
            release(c.k_empty[ks], lane);
            weigh<S>(s, r, shrink, a, step, head_row, plan_row, query, q_end, shown);
            pack<S>(p, s);
            for (int i = 1; i < count; i++) {
                const uint32_t vs = ks, v_parity = kv / S::STAGES & 1;
                kv++;
                ks = kv % S::STAGES;
                mbar_wait(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
                step = peek<S>(c.info[ks]);
                read_shown<S>(shown, c, ks);
                if (S::TURNS) named_wait(turn_mine, 2 * WG);
                wgmma_pin(s);
                wgmma_pin(o);
                wgmma_fence();
                scores<S>(s, q_mine, k_at + ks * S::KV_BYTES);
                wgmma_commit();
                mbar_wait(smem_address(&c.v_full[vs]), v_parity);
                wgmma_fence();
                outputs<S>(o, p, v_at + vs * S::KV_BYTES);
                wgmma_commit();
                if (S::TURNS) named_arrive(turn_next, 2 * WG);
                wgmma_wait<1>();
                wgmma_pin(s);
                release(c.k_empty[ks], lane);
                weigh<S>(s, r, shrink, a, step, head_row, plan_row, query, q_end, shown);
                wgmma_wait<0>();
                wgmma_pin(o);
                release(c.v_empty[vs], lane);
                if (!S::VOTE || __any_sync(~0u, shrink[0] != 1 || shrink[1] != 1))
                    rescale<S>(o, shrink);
                pack<S>(p, s);
            }
            release(c.q_empty, lane);
            mbar_wait(smem_address(&c.v_full[ks]), kv / S::STAGES & 1);
            wgmma_pin(o);
            wgmma_fence();
            outputs<S>(o, p, v_at + ks * S::KV_BYTES);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_pin(o);
            release(c.v_empty[ks], lane);
            kv++;
        }
        finish<S>(o, r, a, head, query, q_end);
    }
    if (S::TURNS && group == 0) named_wait(turn_mine, 2 * WG); // the last arrival is nobody's
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
        const int warps = S::WGS * 4; // one arrival each frees a buffer
        mbar_init(smem_address(&c.q_full), 1);
        mbar_init(smem_address(&c.q_empty), warps);
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
        consume<S>(a, c, q_at, k_at, v_at);
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
