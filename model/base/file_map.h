/* A file seen as memory, read-only. Owner: caller. Errors: ERR_INPUT, with the path. */
#ifndef DITGEN_BASE_FILE_MAP_H
#define DITGEN_BASE_FILE_MAP_H

#include "model/base/err.h"

struct file_map {
    const unsigned char *data; /* NULL when the file is empty */
    size_t size;
};

int file_map_open(struct file_map *m, const char *path, struct err *e);
void file_map_close(struct file_map *m);
/* Tells the system that [offset, offset+bytes) will not be needed soon; frees page cache residency.
 */
void file_map_drop(const struct file_map *m, size_t offset, size_t bytes);
/* Whole small file as a NUL-terminated string (the file may hold NULs: len tells). limit refuses
 * larger ones. Caller frees *text. */
int file_read(char **text, size_t *len, const char *path, size_t limit, struct err *e);

#endif
