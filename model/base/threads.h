/* Many hands: one pool for the process. Who is not needed sleeps; nobody waits for a thread that has
 * not begun: the caller takes tasks too, and goes on when all are done, so that a busy machine makes
 * a run slower by what it takes away and not by waiting.
 * Threads: call from the main thread only; never from inside a task. */
#ifndef DITGEN_BASE_THREADS_H
#define DITGEN_BASE_THREADS_H

#include <stdbool.h>

/* n >= 1, the caller among them. Sets the pool's size for all that follows; threads are made when they
 * are first needed, and where the system gives fewer, those do the work. */
void threads_set(int n);
int threads_count(void);
/* Largest useful n of this machine: physical cores that this process may run on, no more than its
 * control groups pay for, and 1 where a short measured probe (10 ms where it gains, at most 100)
 * shows no gain: two "cores" of a virtual machine may be one, or busy with others' work. */
int threads_probe(void);

/* Runs fn(ctx, task, worker) for task = 0..tasks-1, handed out one by one; worker < threads_count()
 * names the thread, for scratch. A library that a task calls runs on the task's thread alone. */
void threads_run(int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx);
/* The same by `most` workers at most: for scratch that was sized when there were so many. */
void threads_run_most(int most, int tasks, void (*fn)(void *ctx, int task, int worker), void *ctx);

/* Tests: called on the caller's thread at the start of each job. NULL: nobody is. */
void threads_watch(void (*fn)(void));

/* Between true and false (they nest), work goes to OpenMP's threads instead: for a library that has
 * them do its own work, since two pools on the same cores take turns. Without OpenMP: nothing. */
void threads_as_openmp(bool on);
/* How many threads OpenMP may be asked for: n, or 1 where the system does not give so many. Its runtime
 * ends the process when it cannot make one, so they are made here first, all at once, and ended. */
int threads_for_openmp(int n);

#endif
