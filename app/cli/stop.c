/* The thread that waits for Ctrl-C; see stop.h. */
#include "app/cli/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static atomic_bool armed, asked;
static sigset_t watched;

static void *wait_for_signals(void *ctx)
{
    int number;
    (void)ctx;
    while (sigwait(&watched, &number) == 0) {
        if (atomic_load(&armed) && !atomic_exchange(&asked, true)) continue;
        signal(number, SIG_DFL);
        pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
        kill(getpid(), number); /* as if nobody had been here */
    }
    return NULL;
}

int stop_watch(struct err *e)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU};
    pthread_t thread;
    sigemptyset(&watched);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct sigaction now;
        if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(&watched, numbers[i]);
    }
    pthread_sigmask(SIG_BLOCK, &watched, NULL);
    int failed = pthread_create(&thread, NULL, wait_for_signals, NULL);
    if (failed) {
        pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
        return err_set(e, ERR_RESOURCE, "no thread to wait for Ctrl-C: %s", strerror(failed));
    }
    pthread_detach(thread);
    return 0;
}

void stop_arm(bool on) { atomic_store(&armed, on); }

bool stop_asked(void) { return atomic_load(&asked); }
