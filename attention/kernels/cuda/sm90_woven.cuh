// Hopper kernel of sm90.cuh, contenders for lists of 64 channels: products woven into the softmax.
//
// A warp that issues a wgmma while the tensor cores are busy stands still, and its exp2 with it. So
// the product with 16 values is issued as soon as their weights are there: 64 clocks of exp2 apart,
// where it takes 32. Scores of the next tile are in flight meanwhile; AHEAD, their largest are
// found between the second half of the exp2 of this one, which leave issue slots free.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_WOVEN_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_WOVEN_CUH

#include "attention/kernels/cuda/sm90_rows.cuh"

namespace
{

// What the weights of a tile are relative to, and by what those before it shrink.
struct Base {
    float at[2], shrink[2];
};

// As raise(), but for the sums. LAZY: the base stays until some score is 2^8 above it.
template <class S>
__device__ __forceinline__ void find_base(Base &b, const float (&s)[S::BK / 2], float (&most)[2],
                                          float scale)
{
    Rows r = {{most[0], most[1]}, {0, 0}};
    float rise[2];
    raise<S>(s, r, b.at, b.shrink, rise, scale);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (S::LAZY && (r.most[h] - most[h]) * scale <= 8) { // false when both are -inf
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
                                             Control<S::STAGES> &c, uint64_t q, uint64_t k_first)
{
    const uint32_t stage = kv % S::STAGES;
    const uint64_t k = wgmma_further(k_first, stage * S::KV_BYTES);
    mbar_wait(smem_address(&c.k_full[stage]), kv / S::STAGES & 1);
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < S::D; d += 16)
        wgmma_ss<S::BK>(s, wgmma_further(q, d * 2), wgmma_further(k, d * 2), d > 0);
    wgmma_commit();
}

// One tile of a row whose scores are there (now), while those of the next are computed, unless it
// is the last. In flight at its beginning: the end of the product with the values of the tile
// before.
template <class S, bool LAST>
__device__ __forceinline__ void
weave_tile(float (&now)[S::BK / 2], float (&next)[S::BK / 2], uint32_t (&p)[S::BK / 16][4],
           float (&o)[S::D / 2], Rows &r, Base &base, uint32_t &kv, bool first, const Args &a,
           Control<S::STAGES> &c, int group, uint64_t q, uint64_t k_first, uint64_t v_first)
{
    constexpr int PIECES = S::BK / 16, HALF = PIECES / 2, EACH = S::PAIRS ? 2 : 1;
    const int lane = threadIdx.x % 32;
    const uint32_t stage = kv % S::STAGES, parity = kv / S::STAGES & 1;
    const uint32_t before = (kv + S::STAGES - 1) % S::STAGES, after = (kv + 1) % S::STAGES;
    const uint64_t v = wgmma_further(v_first, stage * S::KV_BYTES);
    if (S::TURNS) named_wait(1 + group, 2 * WG);
    if (LAST)
        mbar_arrive(smem_address(&c.q_empty));
    else
        begin_scores<S>(next, kv + 1, c, q, k_first);
    if (!S::AHEAD) find_base<S>(base, now, r.most, a.scale_log2);
    Base later = base;
    float sum[2][2] = {{r.sum[0] * base.shrink[0], 0}, {r.sum[1] * base.shrink[1], 0}};
    mbar_wait(smem_address(&c.v_full[stage]), parity);
#pragma unroll
    for (int k = 0; k < PIECES; k += EACH) {
#pragma unroll
        for (int i = k; i < k + EACH; i++)
            weights_of<S>(p[i], sum, now, base, a.scale_log2, i);
        if (k == 0) {
            wgmma_wait<LAST ? 0 : 1>();
            wgmma_pin(o);
            if (!first && lane == 0) mbar_arrive(smem_address(&c.v_empty[before]));
            if (!S::LAZY || __any_sync(~0u, base.shrink[0] != 1 || base.shrink[1] != 1))
                rescale<S>(o, base.shrink);
            wgmma_pin(o);
        }
        wgmma_fence();
#pragma unroll
        for (int i = k; i < k + EACH; i++)
            wgmma_rs<S::D>(o, p[i], wgmma_further(v, i * 16 * 128));
        wgmma_commit();
        if (S::TURNS && k + EACH == S::PASS_ON) named_arrive(2 - group, 2 * WG); // the other's
        if (!LAST && k + EACH == HALF) {
            wgmma_wait<HALF / EACH>();
            wgmma_pin(next);
            if (lane == 0) mbar_arrive(smem_address(&c.k_empty[after]));
            if (S::AHEAD) find_base<S>(later, next, r.most, a.scale_log2);
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
        if (lane == 0) mbar_arrive(smem_address(&c.v_empty[stage]));
    }
}

// consume() woven
template <class S>
__device__ void weave(const Args &a, Control<S::STAGES> &c, int group, uint32_t q_at, uint32_t k_at,
                      uint32_t v_at)
{
    const int lane = threadIdx.x % 32;
    const uint64_t q = wgmma_matrix(q_at + group * 64 * 128, 16, 1024),
                   k = wgmma_matrix(k_at, 16, 1024), v = wgmma_matrix(v_at, S::BK * 128, 1024);
    const uint32_t q_full = smem_address(&c.q_full);
    float s[2][S::BK / 2];
    uint32_t p[S::BK / 16][4];
    uint32_t kv = 0; // key stages used so far; values lag one behind inside a row
    if (S::TURNS && group == S::WGS - 1) named_arrive(1, 2 * WG); // the first's turn
    for (uint32_t turn = 0;; turn++) {
        mbar_wait(q_full, turn & 1);
        const typename Control<S::STAGES>::Words &row = c.words[turn & 1];
        if (peek(row.head) < 0) break;
        const int count = peek(row.count);
        float o[S::D / 2];
        Rows r = {{-INFINITY, -INFINITY}, {0, 0}};
        Base base = {};
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            o[i] = 0;
        if (count == 0) {
            mbar_arrive(smem_address(&c.q_empty));
        } else {
            What what;
            look_up<S>(what, a, static_cast<uint32_t>(peek(row.first)), 0, count);
            begin_scores<S>(s[0], kv, c, q, k);
            wgmma_wait<0>();
            wgmma_pin(s[0]);
            if (lane == 0) mbar_arrive(smem_address(&c.k_empty[kv % S::STAGES]));
            mask_tile<S>(s[0], a, what, row);
            if (S::AHEAD) find_base<S>(base, s[0], r.most, a.scale_log2);
#define ARGS p, o, r, base, kv, i == 0, a, c, group, q, k, v
            for (int i = 0;; i++) {
                if (i + 1 == count) {
                    weave_tile<S, true>(s[0], s[1], ARGS);
                    break;
                }
                weave_tile<S, false>(s[0], s[1], ARGS);
                if (++i + 1 == count) {
                    weave_tile<S, true>(s[1], s[0], ARGS);
                    break;
                }
                weave_tile<S, false>(s[1], s[0], ARGS);
            }
#undef ARGS
        }
        finish<S>(o, r, a, peek(row.head), query_of(peek(row.q0), group), peek(row.q_end));
    }
    if (S::TURNS && group == 0) named_wait(1, 2 * WG); // the last arrival is nobody's
}

} // namespace

#endif
