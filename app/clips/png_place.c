/* Finished frames into a folder that has others, so that a kill at any moment leaves no mixture of
 * two clips; see png.h.
 *
 * The folder aside becomes ".ditgen-PID-N.ready" (one rename: from here on the new clip is whole and
 * nothing removes it). While it holds OLD, the pattern of the names, the frames that it replaces are
 * removed; then OLD goes, and the new ones move in, settings last. Each state tells what is left to
 * do, and doing it twice does no harm. */
#include "app/clips/png.h"

#include "app/clips/aside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define OLD ".replaces"

static DIR *open_folder(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (fd >= 0 && !d) close(fd);
    return d;
}

/* Frames of the clip before. -1 with errno. */
static int remove_old(int dir, const struct png_name *n)
{
    DIR *d = open_folder(dir, ".");
    int rc = d ? 0 : -1;
    for (struct dirent *f; rc == 0 && (f = readdir(d)) != NULL;)
        if (png_name_index(n, f->d_name) >= 0 || strcmp(f->d_name, PNG_SETTINGS) == 0)
            rc = unlinkat(dir, f->d_name, 0);
    if (d) closedir(d);
    return rc;
}

static int move_in(int dir, int ready)
{
    DIR *d = open_folder(ready, ".");
    int rc = d ? 0 : -1;
    for (struct dirent *f; rc == 0 && (f = readdir(d)) != NULL;)
        if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0 &&
            strcmp(f->d_name, PNG_SETTINGS) != 0)
            rc = renameat(ready, f->d_name, dir, f->d_name);
    if (d) closedir(d);
    if (rc == 0 && renameat(ready, PNG_SETTINGS, dir, PNG_SETTINGS) < 0 && errno != ENOENT) rc = -1;
    return rc;
}

/* ready: the folder's descriptor, locked; name: what it is called in dir. -1 with errno. */
static int finish(int dir, int ready, const char *name)
{
    char pattern[512];
    int fd = openat(ready, OLD, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        struct png_name n;
        struct err ignored;
        ssize_t len = read(fd, pattern, sizeof pattern - 1);
        close(fd);
        pattern[len > 0 ? len : 0] = 0;
        if (png_name_parse(&n, pattern, &ignored) < 0) {
            errno = EINVAL;
            return -1;
        }
        int rc = remove_old(dir, &n);
        png_name_fini(&n);
        if (rc < 0 || unlinkat(ready, OLD, 0) < 0) return -1;
    } else if (errno != ENOENT) {
        return -1;
    }
    if (move_in(dir, ready) < 0) return -1;
    return unlinkat(dir, name, AT_REMOVEDIR);
}

/* The name's form as png_name_parse() reads it. */
static int note_pattern(int part, const struct png_name *n)
{
    char text[1200];
    size_t len = 0;
    const char *const ends[2] = {n->prefix, n->suffix};
    for (int i = 0; i < 2; i++) {
        for (const char *p = ends[i]; *p; p++) {
            if (*p == '%') text[len++] = '%';
            text[len++] = *p;
        }
        if (i) break;
        len += (size_t)snprintf(text + len, 8, n->digits > 1 ? "%%0%dd" : "%%d", n->digits);
    }
    int fd = openat(part, OLD, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) return -1;
    int rc = write(fd, text, len) == (ssize_t)len ? 0 : -1;
    if (rc == 0 && fsync(fd) < 0 && errno != EINVAL && errno != EROFS) rc = -1;
    close(fd);
    return rc;
}

/* Does f on each folder that was made ready, with its descriptor, locked; -1 there: somebody is at
 * it. False: f was false for one. */
static bool each_ready(int in, bool (*f)(int dir, int ready, const char *name))
{
    DIR *d = open_folder(in, ".");
    bool all = true;
    for (struct dirent *at; d && (at = readdir(d)) != NULL;) {
        size_t n = strlen(at->d_name);
        if (strncmp(at->d_name, ".ditgen-", 8) != 0 || n < 6 ||
            strcmp(at->d_name + n - 6, ".ready") != 0)
            continue;
        int fd = openat(in, at->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || !f(in, fd, at->d_name)) all = false;
        if (fd >= 0) close(fd);
    }
    if (d) closedir(d);
    return all;
}

static bool settle_one(int dir, int ready, const char *name)
{
    return finish(dir, ready, name) == 0;
}

/* Of an older clip that could not be finished; the new one replaces it. */
static bool drop_one(int dir, int ready, const char *name)
{
    (void)ready;
    return aside_remove_folder(dir, name) == 0;
}

int png_place(struct aside *a, const struct png_name *n, struct err *e)
{
    char ready[64], base[300];
    int stem = (int)(strrchr(a->part, '.') - a->part);
    snprintf(ready, sizeof ready, "%.*s.ready", stem, a->part);
    if ((a->overwrite && note_pattern(a->fd, n) < 0) ||
        aside_rename(a->dir, a->part, a->dir, ready, false) < 0) {
        unlinkat(a->fd, OLD, 0);
        err_set(e, ERR_RESOURCE, "%s: the frames cannot be put in place (%s)", n->folder,
                strerror(errno));
        snprintf(base, sizeof base, "%.280s/frames", n->folder);
        return aside_keep(a, base, e);
    }
    int rc = finish(a->dir, a->fd, ready);
    if (rc == 0 && a->overwrite) each_ready(a->dir, drop_one);
    if (rc < 0)
        err_set(e, ERR_RESOURCE,
                "%s: not all frames can be put in place (%s); those that are not lie in %s/%s",
                n->folder, strerror(errno), n->folder, ready);
    aside_forget(a);
    return rc;
}

bool png_settle(const char *folder)
{
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return true; /* whoever reads it says why */
    bool settled = each_ready(dir, settle_one);
    close(dir);
    return settled;
}
