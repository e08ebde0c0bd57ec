// Hopper kernel of sm90.cuh: what an instance is, what a launch is told, what lies in shared
// memory.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_SHAPE_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_SHAPE_CUH

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
    BY_RUNS = 2, // keys of a row one after another, copied by the whole feeding warpgroup
    BY_TURNS = 4, // warpgroups take turns at issuing products
    BY_TWO = 8, // scores of the next tile are computed during the softmax of this one, its outputs
    // between its exp2 (sm90_ahead.cuh)
    BY_PLAIN = 16, // lists without mean tiles, nothing recorded
    BY_KEPT = 32, // queries are kept in registers, and their buffer is free at once
};

template <int D_, int BK_, int WGS_, int STAGES_, unsigned WAYS> struct Shape {
    static constexpr int D = D_, BK = BK_, WGS = WGS_, STAGES = STAGES_;
    static constexpr bool LIST = WAYS & BY_LIST, RAGGED = WAYS & BY_RUNS;
    static constexpr bool TURNS = WAYS & BY_TURNS;
    static constexpr bool KEPT = WAYS & BY_KEPT;
    // without means and records the last tile comes first, so that one place masks the keys past
    // the end
    static constexpr bool TWO = WAYS & BY_TWO, PLAIN = WAYS & BY_PLAIN || !LIST;
    static constexpr int BQ = 64 * WGS, THREADS = WG * (WGS + 1);
    static constexpr int Q_BYTES = BQ * D * 2, KV_BYTES = BK * D * 2;
    static constexpr int SHARED = 1024 /* to align */ + Q_BYTES + 2 * STAGES * KV_BYTES;
    static constexpr int BLOCKS = WGS == 1 ? 2 : 1; // per processor: one computes, one waits
    // 65,536 registers: 128 * (40 + 2 * 232), 128 * (32 + 3 * 160), 2 * 128 * (40 + 216)
    static constexpr int GROW = WGS == 1 ? 216 : WGS == 3 ? 160 : 232;
    static constexpr int SHRINK = WGS == 3 ? 32 : 40;
    static_assert(!TWO || (WGS <= 2 && D == 64 && BK <= 128), "registers for two tiles of scores");
    static_assert(!TWO || (PLAIN && !RAGGED && !KEPT),
                  "only the first tile of a row is masked, and may be by its length alone");
    static_assert(D % BOX == 0, "a row of a box is 64 channels");
    static_assert(!RAGGED || (BK == ATTN_RAGGED_KEYS && BK == WG && !LIST),
                  "a feeding thread a key of a stage; a ragged plan has its own rows");
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
    float mean_full, mean_last; // what the keys of a tile add to the score of their mean, unscaled
};

struct PlainMaps { // copied to constant memory with the launch; the copy engine reads them there
    CUtensorMap q, k, v, k_mean, v_mean;
};
struct RaggedMaps {
    CUtensorMap q;
    const bf16 *k, *v;
    uint32_t k_token, v_token; // strides in 16 bytes
    int64_t k_head, v_head;
    const attn_ragged_run *runs;
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
        int first; // of its steps; RAGGED: keys of its first stage
    } words[2]; // of even and odd turns: those of a turn are good until the queries of the next go
};

template <class S> __device__ __forceinline__ int tile_of(uint32_t step)
{
    return static_cast<int>(S::LIST ? ATTN_STEP_TILE(step) : step);
}

} // namespace

#endif
