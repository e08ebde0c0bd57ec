/* Scores over codes by TDPBSSD, for cpu_flash.h: 32 x 32 blocks, tiles as amx.c has them.
 *   q  [rows][dk]                        row-major, dk = D rounded up to 64; a scale a row beside them
 *   k  [panels]{[2][dk / 4][16][4], [NR] fp32}   32 keys in two halves; then their scales
 *   S  [SUB][KB] 32-bit sums, then scores
 *
 * Both are signed: nothing is offset, as it is for vpdpbusd (cpu_code_scores.h). */
#include "attention/kernels/amx_tile.h"
#include "attention/kernels/cpu_vec8.h"
#undef VI_OFFSET
#define VI_OFFSET 0
#define FLASH_MR 32
#define FLASH_SUB 32
#define FLASH_DB 96
#define FLASH_QB 128
#define FLASH_KB 128
#define FLASH_NR (2 * VLEN)
#define FLASH_CODES 1
#define FLASH_ENTER() tile_open()
#define FLASH_LEAVE() tile_close()
typedef int8_t packed;
#define flash_pad_k(d) (((d) + 63) / 64 * 64)
#define flash_key(d) (flash_pad_k(d) + (int)sizeof(float))
#define FLASH_MAX_PAD ((ATTN_MAX_HEAD_DIM + 63) / 64 * 64)
#include "attention/kernels/cpu_flash.h"
#include "attention/kernels/cpu_flash_codes.h"
#include "attention/kernels/cpu_pack.h"

_Static_assert(VLEN == 16, "panels are two tiles of 16 columns");

#define TILE_QUADS (16 * 64) /* elements of one tile of quads */

static void flash_pack_q(const struct flash *f, struct flash_worker *w, int nth, int at,
                         const float *q, size_t stride, int rows)
{
    flash_code_q(f, w, w->q + at * f->dk, nth, at, q, stride, rows);
}

static void flash_pack_k(const struct flash *f, int nth, packed *dst, const float *k, size_t stride,
                         int keys)
{
    packed code[FLASH_NR * FLASH_MAX_PAD];
    float scale[FLASH_NR];
    int quads = f->dk / 4;
    flash_code_k(f, code, scale, nth, k, stride, keys);
    for (int half = 0; half < 2; half++)
        pack_columns(dst + half * 16 * f->dk, 16, code + half * 16 * f->dk, (size_t)quads, 16,
                     quads);
    memcpy(dst + FLASH_NR * f->dk, scale, sizeof scale);
}

static void score_block(float *s, const packed *q, const packed *k, int dk)
{
    size_t row = (size_t)dk * sizeof *q;
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (int c = 0; c < dk; c += 64, k += TILE_QUADS) {
        tile_load(4, q + c, row);
        tile_load(5, q + 16 * dk + c, row);
        tile_load(6, k, 64);
        tile_load(7, k + 16 * dk, 64);
        tile_dot_ss(0, 4, 6);
        tile_dot_ss(1, 4, 7);
        tile_dot_ss(2, 5, 6);
        tile_dot_ss(3, 5, 7);
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
    for (int r = 0; r < rows; r++) {
        vec most = v_set1(-INFINITY), by = v_set1(w->q_scale[at + r]);
        for (int i = 0; i < c->n; i++) {
            float *s = w->s + r * FLASH_KB + i * FLASH_NR;
            const float *k = (const float *)(const void *)(c->panel[i].k + FLASH_NR * f->dk),
                        *bias = c->panel[i].bias;
            vec lo = v_mul(v_mul(vi_float(vi_load(s)), v_load(k)), by);
            vec hi = v_mul(v_mul(vi_float(vi_load(s + VLEN)), v_load(k + VLEN)), by);
            if (bias) lo = v_bias(lo, v_load(bias)), hi = v_bias(hi, v_load(bias + VLEN));
            v_store(s, lo);
            v_store(s + VLEN, hi);
            most = v_max(v_max(most, lo), hi);
        }
        v_store(w->rowmax + r * VLEN, most);
    }
}
