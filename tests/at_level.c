/* Linked to tests that run once a processor level: caps the process before main() by
 * DITGEN_TEST_DEVICE ("cpu:avx2"), or skips (77) where the processor ends below. */
#include "model/base/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor)) static void at_level(void)
{
    const char *device = getenv("DITGEN_TEST_DEVICE");
    struct err e = {0};
    if (!device || strncmp(device, "cuda", 4) == 0) return; /* the test opens it */
    if (cpu_cap(device, &e) == 0) return;
    fprintf(stderr, "%s\n", e.msg);
    exit(e.code == ERR_DEVICE ? 77 : 1);
}
