/* What one run is asked to make, from every place that may say so, in one table.
 *
 * Layers: the model's defaults < profile < --config < flags. A row of the table is a flag, a key in
 * .ini files, a line of --help and a line of --dump-config. The attention methods' own options join
 * the same name space. Owner: settings_init → settings_fini. Errors: ERR_USAGE without file or
 * line, which whoever read them puts in front. */
#ifndef DITGEN_APP_SETTINGS_H
#define DITGEN_APP_SETTINGS_H

#include "app/lib/ditgen.h"
#include "attention/attention.h"
#include "model/base/option.h"

#include <stdbool.h>

enum layer { LAYER_NONE, LAYER_PROFILE, LAYER_CONFIG, LAYER_FLAG };

#define SETTINGS_MAX_ROWS 40
#define SETTINGS_MAX_METHOD_OPTIONS 32

struct method_option { /* one option of an attention method, as text */
    const struct attn_method *method;
    const struct option *option;
    char value[64];
    enum layer layer;
};

struct settings {
    /* what */
    char *prompt, *negative;
    char *size; /* "832x480": turned into width and height when set */
    int width, height, frames;
    double seconds, fps;
    uint64_t seed;
    /* how */
    int steps;
    double guidance_scale, flow_shift;
    char *solver;
    bool turbo;
    /* with what */
    char *model;
    int threads;
    int precision; /* 0 auto, 1 fp32, 2 bf16 */
    char *attention, *kernel;
    /* written how */
    char *codec, *preset, *pix_fmt;
    int crf;
    /* as whom */
    char *compat;
    bool no_ftfy, long_text;

    enum layer from[SETTINGS_MAX_ROWS]; /* of each row; LAYER_NONE: nobody said */
    struct method_option method_options[SETTINGS_MAX_METHOD_OPTIONS];
    int n_method_options;
};

struct settings_group { /* rows under one title of --help */
    const char *title;
    const struct option *options;
};
extern const struct settings_group settings_groups[]; /* the last has no title */

int settings_init(struct settings *s, struct err *e);
void settings_fini(struct settings *s);

/* '-' and '_' are equal. NULL: no such row (then perhaps a method's option). */
const struct option *settings_row(const char *key);
/* The method's option of this name, with its method. */
const struct option *settings_method_option(const char *key, const struct attn_method **method);
/* The nearest name among rows and methods' options; NULL: nothing is near. */
const char *settings_nearest(const char *key);

/* A lower layer never replaces a higher one, so layers may come in any order. Refuses an unknown
 * key (naming the nearest), a bad value, and what contradicts the same layer (size and width,
 * frames and seconds). */
int settings_set(struct settings *s, enum layer layer, const char *key, const char *value,
                 struct err *e);
/* LAYER_NONE when nobody said. */
enum layer settings_from(const struct settings *s, const char *key);

/* Fills what nobody said from the model's defaults, turns seconds into frames, draws a seed, and
 * gives the library's view in *g, which borrows from s. note[256] tells what was rounded, "" if
 * nothing. */
int settings_resolve(struct settings *s, struct ditgen *d, struct ditgen_settings *g, char *note,
                     struct err *e);

/* Reads a --compat list into g: which noise levels, whether frames are truncated. NULL: none. */
int settings_compat(struct ditgen_settings *g, const char *list, struct err *e);

/* [ditgen] and one `key = value` a line, all that was used. clip: what is stored in clips, which
 * leaves out what changes no byte (threads) and gives the model by name, not by path. Heap, NULL:
 * no memory. */
char *settings_text(const struct settings *s, bool clip);

/* "window-tiles=8 ..." of the chosen method, for the library; "" when none. buf[n]. */
int settings_method_text(const struct settings *s, char *buf, size_t n, struct err *e);

#endif
