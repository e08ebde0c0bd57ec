/* Where the data that comes with ditgen lies: the model, the profiles, the prompts.
 *
 * Looked for in $DITGEN_ASSETS (alone when it is set), in ../share/ditgen beside the executable or
 * the shared library, and in the source tree of the build. */
#ifndef DITGEN_APP_ASSETS_H
#define DITGEN_APP_ASSETS_H

#include "model/base/err.h"

#include <stdbool.h>

#define ASSETS_MODEL "emoji" /* what runs without -m */
#define ASSETS_PATH 4096

/* path[ASSETS_PATH] ← the first place that has `name` ("emoji", "profiles/draft.ini"). ERR_INPUT
 * naming the places looked at. */
int assets_find(char *path, const char *name, struct err *e);
/* A model as people give it: a folder, or the name of one among the assets. NULL: ASSETS_MODEL. */
int assets_model(char *path, const char *dir_or_name, struct err *e);

bool path_is_dir(const char *path);
bool path_exists(const char *path);
/* The last part of a path without trailing slashes: "models/wan/" → "wan". name[n]. */
void path_last(char *name, size_t n, const char *path);

#endif
