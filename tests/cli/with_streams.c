/* with_streams IN OUT ERR COMMAND...: runs the command with standard streams in the given states and
 * exits with its code. States: keep, closed, full (/dev/full), deaf (a pipe whose reader is gone),
 * slow:FILE (a pipe that does not block, read late into FILE), null, empty (a pipe without data). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reads the pipe in small pieces with pauses, so that its writer meets a full one. */
static void slow_reader(int from, const char *path)
{
    char piece[4096];
    ssize_t n;
    FILE *to = fopen(path, "wb");
    if (!to) _exit(1);
    usleep(100000);
    while ((n = read(from, piece, sizeof piece)) > 0) {
        fwrite(piece, 1, (size_t)n, to);
        usleep(200);
    }
    fclose(to);
    _exit(0);
}

/* The descriptor to put under number fd; -1: none. *reader: a child to wait for. */
static int make(const char *state, int fd, pid_t *reader)
{
    int ends[2];
    if (strcmp(state, "full") == 0) return open("/dev/full", O_RDWR);
    if (strcmp(state, "null") == 0) return open("/dev/null", O_RDWR);
    if (strcmp(state, "closed") == 0) return -1;
    if (pipe(ends) != 0) exit(99);
    if (fd == 0) { /* empty: no data, no writer; does not block */
        close(ends[1]);
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        return ends[0];
    }
    if (strncmp(state, "slow:", 5) == 0) {
        *reader = fork();
        if (*reader == 0) {
            close(ends[1]);
            slow_reader(ends[0], state + 5);
        }
        fcntl(ends[1], F_SETFL, O_WRONLY | O_NONBLOCK);
    }
    close(ends[0]); /* deaf */
    return ends[1];
}

int main(int argc, char **argv)
{
    pid_t readers[3] = {0};
    int fds[3], status;
    if (argc < 5) return 99;
    for (int i = 0; i < 3; i++)
        fds[i] = strcmp(argv[1 + i], "keep") == 0 ? i : make(argv[1 + i], i, &readers[i]);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 3; i++)
            if (fds[i] >= 0 && fds[i] <= 2 && fds[i] != i) _exit(98);
        for (int i = 0; i < 3; i++) {
            if (fds[i] < 0)
                close(i);
            else
                dup2(fds[i], i);
        }
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        execv(argv[4], argv + 4);
        _exit(97);
    }
    for (int i = 0; i < 3; i++)
        if (fds[i] > 2) close(fds[i]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    for (int i = 0; i < 3; i++)
        if (readers[i] > 0) waitpid(readers[i], NULL, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
