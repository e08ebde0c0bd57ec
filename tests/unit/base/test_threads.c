/* The pool: every task once, workers' numbers, any size at any time, and no waiting for who never came. */
#include "model/base/clock.h"
#include "model/base/threads.h"
#include "tests/check.h"

#define TASKS 1000

struct job {
    int hits[TASKS], workers[64], most;
};

static void count(void *ctx, int task, int worker)
{
    struct job *j = ctx;
    j->hits[task]++; /* a task is one thread's */
    __atomic_fetch_add(&j->workers[worker], 1, __ATOMIC_RELAXED);
}

static void once(int threads, int most, int tasks)
{
    static struct job j;
    memset(&j, 0, sizeof j);
    threads_set(threads);
    threads_run_most(most, tasks, count, &j);
    int wrong = 0, sum = 0;
    for (int i = 0; i < TASKS; i++)
        wrong += j.hits[i] != (i < tasks);
    for (int i = 0; i < 64; i++) {
        sum += j.workers[i];
        if (i >= threads || i >= most) wrong += j.workers[i] != 0;
    }
    CHECK_MSG(wrong == 0 && sum == tasks, "%d threads, at most %d, %d tasks", threads, most, tasks);
}

/* A worker that is stopped in its first task, as by a busy system, until all others are done: only the
 * caller can do them. */
static void stopped(void *ctx, int task, int worker)
{
    int *done = ctx;
    (void)task;
    if (worker == 0) {
        struct timespec begun = {0, 200000}; /* so that the worker gets a task at all */
        nanosleep(&begun, NULL);
    } else {
        while (__atomic_load_n(done, __ATOMIC_ACQUIRE) < TASKS - 1) {
            struct timespec short_while = {0, 50000};
            nanosleep(&short_while, NULL);
        }
    }
    __atomic_fetch_add(done, 1, __ATOMIC_ACQ_REL);
    __atomic_fetch_add(&done[1 + worker], 1, __ATOMIC_RELAXED);
}

static void nothing(void *ctx, int task, int worker) { (void)ctx, (void)task, (void)worker; }

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    for (int i = 0; i < 3000; i++)
        once(rng_int(&r, 1, 9), rng_int(&r, 1, 9), rng_int(&r, 0, i % 10 ? 12 : TASKS));
    int done[3] = {0}; /* tasks done; by the caller; by the worker */
    threads_set(2);
    threads_run(TASKS, stopped, done);
    CHECK_MSG(done[0] == TASKS && done[2] <= 1, "%d tasks, %d of a worker that was stopped",
              done[0], done[2]);
    /* empty jobs cost what handing out costs: with eight threads on any machine, loaded or not, far
     * below the milliseconds that a barrier takes which waits for each of them to be scheduled */
    threads_set(8);
    double best = 1e9;
    for (int k = 0; k < 5; k++) {
        double begin = clock_seconds();
        for (int i = 0; i < 1000; i++)
            threads_run(8, nothing, NULL);
        double each = (clock_seconds() - begin) / 1000;
        if (each < best) best = each;
    }
    printf("an empty job of 8 tasks: %.1f us\n", 1e6 * best);
    CHECK_MSG(best < 2e-3, "%.0f us", 1e6 * best);
    return TEST_RESULT();
}
