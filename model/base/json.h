/* JSON configs: typed reads that name the file and key when they fail. A thin door to cJSON.
 *
 * Reads what Python's json.dumps writes, too: NaN, Infinity and -Infinity (numbers that
 * json_number() refuses), integers of any length, "\u0000" (kept as C0 80, so that a string does
 * not end there), lone surrogates (kept as three bytes that are no UTF-8: whoever wants UTF-8 of a
 * string asks utf8_valid()), a byte order mark in front. Of equal keys the last counts.
 *
 * Owner: json_open() → json_close(); nodes and strings live as long as the document.
 * Errors: ERR_INPUT, or ERR_RESOURCE when memory ran out. Hostile input: depth and size are
 * bounded.
 */
#ifndef DITGEN_BASE_JSON_H
#define DITGEN_BASE_JSON_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct json; /* a node; the root owns the document */

/* path is used in messages only for json_parse(). */
int json_open(struct json **root, const char *path, struct err *e);
int json_parse(struct json **root, const char *text, size_t len, const char *path, struct err *e);
void json_close(struct json *root); /* takes NULL */

/* NULL when absent (or when parent is no object/array). */
const struct json *json_get(const struct json *parent, const char *key);
const struct json *json_at(const struct json *array, int index); /* O(index) */
const struct json *json_first(const struct json *parent); /* children of object or array */
const struct json *json_next(const struct json *node);
const char *json_key(const struct json *node); /* NULL for array items */
int json_count(const struct json *parent);
bool json_is_null(const struct json *n);
bool json_is_object(const struct json *n);
bool json_is_array(const struct json *n);
const char *json_string(const struct json *n); /* NULL when it is no string */
bool json_number(const struct json *n, double *v); /* false when it is no finite number */
bool json_bool(const struct json *n, bool *v);

/* Reads of one key; absent or null → fallback. A value of the wrong type or out of [lo, hi] is an
 * error that says "path: key is SEEN, wanted WANTED". path as given to open. */
int json_read_int(const struct json *o, const char *path, const char *key, int lo, int hi,
                  int fallback, int *v, struct err *e);
int json_read_double(const struct json *o, const char *path, const char *key, double lo, double hi,
                     double fallback, double *v, struct err *e);
int json_read_bool(const struct json *o, const char *path, const char *key, bool fallback, bool *v,
                   struct err *e);
/* Fills up to max ints/doubles; *n is the count. Absent or null → *n = -1. */
int json_read_ints(const struct json *o, const char *path, const char *key, int lo, int hi, int max,
                   int *v, int *n, struct err *e);
int json_read_doubles(const struct json *o, const char *path, const char *key, int max, double *v,
                      int *n, struct err *e);
/* v is borrowed from the document. */
int json_read_string(const struct json *o, const char *path, const char *key, const char *fallback,
                     const char **v, struct err *e);

#endif
