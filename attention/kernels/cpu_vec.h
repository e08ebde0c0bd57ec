/* Vectors of floats by one set of names, for the kernels that share cpu_flash.h.
 *
 * AVX2 has 8 lanes, AVX-512 16; FLASH_EMULATE (tests only) does 16 lanes in plain C,
 * so that the layouts of the wide kernels are checked on a machine that lacks them.
 * Everything is static inline: a file built for one instruction set leaks nothing to another. */
#ifndef DITGEN_ATTENTION_KERNELS_CPU_VEC_H
#define DITGEN_ATTENTION_KERNELS_CPU_VEC_H

#include "model/base/dtype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* UNROLL(n) goes before a loop of at most n constant turns, which must disappear for its arrays to
 * live in registers; REPEAT(n) before one of unknown length, done n turns at a time. */
#define PRAGMA(x) _Pragma(#x)
#if defined(FLASH_EMULATE) /* unrolled C, with sanitizers at that, takes minutes to compile */
#define UNROLL(n)
#define REPEAT(n)
#define ALWAYS_INLINE static __attribute__((unused, noinline))
#elif defined(__clang__)
#define UNROLL(n) PRAGMA(unroll)
#define REPEAT(n) PRAGMA(clang loop unroll_count(n))
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#define REPEAT(n) PRAGMA(GCC unroll n)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#endif

/* A micro-kernel for the rows that are left: MR of them, or fewer in thirds, so that 64 and 128 rows
 * cost what they are; the last argument becomes a constant. */
#define FLASH_ROWS(left, f, ...) FLASH_ROWS_OF(FLASH_MR, left, f, __VA_ARGS__)
#define FLASH_ROWS_OF(mr, left, f, ...)                                                            \
    ((left) > (mr) / 3 * 2 ? f(__VA_ARGS__, mr)                                                    \
     : (left) > (mr) / 3   ? f(__VA_ARGS__, (mr) / 3 * 2)                                          \
                           : f(__VA_ARGS__, (mr) / 3))

#if defined(FLASH_EMULATE)
#define VLEN 16
typedef struct {
    float lane[VLEN];
} vec;
#define V_EACH(x)                                                                                  \
    vec r;                                                                                         \
    for (int i = 0; i < VLEN; i++)                                                                 \
        r.lane[i] = (x);                                                                           \
    return r
ALWAYS_INLINE vec v_set1(float x) { V_EACH(x); }
ALWAYS_INLINE vec v_load(const float *p) { V_EACH(p[i]); }
ALWAYS_INLINE void v_store(float *p, vec x) { memcpy(p, &x, sizeof x); }
ALWAYS_INLINE vec v_add(vec a, vec b) { V_EACH(a.lane[i] + b.lane[i]); }
ALWAYS_INLINE vec v_sub(vec a, vec b) { V_EACH(a.lane[i] - b.lane[i]); }
ALWAYS_INLINE vec v_mul(vec a, vec b) { V_EACH(a.lane[i] * b.lane[i]); }
ALWAYS_INLINE vec v_fma(vec a, vec b, vec c) { V_EACH(a.lane[i] * b.lane[i] + c.lane[i]); }
ALWAYS_INLINE vec v_max(vec a, vec b) /* b when either is NaN, as the instruction */
{
    V_EACH(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]);
}
ALWAYS_INLINE float v_hmax(vec a)
{
    float r = a.lane[0];
    for (int i = 1; i < VLEN; i++)
        r = r > a.lane[i] ? r : a.lane[i];
    return r;
}
ALWAYS_INLINE float v_hsum(vec a)
{
    float r = 0;
    for (int i = 0; i < VLEN; i++)
        r += a.lane[i];
    return r;
}
ALWAYS_INLINE float v_shl23_lane(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u <<= 23;
    memcpy(&x, &u, sizeof u);
    return x;
}
ALWAYS_INLINE vec v_shl23(vec a) /* low 9 bits into exponent and sign */
{
    V_EACH(v_shl23_lane(a.lane[i]));
}
ALWAYS_INLINE vec v_bias(vec x, vec bias) /* x + bias, and -inf for a masked key whatever x is */
{
    V_EACH(bias.lane[i] == -INFINITY ? bias.lane[i] : x.lane[i] + bias.lane[i]);
}
#elif defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define VLEN 16
typedef __m512 vec;
ALWAYS_INLINE vec v_set1(float x) { return _mm512_set1_ps(x); }
ALWAYS_INLINE vec v_load(const float *p) { return _mm512_loadu_ps(p); }
ALWAYS_INLINE void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
ALWAYS_INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
ALWAYS_INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
ALWAYS_INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
ALWAYS_INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
ALWAYS_INLINE vec v_max(vec a, vec b) /* b when either is NaN */ { return _mm512_max_ps(a, b); }
ALWAYS_INLINE float v_hmax(vec a) { return _mm512_reduce_max_ps(a); }
ALWAYS_INLINE float v_hsum(vec a) { return _mm512_reduce_add_ps(a); }
ALWAYS_INLINE vec v_shl23(vec a) /* low 9 bits into exponent and sign */
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
}
ALWAYS_INLINE vec v_bias(vec x, vec bias) /* x + bias, and -inf for a masked key whatever x is */
{
    __mmask16 m = _mm512_cmp_ps_mask(bias, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
    return _mm512_mask_blend_ps(m, _mm512_add_ps(x, bias), bias);
}
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define VLEN 8
typedef __m256 vec;
ALWAYS_INLINE vec v_set1(float x) { return _mm256_set1_ps(x); }
ALWAYS_INLINE vec v_load(const float *p) { return _mm256_loadu_ps(p); }
ALWAYS_INLINE void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
ALWAYS_INLINE vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
ALWAYS_INLINE vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
ALWAYS_INLINE vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
ALWAYS_INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
ALWAYS_INLINE vec v_max(vec a, vec b) /* b when either is NaN */ { return _mm256_max_ps(a, b); }
ALWAYS_INLINE float v_hmax(vec a)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
ALWAYS_INLINE float v_hsum(vec a)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
ALWAYS_INLINE vec v_shl23(vec a) /* low 9 bits into exponent and sign */
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
}
ALWAYS_INLINE vec v_bias(vec x, vec bias) /* x + bias, and -inf for a masked key whatever x is */
{
    vec m = _mm256_cmp_ps(bias, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
    return _mm256_blendv_ps(_mm256_add_ps(x, bias), bias, m);
}
#else
#error "cpu_vec.h needs AVX2 with FMA, or AVX-512 F and DQ"
#endif

/* 2^x for x <= 127; 0 below -126.5 (-inf too), NaN stays NaN. Coefficients of the design's
 * section 8.2: relative error 7.5e-5 at degree 3 (for results rounded to bf16), 2.7e-6 at degree 4
 * (for those rounded to bytes), 2.1e-7 at degree 5.
 * degree must be a constant: one branch is left. */
ALWAYS_INLINE vec v_exp2(vec x, int degree)
{
    const vec magic =
        v_set1(12582912.0f + 127.0f); /* 1.5 * 2^23 rounds to integers; 127: the bias */
    vec t = v_max(v_set1(-127.0f), x);
    vec n = v_add(t, magic);
    vec f = v_sub(t, v_sub(n, magic)); /* in [-0.5, 0.5] */
    vec p;
    if (degree == 3) {
        p = v_fma(f, v_set1(.0551704018f), v_set1(.242609323f));
        p = v_fma(p, f, v_set1(.693261015f));
        p = v_fma(p, f, v_set1(.999928192f));
    } else if (degree == 4) {
        p = v_fma(f, v_set1(.00956998098f), v_set1(.0559177136f));
        p = v_fma(p, f, v_set1(.240247461f));
        p = v_fma(p, f, v_set1(.693121835f));
        p = v_fma(p, f, v_set1(.999999262f));
    } else {
        p = v_fma(f, v_set1(.00132763727f), v_set1(.00967553276f));
        p = v_fma(p, f, v_set1(.0555071347f));
        p = v_fma(p, f, v_set1(.240221199f));
        p = v_fma(p, f, v_set1(.693146967f));
        p = v_fma(p, f, v_set1(1.00000007f));
    }
    return v_mul(p, v_shl23(n)); /* n = -127 gives the bits of 0 */
}

/* Pairs of bf16, for the kernels that multiply them; a lane gets
 * acc + a.even * b.even + a.odd * b.odd. */
#if defined(FLASH_EMULATE) || defined(__AVX512BF16__)
#define VH_STORE /* there is vh_store(); its instruction takes denormals for 0, as vh_dot()'s does */
#endif
#if defined(FLASH_EMULATE)
typedef struct {
    uint16_t pair[VLEN][2];
} vech;
ALWAYS_INLINE vech vh_load(const uint16_t *p)
{
    vech r;
    memcpy(&r, p, sizeof r);
    return r;
}
ALWAYS_INLINE vech vh_set1(const uint16_t *p) /* the pair at p in every lane */
{
    vech r;
    for (int i = 0; i < VLEN; i++)
        memcpy(r.pair[i], p, sizeof r.pair[i]);
    return r;
}
ALWAYS_INLINE vec vh_dot(vec acc, vech a, vech b)
{
    V_EACH(acc.lane[i] + bf16_to_f32(a.pair[i][0]) * bf16_to_f32(b.pair[i][0]) +
           bf16_to_f32(a.pair[i][1]) * bf16_to_f32(b.pair[i][1]));
}
ALWAYS_INLINE void vh_store(uint16_t *p, vec lo, vec hi) /* 2 * VLEN values in order, rounded */
{
    for (int i = 0; i < VLEN; i++)
        p[i] = f32_to_bf16(lo.lane[i]), p[VLEN + i] = f32_to_bf16(hi.lane[i]);
}
#elif defined(__AVX512BF16__)
typedef __m512bh vech;
ALWAYS_INLINE vech vh_load(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512(p); }
ALWAYS_INLINE vech vh_set1(const uint16_t *p) /* the pair at p in every lane */
{
    int x;
    memcpy(&x, p, sizeof x);
    return (__m512bh)_mm512_set1_epi32(x);
}
ALWAYS_INLINE vec vh_dot(vec acc, vech a, vech b) { return _mm512_dpbf16_ps(acc, a, b); }
ALWAYS_INLINE void vh_store(uint16_t *p, vec lo, vec hi) /* 2 * VLEN values in order, rounded */
{
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
}
#endif

#endif
