/* Promise: any bytes as a log of measured clips give trials with finite numbers or one sentence. */
#include "app/cli/trial_log.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trials t = {.path = "x.jsonl"};
    struct err e = {0};
    if (trial_log_parse(&t, (const char *)data, size, &e) < 0) must(e.code && e.msg[0]);
    for (int i = 0; i < t.n_known; i++)
        must(t.known[i].key && isfinite(t.known[i].t.wall) && isfinite(t.known[i].t.ssim));
    trials_close(&t);
    return 0;
}
