/* Mapped and read files; see file_map.h. */
#include "model/base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_map_open(struct file_map *m, const char *path, struct err *e)
{
    *m = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0) return err_set(e, ERR_INPUT, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_INPUT, "%s: not a regular file", path);
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            int why = errno;
            close(fd);
            return err_set(e, ERR_RESOURCE, "%s: cannot map %lld bytes: %s", path,
                           (long long)st.st_size, strerror(why));
        }
        m->data = p;
        m->size = (size_t)st.st_size;
    }
    close(fd);
    return 0;
}

void file_map_close(struct file_map *m)
{
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

int file_read(char **text, size_t *len, const char *path, size_t limit, struct err *e)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(e, ERR_INPUT, "%s: cannot open: %s", path, strerror(errno));
    size_t cap = 4096, n = 0;
    char *buf = malloc(cap + 1);
    while (buf) {
        n += fread(buf + n, 1, cap - n, f);
        if (n < cap || n > limit) break;
        char *grown = realloc(buf, cap * 2 + 1);
        if (!grown) free(buf);
        buf = grown;
        cap *= 2;
    }
    int failed = ferror(f), why = errno;
    fclose(f);
    if (!buf) return err_set(e, ERR_RESOURCE, "%s: no memory to read it", path);
    if (failed || n > limit) {
        free(buf);
        if (failed) return err_set(e, ERR_INPUT, "%s: cannot read: %s", path, strerror(why));
        return err_set(e, ERR_INPUT, "%s: larger than %zu bytes, the most such a file may have",
                       path, limit);
    }
    buf[n] = 0;
    *text = buf;
    if (len) *len = n;
    return 0;
}
