/* A file or folder written aside: nothing under the final name until it is whole. What every output
 * of the command goes through: clips, latents, states, settings.
 *
 * Made in the folder of the final name as ".ditgen-PID-N.part", exclusively and through no link;
 * from then on by descriptors, so that a folder which is renamed meanwhile takes the file along.
 * The descriptor holds a lock (flock): a part without one was left by a process that is no more, and
 * the next aside_open_*() in that folder removes it.
 *
 * What is finished is never thrown away: when the last rename fails, the part gets the first free
 * name beside ("clip-1.mp4"), or stays where it is, and the error says which.
 * Owner: aside_open_* -> aside_commit or aside_discard. Errors: ERR_RESOURCE, ERR_USAGE. */
#ifndef DITGEN_APP_CLIPS_ASIDE_H
#define DITGEN_APP_CLIPS_ASIDE_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aside {
    char *path; /* final name, as the user wrote it; a folder without the trailing slashes */
    char *part; /* the name meanwhile, in dir; NULL: not open, and no other member counts */
    const char *what; /* for messages: "clip", "latents" */
    int dir, fd; /* the folder it lies in; the file (read and write) or folder itself */
    bool overwrite, folder;
};

/* Folder of path: there, a folder, writable. */
int aside_check_folder(const char *path, struct err *e);
/* A regular file may be written at path: folder fine, nothing there, or overwrite of a plain file or
 * link. */
int aside_check_file(const char *path, bool overwrite, struct err *e);

/* what: see struct aside; static storage. The file is empty and its descriptor is a->fd. */
int aside_open_file(struct aside *a, const char *path, const char *what, bool overwrite,
                    struct err *e);
/* A folder of files. inside: made within the existing folder `path`; else beside it. */
int aside_open_folder(struct aside *a, const char *path, const char *what, bool inside,
                      bool overwrite, struct err *e);
/* Flushes a file to the disk (where late "disk full" shows) and renames. Frees a, also on failure;
 * when it fails after the flush, e says under which name the thing is kept. */
int aside_commit(struct aside *a, struct err *e);
/* Keeps the finished thing under the first free name "base-N" (before the suffix) of its folder, or
 * as it is. e holds why; the name is added. Frees a, returns -1. */
int aside_keep(struct aside *a, const char *base, struct err *e);
/* Removes file or folder (with the files in it) and frees a. Takes what was never opened. */
void aside_discard(struct aside *a);

/* Removes all parts under way, where the process has to end now and their owners cannot. */
void aside_abandon(void);

/* Frees a and leaves what is on the disk. */
void aside_forget(struct aside *a);

/* Renames within or between folders, replacing only with overwrite; errno EEXIST otherwise. */
int aside_rename(int from_dir, const char *from, int to_dir, const char *to, bool overwrite);
/* Removes what killed processes left in the folder. Whoever is alive holds a lock on theirs. */
void aside_sweep(int dir);
/* Removes a folder of plain files; 0, or -1 with errno. */
int aside_remove_folder(int dir, const char *name);

/* A whole file at once; aside_check_file() is the caller's. */
int aside_write_file(const char *path, const char *what, bool overwrite, const void *data, size_t n,
                     struct err *e);

/* Writes all of n bytes, also to a descriptor that does not block; *written counts what arrived,
 * over calls. "path: disk full after N bytes". */
int aside_write(int fd, const void *data, size_t n, uint64_t *written, const char *path,
                struct err *e);
/* The sentence for errno `number` while writing path. */
int aside_failed(const char *path, int number, uint64_t written, struct err *e);

/* "a/b" of folder and name; NULL without memory. */
char *path_join(const char *folder, const char *name);
/* Folder of a path: "." when it has none. Caller frees. */
char *path_folder(const char *path);
const char *path_name(const char *path); /* its last part */

#endif
