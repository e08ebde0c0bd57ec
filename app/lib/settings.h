/* What one run is asked to make: a value of each row of settings.def, from every place that may say
 * so.
 *
 * Layers: the model's defaults < profile < --config < flags; what a program calls stands above all.
 * The library's opaque handle (ditgen.h) is this. Owner: settings_open → settings_close. Threads:
 * one at a time. Errors: ERR_USAGE without file or line, which whoever read them puts in front;
 * ERR_RESOURCE. */
#ifndef DITGEN_APP_SETTINGS_H
#define DITGEN_APP_SETTINGS_H

#include "app/lib/ditgen.h"
#include "app/lib/setting.h"

#include <stdbool.h>

enum layer { LAYER_NONE, LAYER_MODEL, LAYER_PROFILE, LAYER_CONFIG, LAYER_FLAG, LAYER_CALL };

struct setting_value {
    union {
        int i; /* INT, CHOICE */
        double d;
        bool b;
        uint64_t u;
        char *text; /* owned; NULL: none */
    } is;
    char *by_size; /* "3, 5@5184", owned, until the size is known (settings_resolve) */
    enum layer from; /* LAYER_NONE: nobody said */
};

struct ditgen_settings {
    struct ditgen *model; /* whose defaults ditgen_get() tells; NULL: none */
    struct setting_value *values; /* [setting_count()] */
    struct method_value { /* an option of an attention method by its own name */
        struct setting_method of;
        char *text;
        enum layer from;
    } * methods;
    int n_methods;
    struct ditgen_settings *got; /* what ditgen_get() last told from */
    char *got_text;
};

int settings_open(struct ditgen_settings **s, struct err *e);
void settings_close(struct ditgen_settings *s); /* takes NULL */
int settings_copy(struct ditgen_settings **to, const struct ditgen_settings *from, struct err *e);

/* A lower layer never replaces a higher one, so layers may come in any order. Refuses an unknown
 * name (naming the nearest), a bad value, and a rival of the same layer (size and width, frames and
 * seconds); in LAYER_CALL the later one stands instead. */
int settings_set(struct ditgen_settings *s, enum layer layer, const char *name, const char *value,
                 struct err *e);
/* Back to what nobody said. */
int settings_unset(struct ditgen_settings *s, const char *name, struct err *e);

/* The layer that said it; LAYER_NONE: nobody. */
enum layer settings_from(const struct ditgen_settings *s, enum setting_id id);
/* Of rows of that type; a text is NULL when there is none, and borrowed until it is set anew. */
int settings_int(const struct ditgen_settings *s, enum setting_id id);
double settings_real(const struct ditgen_settings *s, enum setting_id id);
bool settings_switch(const struct ditgen_settings *s, enum setting_id id);
uint64_t settings_seed(const struct ditgen_settings *s);
const char *settings_text(const struct ditgen_settings *s, enum setting_id id);

/* The error budget's text, of resolved ones; NULL: none is set, or "none" is. */
const char *settings_budget(const struct ditgen_settings *s);
/* Whether it steers whole steps (--step-cache budget) and not attention. */
bool settings_budget_steps(const struct ditgen_settings *s);

/* A new handle in which every row has its value: the model's defaults and few-step transformer,
 * those by size, frames from seconds, options of methods inside --attention's text. note[256] tells
 * what was rounded, "" if nothing; may be NULL. Resolving again changes nothing. */
int settings_resolve(struct ditgen_settings **out, const struct ditgen_settings *s,
                     const struct ditgen *d, char *note, struct err *e);

/* One value as settings_set() reads it back. Heap; NULL with e->code 0: there is none. */
char *settings_print(const struct ditgen_settings *s, int id, struct err *e);

/* [ditgen] and one `key = value` a line, all that was used. clip: what is stored in clips, which
 * leaves out what changes no byte (threads) and gives the model by name, not by path. Heap, NULL:
 * no memory. */
char *settings_dump(const struct ditgen_settings *s, bool clip);

/* size, if it was given, becomes width and height where it stands above them. */
int settings_spread_size(struct ditgen_settings *s, struct err *e);

/* For whoever fills values without text (settings_fill.c). */
int settings_put(struct setting_value *v, const struct setting *row, const char *value,
                 struct err *e);
void settings_drop(struct setting_value *v, const struct setting *row);

#endif
