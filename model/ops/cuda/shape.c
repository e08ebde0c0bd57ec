/* Shapes and refusals of the row kernels; see shape_cuda.h. */
#include "model/ops/cuda/shape_cuda.h"

struct cuda_row_shape cuda_row_shape(int features)
{
    /* three eights a thread are what wan's widths divide into: 1536, 3072, 5120 */
    static const struct cuda_row_shape rows[] = {{1, 2}, {1, 4}, {2, 3}, {4, 3}, {8, 3}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (features <= 256 * rows[i].warps * rows[i].vecs) return rows[i];
    return (struct cuda_row_shape){8, 4};
}

struct cuda_row_shape cuda_code_shape(int cols)
{
    /* what is new: 8960 and 13824, the middles of wan's feed-forwards */
    static const struct cuda_row_shape wide[] = {{8, 5}, {8, 7}};
    if (cols <= 256 * 8 * 3) return cuda_row_shape(cols);
    for (size_t i = 0; i < ARRAY_LEN(wide); i++)
        if (cols <= 256 * wide[i].warps * wide[i].vecs) return wide[i];
    return (struct cuda_row_shape){0};
}

#define ALIGN(bytes) (((bytes) + 255) / 256 * 256)
size_t cuda_codes_bytes(int64_t rows, int64_t cols)
{
    return ALIGN((size_t)rows * (size_t)cols) + ALIGN((size_t)rows * sizeof(float));
}

int cuda_fp8_runs(const char *device, int arch, struct err *e)
{
    if (arch >= CUDA_FP8_ARCH) return 0;
    return err_set(e, ERR_DEVICE,
                   "%s has no fp8 products: compute capability %d.%d, wanted 8.9 or newer; use "
                   "--precision bf16",
                   device, arch / 10, arch % 10);
}

int cuda_fp8_takes(int in, int out, enum activation act, struct err *e)
{
    if (in < 16 || in % 16 || out < 16 || out % 16)
        return err_set(e, ERR_USAGE,
                       "fp8 products take features in multiples of 16, this layer is %d -> %d; use "
                       "--precision bf16",
                       in, out);
    if (act != ACT_NONE && act != ACT_GELU_TANH)
        return err_set(e, ERR_BUG, "an fp8 layer of another activation than GELU by tanh");
    return 0;
}

static int rows_take(const char *what, int rows, int features, enum dtype type, struct err *e)
{
    if (rows < 1 || rows > INT32_MAX / 4)
        return err_set(e, ERR_USAGE, "%s over %d rows, wanted 1 to %d", what, rows, INT32_MAX / 4);
    if (features < 1 || features > CUDA_MOST_FEATURES)
        return err_set(e, ERR_USAGE, "%s of rows of %d, wanted 1 to %d", what, features,
                       CUDA_MOST_FEATURES);
    if (type != DTYPE_BF16 && type != DTYPE_F32)
        return err_set(e, ERR_USAGE, "%s of %s, wanted BF16 or F32", what, dtype_name(type));
    return 0;
}

bool cuda_norm_by_eights(const struct cuda_norm *p)
{
    return p->features % 8 == 0 && p->x_row % 8 == 0 && p->add_row % 8 == 0 && p->y_row % 8 == 0 &&
           (p->mods <= 1 || p->mod_stride % 4 == 0);
}

bool cuda_rope_by_eights(const struct cuda_rope *p)
{
    bool yes = p->features % 8 == 0;
    for (int i = 0; i < p->n_parts; i++)
        yes = yes && p->part[i].x_row % 8 == 0 &&
              (p->head_dim % 8 || (p->part[i].y_row % 8 == 0 && p->part[i].y_head % 8 == 0));
    return yes;
}

/* Wide accesses want it; NULL is no address. */
static int aligned(const char *what, const char *name, const void *at, struct err *e)
{
    if ((uintptr_t)at % 16)
        return err_set(e, ERR_BUG, "%s: %s at %p, wanted a multiple of 16 bytes", what, name, at);
    return 0;
}

int cuda_norm_takes(const struct cuda_norm *p, struct err *e)
{
    const char *what = "norm";
    if (rows_take(what, p->rows, p->features, p->type, e) < 0) return -1;
    if (p->y && p->y_type == DTYPE_F8_E4M3) {
        if (p->type != DTYPE_BF16 || !cuda_norm_by_eights(p) || !p->y_scale)
            return err_set(
                e, ERR_USAGE,
                "norm of %s rows of %d into fp8 codes, wanted BF16, a multiple of 8, and "
                "room for scales",
                dtype_name(p->type), p->features);
    } else if (p->y && p->y_type != DTYPE_BF16 && p->y_type != DTYPE_F32) {
        return err_set(e, ERR_USAGE, "norm into %s, wanted BF16, F32 or F8_E4M3",
                       dtype_name(p->y_type));
    }
    if (p->add && p->add_type != DTYPE_BF16 && p->add_type != DTYPE_F32)
        return err_set(e, ERR_USAGE, "norm after a sum with %s, wanted BF16 or F32",
                       dtype_name(p->add_type));
    if (!p->x || (!p->add && !p->y))
        return err_set(e, ERR_BUG, "norm without x, or with nothing to do");
    if (p->y && p->add && p->y == p->x)
        return err_set(e, ERR_BUG, "norm: y is x, which holds the new residual stream");
    if (!p->weight != !p->bias || !p->scale != !p->shift)
        return err_set(e, ERR_BUG, "norm: weight and bias, scale and shift come in pairs");
    if ((p->scale || p->gate) && p->mods > 1 && p->rows_per_mod < 1)
        return err_set(e, ERR_BUG, "norm: %d sets for %d rows each, %lld apart", p->mods,
                       p->rows_per_mod, (long long)p->mod_stride);
    if (!cuda_norm_by_eights(p)) return 0;
    return aligned(what, "x", p->x, e) < 0 || aligned(what, "add", p->add, e) < 0 ||
                   aligned(what, "y", p->y, e) < 0 || aligned(what, "gate", p->gate, e) < 0 ||
                   aligned(what, "weight", p->weight, e) < 0 ||
                   aligned(what, "bias", p->bias, e) < 0 ||
                   aligned(what, "scale", p->scale, e) < 0 ||
                   aligned(what, "shift", p->shift, e) < 0
               ? -1
               : 0;
}

int cuda_rope_takes(const struct cuda_rope *p, struct err *e)
{
    const char *what = "norm and positions";
    if (rows_take(what, p->rows, p->features, p->type, e) < 0) return -1;
    if (p->n_parts < 1 || p->n_parts > CUDA_ROPE_PARTS)
        return err_set(e, ERR_BUG, "%s of %d parts, wanted 1 to %d", what, p->n_parts,
                       CUDA_ROPE_PARTS);
    bool turn = false;
    for (int i = 0; i < p->n_parts; i++)
        turn = turn || p->part[i].turn;
    if (p->head_dim < 1 || (turn && p->head_dim % 2) || p->features % p->head_dim)
        return err_set(e, ERR_USAGE, "%s: heads of %d in rows of %d, wanted an even divisor", what,
                       p->head_dim, p->features);
    if (p->tokens < 1 || p->turns < 1)
        return err_set(e, ERR_BUG, "%s: %d tokens, %d turns, wanted at least 1", what, p->tokens,
                       p->turns);
    if (p->head_dim % 8 == 0 && cuda_rope_by_eights(p) &&
        (aligned(what, "cos_t", p->cos_t, e) < 0 || aligned(what, "sin_t", p->sin_t, e) < 0))
        return -1;
    for (int i = 0; i < p->n_parts; i++) {
        if (!p->part[i].x || !p->part[i].y || (p->part[i].turn && (!p->cos_t || !p->sin_t)))
            return err_set(e, ERR_BUG, "%s: part %d lacks x, y or its angles", what, i);
        if (!cuda_rope_by_eights(p)) continue;
        if (aligned(what, "x", p->part[i].x, e) < 0 || aligned(what, "y", p->part[i].y, e) < 0 ||
            aligned(what, "weight", p->part[i].weight, e) < 0)
            return -1;
    }
    return 0;
}

int cuda_grid_takes(const struct cuda_grid *g, struct err *e)
{
    if (g->channels < 1 || g->frames < 1 || g->height < 1 || g->width < 1 || g->patch_h < 1 ||
        g->patch_w < 1 || g->height % g->patch_h || g->width % g->patch_w)
        return err_set(e, ERR_USAGE, "latents of %d x %d x %d x %d cannot be cut into %d x %d",
                       g->channels, g->frames, g->height, g->width, g->patch_h, g->patch_w);
    if ((int64_t)g->channels * g->frames * g->height > INT32_MAX / g->width)
        return err_set(e, ERR_USAGE, "latents of %d x %d x %d x %d are too many for 31 bits",
                       g->channels, g->frames, g->height, g->width);
    if (g->row < (int64_t)g->channels * g->patch_h * g->patch_w)
        return err_set(e, ERR_BUG, "patches of %d in rows of %lld",
                       g->channels * g->patch_h * g->patch_w, (long long)g->row);
    return 0;
}

int cuda_few_takes(const struct cuda_few *p, struct err *e)
{
    if (p->rows < 1 || p->rows > CUDA_FEW_ROWS || p->out < 1 || p->in < 8 || p->in % 8)
        return err_set(
            e, ERR_USAGE,
            "a product of few rows [%d, %d] -> %d, wanted 1 to %d rows and an input that "
            "is a multiple of 8",
            p->rows, p->in, p->out, CUDA_FEW_ROWS);
    if (p->weight_type != DTYPE_BF16 && p->weight_type != DTYPE_F32)
        return err_set(e, ERR_USAGE, "a product of few rows with weights of %s, wanted BF16 or F32",
                       dtype_name(p->weight_type));
    return aligned("a product of few rows", "x", p->x, e) < 0 ||
                   aligned("a product of few rows", "weight", p->weight, e) < 0
               ? -1
               : 0;
}

int cuda_map_takes(const struct cuda_map *p, struct err *e)
{
    static const bool
        from[DTYPE_COUNT] = {[DTYPE_F64] = true,  [DTYPE_F32] = true,     [DTYPE_F16] = true,
                             [DTYPE_BF16] = true, [DTYPE_F8_E4M3] = true, [DTYPE_F8_E5M2] = true},
        to[DTYPE_COUNT] = {[DTYPE_F32] = true, [DTYPE_BF16] = true, [DTYPE_F16] = true};
    if (p->from >= DTYPE_COUNT || p->to >= DTYPE_COUNT || !from[p->from] || !to[p->to])
        return err_set(e, ERR_USAGE,
                       "numbers of %s to %s; wanted floats, and F32, BF16 or F16 as the result",
                       dtype_name(p->from), dtype_name(p->to));
    return 0;
}

int cuda_sum_takes(const struct cuda_sum *p, struct err *e)
{
    if (p->n_terms < 1 || p->n_terms > CUDA_TERMS)
        return err_set(e, ERR_BUG, "a sum of %d terms, wanted 1 to %d", p->n_terms, CUDA_TERMS);
    return 0;
}
