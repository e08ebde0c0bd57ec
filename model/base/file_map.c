/* Mapped and read files; see file_map.h. */
#include "model/base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind(mode_t mode)
{
    return S_ISDIR(mode)    ? "a folder"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

int file_open(const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_set(e, ERR_INPUT, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INPUT, "%s: is %s, wanted a regular file", path, kind(st.st_mode));
    /* not to wait on what somebody may have put there meanwhile */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(e, errno == EMFILE || errno == ENFILE ? ERR_RESOURCE : ERR_INPUT,
                       "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_INPUT, "%s: is %s, wanted a regular file", path, kind(st.st_mode));
    }
    return fd;
}

/* ---- maps ---- */

/* One open map, for file_map_at(): a list that only grows, so that a handler may walk it. */
struct map_note {
    _Atomic(const unsigned char *) data; /* NULL: free for the next map */
    size_t size;
    char *path;
    struct map_note *next;
};
static _Atomic(struct map_note *) notes;
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;

static struct map_note *note_add(const char *path)
{
    struct map_note *n;
    char *copy = strdup(path);
    if (!copy) return NULL;
    pthread_mutex_lock(&notes_lock);
    for (n = atomic_load(&notes); n && n->path; n = n->next)
        ;
    if (n) {
        n->path = copy;
    } else if ((n = calloc(1, sizeof *n)) != NULL) {
        n->path = copy;
        n->next = atomic_load(&notes);
        atomic_store(&notes, n);
    }
    pthread_mutex_unlock(&notes_lock);
    if (!n) free(copy);
    return n;
}

static void note_remove(struct map_note *n)
{
    if (!n) return;
    atomic_store(&n->data, NULL);
    pthread_mutex_lock(&notes_lock);
    free(n->path);
    n->path = NULL;
    pthread_mutex_unlock(&notes_lock);
}

const char *file_map_at(const void *address)
{
    const unsigned char *p = address;
    for (const struct map_note *n = atomic_load(&notes); n; n = n->next) {
        const unsigned char *data = atomic_load(&n->data);
        if (data && p >= data && p < data + n->size) return n->path;
    }
    return NULL;
}

int file_map_open(struct file_map *m, const char *path, struct err *e)
{
    *m = (struct file_map){0};
    int fd = file_open(path, e);
    struct stat st;
    if (fd < 0) return -1;
    if (fstat(fd, &st) != 0) {
        int why = errno;
        close(fd);
        return err_set(e, ERR_INPUT, "%s: cannot be read: %s", path, strerror(why));
    }
    if (st.st_size > 0) {
        struct map_note *note = note_add(path);
        void *p = note ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
        if (p == MAP_FAILED) {
            int why = note ? errno : ENOMEM;
            note_remove(note);
            close(fd);
            return err_set(e, ERR_RESOURCE, "%s: cannot map %lld bytes: %s", path,
                           (long long)st.st_size, strerror(why));
        }
        m->data = p;
        m->size = (size_t)st.st_size;
        m->note = note;
        note->size = m->size;
        atomic_store(&note->data, m->data);
    }
    close(fd);
    return 0;
}

void file_map_close(struct file_map *m)
{
    note_remove(m->note);
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct file_map){0};
}

void file_map_drop(const struct file_map *m, size_t offset, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t first = (offset + page - 1) / page * page, end = (offset + bytes) / page * page;
    if (!m->data || first >= end || end > m->size) return;
    madvise((void *)(uintptr_t)(m->data + first), end - first, MADV_DONTNEED);
}

/* ---- whole files ---- */

static int read_fd(char **bytes, size_t *len, int fd, const char *name, size_t limit, struct err *e)
{
    size_t cap = 4096, n = 0;
    *bytes = NULL;
    char *buf = malloc(cap + 1);
    int why = 0;
    while (buf && n <= limit) {
        ssize_t got = read(fd, buf + n, cap - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) why = errno;
        if (got <= 0) break;
        n += (size_t)got;
        if (n < cap) continue;
        char *grown = realloc(buf, cap * 2 + 1);
        if (!grown) free(buf);
        buf = grown;
        cap *= 2;
    }
    if (!buf) return err_set(e, ERR_RESOURCE, "%s: no memory to read it", name);
    if (why || n > limit) {
        free(buf);
        if (why) return err_set(e, ERR_INPUT, "%s: cannot be read: %s", name, strerror(why));
        return err_set(e, ERR_INPUT, "%s: larger than %zu bytes, the most such a file may have",
                       name, limit);
    }
    buf[n] = 0;
    *bytes = buf;
    *len = n;
    return 0;
}

bool file_is_pointer(const char *bytes, size_t len, const char *path, struct err *e)
{
    static const char first[] = "version https://git-lfs.github.com/spec/";
    char text[512];
    size_t n = sizeof first - 1, all = len < sizeof text - 1 ? len : sizeof text - 1;
    if (len < n || len > 1024 /* the specification's own limit */ || memcmp(bytes, first, n) != 0)
        return false;
    memcpy(text, bytes, all);
    text[all] = 0;
    const char *size = strstr(text, "\nsize ");
    size = size ? size + 6 : "unknown";
    err_set(e, ERR_INPUT,
            "%s: is a Git LFS pointer to a file of %.*s bytes, not the file itself; fetch it: git "
            "lfs pull",
            path, (int)strcspn(size, "\r\n"), size);
    return true;
}

int file_read(char **bytes, size_t *len, const char *path, size_t limit, struct err *e)
{
    size_t n;
    *bytes = NULL;
    int fd = file_open(path, e);
    if (fd < 0) return -1;
    int r = read_fd(bytes, &n, fd, path, limit, e);
    close(fd);
    if (r == 0 && file_is_pointer(*bytes, n, path, e)) {
        free(*bytes);
        *bytes = NULL;
        r = -1;
    }
    if (r == 0 && len) *len = n;
    return r;
}

static uint32_t unit16(const unsigned char *u, bool little)
{
    return little ? (uint32_t)(u[0] | u[1] << 8) : (uint32_t)(u[0] << 8 | u[1]);
}

/* u[n], after its mark, as UTF-8 in a new string. A unit of 2 bytes becomes 3 at most. */
static int from_utf16(char **text, size_t *len, const unsigned char *u, size_t n, bool little,
                      const char *name, struct err *e)
{
    if (n % 2)
        return err_set(e, ERR_INPUT,
                       "%s: begins as UTF-16 and has an odd number of bytes; wanted UTF-8", name);
    unsigned char *out = malloc(n / 2 * 3 + 1), *p = out;
    if (!out) return err_set(e, ERR_RESOURCE, "%s: no memory to read it", name);
    for (size_t i = 0; i < n; i += 2) {
        uint32_t c = unit16(u + i, little), low = i + 4 <= n ? unit16(u + i + 2, little) : 0;
        if (c >= 0xD800 && c < 0xDC00 && low >= 0xDC00 && low < 0xE000) {
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            i += 2;
        } else if (c >= 0xD800 && c < 0xE000) {
            free(out);
            return err_set(e, ERR_INPUT, "%s: half of a character at byte %zu of its UTF-16", name,
                           i + 2);
        }
        if (c < 0x80) {
            *p++ = (unsigned char)c;
            continue;
        }
        int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        *p++ = (unsigned char)((0xF00u >> (more + 1) & 0xFF) | c >> (6 * more));
        while (more-- > 0)
            *p++ = (unsigned char)(0x80 | (c >> (6 * more) & 0x3F));
    }
    *p = 0;
    *text = (char *)out;
    *len = (size_t)(p - out);
    return 0;
}

int text_read_fd(char **text, size_t *len, int fd, const char *name, size_t limit, struct err *e)
{
    size_t n;
    if (read_fd(text, &n, fd, name, limit, e) < 0) return -1;
    const unsigned char *u = (const unsigned char *)*text;
    bool little = n >= 2 && u[0] == 0xFF && u[1] == 0xFE,
         big = n >= 2 && u[0] == 0xFE && u[1] == 0xFF;
    if (n >= 3 && memcmp(u, "\xEF\xBB\xBF", 3) == 0) {
        n -= 3;
        memmove(*text, *text + 3, n + 1);
    } else if (little || big) {
        char *wide = *text;
        int r = from_utf16(text, &n, u + 2, n - 2, little, name, e);
        free(wide);
        if (r < 0) {
            *text = NULL;
            return -1;
        }
    }
    if (len) *len = n;
    return 0;
}

int text_read(char **text, size_t *len, const char *path, size_t limit, struct err *e)
{
    size_t n;
    *text = NULL;
    int fd = file_open(path, e);
    if (fd < 0) return -1;
    int r = text_read_fd(text, &n, fd, path, limit, e);
    close(fd);
    if (r == 0 && file_is_pointer(*text, n, path, e)) {
        free(*text);
        *text = NULL;
        r = -1;
    }
    if (r == 0 && len) *len = n;
    return r;
}
