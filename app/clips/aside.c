/* Making aside, putting in place, and sweeping up after the dead; see aside.h. */
#include "app/clips/aside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* On a part that is finished and could get no other name: the sweep leaves it alone. */
#define KEPT S_ISVTX

static int no_memory(struct err *e, const char *path)
{
    return err_set(e, ERR_RESOURCE, "%s: no memory for its name", path);
}

/* Parts under way, for aside_abandon(); more than a run ever has. */
static struct under_way {
    int dir;
    bool used, folder;
    char part[64];
} parts[16];

static void note_part(const struct aside *a)
{
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].used) continue;
        parts[i] = (struct under_way){.dir = a->dir, .used = true, .folder = a->folder};
        snprintf(parts[i].part, sizeof parts[i].part, "%s", a->part);
        return;
    }
}

void aside_abandon(void)
{
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (!parts[i].used) continue;
        if (parts[i].folder)
            aside_remove_folder(parts[i].dir, parts[i].part);
        else
            unlinkat(parts[i].dir, parts[i].part, 0);
    }
}

void aside_forget(struct aside *a)
{
    if (a->part) {
        for (size_t i = 0; i < ARRAY_LEN(parts); i++)
            if (parts[i].used && parts[i].dir == a->dir && strcmp(parts[i].part, a->part) == 0)
                parts[i].used = false;
        if (a->fd >= 0) close(a->fd);
        close(a->dir);
    }
    free(a->part);
    free(a->path);
    memset(a, 0, sizeof *a);
}

/* ---- sweeping ---- */

int aside_remove_folder(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (fd >= 0 && !d) close(fd);
    for (struct dirent *f; d && (f = readdir(d)) != NULL;)
        if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0)
            unlinkat(dirfd(d), f->d_name, 0);
    if (d) closedir(d);
    return unlinkat(dir, name, AT_REMOVEDIR);
}

/* ".ditgen-PID-N.part" */
static bool is_part(const char *name)
{
    static const char first[] = ".ditgen-";
    if (strncmp(name, first, sizeof first - 1) != 0) return false;
    const char *p = name + sizeof first - 1;
    size_t pid = strspn(p, "0123456789");
    if (!pid || p[pid] != '-') return false;
    p += pid + 1;
    size_t n = strspn(p, "0123456789");
    return n && strcmp(p + n, ".part") == 0;
}

static void sweep_one(int dir, const char *name)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return;
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & KEPT) &&
        (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        if (S_ISDIR(st.st_mode))
            aside_remove_folder(dir, name);
        else
            unlinkat(dir, name, 0);
    }
    close(fd);
}

void aside_sweep(int dir)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (fd >= 0 && !d) close(fd);
    for (struct dirent *f; d && (f = readdir(d)) != NULL;)
        if (is_part(f->d_name)) sweep_one(dir, f->d_name);
    if (d) closedir(d);
}

/* ---- opening ---- */

/* The part itself, locked; -1 with errno, EEXIST: try another name. */
static int make_part(const struct aside *a)
{
    struct stat st;
    int fd;
    if (a->folder) {
        if (mkdirat(a->dir, a->part, 0777) < 0) return -1;
        fd = openat(a->dir, a->part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } else {
        fd = openat(a->dir, a->part, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0666);
    }
    if (fd < 0) {
        if (a->folder && errno == ENOENT) errno = EEXIST; /* swept */
        return -1;
    }
    /* between creation and lock another run may have swept it; a file system without locks has no
     * sweeping either */
    bool swept = flock(fd, LOCK_EX | LOCK_NB) < 0 && (errno == EWOULDBLOCK || errno == EINTR);
    if (!swept && fstat(fd, &st) == 0 && st.st_nlink > 0) return fd;
    close(fd);
    errno = EEXIST;
    return -1;
}

static int open_part(struct aside *a, const char *in, struct err *e)
{
    a->dir = open(in, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (a->dir < 0 && errno == EACCES) a->dir = open(in, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (a->dir < 0)
        return err_set(e, ERR_RESOURCE, "%s: its folder %s cannot be used (%s)", a->path, in,
                       strerror(errno));
    aside_sweep(a->dir);
    for (int i = 0; i < 1000; i++) {
        char name[64];
        snprintf(name, sizeof name, ".ditgen-%ld-%d.part", (long)getpid(), i);
        a->part = strdup(name);
        if (!a->part) break;
        a->fd = make_part(a);
        if (a->fd >= 0) {
            note_part(a);
            return 0;
        }
        int number = errno;
        free(a->part);
        a->part = NULL;
        if (number == EEXIST) continue;
        close(a->dir);
        return err_set(e, ERR_RESOURCE, "%s: cannot create a %s in %s (%s)", a->path,
                       a->folder ? "folder" : "file", in, strerror(number));
    }
    close(a->dir);
    return err_set(e, ERR_RESOURCE, "%s: no name in %s is free for the part under way", a->path,
                   in);
}

static int open_aside(struct aside *a, const char *path, char *in, struct err *e)
{
    int rc = -1;
    a->path = strdup(path);
    if (a->path && in)
        rc = open_part(a, in, e);
    else
        no_memory(e, path);
    free(in);
    if (rc < 0) aside_forget(a);
    return rc;
}

int aside_open_file(struct aside *a, const char *path, const char *what, bool overwrite,
                    struct err *e)
{
    *a = (struct aside){.what = what, .overwrite = overwrite};
    return open_aside(a, path, path_folder(path), e);
}

int aside_open_folder(struct aside *a, const char *path, const char *what, bool inside,
                      bool overwrite, struct err *e)
{
    *a = (struct aside){.what = what, .overwrite = overwrite, .folder = true};
    return open_aside(a, path, inside ? strdup(path) : path_folder(path), e);
}

/* ---- putting in place ---- */

int aside_rename(int from_dir, const char *from, int to_dir, const char *to, bool overwrite)
{
    struct stat st;
    if (overwrite) return renameat(from_dir, from, to_dir, to);
    if (renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    /* a file system without the flag: a link does not replace either; for the rest look, then
     * rename */
    if (linkat(from_dir, from, to_dir, to, 0) == 0) return unlinkat(from_dir, from, 0);
    if (errno == EEXIST) return -1;
    if (fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return renameat(from_dir, from, to_dir, to);
}

int aside_keep(struct aside *a, const char *base, struct err *e)
{
    const char *name = path_name(base), *dot = strrchr(name, '.');
    int stem = (int)(dot && dot != name ? dot - name : (ptrdiff_t)strlen(name)), rc = -1;
    char other[300];
    for (int i = 1; i < 10000 && rc < 0; i++) {
        int n = snprintf(other, sizeof other, "%.*s-%d%s", stem, name, i, name + stem);
        if (n >= (int)sizeof other) break;
        rc = aside_rename(a->dir, a->part, a->dir, other, false);
        if (rc < 0 && errno != EEXIST && errno != ENOTEMPTY) break;
    }
    if (rc < 0) { /* it stays where it is */
        struct stat st;
        if (fstat(a->fd, &st) == 0) fchmod(a->fd, (st.st_mode & 07777) | KEPT);
        snprintf(other, sizeof other, "%s", a->part);
    }
    char text[sizeof e->msg];
    memcpy(text, e->msg, sizeof text);
    err_set(e, e->code, "%.280s; %s kept as %.*s%s", text, a->what, (int)(name - base), base,
            other);
    aside_forget(a);
    return -1;
}

int aside_commit(struct aside *a, struct err *e)
{
    struct stat st = {0};
    /* EINVAL, EROFS: a file system that does not flush; what was written is all there is to say */
    if (!a->folder && fsync(a->fd) < 0 && errno != EINVAL && errno != EROFS) {
        int number = errno;
        fstat(a->fd, &st);
        aside_failed(a->path, number, (uint64_t)st.st_size, e);
        aside_discard(a);
        return -1;
    }
    if (aside_rename(a->dir, a->part, a->dir, path_name(a->path), a->overwrite) == 0) {
        aside_forget(a);
        return 0;
    }
    if (errno == EEXIST || errno == ENOTEMPTY)
        err_set(e, ERR_RESOURCE, "%s appeared meanwhile", a->path);
    else
        err_set(e, ERR_RESOURCE, "%s: this name cannot be given (%s)", a->path, strerror(errno));
    char *base = strdup(a->path);
    int rc = aside_keep(a, base ? base : "clip", e);
    free(base);
    return rc;
}

void aside_discard(struct aside *a)
{
    if (a->part && a->folder)
        aside_remove_folder(a->dir, a->part);
    else if (a->part)
        unlinkat(a->dir, a->part, 0);
    aside_forget(a);
}
