/* Peak of this machine in fp32, as `ditgen bench` measures it, for scripts that have no run of ours:
 *     fma_peak THREADS     prints GFLOP/s */
#include "app/cli/peak.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    struct peak p;
    if (threads < 1 || threads > 1024) return 2;
    threads_set(threads);
    peak_measure(&p, cpu_level());
    printf("%.1f\n", 1e-9 * p.fp32);
    return 0;
}
