/* --preview: the clip so far as a picture, in a file or on the terminal. The map from latents to
 * colours is kept in $XDG_CACHE_HOME/ditgen (or ~/.cache/ditgen), one file a decoder.
 *
 * Owner: preview_begin -> preview_end. Errors: ERR_USAGE, ERR_RESOURCE; a picture or a map that cannot
 * be written is a warning, once. */
#ifndef DITGEN_APP_CLI_PREVIEW_H
#define DITGEN_APP_CLI_PREVIEW_H

#include "app/cli/progress.h"
#include "app/lib/ditgen.h"

#include <stdbool.h>

struct preview_show {
    const char *to; /* FILE.png, or NULL: the terminal */
    bool iterm; /* which way of pictures the terminal has; else kitty's */
    struct progress *progress;
    struct ditgen_preview_map map;
    bool has_map, failed;
    char cache[4352]; /* "": nowhere */
};

/* What can be refused before any work. overwrite: as for all outputs. */
int preview_check(const char *to, bool overwrite, struct err *e);
void preview_begin(struct preview_show *s, const char *to, const struct ditgen *d,
                   struct progress *p);
/* For ditgen_callbacks, with a struct preview_show. */
void preview_picture(struct preview_show *s, const struct ditgen_preview *p);
void preview_keep_map(struct preview_show *s, const struct ditgen_preview_map *map);

#endif
