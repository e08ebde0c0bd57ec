/* A file written aside: nothing under the final name until it is whole.
 *
 * Created in the folder of the final name, as ".ditgen-PID-N.part", then renamed. Implementers of
 * writers only. Owner: aside_open_* → aside_commit_* or aside_discard. Errors: see writer.h. */
#ifndef DITGEN_APP_WRITERS_ASIDE_H
#define DITGEN_APP_WRITERS_ASIDE_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct aside {
    char *path; /* final name, as the user wrote it; a folder without the trailing slashes */
    char *part; /* the name meanwhile; NULL: not open */
    bool overwrite;
};

/* Folder of path: there, a folder, writable. */
int aside_check_folder(const char *path, struct err *e);
/* A regular file may be written at path: folder fine, nothing there, or overwrite of a plain file.
 */
int aside_check_file(const char *path, bool overwrite, struct err *e);

/* Creates the empty file and returns its descriptor in *fd; the caller closes it. */
int aside_open_file(struct aside *a, int *fd, const char *path, bool overwrite, struct err *e);
/* Flushes to the disk (where late "disk full" shows) and renames. Frees a, also on failure. */
int aside_commit_file(struct aside *a, struct err *e);

/* A folder of files. inside: made within the existing folder `path`; else beside it. */
int aside_open_folder(struct aside *a, const char *path, bool inside, bool overwrite,
                      struct err *e);
/* Renames the folder itself (not for inside). Frees a, also on failure. */
int aside_commit_folder(struct aside *a, struct err *e);
/* Somebody else took the final name: hours of work go under the first free name "base-N" (before
 * the suffix). Fills e with a sentence that says so, frees a, returns -1. */
int aside_keep(struct aside *a, const char *taken, const char *base, struct err *e);
/* Renames from → to, replacing only with overwrite; errno EEXIST otherwise. 0 or -1 with errno. */
int aside_rename(const char *from, const char *to, bool overwrite);
/* Removes file or folder (with the files in it) and frees a. Takes what was never opened. */
void aside_discard(struct aside *a);

/* Writes all of n bytes; *written counts what arrived, over calls. "path: disk full after N bytes".
 */
int aside_write(int fd, const void *data, size_t n, uint64_t *written, const char *path,
                struct err *e);
/* The sentence for errno `number` while writing path. */
int aside_failed(const char *path, int number, uint64_t written, struct err *e);
int aside_sync(const char *part, const char *path, struct err *e);

/* "a/b" of folder and name; NULL without memory. */
char *path_join(const char *folder, const char *name);
/* Folder of a path: "." when it has none. Caller frees. */
char *path_folder(const char *path);

#endif
