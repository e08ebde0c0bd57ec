/* Options as tables: one row names a flag, its place in a struct, its range, default and help. The
 * same rows parse flags and .ini keys, print --help, check bounds and feed --dump-config.
 *
 * A flag "window-tiles" is --window-tiles on the command line and window-tiles (or window_tiles) in
 * a profile. Owner: tables are constants; strings set by parse are copies owned by the struct
 * (option_free()). Errors: ERR_USAGE with the value seen and the range wanted. */
#ifndef DITGEN_BASE_OPTION_H
#define DITGEN_BASE_OPTION_H

#include "model/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum option_type {
    OPTION_INT, /* int in [lo, hi] */
    OPTION_DOUBLE, /* double in [lo, hi], finite */
    OPTION_BOOL, /* bool; a flag without value means true */
    OPTION_STRING, /* char *, heap copy or NULL */
    OPTION_ENUM, /* int index into choices, "a|b|c" */
    OPTION_U64, /* uint64_t */
};

struct option {
    const char *name; /* NULL ends a table */
    enum option_type type;
    size_t offset;
    double lo, hi, def; /* of INT, DOUBLE; def also of BOOL, ENUM */
    const char *choices; /* of ENUM; also the default text of STRING (may be NULL) */
    const char *help;
};

#define OPT_INT(st, field, name, def, lo, hi, help)                                                \
    {                                                                                              \
        name, OPTION_INT, offsetof(st, field), lo, hi, def, NULL, help                             \
    }
#define OPT_DOUBLE(st, field, name, def, lo, hi, help)                                             \
    {                                                                                              \
        name, OPTION_DOUBLE, offsetof(st, field), lo, hi, def, NULL, help                          \
    }
#define OPT_BOOL(st, field, name, def, help)                                                       \
    {                                                                                              \
        name, OPTION_BOOL, offsetof(st, field), 0, 1, def, NULL, help                              \
    }
#define OPT_STRING(st, field, name, def, help)                                                     \
    {                                                                                              \
        name, OPTION_STRING, offsetof(st, field), 0, 0, 0, def, help                               \
    }
#define OPT_ENUM(st, field, name, def, choices, help)                                              \
    {                                                                                              \
        name, OPTION_ENUM, offsetof(st, field), 0, 0, def, choices, help                           \
    }
#define OPT_U64(st, field, name, help)                                                             \
    {                                                                                              \
        name, OPTION_U64, offsetof(st, field), 0, 0, 0, NULL, help                                 \
    }
#define OPTIONS(...) ((const struct option[]){__VA_ARGS__, {NULL, 0, 0, 0, 0, 0, NULL, NULL}})

/* NULL table: nothing to do. */
int option_defaults(const struct option *table, void *s, struct err *e);
/* '-' and '_' are equal in names. NULL when there is none. */
const struct option *option_find(const struct option *table, const char *name);
/* Edits between a known name and what was written; OPTION_FAR when it is not near: more than 3, or
 * more than half of what was written. */
#define OPTION_FAR 4
int option_distance(const char *known, const char *name);
/* Nearest name, NULL when nothing is near. */
const char *option_nearest(const struct option *table, const char *name);
int option_parse(const struct option *o, void *s, const char *value, struct err *e);
/* The value as option_parse() would read it back, at most n-1 bytes; returns the length needed. */
int option_print(const struct option *o, const void *s, char *buf, size_t n);
/* The default, as text that parses; "" for a STRING without one. */
int option_default_text(const struct option *o, char *buf, size_t n);
void option_free(const struct option *table, void *s);

/* Number parsing that refuses trailing text, overflow and NaN; used by every flag and profile. */
int parse_int(const char *text, long lo, long hi, int *v); /* 0 or -1 */
int parse_double(const char *text, double lo, double hi, double *v);
int parse_u64(const char *text, uint64_t *v);
int hex_digit(char c); /* 0 to 15, or -1 */

#endif
