// Hopper kernel of sm90.cuh, lists of 64 channels: the loop over a row with two tiles of scores in
// flight and the products with values woven into the softmax. What each step of it was worth at
// density .3 (tests/bench/NOTES_kernels.md):
//
// - The product with 16 values is issued as soon as their weights are there, 64 clocks of exp2
//   apart, where it takes 32. Nothing by itself, but it pins the place where a turn passes on.
// - The largest scores of the next tile, in flight meanwhile, are found between the second half of
//   the exp2 of this one: with turns so pinned 2 to 3 %.
// - Weights are relative to a base that rises only when a score is 2^8 above it, so that outputs
//   rarely shrink: 3.5 %. Weights stay below 2^8, sums and outputs far from the ends of fp32.
//   Skipping a correction that does not matter is FlashAttention-4's (Zadouri et al. 2026).
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_AHEAD_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_AHEAD_CUH

#include "attention/kernels/cuda/sm90_rows.cuh"

namespace
{

// Addresses as wgmma wants them, made once; those of a row's parts are an addition away.
struct Matrices {
    uint64_t q, k, v;
};

// What the weights of a tile are relative to, and by what those before it shrink.
struct Base {
    float at[2], shrink[2];
};

// The base under the scores of one more tile. most: the scores it stands for.
template <class S>
__device__ __forceinline__ void find_base(Base &b, const float (&s)[S::BK / 2], float (&most)[2],
                                          float scale)
{
    Rows r = {{most[0], most[1]}, {0, 0}};
    float rise[2];
    raise<S>(s, r, b.at, b.shrink, rise, scale);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if ((r.most[h] - most[h]) * scale <= 8) { // false when both are -inf
            b.at[h] = most[h] * scale;
            b.shrink[h] = 1;
        } else {
            most[h] = r.most[h];
        }
    }
}

// Scores of 16 keys become weights. sum: two chains a row.
template <class S>
__device__ __forceinline__ void weights_of(uint32_t (&p)[4], float (&sum)[2][2],
                                           const float (&s)[S::BK / 2], const Base &b, float scale,
                                           int k)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float e[2];
#pragma unroll
        for (int x = 0; x < 2; x++) {
            e[x] = exp2_fast(fmaf(s[8 * k + 2 * i + x], scale, -b.at[i % 2]));
            sum[i % 2][x] += e[x];
        }
        p[i] = pack_bf16(e[0], e[1]);
    }
}

// S = Q Kt of the tile in stage kv, begun
template <class S>
__device__ __forceinline__ void begin_scores(float (&s)[S::BK / 2], uint32_t kv,
                                             Control<S::STAGES> &c, const Matrices &m)
{
    const uint32_t stage = kv % S::STAGES;
    const uint64_t k = wgmma_further(m.k, stage * S::KV_BYTES);
    mbar_wait(smem_address(&c.k_full[stage]), kv / S::STAGES & 1);
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < S::D; d += 16)
        wgmma_ss<S::BK>(s, wgmma_further(m.q, d * 2), wgmma_further(k, d * 2), d > 0);
    wgmma_commit();
}

// One tile of a row whose scores are there (now), while those of the next are computed, unless it
// is the last. In flight at its beginning: the end of the product with the values of the tile
// before. A turn is the right to begin a tile; it passes on after two of the eight products. Their
// place between the weights pins it there: of exp2 alone the compiler moves some across a barrier.
template <class S, bool LAST>
__device__ __forceinline__ void
consume_tile(float (&now)[S::BK / 2], float (&next)[S::BK / 2], uint32_t (&p)[S::BK / 16][4],
             float (&o)[S::D / 2], Rows &r, Base &base, uint32_t &kv, bool first, const Args &a,
             Control<S::STAGES> &c, int group, const Matrices &m)
{
    constexpr int PIECES = S::BK / 16, HALF = PIECES / 2, PASS_ON = 2;
    const int lane = threadIdx.x % 32;
    const uint32_t stage = kv % S::STAGES, parity = kv / S::STAGES & 1;
    const uint32_t before = (kv + S::STAGES - 1) % S::STAGES, after = (kv + 1) % S::STAGES;
    const uint64_t v = wgmma_further(m.v, stage * S::KV_BYTES);
    if (S::TURNS) named_wait(1 + group, 2 * WG);
    if (LAST)
        release_row(c.q_empty);
    else
        begin_scores<S>(next, kv + 1, c, m);
    Base later = base;
    float sum[2][2] = {{r.sum[0] * base.shrink[0], 0}, {r.sum[1] * base.shrink[1], 0}};
    mbar_wait(smem_address(&c.v_full[stage]), parity);
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        weights_of<S>(p[k], sum, now, base, a.scale_log2, k);
        if (k == 0) {
            wgmma_wait<LAST ? 0 : 1>();
            wgmma_pin(o);
            if (!first) release(c.v_empty[before], lane);
            if (__any_sync(~0u, base.shrink[0] != 1 || base.shrink[1] != 1))
                rescale<S>(o, base.shrink);
            wgmma_pin(o);
        }
        wgmma_fence();
        wgmma_rs<S::D>(o, p[k], wgmma_further(v, k * 16 * 128));
        wgmma_commit();
        if (S::TURNS && k + 1 == PASS_ON) named_arrive(2 - group, 2 * WG); // the other's
        if (!LAST && k + 1 == HALF) {
            wgmma_wait<HALF>();
            wgmma_pin(next);
            release(c.k_empty[after], lane);
            find_base<S>(later, next, r.most, a.scale_log2);
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
        r.sum[h] = sum[h][0] + sum[h][1];
    base = later;
    kv++;
    if (LAST) {
        wgmma_wait<0>();
        wgmma_pin(o);
        release(c.v_empty[stage], lane);
    }
}

template <class S>
__device__ __forceinline__ void
consume_row_ahead(float (&o)[S::D / 2], Rows &r, uint32_t &kv, int count, uint32_t first_step,
                  const typename Control<S::STAGES>::Words &row, const Args &a,
                  Control<S::STAGES> &c, int group, const Matrices &m)
{
    float s[2][S::BK / 2];
    uint32_t p[S::BK / 16][4];
    Base base = {};
    What what;
    look_up<S>(what, a, first_step, 0, count);
    begin_scores<S>(s[0], kv, c, m);
    wgmma_wait<0>();
    wgmma_pin(s[0]);
    release(c.k_empty[kv % S::STAGES], threadIdx.x % 32);
    mask_tile<S>(s[0], a, what, row);
    find_base<S>(base, s[0], r.most, a.scale_log2);
#define ARGS p, o, r, base, kv, i == 0, a, c, group, m
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

} // namespace

#endif
