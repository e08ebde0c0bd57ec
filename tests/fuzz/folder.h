/* A folder of files for targets that read by path: in memory where the system has /dev/shm, made
 * once, removed at exit. */
#ifndef DITGEN_TESTS_FUZZ_FOLDER_H
#define DITGEN_TESTS_FUZZ_FOLDER_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static inline int folder_unlink(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void folder_remove(void) { nftw(folder, folder_unlink, 8, FTW_DEPTH | FTW_PHYS); }

/* True the first time, when the rest of the folder is to be made. */
static inline int folder_begin(void)
{
    if (folder[0]) return 0;
    snprintf(folder, sizeof folder, "%s/ditgen-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder)) abort();
    atexit(folder_remove);
    return 1;
}

static inline void folder_put(const char *name, const void *bytes, size_t n)
{
    char path[320];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) abort();
}

/* The input up to its first NUL byte, and what follows that. */
struct halves {
    const uint8_t *first, *rest;
    size_t n_first, n_rest;
};
static inline struct halves halves_of(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    return (struct halves){data, nul ? nul + 1 : data + n, n, nul ? size - n - 1 : 0};
}

#endif
