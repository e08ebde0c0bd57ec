/* What the files of model/weights share: one checkpoint in memory. */
#ifndef DITGEN_WEIGHTS_INTERNAL_H
#define DITGEN_WEIGHTS_INTERNAL_H

#include "model/base/file_map.h"
#include "model/weights/weights.h"

struct entry {
    char *name; /* heap */
    struct tensor t;
    size_t begin, end; /* in the data part of its file */
    int file;
    bool used;
};

struct shard {
    char *path;
    struct file_map map;
    size_t data; /* offset of the data part */
};

struct weights {
    char *path; /* the file, or the index */
    struct shard *shards;
    int n_shards;
    struct entry *entries; /* sorted by name once open */
    int n_entries, cap_entries;
    struct json *metadata; /* header of the first file; NULL without __metadata__ */
};

#endif
