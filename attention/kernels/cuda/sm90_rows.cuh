// Hopper kernel of sm90.cuh: the loop of a warpgroup over the tiles of a row.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_ROWS_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_ROWS_CUH

#include "attention/kernels/cuda/sm90_softmax.cuh"

namespace
{

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
    uint32_t step;
};
template <class S>
__device__ __forceinline__ void look_up(What &w, const Args &a, uint32_t first, int i, int count)
{
    if (!S::PLAIN || i == 0)
        w.step = S::RAGGED ? first
                 : S::LIST ? load_word(a.steps + first + (S::PLAIN ? count - 1 : i))
                           : static_cast<uint32_t>(count - 1);
}

// Keys that do not count, in scores that are in registers by now; rare, and a branch for the whole
// warpgroup.
template <class S>
__device__ __forceinline__ void mask_tile(float (&s)[S::BK / 2], const Args &a, const What &what,
                                          const typename Control<S::STAGES>::Words &row)
{
    if constexpr (S::RAGGED) {
        if (what.step < S::BK) mask_from<S>(s, static_cast<int>(what.step));
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

template <class S> __device__ __forceinline__ void await_stage(uint32_t full, uint32_t parity)
{
    mbar_wait(full, parity);
    if (S::RAGGED) fence_proxy_async(); // what ordinary copies wrote is there for wgmma
}

// The output of tile i - 1 and the scores of tile i in flight together. A turn is the right to
// issue products: the others are in softmax meanwhile.
template <class S>
__device__ __forceinline__ void
consume_row(float (&o)[S::D / 2], Rows &r, uint32_t &kv, int count, uint32_t first,
            const typename Control<S::STAGES>::Words &row, const Args &a, Control<S::STAGES> &c,
            int group, uint32_t q_mine, uint32_t k_at, uint32_t v_at)
{
    // barrier 0 is __syncthreads
    const int turn_mine = 1 + group, turn_next = 1 + (group + 1) % S::WGS;
    const int lane = threadIdx.x % 32;
    float s[S::BK / 2], base[2], shrink[2], rise[2];
    uint32_t p[S::BK / 16][4];
    What what;
    uint32_t ks = kv % S::STAGES;
    Kept<S> kept;
    if constexpr (S::KEPT) {
        keep_queries<S>(kept, q_mine);
        release_row(c.q_empty);
    }
    look_up<S>(what, a, first, 0, count);
    await_stage<S>(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
    wgmma_pin(s);
    wgmma_fence();
    scores<S>(s, q_mine, k_at + ks * S::KV_BYTES, kept);
    wgmma_commit();
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
        if (!S::PLAIN) look_up<S>(what, a, first, i, count);
        await_stage<S>(smem_address(&c.k_full[ks]), kv / S::STAGES & 1);
        if (S::TURNS) named_wait(turn_mine, 2 * WG);
        wgmma_pin(s);
        wgmma_pin(o);
        wgmma_fence();
        scores<S>(s, q_mine, k_at + ks * S::KV_BYTES, kept);
        wgmma_commit();
        await_stage<S>(smem_address(&c.v_full[vs]), v_parity);
        wgmma_fence();
        outputs<S>(o, p, v_at + vs * S::KV_BYTES);
        wgmma_commit();
        if (S::TURNS) named_arrive(turn_next, 2 * WG);
        wgmma_wait<1>();
        wgmma_pin(s);
        release(c.k_empty[ks], lane);
        if (!S::PLAIN) mask_tile<S>(s, a, what, row);
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
    await_stage<S>(smem_address(&c.v_full[ks]), kv / S::STAGES & 1);
    wgmma_pin(o);
    wgmma_fence();
    outputs<S>(o, p, v_at + ks * S::KV_BYTES);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(o);
    release(c.v_empty[ks], lane);
    kv++;
}

// Ragged: none of this warpgroup's queries are the row's. Stages and turns go on without it.
template <class S>
__device__ __forceinline__ void skip_row(uint32_t &kv, int count, Control<S::STAGES> &c, int group)
{
    const int lane = threadIdx.x % 32;
    release_row(c.q_empty);
    for (int i = 0; i <= count; i++) { // values one behind, as with those who compute
        if (i < count) {
            const uint32_t n = kv + i, stage = n % S::STAGES;
            if (S::TURNS && i > 0) {
                named_wait(1 + group, 2 * WG);
                named_arrive(1 + (group + 1) % S::WGS, 2 * WG);
            }
            mbar_wait(smem_address(&c.k_full[stage]), n / S::STAGES & 1);
            release(c.k_empty[stage], lane);
        }
        if (i > 0) {
            const uint32_t n = kv + i - 1, stage = n % S::STAGES;
            mbar_wait(smem_address(&c.v_full[stage]), n / S::STAGES & 1);
            release(c.v_empty[stage], lane);
        }
    }
    kv += count;
}

} // namespace

#endif
