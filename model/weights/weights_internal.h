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

struct json;

#define MAX_SHARDS 1000

struct weights_place {
    char path[4608];
    bool index; /* a table of shards, not the tensors themselves */
};
/* The one file of dir that holds the weights called stem; ERR_INPUT when there is none, or when
 * variants leave it open which. */
int weights_locate(struct weights_place *p, const char *dir, const char *stem, struct err *e);
/* The files that an index's weight_map names, borrowed, each once; all in the index's own folder. */
int weights_index_files(const char *files[MAX_SHARDS], int *n, const struct json *map,
                        const char *path, struct err *e);

#endif
