/* bf16 attention for AMX: 32 x 32 blocks of scores and of output, four accumulator tiles, two of
 * rows, two of columns.
 *
 *   tiles  0 1   rows 0..15,  columns 0..15 and 16..31    4 5   rows 0..15 and 16..31 of the left
 *          2 3   rows 16..31, the same columns            6 7   columns 0..15, 16..31 of the right
 *
 *   q  [rows][dk]                            row-major, dk = D rounded up to 32
 *   k  [panels][2][dk / 2][16][2]            a panel of 32 keys in two halves, pairs of channels
 *   v  [panels][channels / 16][16][16][2]    pairs of keys: one tile after the other
 *   P  [SUB][KB] bf16,  O  [QB][dv] fp32     row-major */
#if defined(__AMX_BF16__) || defined(__AMXBF16__) /* gcc's name, clang's */
#define HAVE_AMX
#endif
#if !defined(FLASH_EMULATE) && (!defined(HAVE_AMX) || !defined(__AVX512BF16__))
#error "amx.c needs -mamx-tile -mamx-bf16 -mavx512bf16"
#endif
#define FLASH_MR 32
#define FLASH_SUB 32
#define FLASH_DB 96
#define FLASH_QB 128
#define FLASH_KB 128
#define FLASH_ENTER() tile_open()
#define FLASH_LEAVE() tile_close()
#define flash_pad_k(d) (((d) + 31) / 32 * 32)
#define flash_pad_v(d) flash_pad_k(d)
#include "attention/kernels/amx_tile.h"
#define FLASH_FETCH_V 0
#include "attention/kernels/cpu_vec.h"
#include "attention/kernels/cpu_bf16.h"

_Static_assert(VLEN == 16, "panels are two tiles of 16 columns");

#include "attention/kernels/cpu_amx_values.h"

static void flash_pack_q(const struct flash *f, struct flash_worker *w, int nth, int at,
                         const float *q, size_t stride, int rows)
{
    packed *dst = w->q + (size_t)at * (size_t)f->dk;
    (void)nth;
    pack_narrow(dst, f->dk, FLASH_MR, q, stride, rows, f->d);
}

static void flash_pack_k(const struct flash *f, int nth, packed *dst, const float *k, size_t stride,
                         int keys)
{
    (void)nth;
    packed row[FLASH_NR * FLASH_MAX_PAD];
    pack_narrow(row, f->dk, FLASH_NR, k, stride, keys, f->d);
    for (int half = 0; half < 2; half++)
        pack_columns(dst + half * 16 * f->dk, 16, row + half * 16 * f->dk, (size_t)f->dk / 2, 16,
                     f->dk / 2);
}

static void score_block(float *s, const packed *q, const packed *k, int dk)
{
    size_t row = (size_t)dk * sizeof *q;
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (int c = 0; c < dk; c += 32, k += TILE_PAIRS) {
        tile_load(4, q + c, row);
        tile_load(5, q + 16 * dk + c, row);
        tile_load(6, k, 64);
        tile_load(7, k + 16 * dk, 64);
        tile_dot(0, 4, 6);
        tile_dot(1, 4, 7);
        tile_dot(2, 5, 6);
        tile_dot(3, 5, 7);
    }
    tile_store(0, s, FLASH_KB * sizeof *s);
    tile_store(1, s + 16, FLASH_KB * sizeof *s);
    tile_store(2, s + 16 * FLASH_KB, FLASH_KB * sizeof *s);
    tile_store(3, s + 16 * FLASH_KB + 16, FLASH_KB * sizeof *s);
}

static void flash_scores(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         int at, int rows)
{
    for (int i = 0; i < c->n; i++)
        for (int r = 0; r < rows; r += FLASH_MR)
            score_block(w->s + r * FLASH_KB + i * FLASH_NR, w->q + (at + r) * f->dk, c->panel[i].k,
                        f->dk);
    vec by = v_set1(f->scale);
    for (int r = 0; r < rows; r++) {
        vec most = v_set1(-INFINITY);
        for (int i = 0; i < c->n; i++) {
            float *s = w->s + r * FLASH_KB + i * FLASH_NR;
            const float *bias = c->panel[i].bias;
            vec lo = v_mul(v_load(s), by), hi = v_mul(v_load(s + VLEN), by);
            if (bias) lo = v_bias(lo, v_load(bias)), hi = v_bias(hi, v_load(bias + VLEN));
            v_store(s, lo);
            v_store(s + VLEN, hi);
            most = v_max(v_max(most, lo), hi);
        }
        v_store(w->rowmax + r * VLEN, most);
    }
}

const struct attn_kernel attn_amx = {
    .name = "amx",
    .summary = "bf16 products, AMX tiles",
    .needs = CPU_AMX,
    .can = FLASH_CAN,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
