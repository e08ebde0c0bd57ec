/* What a C++ library throws and nobody catches: without memory one line and exit code 4, on any thread;
 * else the exception's name, and SIGABRT. */
#include "app/cli/terminate.h"
#include "model/ops/linear.h"
#include "tests/check.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

/* of C++'s runtime, where a library brings it */
static void (*throw_bad_alloc)(void), (*throw_bad_cast)(void);

static void *throw_it(void *f)
{
    (*(void (**)(void))f)();
    return NULL;
}

static int end_of(void (*f)(void), bool thread, char *said, size_t size)
{
    int ends[2], status = 0;
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        pthread_t t;
        dup2(ends[1], STDERR_FILENO);
        terminate_watch();
        if (!thread) f();
        if (pthread_create(&t, NULL, throw_it, (void *)&f) == 0) pthread_join(t, NULL);
        _exit(99);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t more; (more = read(ends[0], said + n, size - 1 - n)) > 0;)
        n += (size_t)more;
    said[n] = 0;
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

int main(void)
{
    char said[600];
    puts(ops_backend()); /* so that the matrix library is linked */
    *(void **)(void *)&throw_bad_alloc = dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv");
    *(void **)(void *)&throw_bad_cast = dlsym(RTLD_DEFAULT, "_ZSt16__throw_bad_castv");
    if (!throw_bad_alloc || !throw_bad_cast) {
        puts("skipped: no library of this build is in C++");
        return 77;
    }
    for (int thread = 0; thread < 2; thread++) {
        int status = end_of(throw_bad_alloc, thread, said, sizeof said);
        CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 4, "status %d: %s", status, said);
        CHECK_MSG(strncmp(said, "ditgen: no memory", 17) == 0 &&
                      strchr(said, '\n') == said + strlen(said) - 1,
                  "%s", said);
        status = end_of(throw_bad_cast, thread, said, sizeof said);
        CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(said, "bad_cast"),
                  "status %d: %s", status, said);
    }
    return TEST_RESULT();
}
