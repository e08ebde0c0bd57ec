// Hopper kernel of sm90.cuh: the thread that takes rows and feeds queries, keys and values to the
// rings.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_FEED_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_FEED_CUH

#include "attention/kernels/cuda/sm90_shape.cuh"

namespace
{

// What is done i-th in a row of tiles
template <class S>
__device__ __forceinline__ uint32_t step_of(const uint32_t *steps, int i, int count)
{
    const int at = !S::PLAIN ? i : i == 0 ? count - 1 : i - 1;
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
            c.words[turn & 1].head = -1;
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
        c.words[turn & 1] = {head, row, row * S::BQ, a.len_q, count, static_cast<int>(first)};
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

} // namespace

#endif
