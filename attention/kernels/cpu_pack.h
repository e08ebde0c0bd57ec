/* Packing for the CPU kernels: columns side by side, by 8 x 8 transposes of 32-bit elements
 * (floats, or pairs of bf16), so that it costs little beside a sparse plan. */
#ifndef DITGEN_ATTENTION_KERNELS_CPU_PACK_H
#define DITGEN_ATTENTION_KERNELS_CPU_PACK_H

#include "attention/kernels/cpu_vec.h"

#include <stddef.h>

/* dst[c * pitch + j] = src[j * stride + c] for c < 8, j < width; rows past `rows` are zeros.
 * Elements move as bits. width is 4, 6 or 8 and a constant: no more than that is written. */
#if defined(FLASH_EMULATE)
static inline void transpose8(void *dst, int pitch, const void *src, size_t stride, int rows,
                              int width)
{
    for (int j = 0; j < width; j++)
        for (int c = 0; c < 8; c++) {
            uint32_t x = 0;
            if (j < rows) memcpy(&x, (const char *)src + ((size_t)j * stride + (size_t)c) * 4, 4);
            memcpy((char *)dst + (c * pitch + j) * 4, &x, 4);
        }
}
#else
ALWAYS_INLINE void transpose8(void *dst, int pitch, const void *src, size_t stride, int rows,
                              int width)
{
    __m256 r[8], t[8], u[8];
    UNROLL(8)
    for (int j = 0; j < 8; j++)
        r[j] = j < width && j < rows ? _mm256_loadu_ps((const float *)src + (size_t)j * stride)
                                     : _mm256_setzero_ps();
    UNROLL(4) for (int j = 0; j < 8; j += 2)
    {
        t[j] = _mm256_unpacklo_ps(r[j], r[j + 1]);
        t[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
    }
    UNROLL(2) for (int j = 0; j < 8; j += 4)
    {
        u[j] = _mm256_shuffle_ps(t[j], t[j + 2], 0x44);
        u[j + 1] = _mm256_shuffle_ps(t[j], t[j + 2], 0xee);
        u[j + 2] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0x44);
        u[j + 3] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0xee);
    }
    UNROLL(8) for (int c = 0; c < 8; c++)
    {
        __m256 x = c < 4 ? _mm256_permute2f128_ps(u[c % 4], u[c % 4 + 4], 0x20)
                         : _mm256_permute2f128_ps(u[c % 4], u[c % 4 + 4], 0x31);
        float *at = (float *)dst + c * pitch;
        if (width == 8) {
            _mm256_storeu_ps(at, x);
        } else {
            _mm_storeu_ps(at, _mm256_castps256_ps128(x));
            if (width == 6) _mm_storel_pi((__m64 *)(at + 4), _mm256_extractf128_ps(x, 1));
        }
    }
}
#endif

/* dst [d][pitch] from src [rows][stride], 32-bit elements; columns past `rows` are zeros. pitch is
 * a constant made of eights and a last 4 or 6. */
ALWAYS_INLINE void pack_columns(void *dst, int pitch, const void *src, size_t stride, int rows,
                                int d)
{
    int whole = d / 8 * 8;
    for (int j = 0; j < pitch; j += 8) {
        const char *from = (const char *)src + (size_t)j * stride * 4;
        char *to = (char *)dst + j * 4;
        if (j >= rows) from = src; /* not read */
        for (int c = 0; c < whole; c += 8) {
            if (pitch - j >= 8)
                transpose8(to + c * pitch * 4, pitch, from + c * 4, stride, rows - j, 8);
            else if (pitch - j == 6)
                transpose8(to + c * pitch * 4, pitch, from + c * 4, stride, rows - j, 6);
            else
                transpose8(to + c * pitch * 4, pitch, from + c * 4, stride, rows - j, 4);
        }
    }
    for (int c = whole; c < d; c++)
        for (int j = 0; j < pitch; j++) {
            uint32_t x = 0;
            if (j < rows) memcpy(&x, (const char *)src + ((size_t)j * stride + (size_t)c) * 4, 4);
            memcpy((char *)dst + (c * pitch + j) * 4, &x, 4);
        }
}

/* dst [want_rows][want] bf16 from src [rows][stride] of d floats; zeros elsewhere. */
ALWAYS_INLINE void pack_narrow(uint16_t *dst, int want, int want_rows, const float *src,
                               size_t stride, int rows, int d)
{
    for (int j = 0; j < want_rows; j++, dst += want) {
        int n = j < rows ? d : 0;
        const float *x = src + (j < rows ? (size_t)j * stride : 0);
        int c = 0;
#if defined(VH_STORE)
        for (; c + 2 * VLEN <= n; c += 2 * VLEN)
            vh_store(dst + c, v_load(x + c), v_load(x + c + VLEN));
#endif
        for (; c < n; c++) {
            uint32_t u, nan;
            memcpy(&u, x + c, 4);
            nan = (u & 0x7fffffffu) > 0x7f800000u ? 0xffffffffu
                                                  : 0; /* branch-free, so that it vectorises */
            dst[c] = (uint16_t)((((u >> 16) | 0x40) & nan) |
                                (((u + 0x7fffu + ((u >> 16) & 1)) >> 16) & ~nan));
        }
        for (c = n; c < want; c++)
            dst[c] = 0;
    }
}

/* dst [keys / 2][width][2] from two neighbouring rows each of src [keys][pitch], channels [c0, c0 +
 * width). */
ALWAYS_INLINE void pack_pairs(uint16_t *dst, int width, const uint16_t *src, int pitch, int c0,
                              int keys)
{
    for (int j = 0; j < keys; j += 2, dst += 2 * width) {
        const uint16_t *even = src + j * pitch + c0, *odd = even + pitch;
        for (int c = 0; c < width; c++) {
            dst[2 * c] = even[c];
            dst[2 * c + 1] = odd[c];
        }
    }
}

#endif
