/* Named files and pipes; see input.h. */
#include "app/cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/base/file_map.h"

/* What is no stream to read to its end is refused before anything waits for it. */
static int check_type(const struct stat *st, const char *path, const char *wanted, struct err *e)
{
    if (S_ISREG(st->st_mode) || S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode)) return 0;
    return err_set(e, ERR_INPUT, "%s: is a %s, wanted %s", path,
                   S_ISDIR(st->st_mode) ? "folder" : "device", wanted);
}

/* For reading; a pipe waits here for its writer, as everywhere. */
static int open_once(const char *path, const char *wanted, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return err_set(e, ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    if (check_type(&st, path, wanted, e) < 0) return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(e, ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    return fd;
}

int input_text(char **text, size_t *len, const char *path, size_t limit, struct err *e)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    int fd = standard ? STDIN_FILENO : open_once(path, "a text file", e);
    *text = NULL;
    if (fd < 0) return -1;
    int rc = text_read_fd(text, len, fd, name, limit, e);
    if (!standard) close(fd);
    if (rc == 0 && strlen(*text) < *len) {
        free(*text);
        *text = NULL;
        rc = err_set(e, ERR_INPUT, "%s: holds a NUL byte: this is no text", name);
    }
    return rc;
}

/* All that comes out of fd into the unnamed file. */
static int spool(int to, int fd, const char *path, struct err *e)
{
    char block[65536];
    for (;;) {
        ssize_t n = read(fd, block, sizeof block);
        if (n == 0) return 0;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_set(e, ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
        for (ssize_t done = 0; done < n;) {
            ssize_t k = write(to, block + done, (size_t)(n - done));
            if (k < 0 && errno == EINTR) continue;
            if (k < 0)
                return err_set(e, ERR_RESOURCE, "%s: cannot be kept for reading: %s", path,
                               strerror(errno));
            done += k;
        }
    }
}

/* On the disk for temporary files, as clips may be larger than memory. */
static int unnamed_file(const char *path, struct err *e)
{
    const char *dir = getenv("TMPDIR");
    FILE *f = NULL;
    int fd = open(dir && *dir ? dir : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    if ((f = tmpfile()) != NULL) { /* a file system without unnamed files */
        fd = fcntl(fileno(f), F_DUPFD_CLOEXEC, 0);
        fclose(f);
    }
    if (fd < 0)
        err_set(e, ERR_RESOURCE, "%s: no temporary file to keep it in: %s", path, strerror(errno));
    return fd;
}

int input_open(struct input *in, const char *path, struct err *e)
{
    struct stat st;
    *in = (struct input){.path = path, .given = path, .fd = -1};
    if (stat(path, &st) < 0 || !(S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))) return 0;
    int from = open_once(path, "a file", e);
    if (from < 0) return -1;
    in->fd = unnamed_file(path, e);
    int rc = in->fd < 0 ? -1 : spool(in->fd, from, path, e);
    close(from);
    if (rc < 0) {
        input_close(in);
        return -1;
    }
    snprintf(in->name, sizeof in->name, "/proc/self/fd/%d", in->fd);
    in->path = in->name;
    return 0;
}

size_t input_head(const struct input *in, unsigned char *head, size_t n)
{
    struct stat st;
    if (stat(in->path, &st) < 0 || !S_ISREG(st.st_mode)) return 0;
    int fd = open(in->path, O_RDONLY | O_CLOEXEC);
    ssize_t k = fd < 0 ? -1 : read(fd, head, n);
    if (fd >= 0) close(fd);
    return k < 0 ? 0 : (size_t)k;
}

int input_blame(const struct input *in, struct err *e)
{
    size_t n = strlen(in->name);
    char rest[sizeof e->msg];
    if (in->fd < 0 || strncmp(e->msg, in->name, n) != 0) return -1;
    snprintf(rest, sizeof rest, "%s", e->msg + n);
    return err_set(e, e->code, "%.200s%s", in->given, rest);
}

void input_close(struct input *in)
{
    if (in->path && in->fd >= 0) close(in->fd);
    *in = (struct input){.fd = -1};
}
