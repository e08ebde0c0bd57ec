/* The door to files that are read: opened only when they are regular, mapped, or read whole.
 *
 * A FIFO or a device in the place of a model's file would block or answer without end, so the type
 * is looked at before anything is opened. Owner: caller. Errors: ERR_INPUT, with the path;
 * ERR_RESOURCE. Threads: any. */
#ifndef DITGEN_BASE_FILE_MAP_H
#define DITGEN_BASE_FILE_MAP_H

#include "model/base/err.h"

#include <stdbool.h>

/* A descriptor of a regular file, for reading, close-on-exec; -1: refused, saying what it is. */
int file_open(const char *path, struct err *e);

struct file_map { /* a file seen as memory, read-only */
    const unsigned char *data; /* NULL when the file is empty */
    size_t size;
    struct map_note *note; /* what file_map_at() finds */
};

int file_map_open(struct file_map *m, const char *path, struct err *e);
void file_map_close(struct file_map *m);
/* Tells the system that [offset, offset+bytes) will not be needed soon; frees page cache residency.
 */
void file_map_drop(const struct file_map *m, size_t offset, size_t bytes);
/* The path of the open map that holds this address, or NULL. For a handler of SIGBUS, which is what
 * reading a map gives where its file became shorter or its disk fails: async-signal-safe. */
const char *file_map_at(const void *address);

/* Whole small regular file, no LFS pointer, as a NUL-terminated string (the file may hold NULs: len tells; it may be
 * NULL). limit refuses larger ones. Caller frees *bytes. */
int file_read(char **bytes, size_t *len, const char *path, size_t limit, struct err *e);

/* Git LFS leaves a few lines of text where it did not fetch the file: then true, with the sentence
 * that says so in e. */
bool file_is_pointer(const char *bytes, size_t len, const char *path, struct err *e);

/* The same for files that people write: a byte order mark is taken away, and UTF-16, which it tells
 * of, becomes UTF-8. text_read_fd() reads what was opened elsewhere to its end, pipes included;
 * name is for messages. */
int text_read(char **text, size_t *len, const char *path, size_t limit, struct err *e);
int text_read_fd(char **text, size_t *len, int fd, const char *name, size_t limit, struct err *e);

#endif
