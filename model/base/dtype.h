/* Element types as files store them, and the precisions the program computes in.
 *
 * Activations are fp32 in memory everywhere. PRECISION_BF16 rounds them to bf16 where the reference
 * stores bf16 and lets matrix units take them as bf16 (exact: they already are); so the native and
 * the emulated form differ only inside matrix products, and one set of element-wise code serves
 * all. PRECISION_FP8 is PRECISION_BF16 but for the products of the transformer's large linear layers,
 * which read e4m3 codes (model/ops/fp8.h): approximate, and on a GPU alone. */
#ifndef DITGEN_BASE_DTYPE_H
#define DITGEN_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype {
    DTYPE_BOOL,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E5M2,
    DTYPE_F8_E4M3,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_COUNT,
};

enum precision {
    PRECISION_FP32,
    PRECISION_BF16, /* needs AVX512-BF16 or AMX */
    PRECISION_BF16_EMULATED, /* fp32 arithmetic that rounds where the specification rounds; slow */
    PRECISION_FP8, /* needs a GPU from compute capability 8.9 on */
};

/* Of all that fp8 leaves as it is: text, frames, attention, the transformer's ends. */
static inline enum precision precision_beside(enum precision p)
{
    return p == PRECISION_FP8 ? PRECISION_BF16 : p;
}

size_t dtype_size(enum dtype t); /* bytes of one element */
const char *dtype_name(enum dtype t); /* as safetensors writes it: "BF16" */
/* -1 when the name is unknown. */
int dtype_from_name(const char *name);
const char *precision_name(enum precision p);

/* n elements of type t at src (any alignment) to fp32. F64, F32, F16, BF16 only; returns -1 else.
 */
int dtype_to_f32(float *dst, const void *src, enum dtype t, size_t n);

static inline float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
/* round to nearest even; NaN stays NaN */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
static inline float bf16_round(float f) { return bf16_to_f32(f32_to_bf16(f)); }

#endif
