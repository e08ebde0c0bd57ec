/* The state of descriptors 0, 1 and 2; see streams.h. */
#include "app/cli/streams.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Something under number fd on which the wanted direction fails with EBADF, as on a closed one. */
static void occupy(int fd)
{
    int got = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (got < 0) got = open("/", O_RDONLY); /* no /dev here */
    if (got < 0 || got == fd) return;
    dup2(got, fd);
    close(got);
}

/* A pipe or terminal that does not block is opened again as one that does: the flag belongs to the
 * open file, which the caller's other programs share, so it is not changed there. */
static void block(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_NONBLOCK) || fstat(fd, &st) != 0) return;
    if (S_ISSOCK(st.st_mode)) { /* has one owner a side, and cannot be opened by name */
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
        return;
    }
    if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode)) return;
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    /* not blocking at first: an open of a pipe without reader would wait for one */
    int again = open(name, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY);
    if (again < 0) return;
    fcntl(again, F_SETFL, flags & ~O_NONBLOCK);
    dup2(again, fd);
    close(again);
}

void streams_prepare(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) occupy(fd);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        block(fd);
}

int streams_finish(struct err *e)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    bool before = ferror(stdout) != 0; /* then errno is of something else by now */
    if (fflush(stdout) == 0 && !before) return 0;
    if (!before && errno == EBADF) return err_set(e, ERR_RESOURCE, "standard output is closed");
    if (before ? poll(&out, 1, 0) == 1 && (out.revents & POLLERR) : errno == EPIPE)
        return err_set(e, ERR_RESOURCE, "standard output: the program reading it went away");
    return err_set(e, ERR_RESOURCE, "standard output cannot be written%s%s", before ? "" : ": ",
                   before ? "" : strerror(errno));
}
