// Hopper kernel of sm90.cuh: the warpgroup that copies keys and values of blocks of any length.
//
// The keys that a row of queries keeps stand in its stages without a gap, so that only the first
// stage, which is not full, is masked. Each thread knows where one key of the stage comes from; 8
// lanes copy 128 bytes of it. Copies arrive at the stage's barrier by themselves; who waits there
// fences, for wgmma does not see what ordinary copies wrote.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_GATHER_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_GATHER_CUH

#include "attention/kernels/cuda/sm90_shape.cuh"

namespace
{

constexpr uint32_t NOWHERE = ~0u;
constexpr int GATHERING = 4; // named barrier of the feeding warpgroup; below are turns

// The run that a position of the row lies in; positions of one thread rise.
struct Cursor {
    const attn_ragged_run *next;
    attn_ragged_run now, ahead;
};
__device__ __forceinline__ int token_at(Cursor &c, int position)
{
    while (c.ahead.at <= position) {
        c.now = c.ahead;
        c.ahead = *++c.next;
    }
    return c.now.token + position - c.now.at;
}

// A stage of keys or values. token: of this thread's key; below 0: zeros. stride: of tokens, in 16
// bytes.
template <class S>
__device__ __forceinline__ void gather(uint32_t n, int token, const bf16 *from, uint32_t stride,
                                       const uint64_t *full, const uint64_t *empty, uint32_t ring)
{
    const uint32_t s = n % S::STAGES;
    const int lane = threadIdx.x % 32, chunk = lane % 8, row = lane / 8;
    const char *base = reinterpret_cast<const char *>(from + chunk * 8);
    const uint32_t mine = token < 0 ? NOWHERE : token * stride;
    mbar_wait(smem_address(&empty[s]), (n / S::STAGES & 1) ^ 1);
    const uint32_t to = ring + s * S::KV_BYTES + (threadIdx.x / 32 * 32 + row) * 128;
#pragma unroll
    for (int i = 0; i < 8; i++) { // 4 keys each
        const uint32_t off = __shfl_sync(~0u, mine, 4 * i + row);
        const char *src = base + static_cast<uint64_t>(off == NOWHERE ? 0 : off) * 16;
#pragma unroll
        for (int x = 0; x < S::D; x += BOX)
            copy16_async(to + x * 2 * S::BK + i * 512 + ((chunk ^ (4 * (i % 2) + row)) * 16),
                         src + x * 2, off != NOWHERE);
    }
    copy_arrive(smem_address(&full[s]));
}

template <class S>
__device__ void produce_ragged(const Args &a, const RaggedMaps &m, Control<S::STAGES> &c,
                               uint32_t q_at, uint32_t k_at, uint32_t v_at)
{
    __shared__ unsigned taken[2];
    const uint32_t q_full = smem_address(&c.q_full), q_empty = smem_address(&c.q_empty);
    const int key = threadIdx.x;
    uint32_t kv = 0;
    unsigned next = key == 0 ? atomicAdd(a.counter, 1u) : 0;
    uint32_t turn = 0;
    for (;; turn++) {
        if (key == 0) {
            taken[turn & 1] = next;
            next = atomicAdd(a.counter, 1u);
        }
        named_wait(GATHERING, WG);
        const unsigned id = taken[turn & 1];
        if (id >= static_cast<unsigned>(a.tiles)) break;
        const attn_ragged_row row = a.ragged[id];
        const int count = row.stages;
        const bf16 *k = m.k + row.head * m.k_head, *v = m.v + row.head * m.v_head;
        int token = 0, lead = 0;
        Cursor at;
        if (count > 0) {
            const attn_ragged_run *runs = m.runs + row.first;
            lead = runs[0].token; // then the runs
            at = {runs + 2, runs[1], runs[2]};
            token = token_at(at, key);
            if (key >= lead) token = -1;
            gather<S>(kv, token, k, m.k_token, c.k_full, c.k_empty, k_at);
        }
        if (key == 0) {
            mbar_wait(q_empty, (turn & 1) ^ 1);
            c.words[turn & 1] = {row.head, 0, row.q0, row.q0 + row.queries, count, lead};
            if (count == 0) {
                mbar_arrive(q_full);
            } else {
                mbar_arrive_expect(q_full, S::Q_BYTES);
#pragma unroll
                for (int x = 0; x < S::D; x += BOX)
                    tma_load(q_at + x * 2 * S::BQ, &m.q, q_full, x, row.q0, row.head);
            }
        }
        __syncwarp();
        for (int i = 1; i <= count; i++, kv++) { // keys run one tile ahead of values
            const int before = token;
            if (i < count) {
                token = token_at(at, i * S::BK + key);
                gather<S>(kv + 1, token, k, m.k_token, c.k_full, c.k_empty, k_at);
            }
            gather<S>(kv, before, v, m.v_token, c.v_full, c.v_empty, v_at);
        }
    }
    copy_commit();
    copy_wait<0>(); // no thread leaves before its copies have arrived
    if (key == 0) {
        mbar_wait(q_empty, (turn & 1) ^ 1);
        c.words[turn & 1].head = -1;
        mbar_arrive(q_full);
    }
}

} // namespace

#endif
