/* The pool; see threads.h. A job is a counter that threads take tasks from. It is open while tasks are
 * left; a thread that comes while it is open is counted in `state` until it leaves, and the caller
 * returns when the job is closed and the count is zero. */
#include "model/base/threads.h"

#include "model/base/clock.h"
#include "model/base/cpu.h"
#include "model/base/limits.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define MAX_THREADS 1024
#define SPIN                                                                                       \
    20e-6 /* seconds a thread looks for work before it sleeps: a few times what waking costs */
#define OPEN 0x40000000 /* bit of state: tasks may be left */

static struct {
    int count; /* workers, the caller among them; 0: not set yet */
    int made, up; /* threads beside the caller; those that have begun (under lock) */
    int openmp; /* threads_as_openmp() calls that are not ended */
    void (*watch)(void); /* threads_watch() */
    /* the job */
    void (*fn)(void *ctx, int task, int worker);
    void *ctx;
    int tasks, most;
    atomic_int next; /* task */
    atomic_int state; /* OPEN, and how many threads beside the caller are inside */
    /* sleeping and waking */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    atomic_uint turn; /* number of the job */
    atomic_int sleeping; /* threads that wait for `work` */
    atomic_bool waiting; /* the caller waits for `done` */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Until *a is no longer what it was, for SPIN at most; true when it changed. */
static bool spin_unsigned(atomic_uint *a, unsigned was)
{
    double end = clock_seconds() + SPIN;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load(a) != was) return true;
            relax();
        }
    } while (clock_seconds() < end);
    return false;
}

static bool spin_empty(void)
{
    double end = clock_seconds() + SPIN;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load(&pool.state) == 0) return true;
            relax();
        }
    } while (clock_seconds() < end);
    return false;
}

static void take_tasks(int worker)
{
    for (int task; (task = atomic_fetch_add(&pool.next, 1)) < pool.tasks;)
        pool.fn(pool.ctx, task, worker);
}

/* false: there is no job, or it is closed. */
static bool enter(void)
{
    int s = atomic_load(&pool.state);
    while (s & OPEN)
        if (atomic_compare_exchange_weak(&pool.state, &s, s + 1)) return true;
    return false;
}

static void leave(void)
{
    if (atomic_fetch_sub(&pool.state, 1) != 1 || !atomic_load(&pool.waiting)) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_signal(&pool.done);
    pthread_mutex_unlock(&pool.lock);
}

static void *work(void *arg)
{
    int worker = (int)(intptr_t)arg;
#ifdef _OPENMP
    omp_set_num_threads(1); /* of this thread: what a task calls stays on it */
#endif
    pthread_mutex_lock(&pool.lock);
    pool.up++;
    pthread_cond_signal(&pool.done);
    pthread_mutex_unlock(&pool.lock);
    for (unsigned seen = 0;;) {
        if (!spin_unsigned(&pool.turn, seen)) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.sleeping, 1);
            while (atomic_load(&pool.turn) == seen)
                pthread_cond_wait(&pool.work, &pool.lock);
            atomic_fetch_sub(&pool.sleeping, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        seen = atomic_load(&pool.turn);
        if (!enter()) continue;
        if (worker < pool.most) take_tasks(worker);
        leave();
    }
    return NULL;
}

/* As many as the system gives; they end with the process. */
static void make_threads(int wanted)
{
    sigset_t all, before;
    if (pool.made >= wanted) return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the caller's */
    for (; pool.made < wanted; pool.made++) {
        pthread_t t;
        if (pthread_create(&t, NULL, work, (void *)(intptr_t)(pool.made + 1)) != 0) break;
        pthread_detach(t);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    /* once: what a thread allocates when it begins must not fall into a later job */
    pthread_mutex_lock(&pool.lock);
    while (pool.up < pool.made)
        pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

int threads_count(void)
{
    if (pool.count == 0) {
        struct cpu c;
        cpu_detect(&c);
        threads_set(c.threads);
    }
    return pool.count;
}

void threads_set(int n) { pool.count = n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n; }

static void run_alone(int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx)
{
    for (int i = 0; i < tasks; i++)
        fn(ctx, i, 0);
}

#ifdef _OPENMP
static void run_openmp(int most, int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(most)
    for (int i = 0; i < tasks; i++)
        fn(ctx, i, omp_get_thread_num());
}
#endif

static void run_pool(int most, int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx)
{
    make_threads(most - 1);
    pool.fn = fn;
    pool.ctx = ctx;
    pool.tasks = tasks;
    pool.most = most;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.state, OPEN);
    atomic_fetch_add(&pool.turn, 1);
    int wake = atomic_load(&pool.sleeping);
    if (wake > tasks - 1) wake = tasks - 1;
    if (wake > 0) {
        pthread_mutex_lock(&pool.lock);
        for (int i = 0; i < wake; i++)
            pthread_cond_signal(&pool.work);
        pthread_mutex_unlock(&pool.lock);
    }
    take_tasks(0);
    atomic_fetch_and(&pool.state, ~OPEN);
    if (spin_empty()) return;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.waiting, true);
    while (atomic_load(&pool.state) != 0)
        pthread_cond_wait(&pool.done, &pool.lock);
    atomic_store(&pool.waiting, false);
    pthread_mutex_unlock(&pool.lock);
}

void threads_run_most(int most, int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx)
{
    int n = threads_count();
    if (pool.watch) pool.watch();
    if (most > n) most = n;
    if (most > tasks) most = tasks;
#ifdef _OPENMP
    int before = omp_get_max_threads();
    if (pool.openmp && most > 1) {
        run_openmp(most, tasks, fn, ctx);
        return;
    }
    omp_set_num_threads(1); /* what a task calls stays on its thread */
#endif
    if (most > 1)
        run_pool(most, tasks, fn, ctx);
    else
        run_alone(tasks, fn, ctx);
#ifdef _OPENMP
    omp_set_num_threads(before);
#endif
}

void threads_run(int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx)
{
    threads_run_most(threads_count(), tasks, fn, ctx);
}

void threads_watch(void (*fn)(void)) { pool.watch = fn; }

void threads_as_openmp(bool on) { pool.openmp += on ? 1 : -1; }

static void *wait_for(void *lock)
{
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

int threads_for_openmp(int n)
{
    static pthread_t trial[MAX_THREADS];
    pthread_mutex_t together = PTHREAD_MUTEX_INITIALIZER;
    if (n > MAX_THREADS) n = MAX_THREADS;
    if (n < 2) return 1;
    int made = 0;
    make_threads(n - 1); /* the pool's own come first, and stay */
    pthread_mutex_lock(&together);
    while (made < n - 1 && pthread_create(&trial[made], NULL, wait_for, &together) == 0)
        made++;
    pthread_mutex_unlock(&together);
    for (int i = 0; i < made; i++)
        pthread_join(trial[i], NULL);
    pthread_mutex_destroy(&together);
    return made < n - 1 ? 1 : n;
}

/* Independent multiply-add chains that stay in registers (an array on the stack would time its
 * alignment), enough of them to fill the units of one core. */
static void burn(void *ctx, int task, int worker)
{
    float *out = ctx;
    (void)worker;
    const float m = 0.999999f, c = 1e-7f;
    float v0 = 1.0f + (float)task * 1e-6f, v1 = v0 + c, v2 = v1 + c, v3 = v2 + c, v4 = v3 + c;
    float v5 = v4 + c, v6 = v5 + c, v7 = v6 + c, v8 = v7 + c, v9 = v8 + c;
    for (int i = 0; i < 1000000; i++) {
        v0 = v0 * m + c, v1 = v1 * m + c, v2 = v2 * m + c, v3 = v3 * m + c, v4 = v4 * m + c;
        v5 = v5 * m + c, v6 = v6 * m + c, v7 = v7 * m + c, v8 = v8 * m + c, v9 = v9 * m + c;
    }
    out[task] = v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7 + v8 + v9;
}

int threads_probe(void)
{
    struct cpu c;
    cpu_detect(&c);
    double paid = limit_cpus();
    int all = c.cores, before = threads_count();
    if (paid > 0 && paid < all) all = (int)paid;
    if (all < 2) return 1;
    threads_set(all);
    float sink[256];
    int n = all > 256 ? 256 : all;
    double one = 1e9, many = 1e9;
    /* New threads often start on their maker's processor and are moved some milliseconds later, and
     * a neighbour may be at work: rounds go on until one shows the gain, 12 of about 3 ms a thread
     * at most. n tasks at once take `one` when every processor is a core, n * one when they share
     * one. A quarter gained is worth the second thread's cache. */
    for (int r = 0; r < 12; r++) {
        double t0 = clock_seconds();
        burn(sink, 0, 0);
        double t1 = clock_seconds();
        threads_run(n, burn, sink);
        double t2 = clock_seconds();
        if (t1 - t0 < one) one = t1 - t0;
        if (t2 - t1 < many) many = t2 - t1;
        if (r > 0 && (double)n * one / many >= 1.25) {
            threads_set(before);
            return all;
        }
    }
    threads_set(before);
    return 1;
}
