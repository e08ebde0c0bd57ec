// attend_every: attention by any plan, fp32 throughout; see every_cuda.h.
//
// As attn_simt.cu, but what is met is a list made on the way: a block of threads owns up to 64 queries of one
// row of blocks of one head, and its first warp names the next 32 keys, by token, of whatever the row keeps:
// computed tiles one after another without a gap, then columns, then mean keys. Where tiles are told apart (alive,
// choosing), 32 keys are of one tile.
//
//   shared      queries [BQ][D], keys [32][D + 4], values [32][D], weights [32][BQ + 4]: 16-byte reads
//               of 8 neighbours in 8 different groups of banks
#include "attention/kernels/cuda/every.cuh"
#include "model/base/cuda/launch.h"

namespace
{

constexpr int BK = 32;

enum Phase { TILES, COLUMNS, MEANS, END };

// The next keys, by warp 0 with all lanes alike
struct Walk {
    Fates fates;
    int phase, visit; // visit: tiles looked at so far in the order of the walk
    int tile, at, end; // of the tile that is being met
    uint32_t column, columns;
    uint32_t mask; // columns of the 32 from `column` - 32 on that are still to be met
};

struct Pass { // in shared memory
    int row[BK]; // token, or mean tile; -1: nothing to read
    float add[BK], times[BK]; // to the score; of the value
    int hidden[BK]; // its value is not to be read: row of v
    int n, mean, tile, ends; // ends: the tile does
};

__device__ __forceinline__ void begin(Walk &w, const Args &a, const Plan &x, int row, bool exact)
{
    w = {};
    w.phase = TILES;
    if (exact) { // every position, as one tile
        w.phase = END;
        w.end = x.p->k_len;
        return;
    }
    w.fates = fates_of(a, x, row);
    if (x.p->column_ptr && !x.p->all) {
        const uint32_t *ptr = x.at + x.p->column_ptr + static_cast<size_t>(x.plan) * x.p->q_n + row;
        w.column = ptr[0], w.columns = ptr[1];
    }
}

// The next tile that has any of `bits`; -1: none
template <class Bits>
__device__ __forceinline__ int next_tile(Walk &w, const every_plan &p, bool down, Bits bits)
{
    while (w.visit < p.k_n) {
        const int t = down ? p.k_n - 1 - w.visit : w.visit, word = t / 32;
        uint32_t on = bits(word);
        on = down ? on & (~0u >> (31 - t % 32)) : on & (~0u << (t % 32));
        if (!on) {
            w.visit = down ? p.k_n - word * 32 : word * 32 + 32;
            continue;
        }
        const int found = word * 32 + (down ? 31 - __clz(on) : __ffs(on) - 1);
        w.visit = (down ? p.k_n - 1 - found : found) + 1;
        return found < p.k_n ? found : -1;
    }
    return -1;
}

__device__ __forceinline__ void name_keys(Pass &s, Walk &w, const Args &a, const Plan &x,
                                          bool by_tile)
{
    const every_plan &p = *x.p;
    const int lane = threadIdx.x;
    int n = 0, mine = -1, mean = 0;
    while (n < BK) {
        if (w.at < w.end) {
            const int more = min(BK - n, w.end - w.at);
            if (lane >= n && lane < n + more) mine = w.at + lane - n;
            w.at += more;
            n += more;
            if (by_tile) break;
        } else if (w.phase == TILES) {
            w.tile = next_tile(w, p, a.down, [&](int i) { return w.fates.computed(i); });
            if (w.tile < 0) {
                w.phase = COLUMNS;
                if (by_tile && n) break;
                continue;
            }
            w.at = k_begin(x, w.tile), w.end = k_begin(x, w.tile + 1);
        } else if (w.phase == COLUMNS) {
            if (a.choosing) { // tiles alone are chosen by
                w.phase = END;
                break;
            }
            w.tile = -1;
            if (!w.mask) {
                if (w.column >= w.columns) {
                    w.phase = MEANS;
                    w.visit = 0;
                    if (n) break;
                    continue;
                }
                bool own = false; // not met with its tile
                if (w.column + lane < w.columns) {
                    const int t = tile_of(x, static_cast<int>(x.at[p.columns + w.column + lane]));
                    own = !(w.fates.computed(t / 32) >> (t % 32) & 1);
                }
                w.mask = __ballot_sync(~0u, own);
                w.column += 32;
                continue;
            }
            // the first that fit, in their order
            int more = 0;
            for (; w.mask && n < BK; w.mask &= w.mask - 1, n++, more++)
                if (lane == n)
                    mine = static_cast<int>(x.at[p.columns + w.column - 32 + __ffs(w.mask) - 1]);
        } else if (w.phase == MEANS) {
            const int t = next_tile(w, p, false, [&](int i) { return w.fates.by_mean(i); });
            if (t < 0) {
                w.phase = END;
                break;
            }
            if (k_begin(x, t) == k_begin(x, t + 1)) continue; // of nothing
            mean = 1;
            if (lane == n) mine = t;
            n++;
        } else {
            break;
        }
    }
    float add = -INFINITY, times = 1;
    int row = -1;
    if (mine >= 0 && mean) {
        const float keys = static_cast<float>(k_begin(x, mine + 1) - k_begin(x, mine));
        row = mine;
        add = logf(keys);
        if (a.picked) times = 1 / keys; // values are sums
    } else if (mine >= 0) {
        row = k_token(x, mine);
        add = a.key_bias ? a.key_bias[mine] : 0;
    }
    s.row[lane] = row;
    s.hidden[lane] = add == -INFINITY ? -1 : row;
    s.add[lane] = add, s.times[lane] = times;
    if (lane == 0) {
        s.n = n, s.mean = mean, s.tile = w.tile;
        s.ends = w.at >= w.end;
    }
}

constexpr int shared_floats(int d, int bq)
{
    return bq * d + BK * (d + 4) + BK * d + BK * (bq + 4);
}

template <int D> struct Sums { // of a thread: 4 queries x D / 16 channels
    float o[4][D / 16], most[4], sum[4];
};
template <int D> __device__ __forceinline__ void zero(Sums<D> &x)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x.most[i] = -INFINITY, x.sum[i] = 0;
#pragma unroll
        for (int c = 0; c < D / 16; c++)
            x.o[i][c] = 0;
    }
}
// Channel of a thread's c-th number: groups of up to 4 neighbours
template <int D> __device__ __forceinline__ int channel(int tx, int c)
{
    constexpr int V = D / 16 < 4 ? D / 16 : 4;
    return c / V * 16 * V + tx * V + c % V;
}

template <int D, int BQ>
__device__ __forceinline__ void add_values(Sums<D> &x, const float *v, const float *p, int n,
                                           int tx, int ty)
{
    constexpr int V = D / 16 < 4 ? D / 16 : 4;
#pragma unroll 2
    for (int key = 0; key < n; key++) {
        const float4 w = *reinterpret_cast<const float4 *>(p + key * (BQ + 4) + 4 * ty);
#pragma unroll
        for (int g = 0; g < D / 16 / V; g++) {
            float y[V];
            const float *from = v + key * D + g * 16 * V + tx * V;
            if constexpr (V == 4)
                *reinterpret_cast<float4 *>(y) = *reinterpret_cast<const float4 *>(from);
            else
                *reinterpret_cast<float2 *>(y) = *reinterpret_cast<const float2 *>(from);
#pragma unroll
            for (int e = 0; e < V; e++) {
                x.o[0][g * V + e] += w.x * y[e];
                x.o[1][g * V + e] += w.y * y[e];
                x.o[2][g * V + e] += w.z * y[e];
                x.o[3][g * V + e] += w.w * y[e];
            }
        }
    }
}

// How far a tile's largest score is above the largest before it: read by tile alone
struct Rise {
    float before[4], tile[4];
};

__device__ __forceinline__ void record(const Args &a, const Plan &x, int row, int tile,
                                       const Rise &r, int ty, int queries)
{
    const float bound = a.choosing ? a.skip_log2 : a.alive_log2;
    bool on = false, on_alive = false;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (4 * ty + i >= queries) continue;
        const float rise =
            r.before[i] == -INFINITY ? INFINITY : (r.tile[i] - r.before[i]) * 1.44269504f;
        on = on || rise > bound;
        on_alive = on_alive || rise > a.alive_log2;
    }
    const every_plan &p = *x.p;
    const uint32_t bit = 1u << (tile % 32);
    const size_t word = static_cast<size_t>(row) * p.words + tile / 32,
                 rows = static_cast<size_t>(p.q_n) * p.words;
    const unsigned any = __ballot_sync(~0u, on), any_alive = __ballot_sync(~0u, on_alive);
    if (threadIdx.x % 32) return;
    if (a.choosing && any) atomicOr(a.chosen + x.index * rows + word, bit);
    if (a.alive && any_alive) atomicOr(a.alive + x.head * rows + word, bit);
}

// Softmax sums of the keys that a walk names
template <int D, int BQ>
__device__ void meet(Sums<D> &x, float *room, Pass &s, const Args &a, const Plan &pl, int row,
                     int queries, bool exact)
{
    constexpr int THREADS = BQ * 4;
    float *q = room, *k = q + BQ * D, *v = k + BK * (D + 4), *p = v + BK * D;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const bool by_tile = !exact && (a.choosing || a.alive);
    Walk w;
    Rise r = {};
    if (threadIdx.x < 32) begin(w, a, pl, row, exact);
    int tile = -1; // that r is of
    zero(x);
    for (;;) {
        __syncthreads(); // the pass before was read
        if (threadIdx.x < 32) name_keys(s, w, a, pl, by_tile);
        __syncthreads();
        if (!s.n) break;
        load_rows<D, BK, D + 4, THREADS>(k, s.mean ? a.k_mean : a.k, pl.head, s.row, a.dim);
        if (!a.choosing)
            load_rows<D, BK, D, THREADS>(v, s.mean ? a.v_mean : a.v, pl.head, s.hidden, a.dim);
        __syncthreads();
        float score[4][2] = {};
        dots<D, D + 4>(score, q, k, tx, ty);
        if (by_tile && s.tile != tile) {
            tile = s.tile;
#pragma unroll
            for (int i = 0; i < 4; i++)
                r.before[i] = x.most[i], r.tile[i] = -INFINITY;
        }
        float weight[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float high = -INFINITY;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float add = s.add[tx + 16 * j];
                score[i][j] = add == -INFINITY ? add : score[i][j] * a.scale + add;
                high = fmaxf(high, score[i][j]);
            }
#pragma unroll
            for (int m = 8; m; m /= 2)
                high = fmaxf(high, __shfl_xor_sync(~0u, high, m));
            if (by_tile) r.tile[i] = fmaxf(r.tile[i], high);
            high = fmaxf(high, x.most[i]);
            const float base = high == -INFINITY ? 0 : high, shrink = expf(x.most[i] - base);
            x.most[i] = high;
            x.sum[i] *= shrink;
#pragma unroll
            for (int c = 0; c < D / 16; c++)
                x.o[i][c] *= shrink;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float e = expf(score[i][j] - base);
                x.sum[i] += e;
                weight[j][i] = e * s.times[tx + 16 * j];
            }
        }
        if (by_tile && s.tile >= 0 && s.ends) record(a, pl, row, tile, r, ty, queries);
        if (a.choosing) continue;
#pragma unroll
        for (int j = 0; j < 2; j++)
            *reinterpret_cast<float4 *>(p + (tx + 16 * j) * (BQ + 4) + 4 * ty) =
                make_float4(weight[j][0], weight[j][1], weight[j][2], weight[j][3]);
        __syncwarp(); // a query's 16 threads are of one warp
        add_values<D, BQ>(x, v, p, s.n, tx, ty);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int m = 8; m; m /= 2)
            x.sum[i] += __shfl_xor_sync(~0u, x.sum[i], m);
}

template <int D>
__device__ __forceinline__ void leave(const Sums<D> &x, const Sums<D> *part, const Args &a,
                                      int head, const int *tokens, int queries, int tx, int ty)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (4 * ty + i >= queries) continue;
        const int64_t token = tokens[4 * ty + i];
        const int64_t at = token * a.o.token + head * a.o.head,
                      beside = token * a.resid.token + head * a.resid.head;
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            const int c = channel<D>(tx, n);
            if (c >= a.dim) continue;
            float y = x.sum[i] == 0 ? 0 : x.o[i][n] / x.sum[i];
            if (part)
                store(a.resid, beside + c,
                      y - (part->sum[i] == 0 ? 0 : part->o[i][n] / part->sum[i]));
            if (a.add) y += element(a.resid, beside + c);
            if (a.accumulate) y = element(a.o, at + c) + (a.round || a.o.bf16 ? rounded(y) : y);
            store(a.o, at + c, a.round ? rounded(y) : y);
        }
        if (a.lse && tx == 0)
            a.lse[static_cast<size_t>(head) * a.len_q + token] =
                x.sum[i] == 0 ? -INFINITY : x.most[i] + logf(x.sum[i]);
    }
}

template <int D, int BQ, bool MAKE>
__global__ void __launch_bounds__(BQ * 4) attend(const __grid_constant__ Args a)
{
    extern __shared__ float room[];
    __shared__ Pass pass;
    __shared__ int tokens[BQ];
    const Plan x = plan_of(a, blockIdx.y);
    const every_plan &p = *x.p;
    int row, q0;
    if (p.q_size) {
        const int block = min(p.q_size, p.q_len), per = (block - 1) / BQ + 1;
        row = blockIdx.x / per;
        q0 = row * p.q_size + blockIdx.x % per * BQ;
        if (row >= p.q_n) return;
    } else {
        if (static_cast<int>(blockIdx.x) >= p.most_pieces) return;
        const uint32_t *piece =
            x.at + p.pieces + 2 * (static_cast<size_t>(x.plan) * p.most_pieces + blockIdx.x);
        row = static_cast<int>(piece[0]), q0 = static_cast<int>(piece[1]);
        if (row < 0) return;
    }
    const int queries = min(BQ, q_begin(x, row + 1) - q0);
    if (queries <= 0) return; // past a last block that is shorter
    for (int i = threadIdx.x; i < BQ; i += BQ * 4)
        tokens[i] = i < queries ? q_token(x, q0 + i) : -1;
    __syncthreads();
    load_rows<D, BQ, D, BQ * 4>(room, a.q, x.head, tokens, a.dim);
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    Sums<D> sums;
    meet<D, BQ>(sums, room, pass, a, x, row, queries, false);
    if (a.choosing) return;
    if constexpr (MAKE) {
        const Sums<D> part = sums;
        meet<D, BQ>(sums, room, pass, a, x, row, queries, true);
        leave<D>(sums, &part, a, x.head, tokens, queries, tx, ty);
    } else {
        leave<D>(sums, nullptr, a, x.head, tokens, queries, tx, ty);
    }
}

template <int D, int BQ, bool MAKE> int start(const Args &a, int pieces, cudaStream_t s, err *e)
{
    constexpr int BYTES = shared_floats(D, BQ) * 4;
    static_assert(BYTES <= 99328, "fits a block of sm_86, the least of all since sm_80");
    if (cuda_said(e,
                  cudaFuncSetAttribute(attend<D, BQ, MAKE>,
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES),
                  "attention by any plan") < 0)
        return -1;
    attend<D, BQ, MAKE><<<dim3(pieces, a.n_heads), BQ * 4, BYTES, s>>>(a);
    return cuda_launched(e, "attention of %d queries, %d heads x %d, by any plan", a.len_q,
                         a.n_heads, a.dim);
}

template <int D, int BQ> int start_rule(const Args &a, int pieces, cudaStream_t s, err *e)
{
    return a.make && !a.choosing ? start<D, BQ, true>(a, pieces, s, e)
                                 : start<D, BQ, false>(a, pieces, s, e);
}

int start_any(const Args &a, int pieces, cudaStream_t s, err *e)
{
    if (a.dim <= 32) return start_rule<32, 64>(a, pieces, s, e);
    if (a.dim <= 64) return start_rule<64, 64>(a, pieces, s, e);
    if (a.dim <= 128) return start_rule<128, 64>(a, pieces, s, e);
    return start_rule<256, 16>(a, pieces, s, e);
}

} // namespace

int every_attend(const every_args *a, int pieces, void *stream, err *e)
{
    return start_any(*a, pieces, static_cast<cudaStream_t>(stream), e);
}
