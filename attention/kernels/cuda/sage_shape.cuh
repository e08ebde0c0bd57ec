// 8-bit Hopper kernel of sage.cuh: what an instance is, what a launch is told, what lies in shared
// memory.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SAGE_SHAPE_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SAGE_SHAPE_CUH

#include "attention/kernels/cuda/sage_cuda.h"
#include "attention/kernels/cuda/sm90_rows.cuh"
#include "model/base/cuda/wgmma8.cuh"

namespace
{

enum : unsigned { // ways of an instance beside the BY_ of sm90_shape.cuh
    SAGE_LIST = 1, // steps from a plan
    SAGE_TURNS = 2, // warpgroups take turns at issuing products
    SAGE_AHEAD = 4, // scores of the next tile are computed during the softmax of this one
    SAGE_U8 = 8, // weights of a tile as bytes of its own maximum, values s8
    SAGE_RECORD = 16, // says which tiles stay alive
    SAGE_DELTA = 32, // scores get what smoothing q took
};

constexpr int SAGE_PASS_ON = 2; // a turn passes on after so many of the four products with values

template <int D_, int WGS_, int STAGES_, unsigned WAYS> struct Sage {
    static constexpr int D = D_, BK = QUANT_BLOCK, WGS = WGS_, STAGES = STAGES_;
    static constexpr bool LIST = WAYS & SAGE_LIST, TURNS = WAYS & SAGE_TURNS,
                          AHEAD = WAYS & SAGE_AHEAD;
    static constexpr bool U8 = WAYS & SAGE_U8, RECORD = WAYS & SAGE_RECORD;
    static constexpr bool DELTA = WAYS & SAGE_DELTA;
    // what sm90_rows.cuh asks: the last tile comes first, which alone is masked
    static constexpr bool PLAIN = !RECORD, RAGGED = false;
    static constexpr int BQ = 64 * WGS, THREADS = WG * (WGS + 1);
    static constexpr int Q_BYTES = BQ * D, K_BYTES = BK * D, V_BYTES = D * BK;
    static constexpr int SHARED = 1024 /* to align */ + Q_BYTES + STAGES * (K_BYTES + V_BYTES);
    static constexpr int GROW = WGS == 3 ? 160 : 232, SHRINK = WGS == 3 ? 32 : 40;
    static_assert(D == 64 || D == 128, "a row of codes is one box of 64 or 128 bytes");
    static_assert(WGS == 2 || WGS == 3, "registers are dealt for 2 and 3 consuming warpgroups");
    static_assert(!AHEAD || D == 64, "registers for two tiles of scores");
    static_assert(SHARED + 2048 <= 233472,
                  "shared memory of a processor; 2048: static and reserved");
};

struct SageArgs {
    bf16 *o;
    int64_t o_token, o_head;
    float *lse;
    const float *q_scale, *k_scale, *v_scale, *lse_shift, *delta;
    uint32_t *alive;
    unsigned *counter;
    const uint32_t *row_ptr, *steps, *order;
    int len_q, len_k, rows, tiles; // tiles: rows of all heads
    int q_blocks, k_blocks, per_head, words;
    float scale_log2, alive_log2; // scale_log2: log2 e / sqrt(D)
};

struct SageMaps {
    CUtensorMap q, k, v;
};

// What is done i-th in a row: the last tile, which may be ragged, comes first.
template <class S>
__device__ __forceinline__ uint32_t sage_step(const uint32_t *steps, int i, int count)
{
    const int at = i == 0 ? count - 1 : i - 1;
    return S::LIST ? steps[at] : at;
}

} // namespace

#endif
