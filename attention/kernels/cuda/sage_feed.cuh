// 8-bit Hopper kernel of sage.cuh: the thread that takes rows and feeds codes and scales to the
// rings.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SAGE_FEED_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SAGE_FEED_CUH

#include "attention/kernels/cuda/sage_shape.cuh"

namespace
{

struct Rings { // shared memory addresses
    uint32_t q, k, v;
};

template <class S>
__device__ __forceinline__ void feed_keys(uint32_t n, int tile, int head, const SageMaps &maps,
                                          Control<S::STAGES> &c, const Rings &at)
{
    const uint32_t s = n % S::STAGES, bar = smem_address(&c.k_full[s]);
    mbar_wait(smem_address(&c.k_empty[s]), (n / S::STAGES & 1) ^ 1);
    mbar_arrive_expect(bar, S::K_BYTES);
    tma_load(at.k + s * S::K_BYTES, &maps.k, bar, 0, tile * S::BK, head);
}

template <class S>
__device__ __forceinline__ void feed_values(uint32_t n, int tile, int head, const SageArgs &a,
                                            const SageMaps &maps, Control<S::STAGES> &c,
                                            const Rings &at)
{
    const uint32_t s = n % S::STAGES, bar = smem_address(&c.v_full[s]);
    mbar_wait(smem_address(&c.v_empty[s]), (n / S::STAGES & 1) ^ 1);
    mbar_arrive_expect(bar, S::V_BYTES);
    tma_load(at.v + s * S::V_BYTES, &maps.v, bar, 0, 0, head * a.k_blocks + tile);
}

template <class S>
__device__ void sage_produce(const SageArgs &a, const SageMaps &maps, Control<S::STAGES> &c,
                             const Rings &at)
{
    const uint32_t q_full = smem_address(&c.q_full), q_empty = smem_address(&c.q_empty);
    uint32_t kv = 0; // key stages filled so far, never reset; values lag one behind inside a row
    unsigned next = atomicAdd(a.counter, 1u);
    for (uint32_t turn = 0;; turn++) {
        const unsigned id = next;
        if (id >= static_cast<unsigned>(a.tiles)) {
            mbar_wait(q_empty, (turn & 1) ^ 1);
            c.words[turn & 1].head = -1;
            mbar_arrive(q_full);
            return;
        }
        next = atomicAdd(a.counter, 1u); // its latency passes while this row is fed
        const int head_row = S::LIST ? static_cast<int>(a.order[id]) : static_cast<int>(id);
        const int head = head_row / a.rows, row = head_row - head * a.rows;
        const uint32_t *steps = nullptr;
        uint32_t first = 0;
        int count = a.k_blocks;
        if (S::LIST) {
            const uint32_t *ptr = a.row_ptr + (a.per_head ? head_row : row);
            first = ptr[0];
            steps = a.steps + first;
            count = static_cast<int>(ptr[1] - first);
        }
        // the first keys do not wait for the queries before to be done with
        int tile = count > 0 ? static_cast<int>(sage_step<S>(steps, 0, count)) : 0, before;
        if (count > 0) feed_keys<S>(kv, tile, head, maps, c, at);
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.words[turn & 1] = {head, row, row * S::BQ, a.len_q, count, static_cast<int>(first)};
        if (count == 0) {
            mbar_arrive(q_full);
            continue;
        }
        mbar_arrive_expect(q_full, S::Q_BYTES);
        tma_load(at.q, &maps.q, q_full, 0, row * S::BQ, head);
        int ahead = count > 1 ? static_cast<int>(sage_step<S>(steps, 1, count)) : 0;
#pragma unroll 1
        for (int i = 1; i <= count; i++) { // keys run one tile ahead of values
            before = tile;
            tile = ahead;
            ahead = i + 1 < count ? static_cast<int>(sage_step<S>(steps, i + 1, count)) : 0;
            if (i < count) feed_keys<S>(kv + 1, tile, head, maps, c, at);
            feed_values<S>(kv, before, head, a, maps, c, at);
            kv++;
        }
    }
}

} // namespace

#endif
