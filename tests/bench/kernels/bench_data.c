#include "tests/bench/kernels/bench_data.h"

#include "model/base/dtype.h"
#include "tests/bench/kernels/gpu.h"

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
    return x ^ (x >> 32);
}

/* Unit normal values from a table by a hash: quick, and no two tensors alike. Zeros would be faster
 * to multiply than data is, and any kernel right on them: the spread is looked at. */
uint16_t *bench_numbers(size_t n, uint64_t seed)
{
    static uint16_t table[65536];
    static bool filled;
    struct test_rng r = {7};
    uint16_t *x = host_new(n * 2);
    double squares = 0;
    for (size_t i = 0; !filled && i < ARRAY_LEN(table); i++)
        table[i] = f32_to_bf16(rng_normal(&r));
    filled = true;
    for (size_t i = 0; i < n; i += 4) {
        uint64_t h = mix(i + (seed << 40));
        for (size_t k = 0; k < 4 && i + k < n; k++)
            x[i + k] = table[(h >> (16 * k)) & 65535];
    }
    for (size_t i = 0; i < n; i += 7)
        squares += (double)bf16_to_f32(x[i]) * (double)bf16_to_f32(x[i]);
    squares /= (double)((n + 6) / 7);
    CHECK_MSG(squares > .95 && squares < 1.05, "tensor %d: mean square %.3g, wanted 1", (int)seed,
              squares);
    tally_up();
    return x;
}

static bool keep(const struct attn_plan *p, enum pattern pattern, double density, int plan, int row,
                 int col)
{
    uint64_t h;
    if (density >= 1) return true;
    if (pattern == BANDED) { /* the same number of tiles in every row */
        int width = (int)(density * p->k.n + .5), from = row - width / 2;
        if (width < 1) width = 1;
        if (from > p->k.n - width) from = p->k.n - width;
        if (from < 0) from = 0;
        return col >= from && col < from + width;
    }
    if (row == col) return true;
    if (pattern == CLUSTERED) /* patches of 4 x 8 tiles: what follows from groups of tokens */
        h = mix(((uint64_t)plan << 40) + ((uint64_t)(row / 4) << 20) + (uint64_t)(col / 8) + 99);
    else
        h = mix(((uint64_t)plan << 40) + ((uint64_t)row << 20) + (uint64_t)col);
    return (double)(h >> 11) * 0x1p-53 < density;
}

uint32_t *bench_plan(struct attn_plan *p, int len, int block_q, int block_k, int heads,
                     enum pattern pattern, double density)
{
    struct err e = {0};
    *p = (struct attn_plan){.n_heads = heads, .per_head = true};
    CHECK_OK(attn_blocks_equal(&p->q, len, block_q, &e));
    CHECK_OK(attn_blocks_equal(&p->k, len, block_k, &e));
    uint32_t *kept = calloc(attn_plane_size(p), sizeof *kept);
    if (!kept) exit(4);
    for (int i = 0; i < heads * p->q.n; i++)
        for (int t = 0; t < p->k.n; t++)
            if (keep(p, pattern, density, i / p->q.n, i % p->q.n, t))
                kept[i * attn_words(p->k.n) + t / 32] |= (uint32_t)1 << (t % 32);
    p->kept = kept;
    return kept;
}

int bench_ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_shuffle(int *order, int n, struct test_rng *r)
{
    for (int i = 0; i < n; i++) {
        int j = rng_int(r, 0, i);
        order[i] = order[j];
        order[j] = i;
    }
}
