/* Vectors of integers for kernels over codes: VLEN lanes of 32 bits, VI_GROUP products of codes a lane.
 * By one set of names, as cpu_vec.h, which comes first. VNNI multiplies four unsigned bytes with signed
 * ones, keys are offset for it; AVX2 two pairs of 16 bits, exactly (vpmaddubsw would saturate). */
#ifndef DITGEN_ATTENTION_KERNELS_CPU_VEC8_H
#define DITGEN_ATTENTION_KERNELS_CPU_VEC8_H

#include "attention/kernels/cpu_vec.h"

#if defined(FLASH_EMULATE) || defined(__AVX512VNNI__)
#define VI_GROUP 4
#define VI_OFFSET 128
typedef int8_t vi_code; /* 0 .. 255 as its bits */
#else
#define VI_GROUP 2
#define VI_OFFSET 0
typedef int16_t vi_code;
#endif

#if defined(FLASH_EMULATE)
typedef struct {
    int32_t lane[VLEN];
} veci;
#define VI_EACH(x)                                                                                 \
    veci r;                                                                                        \
    for (int i = 0; i < VLEN; i++)                                                                 \
        r.lane[i] = (x);                                                                           \
    return r
ALWAYS_INLINE veci vi_const(int32_t x) { VI_EACH(x); }
ALWAYS_INLINE veci vi_add(veci a, veci b) { VI_EACH(a.lane[i] + b.lane[i]); }
ALWAYS_INLINE vec vi_float(veci a) { V_EACH((float)a.lane[i]); }
ALWAYS_INLINE veci vi_near(vec a) { VI_EACH((int32_t)rintf(a.lane[i])); }
ALWAYS_INLINE veci vi_load(const void *p)
{
    veci r;
    memcpy(&r, p, sizeof r);
    return r;
}
ALWAYS_INLINE veci vi_set1(const void *p) /* the four bytes at p in every lane */
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    VI_EACH(x);
}
/* acc + the four products of unsigned bytes of a with signed ones of b */
ALWAYS_INLINE veci vi_dot(veci acc, veci a, veci b)
{
    for (int i = 0; i < VLEN; i++)
        for (int n = 0; n < 4; n++) {
            uint8_t x;
            int8_t y;
            memcpy(&x, (const char *)&a.lane[i] + n, 1);
            memcpy(&y, (const char *)&b.lane[i] + n, 1);
            acc.lane[i] += (int32_t)x * y;
        }
    return acc;
}
ALWAYS_INLINE void vi_store(vi_code *p, veci a) /* lanes of 0 .. 255 as codes */
{
    for (int i = 0; i < VLEN; i++)
        p[i] = (vi_code)(uint8_t)a.lane[i];
}
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__)
typedef __m512i veci;
ALWAYS_INLINE veci vi_const(int32_t x) { return _mm512_set1_epi32(x); }
ALWAYS_INLINE veci vi_add(veci a, veci b) { return _mm512_add_epi32(a, b); }
ALWAYS_INLINE vec vi_float(veci a) { return _mm512_cvtepi32_ps(a); }
ALWAYS_INLINE veci vi_near(vec a) { return _mm512_cvtps_epi32(a); }
ALWAYS_INLINE veci vi_load(const void *p) { return _mm512_loadu_si512(p); }
ALWAYS_INLINE veci vi_set1(const void *p) /* the four bytes at p in every lane */
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}
/* acc + the four products of unsigned bytes of a with signed ones of b; does not saturate. gcc 12
 * copies and spills the sums of _mm512_dpbusd_epi32() in unrolled loops: half the speed */
ALWAYS_INLINE veci vi_dot(veci acc, veci a, veci b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}
ALWAYS_INLINE void vi_store(vi_code *p, veci a) /* lanes of 0 .. 255 as codes */
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(a));
}
#elif defined(__AVX2__)
typedef __m256i veci;
ALWAYS_INLINE veci vi_const(int32_t x) { return _mm256_set1_epi32(x); }
ALWAYS_INLINE veci vi_add(veci a, veci b) { return _mm256_add_epi32(a, b); }
ALWAYS_INLINE vec vi_float(veci a) { return _mm256_cvtepi32_ps(a); }
ALWAYS_INLINE veci vi_near(vec a) { return _mm256_cvtps_epi32(a); }
ALWAYS_INLINE veci vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
ALWAYS_INLINE veci vi_set1(const void *p) /* the two codes at p in every lane */
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}
ALWAYS_INLINE veci vi_dot(veci acc, veci a, veci b)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
}
ALWAYS_INLINE void vi_store(vi_code *p, veci a) /* lanes of 0 .. 255 as codes */
{
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
}
#else
#error "cpu_vec8.h needs AVX512-VNNI or AVX2"
#endif

#endif
