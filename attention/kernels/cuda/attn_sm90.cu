// flash_sm90, sparse_sm90 and sparse64_sm90: instances of sm90.cuh, dense or by lists; and, for
// lists of 64 x 64 at 64 channels, pair_sm90.cu.
#include "attention/kernels/cuda/pair_cuda.h"
#include "attention/kernels/cuda/sm90.cuh"

namespace
{

template <class S> int launch(const attn_cuda *w, err *e)
{
    const attn_lists *l = S::LIST ? w->lists : nullptr;
    PlainMaps maps;
    const Encode encode = encode_tiled(e);
    if (!encode) return -1;
    if (tensor_map(encode, &maps.q, w->q, w->len_q, w->n_heads, S::D, S::BQ, e) < 0) return -1;
    if (tensor_map(encode, &maps.k, w->k, w->len_k, w->n_heads, S::D, S::BK, e) < 0) return -1;
    if (tensor_map(encode, &maps.v, w->v, w->len_k, w->n_heads, S::D, S::BK, e) < 0) return -1;
    maps.k_mean = maps.k;
    maps.v_mean = maps.v;
    if (l && l->mean) {
        if (tensor_map(encode, &maps.k_mean, w->k_mean, l->cols, w->n_heads, S::D, S::BK, e) < 0)
            return -1;
        if (tensor_map(encode, &maps.v_mean, w->v_mean, l->cols, w->n_heads, S::D, S::BK, e) < 0)
            return -1;
    }
    Args a = outputs_of(w);
    a.rows = (w->len_q + S::BQ - 1) / S::BQ;
    a.tiles = a.rows * w->n_heads;
    if (l) {
        a.row_ptr = l->row_ptr;
        a.steps = l->steps;
        a.order = l->order;
        a.mean = l->mean;
        a.per_head = l->n_plans > 1;
        a.words = l->words;
        a.cols = l->cols;
        const double scale = a.scale_log2;
        const int last = w->len_k - (l->cols - 1) * l->block_k; // keys of the last tile
        a.mean_full = static_cast<float>(log2(static_cast<double>(l->block_k)) / scale);
        a.mean_last = static_cast<float>(log2(static_cast<double>(last)) / scale);
        a.alive = w->alive;
        a.alive_log2 = w->alive_log2;
    }
    return start<S>(maps, a, w, e);
}

struct Variant {
    const char *name;
    attn_tile tile;
    bool list, plain;
    int (*run)(const attn_cuda *w, err *e);
};
template <class S> constexpr Variant of(const char *name)
{
    const char *kernel = !S::LIST ? "flash_sm90" : S::BQ == 64 ? "sparse64_sm90" : "sparse_sm90";
    return {name,
            {kernel, S::D, S::BQ, S::BK, S::STAGES, S::THREADS, S::BLOCKS, S::SHARED},
            S::LIST,
            S::PLAIN,
            launch<S>};
}
// The first that takes a call gets it (shape.c says so beforehand). The last two are dense with the
// tiles of lists: what a list of every tile must equal. Template: D, BK, WGS, STAGES, ways.
const Variant variants[] = {
    of<Shape<128, 176, 2, 2, BY_TURNS>>("d128 128x176"),
    of<Shape<64, 128, 3, 3, BY_TURNS>>("d64 192x128"),
    of<Shape<128, 128, 2, 2, BY_LIST | BY_PLAIN | BY_TURNS | BY_KEPT>>("d128 list"),
    of<Shape<64, 128, 2, 6, BY_LIST | BY_PLAIN | BY_TWO | BY_TURNS>>("d64 list"),
    of<Shape<128, 64, 1, 2, BY_LIST | BY_PLAIN>>("d128 list 64x64"),
    {"d64 list pairs of 64x64",
     {"sparse64_sm90", 64, 64, 64, 3, 256, 2, ATTN_PAIR_SHARED},
     true,
     true,
     attn_pair_sm90},
    of<Shape<64, 64, 1, 3, BY_LIST | BY_PLAIN>>("d64 list 64x64"),
    of<Shape<128, 128, 2, 2, BY_LIST>>("d128 full"),
    of<Shape<64, 128, 2, 3, BY_LIST | BY_TURNS>>("d64 full"),
    of<Shape<128, 64, 1, 2, BY_LIST>>("d128 full 64x64"),
    of<Shape<64, 64, 1, 3, BY_LIST>>("d64 full 64x64"),
    of<Shape<128, 128, 2, 2, 0>>("d128 128x128"),
    of<Shape<64, 128, 2, 6, BY_TWO>>("d64 128x128"),
};

} // namespace

const char *attn_sm90_variant(int variant, attn_tile *t)
{
    const int n = static_cast<int>(sizeof variants / sizeof *variants);
    if (variant < 0 || variant >= n) return nullptr;
    if (t) *t = variants[variant].tile;
    return variants[variant].name;
}

bool attn_sm90_takes(const attn_cuda *w, int variant)
{
    if (!attn_sm90_variant(variant, nullptr)) return false;
    const Variant &v = variants[variant];
    const attn_lists *l = w->lists;
    return v.tile.head_dim == w->head_dim && v.list == (l != nullptr) &&
           (!l || (v.tile.block_q == l->block_q && v.tile.block_k == l->block_k &&
                   (!v.plain || (!l->mean && !w->alive))));
}

int attn_sm90_as(const attn_cuda *w, int variant, err *e)
{
    attn_tile t;
    if (attn_tile_pick(&t, ATTN_SM90, w, e) < 0) return -1;
    if (!attn_sm90_takes(w, variant))
        return err_set(e, ERR_USAGE, "sm_90 attention: variant %d is not for this call", variant);
    return variants[variant].run(w, e);
}

int attn_sm90(const attn_cuda *w, err *e)
{
    int variant = 0;
    while (attn_sm90_variant(variant, nullptr) && !attn_sm90_takes(w, variant))
        variant++;
    return attn_sm90_as(w, variant, e); // says what is wrong when none does
}
