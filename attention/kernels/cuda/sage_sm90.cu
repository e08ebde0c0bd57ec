// sage_sm90 and sage_sparse_sm90: instances of sage.cuh, dense or by lists.
#include "attention/kernels/cuda/sage.cuh"
#include "attention/kernels/cuda/sm90.cuh"

namespace
{

// A map of bytes [z][rows][row bytes], boxes of `box` rows
int byte_map(Encode encode, CUtensorMap *map, void *at, int row, int64_t rows, int64_t z, int box,
             err *e)
{
    const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(row), static_cast<cuuint64_t>(rows),
                                 static_cast<cuuint64_t>(z)};
    const cuuint64_t strides[2] = {static_cast<cuuint64_t>(row),
                                   static_cast<cuuint64_t>(row * rows)};
    const cuuint32_t boxes[3] = {static_cast<cuuint32_t>(row), static_cast<cuuint32_t>(box), 1},
                     one[3] = {1, 1, 1};
    const CUresult r =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 3, at, sizes, strides, boxes, one,
               CU_TENSOR_MAP_INTERLEAVE_NONE,
               row == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r != CUDA_SUCCESS)
        return err_set(e, ERR_BUG, "no tensor map of %lld x %lld rows of %d bytes: error %d",
                       static_cast<long long>(z), static_cast<long long>(rows), row,
                       static_cast<int>(r));
    return 0;
}

template <class S> int sage_launch(const quant_codes *c, const attn_cuda *w, err *e)
{
    const attn_lists *l = S::LIST ? w->lists : nullptr;
    cudaStream_t stream = static_cast<cudaStream_t>(w->stream);
    const int n = w->n_heads;
    SageMaps maps;
    const Encode encode = encode_tiled(e);
    if (!encode) return -1;
    if (byte_map(encode, &maps.q, c->q, S::D, static_cast<int64_t>(c->q_blocks) * QUANT_BLOCK, n,
                 S::BQ, e) < 0 ||
        byte_map(encode, &maps.k, c->k, S::D, static_cast<int64_t>(c->k_blocks) * QUANT_BLOCK, n,
                 S::BK, e) < 0 ||
        byte_map(encode, &maps.v, c->v, S::BK, S::D, static_cast<int64_t>(c->k_blocks) * n, S::D,
                 e) < 0)
        return -1;
    SageArgs a = {};
    a.o = static_cast<bf16 *>(w->o.at);
    a.o_token = w->o.token;
    a.o_head = w->o.head;
    a.lse = w->lse;
    a.q_scale = c->q_scale;
    a.k_scale = c->k_scale;
    a.v_scale = c->v_scale;
    a.lse_shift = c->lse_shift;
    a.delta = c->delta;
    a.counter = static_cast<unsigned *>(w->scratch);
    a.len_q = w->len_q;
    a.len_k = w->len_k;
    a.q_blocks = c->q_blocks;
    a.k_blocks = c->k_blocks;
    a.rows = (w->len_q + S::BQ - 1) / S::BQ;
    a.tiles = a.rows * n;
    a.scale_log2 = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(w->head_dim)));
    if (l) {
        a.row_ptr = l->row_ptr;
        a.steps = l->steps;
        a.order = l->order;
        a.per_head = l->n_plans > 1;
        a.words = l->words;
        a.alive = w->alive;
        a.alive_log2 = w->alive_log2;
    }
    const auto kernel = sage_attention<S>;
    int device, blocks;
    cudaError_t r = cudaGetDevice(&device);
    if (r == cudaSuccess)
        r = cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device);
    if (r == cudaSuccess)
        r = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
    if (r == cudaSuccess) r = cudaMemsetAsync(w->scratch, 0, sizeof(unsigned), stream);
    if (r == cudaSuccess && a.alive)
        r = cudaMemsetAsync(a.alive, 0, sizeof(uint32_t) * a.tiles * a.words, stream);
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "8-bit attention cannot start: %s", cudaGetErrorString(r));
    if (a.tiles < blocks) blocks = a.tiles;
    kernel<<<blocks, S::THREADS, S::SHARED, stream>>>(maps, a);
    r = cudaGetLastError();
    if (r != cudaSuccess)
        return err_set(e, ERR_DEVICE, "8-bit attention of %d queries, %d keys, %d heads x %d: %s",
                       w->len_q, w->len_k, n, S::D, cudaGetErrorString(r));
    return 0;
}

struct SageVariant {
    const char *name;
    sage_tile tile;
    int (*run)(const quant_codes *c, const attn_cuda *w, err *e);
};
template <class S> constexpr SageVariant of8(const char *name)
{
    return {name,
            {S::LIST ? "sage_sparse_sm90" : "sage_sm90", S::D, S::BQ, S::STAGES, S::THREADS,
             S::U8 ? QUANT_S8 : QUANT_E4M3, S::LIST, S::RECORD, S::DELTA,
             static_cast<size_t>(S::SHARED)},
            sage_launch<S>};
}
// The first that takes a call gets it; more to measure against. Template: D, WGS, STAGES, ways.
const SageVariant sage_variants[] = {
    of8<Sage<128, 2, 4, SAGE_TURNS>>("d128 dense"),
    of8<Sage<64, 3, 6, 0>>("d64 dense"),
    of8<Sage<128, 2, 4, SAGE_LIST | SAGE_TURNS>>("d128 list"),
    of8<Sage<64, 2, 6, SAGE_LIST | SAGE_AHEAD | SAGE_TURNS>>("d64 list"),
    of8<Sage<128, 2, 4, SAGE_LIST | SAGE_TURNS | SAGE_RECORD>>("d128 list record"),
    of8<Sage<64, 2, 6, SAGE_LIST | SAGE_TURNS | SAGE_RECORD>>("d64 list record"),
    of8<Sage<128, 2, 4, SAGE_TURNS | SAGE_U8>>("d128 dense u8"),
    of8<Sage<64, 2, 6, SAGE_TURNS | SAGE_U8>>("d64 dense u8"),
    of8<Sage<128, 2, 4, SAGE_LIST | SAGE_TURNS | SAGE_U8>>("d128 list u8"),
    of8<Sage<64, 2, 6, SAGE_LIST | SAGE_TURNS | SAGE_U8>>("d64 list u8"),
    of8<Sage<128, 2, 3, SAGE_LIST | SAGE_DELTA>>("d128 list delta"),
    of8<Sage<64, 2, 4, SAGE_LIST | SAGE_DELTA>>("d64 list delta"),
    of8<Sage<128, 2, 3, SAGE_DELTA>>("d128 dense delta"),
    of8<Sage<64, 2, 4, SAGE_DELTA>>("d64 dense delta"),
    of8<Sage<64, 2, 6, SAGE_AHEAD | SAGE_TURNS>>(
        "d64 dense 128"), // what a list of every tile equals
};

} // namespace

const char *sage_sm90_variant(int variant, sage_tile *t)
{
    const int n = static_cast<int>(sizeof sage_variants / sizeof *sage_variants);
    if (variant < 0 || variant >= n) return nullptr;
    if (t) *t = sage_variants[variant].tile;
    return sage_variants[variant].name;
}

bool sage_sm90_takes(const quant_codes *c, const attn_cuda *w, int variant)
{
    sage_tile t;
    return sage_sm90_variant(variant, &t) && t.head_dim == c->head_dim &&
           t.list == (w->lists != nullptr) && t.values == c->how.values &&
           t.delta == c->how.smooth_q && (t.record || !w->alive);
}

int sage_sm90_as(const quant_codes *c, const attn_cuda *w, int variant, err *e)
{
    if (sage_check(c, w, e) < 0) return -1;
    if (!w->o.at) return err_set(e, ERR_BUG, "8-bit attention without memory for o");
    if (!sage_sm90_takes(c, w, variant))
        return err_set(e, ERR_USAGE,
                       "8-bit attention has no instance for heads of %d channels, %s values, %s, "
                       "with%s smoothed "
                       "queries, with%s a record",
                       c->head_dim, c->how.values == QUANT_S8 ? "s8" : "e4m3",
                       w->lists ? "a plan" : "no plan", c->how.smooth_q ? "" : "out",
                       w->alive ? "" : "out");
    return sage_variants[variant].run(c, w, e);
}

int sage_sm90(const quant_codes *c, const attn_cuda *w, err *e)
{
    int variant = 0;
    while (sage_sm90_variant(variant, nullptr) && !sage_sm90_takes(c, w, variant))
        variant++;
    return sage_sm90_as(c, w, variant, e); // says what is wrong when none does
}
