/* bench_sage check [PROBLEMS [REPEATS [SEED]]] | resid [PROBLEMS] | plan [SECONDS] | sanitize [SEED] | time [SECONDS [WORDS]]:
 * 8-bit attention of this card against its emulation, and beside the bf16 kernels. WORDS: only
 * 8-bit kernels whose names contain them. */
#include "tests/bench/kernels/bench_sage.h"

int main(int argc, char **argv)
{
    struct cudaDeviceProp prop;
    const char *command = argc > 1 ? argv[1] : "check";
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was seen before a time limit is seen */
    GPU(cudaGetDeviceProperties(&prop, 0));
    printf("%s, %d processors, sm_%d%d\n", prop.name, prop.multiProcessorCount, prop.major,
           prop.minor);
    if (prop.major != 9 || prop.minor != 0) {
        fprintf(stderr, "bench_sage: 8-bit kernels are for sm_90, this card is sm_%d%d\n",
                prop.major, prop.minor);
        return 5;
    }
    if (strcmp(command, "check") == 0)
        check_sage(argc > 2 ? atoi(argv[2]) : 100, argc > 3 ? atoi(argv[3]) : 1000,
                   argc > 4 ? strtoull(argv[4], NULL, 10) : 1);
    else if (strcmp(command, "resid") == 0) {
        check_resid(argc > 2 ? atoi(argv[2]) : 60, 1);
        check_pair(argc > 2 ? atoi(argv[2]) : 60, 1);
    } else if (strcmp(command, "plan") == 0) {
        check_plan(1);
        check_cluster(1);
        time_cluster();
        time_plan(argc > 2 ? atof(argv[2]) : 5);
    } else if (strcmp(command, "sanitize") == 0) {
        /* small: under a checker everything takes a hundred times as long */
        check_some(6, argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
        check_resid(4, 1);
        check_pair(4, 1);
        check_plan(1);
        check_cluster(1);
    } else if (strcmp(command, "time") == 0)
        time_sage(argc > 2 ? atof(argv[2]) : 20, argc > 3 ? argv[3] : NULL);
    else {
        fprintf(stderr,
                "bench_sage: no command '%s'; there are check, resid, plan, sanitize and time\n",
                command);
        return 2;
    }
    printf("%s: %d checks, %d failed\n", command, tally.done, tally.failed);
    return tally.failed > 0;
}
