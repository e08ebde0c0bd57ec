// Hopper kernels beside sm90.cuh that go through a row in parts, or through tiles put together from two.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_PART_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_PART_CUH

#include "attention/kernels/cuda/sm90.cuh"

namespace
{

// Keys that count of the first and of the second half of a tile
struct Halves {
    int keys[2];
};
template <class S>
__device__ __forceinline__ void mask_halves(float (&s)[S::BK / 2], const Halves &count)
{
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < S::BK / 2; i++)
        if (first + i % (S::BK / 4) / 4 * 8 + i % 2 >= count.keys[i / (S::BK / 4)])
            s[i] = -INFINITY;
}

// consume_row() for one part: what was before it is kept. keys: of the part's first tile that
// count.
template <class S>
__device__ __forceinline__ void consume_part(float (&o)[S::D / 2], Rows &r, uint32_t &kv, int count,
                                             const Halves &first, const Kept<S> &kept, float scale,
                                             Control<S::STAGES> &c, int group, uint32_t q_mine,
                                             uint32_t k_at, uint32_t v_at)
{
    const int turn_mine = 1 + group, turn_next = 1 + (group + 1) % S::WGS, lane = threadIdx.x % 32;
    float s[S::BK / 2], base[2], shrink[2], rise[2];
    uint32_t p[S::BK / 16][4];
    uint32_t ks = kv % S::STAGES;
    mbar_wait(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
    wgmma_pin(s);
    wgmma_fence();
    scores<S>(s, q_mine, k_at + ks * S::KV_BYTES, kept);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(s);
    release(c.k_empty[ks], lane);
    if (first.keys[0] + first.keys[1] < S::BK) mask_halves<S>(s, first);
    raise<S>(s, r, base, shrink, rise, scale);
    weights<S>(s, r, base, scale);
    rescale<S>(o, shrink);
    pack<S>(p, s);
    for (int i = 1; i < count; i++) {
        const uint32_t vs = ks, v_parity = kv / S::STAGES & 1;
        kv++;
        ks = kv % S::STAGES;
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
        raise<S>(s, r, base, shrink, rise, scale);
        weights<S>(s, r, base, scale);
        wgmma_wait<0>();
        wgmma_pin(o);
        release(c.v_empty[vs], lane);
        rescale<S>(o, shrink);
        pack<S>(p, s);
    }
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

} // namespace

#endif
