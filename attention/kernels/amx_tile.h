/* The eight tiles of AMX by one set of names: 16 rows of 64 bytes each. FLASH_EMULATE (tests only)
 * keeps them in memory, so that the layouts of amx.c are checked on a machine that lacks them. Tile
 * numbers must be constants. */
#ifndef DITGEN_ATTENTION_KERNELS_AMX_TILE_H
#define DITGEN_ATTENTION_KERNELS_AMX_TILE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(FLASH_EMULATE)
#include "model/base/dtype.h"
static _Thread_local unsigned char amx_tile[8][16][64];
static _Thread_local int amx_ready; /* a tile used without tile_open() must fail a test */

static inline void tile_open(void)
{
    amx_ready = 1;
    memset(amx_tile, 0, sizeof amx_tile);
}
static inline void tile_close(void) { amx_ready = 0; }
static inline void tile_zero(int t)
{
    memset(amx_tile[t], amx_ready ? 0 : 0xff, sizeof amx_tile[t]);
}
static inline void tile_load(int t, const void *p, size_t stride) /* bytes a row */
{
    for (int i = 0; i < 16; i++)
        memcpy(amx_tile[t][i], (const char *)p + (size_t)i * stride, 64);
    if (!amx_ready) memset(amx_tile[t], 0xff, sizeof amx_tile[t]);
}
static inline void tile_store(int t, void *p, size_t stride)
{
    for (int i = 0; i < 16; i++)
        memcpy((char *)p + (size_t)i * stride, amx_tile[t][i], 64);
}
/* c[16][16] f32 += a[16][32] bf16 · b[16 pairs][16][2] bf16: TDPBF16PS */
static inline void tile_dot(int c, int a, int b)
{
    for (int m = 0; m < 16; m++) {
        float acc[16];
        uint16_t x[32];
        memcpy(acc, amx_tile[c][m], 64);
        memcpy(x, amx_tile[a][m], 64);
        for (int k = 0; k < 16; k++) {
            uint16_t y[32];
            memcpy(y, amx_tile[b][k], 64);
            for (int n = 0; n < 16; n++)
                for (int i = 0; i < 2; i++)
                    acc[n] += bf16_to_f32(x[2 * k + i]) * bf16_to_f32(y[2 * n + i]);
        }
        memcpy(amx_tile[c][m], acc, 64);
    }
}
/* c[16][16] s32 += a[16][64] · b[16 quads][16][4] s8, a signed or not: TDPBSSD, TDPBUSD */
static inline void tile_dot8(int c, int a, int b, int is_signed)
{
    for (int m = 0; m < 16; m++) {
        int32_t acc[16];
        memcpy(acc, amx_tile[c][m], 64);
        for (int k = 0; k < 16; k++) {
            int8_t y[64];
            memcpy(y, amx_tile[b][k], 64);
            for (int i = 0; i < 4; i++) {
                int x = amx_tile[a][m][4 * k + i];
                if (is_signed && x > 127) x -= 256;
                for (int n = 0; n < 16; n++)
                    acc[n] += x * y[4 * n + i];
            }
        }
        memcpy(amx_tile[c][m], acc, 64);
    }
}
#define tile_dot_ss(c, a, b) tile_dot8(c, a, b, 1)
#define tile_dot_us(c, a, b) tile_dot8(c, a, b, 0)
#else
#include <immintrin.h>

/* a thread's own state; the process has permission (base/cpu.c) */
static inline void tile_open(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    _Static_assert(sizeof config == 64, "LDTILECFG reads 64 bytes");
    for (int i = 0; i < 8; i++)
        config.row_bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile(""
                     :
                     : "r"(&config)
                     : "memory"); /* gcc 12 takes LDTILECFG for a read of 8 bytes */
    _tile_loadconfig(&config);
}
static inline void tile_close(void) { _tile_release(); }
#define tile_zero(t) _tile_zero(t)
/* gcc 12 does not know that TILELOADD reads memory: nothing stored before may be moved behind it */
#define tile_load(t, p, stride)                                                                    \
    do {                                                                                           \
        __asm__ volatile("" : : : "memory");                                                       \
        _tile_loadd(t, p, stride);                                                                 \
    } while (0)
#define tile_store(t, p, stride) _tile_stored(t, p, stride)
#define tile_dot(c, a, b) _tile_dpbf16ps(c, a, b)
#define tile_dot_ss(c, a, b) _tile_dpbssd(c, a, b)
#define tile_dot_us(c, a, b) _tile_dpbusd(c, a, b)
#endif

#endif
