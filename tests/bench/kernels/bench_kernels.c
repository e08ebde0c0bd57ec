/* bench_kernels check [PROBLEMS [REPEATS [SEED]]] | musts [SECONDS [FOLDER]] |
 * time [SECONDS [FOLDER [SIZES [DENSITIES]]]] | extras [TOKENS] | once [TOKENS]: attention kernels
 * of this card against the judge, and against each other. SIZES as 32760x12x128,..., DENSITIES as
 * 1,.3,... A last argument kernel=WORDS leaves only kernels whose names contain these words. */
#include "tests/bench/kernels/gpu.h"
#include "tests/bench/kernels/kernels_under_test.h"

#include <string.h>

static struct kernel_under_test rows[32];
static int n_rows;

static int run_sm80(const struct attn_cuda *w, int variant, struct err *e)
{
    (void)variant;
    return attn_sm80(w, e);
}

static void add(const char *name, enum attn_cuda_row row, int variant,
                int (*run)(const struct attn_cuda *, int, struct err *))
{
    struct kernel_under_test *k = &rows[n_rows++];
    *k = (struct kernel_under_test){.row = row, .variant = variant, .run = run};
    snprintf(k->name, sizeof k->name, "%s", name);
}

void kernels_find(int capability, const char *words)
{
    char name[64];
    n_rows = 0;
    if (capability >= 80 && strstr("sm80", words)) add("sm80", ATTN_SM80, 0, run_sm80);
    if (capability != 90) return;
    for (int i = 0; attn_sm90_variant(i, NULL) && n_rows < 30; i++) {
        snprintf(name, sizeof name, "sm90 %s", attn_sm90_variant(i, NULL));
        if (strstr(name, words)) add(name, ATTN_SM90, i, attn_sm90_as);
    }
}

int kernels_under_test(void) { return n_rows; }
bool kernels_have(enum attn_cuda_row row)
{
    for (int i = 0; i < n_rows; i++)
        if (rows[i].row == row) return true;
    return false;
}
const struct kernel_under_test *kernel_under_test(int i) { return &rows[i]; }

bool kernel_takes(const struct kernel_under_test *k, const struct attn_cuda *w)
{
    struct err e;
    struct attn_tile t;
    if (attn_tile_pick(&t, k->row, w, &e) < 0) return false;
    return k->row != ATTN_SM90 || attn_sm90_takes(w, k->variant);
}

int main(int argc, char **argv)
{
    struct cudaDeviceProp prop;
    const char *command = argc > 1 ? argv[1] : "check", *words = "";
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was seen before a time limit is seen */
    GPU(cudaGetDeviceProperties(&prop, 0));
    printf("%s, %d processors, sm_%d%d, %.0f MiB of L2\n", prop.name, prop.multiProcessorCount,
           prop.major, prop.minor, prop.l2CacheSize / 1048576.0);
    if (strncmp(argv[argc - 1], "kernel=", 7) == 0) words = argv[--argc] + 7;
    kernels_find(prop.major * 10 + prop.minor, words);
    if (strcmp(command, "check") == 0)
        return check_kernels(argc > 2 ? atoi(argv[2]) : 200, argc > 3 ? atoi(argv[3]) : 1000,
                             argc > 4 ? strtoull(argv[4], NULL, 10) : 1);
    if (strcmp(command, "musts") == 0)
        return time_musts(argc > 2 ? atof(argv[2]) : 60, argc > 3 ? argv[3] : NULL);
    if (strcmp(command, "time") == 0)
        return time_kernels(argc > 2 ? atof(argv[2]) : 120, argc > 3 ? argv[3] : NULL,
                            argc > 4 ? argv[4] : NULL, argc > 5 ? argv[5] : NULL);
    if (strcmp(command, "extras") == 0) return time_extras(argc > 2 ? atoi(argv[2]) : 32760);
    if (strcmp(command, "once") == 0) return once_kernels(argc > 2 ? atoi(argv[2]) : 8192);
    fprintf(stderr,
            "bench_kernels: no command '%s'; there are check, musts, time, extras and once\n",
            command);
    return 2;
}
