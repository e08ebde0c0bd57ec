/* Writing aside and renaming; see aside.h. */
#include "app/clips/aside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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

static int no_memory(struct err *e, const char *path)
{
    return err_set(e, ERR_RESOURCE, "%s: no memory for its name", path);
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
    if (!folder) return no_memory(e, path);
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
    const char *slash = strrchr(path, '/');
    if (strlen(slash ? slash + 1 : path) > 255)
        return err_set(e, ERR_USAGE, "%.60s...: the file name has more than 255 bytes", path);
    struct stat st;
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return err_set(e, ERR_USAGE, "%s is a folder; for PNG frames inside it write %s/", path,
                           path);
        if (!overwrite) return err_set(e, ERR_USAGE, "%s exists; -y overwrites it", path);
        if (!S_ISREG(st.st_mode))
            return err_set(e, ERR_USAGE, "%s is not a plain file; for a pipe use -o -", path);
    }
    return aside_check_folder(path, e);
}

/* The folder in which to make something aside: the folder of path, or path itself. */
static int open_part(struct aside *a, int *fd, const char *folder, const char *path, bool overwrite,
                     struct err *e)
{
    memset(a, 0, sizeof *a);
    a->overwrite = overwrite;
    a->path = strdup(path);
    if (!a->path) return no_memory(e, path);
    for (int i = 0; i < 1000; i++) {
        char name[64];
        snprintf(name, sizeof name, ".ditgen-%ld-%d.part", (long)getpid(), i);
        char *part = path_join(folder, name);
        if (!part) {
            no_memory(e, path);
            goto fail;
        }
        int rc = fd ? open(part, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666) : mkdir(part, 0777);
        if (rc >= 0) {
            if (fd) *fd = rc;
            a->part = part;
            return 0;
        }
        int number = errno;
        free(part);
        if (number == EEXIST) continue;
        err_set(e, ERR_RESOURCE, "%s: cannot create a file in %s (%s)", path, folder,
                strerror(number));
        goto fail;
    }
    err_set(e, ERR_RESOURCE, "%s: %s is full of left-over .ditgen-*.part files; remove them", path,
            folder);
fail:
    free(a->path);
    memset(a, 0, sizeof *a);
    return -1;
}

int aside_open_file(struct aside *a, int *fd, const char *path, bool overwrite, struct err *e)
{
    char *folder = path_folder(path);
    if (!folder) return no_memory(e, path);
    int rc = open_part(a, fd, folder, path, overwrite, e);
    free(folder);
    return rc;
}

int aside_open_folder(struct aside *a, const char *path, bool inside, bool overwrite, struct err *e)
{
    char *folder = inside ? strdup(path) : path_folder(path);
    if (!folder) return no_memory(e, path);
    int rc = open_part(a, NULL, folder, path, overwrite, e);
    free(folder);
    return rc;
}

int aside_rename(const char *from, const char *to, bool overwrite)
{
    if (overwrite) return rename(from, to);
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    /* a file system without the flag: look, then rename */
    if (access(to, F_OK) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

int aside_keep(struct aside *a, const char *taken, const char *base, struct err *e)
{
    const char *slash = strrchr(base, '/'), *name = slash ? slash + 1 : base;
    const char *dot = strrchr(name, '.');
    size_t stem = dot && dot != name ? (size_t)(dot - base) : strlen(base), len = strlen(base) + 16;
    char *other = malloc(len);
    int rc = -1;
    for (int i = 1; other && i < 10000 && rc < 0; i++) {
        snprintf(other, len, "%.*s-%d%s", (int)stem, base, i, base + stem);
        rc = aside_rename(a->part, other, false);
        if (rc < 0 && errno != EEXIST && errno != ENOTEMPTY) break;
    }
    if (rc == 0) {
        err_set(e, ERR_RESOURCE, "%s appeared while the clip was made; the clip is kept as %s",
                taken, other);
        free(a->part);
        a->part = NULL;
    } else {
        err_set(e, ERR_RESOURCE, "%s appeared while the clip was made", taken);
    }
    free(other);
    aside_discard(a);
    return -1;
}

static int commit(struct aside *a, struct err *e)
{
    int rc = aside_rename(a->part, a->path, a->overwrite);
    if (rc < 0 && !a->overwrite && (errno == EEXIST || errno == ENOTEMPTY)) {
        char *base = strdup(a->path);
        rc = base ? aside_keep(a, base, base, e) : no_memory(e, a->path);
        free(base);
        return rc;
    }
    if (rc < 0) {
        err_set(e, ERR_RESOURCE, "%s: cannot give the finished clip its name (%s)", a->path,
                strerror(errno));
    } else {
        free(a->part);
        a->part = NULL;
    }
    aside_discard(a);
    return rc;
}

int aside_sync(const char *part, const char *path, struct err *e)
{
    int fd = open(part, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return aside_failed(path, errno, 0, e);
    /* EINVAL, EROFS: a file system that does not flush; what was written is all there is to say */
    int rc = fsync(fd) < 0 && errno != EINVAL && errno != EROFS ? errno : 0;
    struct stat st = {0};
    if (rc) fstat(fd, &st);
    close(fd);
    return rc ? aside_failed(path, rc, (uint64_t)st.st_size, e) : 0;
}

int aside_commit_file(struct aside *a, struct err *e)
{
    if (aside_sync(a->part, a->path, e) < 0) {
        aside_discard(a);
        return -1;
    }
    return commit(a, e);
}

int aside_commit_folder(struct aside *a, struct err *e) { return commit(a, e); }

void aside_discard(struct aside *a)
{
    if (a->part && unlink(a->part) < 0) {
        DIR *d = opendir(a->part);
        for (struct dirent *f; d && (f = readdir(d)) != NULL;)
            if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0)
                unlinkat(dirfd(d), f->d_name, 0);
        if (d) closedir(d);
        rmdir(a->part);
    }
    free(a->part);
    free(a->path);
    memset(a, 0, sizeof *a);
}
