/* A mapped file that becomes shorter: one line and exit code 3, on the thread that reads it. */
#include "app/cli/bus.h"
#include "model/base/file_map.h"
#include "tests/check.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void *touch(void *at) { return (void *)(uintptr_t) * (const volatile unsigned char *)at; }

static int end_of(char *said, size_t size)
{
    char path[] = "/tmp/ditgen-bus-XXXXXX", bytes[8192] = {0};
    int fd = mkstemp(path), ends[2], status = 0;
    CHECK(fd >= 0 && pipe(ends) == 0 && write(fd, bytes, sizeof bytes) == sizeof bytes);
    pid_t child = fork();
    if (child == 0) {
        struct file_map m;
        struct err e;
        pthread_t t;
        dup2(ends[1], STDERR_FILENO);
        bus_watch();
        if (file_map_open(&m, path, &e) < 0 || truncate(path, 0) != 0) _exit(99);
        pthread_create(&t, NULL, touch, (void *)(uintptr_t)(m.data + 5000));
        pthread_join(t, NULL);
        _exit(98);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], said, size - 1);
    said[n > 0 ? n : 0] = 0;
    for (ssize_t more; n > 0 && (more = read(ends[0], said + n, size - 1 - (size_t)n)) > 0;
         n += more)
        said[n + more] = 0;
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_MSG(strstr(said, path) && strstr(said, "shorter"), "%s", said);
    close(fd);
    unlink(path);
    return status;
}

int main(void)
{
    char said[600];
    int status = end_of(said, sizeof said);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 3, "status %d: %s", status, said);
    CHECK(strncmp(said, "ditgen: ", 8) == 0 && strchr(said, '\n') == said + strlen(said) - 1);
    return TEST_RESULT();
}
