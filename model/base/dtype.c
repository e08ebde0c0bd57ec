/* Element types; see dtype.h. */
#include "model/base/dtype.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_BOOL] = {"BOOL", 1},       [DTYPE_U8] = {"U8", 1},           [DTYPE_I8] = {"I8", 1},
    [DTYPE_F8_E5M2] = {"F8_E5M2", 1}, [DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [DTYPE_I16] = {"I16", 2},
    [DTYPE_U16] = {"U16", 2},         [DTYPE_F16] = {"F16", 2},         [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_I32] = {"I32", 4},         [DTYPE_U32] = {"U32", 4},         [DTYPE_F32] = {"F32", 4},
    [DTYPE_F64] = {"F64", 8},         [DTYPE_I64] = {"I64", 8},         [DTYPE_U64] = {"U64", 8},
};

size_t dtype_size(enum dtype t) { return dtypes[t].size; }

const char *dtype_name(enum dtype t) { return dtypes[t].name; }

int dtype_from_name(const char *name)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].name, name) == 0) return i;
    return -1;
}

const char *precision_name(enum precision p)
{
    static const char *const names[] = {"fp32", "bf16", "bf16 (emulated, slow)",
                                        "fp8 (approximate)"};
    return names[p];
}

static float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31, man = h & 0x3ffu, u;
    if (exp == 31) {
        u = sign | 0x7f800000u | man << 13;
    } else if (exp) {
        u = sign | (exp + 112) << 23 | man << 13;
    } else { /* subnormal: man * 2^-24 is exact in fp32 */
        float f = (float)man * 0x1p-24f;
        return sign ? -f : f;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}

int dtype_to_f32(float *dst, const void *src, enum dtype t, size_t n)
{
    const unsigned char *s = src;
    uint16_t h;
    double d;
    switch (t) {
    case DTYPE_F32:
        memcpy(dst, src, n * 4);
        return 0;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++)
            memcpy(&h, s + 2 * i, 2), dst[i] = bf16_to_f32(h);
        return 0;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++)
            memcpy(&h, s + 2 * i, 2), dst[i] = f16_to_f32(h);
        return 0;
    case DTYPE_F64:
        for (size_t i = 0; i < n; i++)
            memcpy(&d, s + 8 * i, 8), dst[i] = (float)d;
        return 0;
    default:
        return -1;
    }
}
