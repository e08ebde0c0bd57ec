/* e4m3 numbers: every code comes back, what lies between two goes to the nearer and a tie to the even one. */
#include "model/base/e4m3.h"
#include "tests/check.h"

#include <math.h>
#include <stdbool.h>

static void codes(void)
{
    for (int c = 0; c < 256; c++) {
        float v = e4m3_value((uint8_t)c);
        bool none = (c & 127) == 127;
        CHECK_MSG(none ? isnan(v) : isfinite(v), "code %d is %g", c, (double)v);
        CHECK_MSG(e4m3_code(v) == c, "code %d comes back as %d", c, e4m3_code(v));
        CHECK(!signbit(v) == !(c & 128));
    }
    CHECK(e4m3_value(126) == E4M3_MOST && e4m3_value(1) == 0x1p-9f && e4m3_value(8) == 0x1p-6f);
    CHECK(e4m3_value(0x38) == 1 && e4m3_value(0x3c) == 1.5f && e4m3_value(0xc0) == -2);
}

static void between(void)
{
    for (int c = 0; c < 126; c++) {
        float a = e4m3_value((uint8_t)c), b = e4m3_value((uint8_t)(c + 1)), half = (a + b) / 2;
        int even = c & 1 ? c + 1 : c;
        CHECK(a < b);
        CHECK_MSG(e4m3_code(half) == even, "a tie at %g is %d, wanted %d", (double)half,
                  e4m3_code(half), even);
        CHECK_MSG(e4m3_code(-half) == even + 128, "a tie at %g", (double)-half);
        CHECK(e4m3_code(nextafterf(half, 0)) == c && e4m3_code(nextafterf(half, 1e9f)) == c + 1);
    }
}

static void ends(void)
{
    CHECK(e4m3_code(448.1f) == 126 && e4m3_code(1e30f) == 126 && e4m3_code(INFINITY) == 126);
    CHECK(e4m3_code(-1e30f) == 254 && e4m3_code(-INFINITY) == 254);
    CHECK(e4m3_code(NAN) == 127 && (e4m3_code(-NAN) & 127) == 127);
    CHECK(e4m3_code(0) == 0 && e4m3_code(-0.0f) == 128);
    CHECK(e4m3_code(1e-40f) == 0 && e4m3_code(0x1p-10f) == 0); /* half of the least is a tie */
    CHECK(e4m3_code(nextafterf(0x1p-10f, 1)) == 1);
}

int main(void)
{
    codes();
    between();
    ends();
    return TEST_RESULT();
}
