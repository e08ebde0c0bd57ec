/* Many hands: one pool for the process, the same one the linear algebra library uses (OpenMP), so
 * that two runtimes never spin against each other. Without OpenMP everything runs on one thread.
 * Threads: call from the main thread only; never from inside a task. */
#ifndef DITGEN_BASE_THREADS_H
#define DITGEN_BASE_THREADS_H

/* n >= 1. Sets the pool's size for all that follows. */
void threads_set(int n);
int threads_count(void);
/* Largest useful n of this machine: 1 or all, by a short measured probe (10 ms where it gains, at
 * most 100): two logical processors may be one core, where a second thread gains nothing. */
int threads_probe(void);

/* Runs fn(ctx, task, worker) for task = 0..tasks-1, handed out one by one; worker < threads_count()
 * names the thread, for scratch. A library that a task calls runs on the task's thread alone. */
void threads_run(int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx);

#endif
