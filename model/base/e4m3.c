/* Numbers of eight bits; see e4m3.h. */
#include "model/base/e4m3.h"

#include <math.h>

float e4m3_value(uint8_t code)
{
    int e = code >> 3 & 15, m = code & 7;
    float x = e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
    if (e == 15 && m == 7) x = NAN;
    return code & 128 ? -x : x;
}

uint8_t e4m3_code(float x)
{
    uint8_t sign = signbit(x) ? 128 : 0;
    float a = fabsf(x);
    int e;
    if (isnan(x)) return sign | 127;
    if (a >= E4M3_MOST) return sign | 126;
    frexpf(a, &e); /* a in [2^(e-1), 2^e): steps of 2^(e-4), of 2^-9 below 2^-6 */
    if (e < -5) e = -5;
    float steps = rintf(ldexpf(a, 4 - e)); /* 8..16; 0..8 where denormal */
    if (steps >= 16) {
        steps = 8;
        e++;
    }
    if (steps < 8) return sign | (uint8_t)steps;
    if (e > 9) return sign | 126;
    return sign | (uint8_t)((e + 6) << 3 | ((int)steps - 8));
}
