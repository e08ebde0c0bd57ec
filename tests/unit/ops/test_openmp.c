/* Small layers are opened and run without a team of OpenMP's threads, which wait by spinning: ten jobs
 * on two cores made a second of opening out of a tenth. Counts the teams that the matrix library
 * begins by standing in front of its runtime. */
#include "model/base/threads.h"
#include "model/ops/linear.h"
#include "tests/check.h"

#include <dlfcn.h>

static int teams; /* of more than one thread */

extern int omp_get_max_threads(void) __attribute__((weak));
void GOMP_parallel(void (*fn)(void *), void *data, unsigned n, unsigned flags);

void GOMP_parallel(void (*fn)(void *), void *data, unsigned n, unsigned flags)
{
    static void (*real)(void (*)(void *), void *, unsigned, unsigned);
    if (!real) *(void **)(void *)&real = dlsym(RTLD_NEXT, "GOMP_parallel");
    if (n > 1 || (n == 0 && omp_get_max_threads && omp_get_max_threads() > 1)) teams++;
    real(fn, data, n, flags);
}

/* Teams of opening a layer, and of running it with 300 rows. */
static int teams_of(int out, int in, int *running)
{
    struct err e = {0};
    struct linear *l = NULL;
    struct linear_params p = {.in = in, .out = out, .precision = PRECISION_FP32};
    float *w = calloc((size_t)in * (size_t)out, sizeof *w),
          *x = calloc((size_t)in * 300, sizeof *x), *y = calloc((size_t)out * 300, sizeof *y);
    struct tensor t = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {out, in}, .data = w};
    CHECK(w && x && y);
    teams = 0;
    CHECK_OK(linear_open(&l, &p, &t, NULL, &e));
    int opening = teams;
    CHECK_OK(linear_run(l, y, x, 300, NULL, &e));
    *running = teams - opening;
    linear_close(l);
    free(w), free(x), free(y);
    return opening;
}

int main(void)
{
    int running;
    threads_set(2);
    if (teams_of(4096, 4096, &running) == 0) {
        puts("skipped: this build's matrix library begins no teams of GNU OpenMP, or has no "
             "threads");
        return 77;
    }
    CHECK_MSG(running == 0, "%d teams", running);
    for (int side = 64; side <= 1280; side += 304) {
        int opening = teams_of(side, 320, &running);
        CHECK_MSG(opening == 0 && running == 0, "%d outputs: %d teams to open, %d to run", side,
                  opening, running);
    }
    return TEST_RESULT();
}
