/* Checks before writing, whole writes, and the sentences for what goes wrong; see aside.h. */
#include "app/clips/aside.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *path_join(const char *folder, const char *name)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t len = n + strlen(name) + 2;
    char *p = malloc(len);
    if (p)
        snprintf(p, len, "%.*s%s%s", (int)n, folder, n == 1 && folder[0] == '/' ? "" : "/", name);
    return p;
}

char *path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    while (slash > path && slash[-1] == '/')
        slash--;
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

const char *path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int aside_failed(const char *path, int number, uint64_t written, struct err *e)
{
    switch (number) {
    case ENOSPC:
        return err_set(e, ERR_RESOURCE,
                       "%s: disk full after %" PRIu64
                       " bytes; free some space or write elsewhere (-o)",
                       path, written);
    case EDQUOT:
        return err_set(e, ERR_RESOURCE,
                       "%s: disk quota reached after %" PRIu64 " bytes; write elsewhere (-o)", path,
                       written);
    case EFBIG:
        return err_set(e, ERR_RESOURCE,
                       "%s: after %" PRIu64
                       " bytes the file is as large as the limit (ulimit -f) or the disk allows",
                       path, written);
    case EPIPE:
        return err_set(e, ERR_RESOURCE,
                       "%s: the program reading it went away after %" PRIu64 " bytes", path,
                       written);
    default:
        return err_set(e, ERR_RESOURCE, "%s: cannot write (%s) after %" PRIu64 " bytes", path,
                       strerror(number), written);
    }
}

int aside_write(int fd, const void *data, size_t n, uint64_t *written, const char *path,
                struct err *e)
{
    const char *p = data;
    while (n > 0) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            if (poll(&ready, 1, -1) < 0 && errno != EINTR)
                return aside_failed(path, errno, *written, e);
            continue;
        }
        if (done <= 0) return aside_failed(path, done < 0 ? errno : ENOSPC, *written, e);
        p += done;
        n -= (size_t)done;
        *written += (uint64_t)done;
    }
    return 0;
}

int aside_check_folder(const char *path, struct err *e)
{
    char *folder = path_folder(path);
    if (!folder) return err_set(e, ERR_RESOURCE, "%s: no memory for its name", path);
    struct stat st;
    int rc = 0;
    if (stat(folder, &st) < 0)
        rc = err_set(e, ERR_RESOURCE, "%s: its folder %s cannot be used (%s); make it first", path,
                     folder, strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        rc = err_set(e, ERR_RESOURCE, "%s: %s is not a folder", path, folder);
    else if (access(folder, W_OK | X_OK) < 0)
        rc = err_set(e, ERR_RESOURCE, "%s: its folder %s is not writable (%s)", path, folder,
                     strerror(errno));
    free(folder);
    return rc;
}

int aside_check_file(const char *path, bool overwrite, struct err *e)
{
    if (strlen(path_name(path)) > 255)
        return err_set(e, ERR_USAGE, "%.60s...: the file name has more than 255 bytes", path);
    struct stat st;
    bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return err_set(e, ERR_USAGE, "%s is a folder; for PNG frames inside it write %s/", path,
                           path);
        if (!overwrite) return err_set(e, ERR_USAGE, "%s exists; -y overwrites it", path);
        if (!S_ISREG(st.st_mode))
            return err_set(e, ERR_USAGE, "%s is not a plain file; for a pipe use -o -", path);
    } else if (link && !overwrite) {
        return err_set(e, ERR_USAGE, "%s exists, as a link to nowhere; -y replaces it", path);
    }
    return aside_check_folder(path, e);
}

int aside_write_file(const char *path, const char *what, bool overwrite, const void *data, size_t n,
                     struct err *e)
{
    struct aside a = {0};
    uint64_t written = 0;
    if (aside_open_file(&a, path, what, overwrite, e) < 0) return -1;
    if (aside_write(a.fd, data, n, &written, path, e) < 0) {
        aside_discard(&a);
        return -1;
    }
    return aside_commit(&a, e);
}
