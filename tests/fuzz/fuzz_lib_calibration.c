/* Promise: any bytes as a calibration of step caches give numbers within their bounds or one sentence;
 * what was accepted is written and read back the same. */
#include "app/lib/calibration.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct calibration c = {0}, back = {0};
    struct err e = {0};
    if (calibration_parse(&c, (const char *)data, size, "x.ini", &e) < 0) {
        must(e.code && e.msg[0] && !c.known);
        calibration_fini(&c);
        return 0;
    }
    int n = c.ratio ? c.of.n_steps * c.of.n_branches : 0;
    must(c.known && n >= 0 && n <= 2000);
    for (int i = 0; i < n; i++)
        must(c.ratio[i] > 0 && c.ratio[i] <= 1e6F);
    char *text = calibration_text(&c, "again");
    if (text && calibration_parse(&back, text, strlen(text), "again.ini", &e) < 0) {
        /* a ratio below the digits that are written is no ratio */
        bool tiny = false;
        for (int i = 0; i < n; i++)
            tiny = tiny || c.ratio[i] < 1e-5F;
        must(tiny || e.code == ERR_RESOURCE);
    } else if (text) {
        must(back.mark == c.mark && back.of.has_poly == c.of.has_poly);
    }
    free(text);
    calibration_fini(&back);
    calibration_fini(&c);
    return 0;
}
