/* Typed JSON reads over cJSON; see json.h. struct json is cJSON under another name. */
#include "model/base/json.h"

#include "model/base/file_map.h"
#include "model/base/vendor/cJSON.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JSON ((size_t)64 << 20) /* an index of 14B weights has 0.1 MB, a config 2 kB */

/* cJSON says of a document only that it could not be read: whether memory was the reason is noted
 * here, a thread. */
static _Thread_local bool no_memory;

static void *take(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p) no_memory = true;
    return p;
}

static void set_hooks(void) { cJSON_InitHooks(&(cJSON_Hooks){take, free}); }

static const cJSON *node(const struct json *n) { return (const cJSON *)n; }

static const struct json *wrap(const cJSON *n) { return (const struct json *)n; }

int json_parse(struct json **root, const char *text, size_t len, const char *path, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *end = NULL;
    *root = NULL;
    pthread_once(&once, set_hooks);
    no_memory = false;
    cJSON *j = cJSON_ParseWithLengthOpts(text, len, &end, 0);
    if (!j && no_memory)
        return err_set(e, ERR_RESOURCE, "%s: no memory to read its %zu bytes of JSON", path, len);
    if (!j) {
        size_t at = end && end >= text && end <= text + len ? (size_t)(end - text) : 0;
        return err_set(e, ERR_INPUT, "%s: not valid JSON, broken at byte %zu of %zu", path, at,
                       len);
    }
    for (; end < text + len; end++)
        if (!strchr(" \t\r\n", *end) || !*end) {
            cJSON_Delete(j);
            return err_set(e, ERR_INPUT, "%s: text after the JSON document at byte %zu", path,
                           (size_t)(end - text));
        }
    *root = (struct json *)j;
    return 0;
}

int json_open(struct json **root, const char *path, struct err *e)
{
    char *text;
    size_t len;
    *root = NULL;
    if (text_read(&text, &len, path, MAX_JSON, e) < 0) return -1;
    int r = json_parse(root, text, len, path, e);
    free(text);
    return r;
}

void json_close(struct json *root) { cJSON_Delete((cJSON *)root); }

const struct json *json_get(const struct json *parent, const char *key)
{
    const cJSON *found = NULL; /* of two equal keys the last counts, as in Python's json.loads */
    if (parent && cJSON_IsObject(node(parent)))
        for (const cJSON *c = node(parent)->child; c; c = c->next)
            if (strcmp(c->string, key) == 0) found = c;
    return wrap(found);
}

const struct json *json_at(const struct json *array, int index)
{
    return array && cJSON_IsArray(node(array)) && index >= 0
               ? wrap(cJSON_GetArrayItem(node(array), index))
               : NULL;
}

const struct json *json_first(const struct json *parent)
{
    return parent && (cJSON_IsArray(node(parent)) || cJSON_IsObject(node(parent)))
               ? wrap(node(parent)->child)
               : NULL;
}

const struct json *json_next(const struct json *n) { return n ? wrap(node(n)->next) : NULL; }

const char *json_key(const struct json *n) { return n ? node(n)->string : NULL; }

int json_count(const struct json *parent) { return parent ? cJSON_GetArraySize(node(parent)) : 0; }

bool json_is_null(const struct json *n) { return !n || cJSON_IsNull(node(n)); }

bool json_is_object(const struct json *n) { return n && cJSON_IsObject(node(n)); }

bool json_is_array(const struct json *n) { return n && cJSON_IsArray(node(n)); }

const char *json_string(const struct json *n)
{
    return n && cJSON_IsString(node(n)) ? node(n)->valuestring : NULL;
}

bool json_number(const struct json *n, double *v)
{
    if (!n || !cJSON_IsNumber(node(n)) || !isfinite(node(n)->valuedouble)) return false;
    *v = node(n)->valuedouble;
    return true;
}

bool json_bool(const struct json *n, bool *v)
{
    if (!n || !cJSON_IsBool(node(n))) return false;
    *v = cJSON_IsTrue(node(n));
    return true;
}

/* One value in words, for messages. */
static const char *seen(const struct json *n, char *buf, size_t size)
{
    const cJSON *j = node(n);
    if (cJSON_IsNumber(j))
        snprintf(buf, size, "%.15g", j->valuedouble);
    else if (cJSON_IsString(j))
        snprintf(buf, size, "\"%.40s\"", j->valuestring);
    else
        snprintf(buf, size, "%s",
                 cJSON_IsBool(j)     ? (cJSON_IsTrue(j) ? "true" : "false")
                 : cJSON_IsArray(j)  ? "a list"
                 : cJSON_IsObject(j) ? "an object"
                                     : "something else");
    return buf;
}

static int read_number(const struct json *n, const char *path, const char *key, double lo,
                       double hi, bool whole, double *v, struct err *e)
{
    char buf[64];
    if (!json_number(n, v) || *v < lo || *v > hi || (whole && *v != floor(*v)))
        return err_set(e, ERR_INPUT, "%s: %s is %s, wanted %s from %.15g to %.15g", path, key,
                       seen(n, buf, sizeof buf), whole ? "a whole number" : "a number", lo, hi);
    return 0;
}

int json_read_double(const struct json *o, const char *path, const char *key, double lo, double hi,
                     double fallback, double *v, struct err *e)
{
    const struct json *n = json_get(o, key);
    *v = fallback;
    return json_is_null(n) ? 0 : read_number(n, path, key, lo, hi, false, v, e);
}

int json_read_int(const struct json *o, const char *path, const char *key, int lo, int hi,
                  int fallback, int *v, struct err *e)
{
    const struct json *n = json_get(o, key);
    double d;
    *v = fallback;
    if (json_is_null(n)) return 0;
    if (read_number(n, path, key, lo, hi, true, &d, e) < 0) return -1;
    *v = (int)d;
    return 0;
}

int json_read_bool(const struct json *o, const char *path, const char *key, bool fallback, bool *v,
                   struct err *e)
{
    const struct json *n = json_get(o, key);
    char buf[64];
    *v = fallback;
    if (json_is_null(n) || json_bool(n, v)) return 0;
    return err_set(e, ERR_INPUT, "%s: %s is %s, wanted true or false", path, key,
                   seen(n, buf, sizeof buf));
}

static int read_list(const struct json *o, const char *path, const char *key, int max,
                     const struct json **list, int *n, struct err *e)
{
    char buf[64];
    *list = json_get(o, key);
    *n = -1;
    if (json_is_null(*list)) return 0;
    if (!json_is_array(*list))
        return err_set(e, ERR_INPUT, "%s: %s is %s, wanted a list of numbers", path, key,
                       seen(*list, buf, sizeof buf));
    if (json_count(*list) > max)
        return err_set(e, ERR_INPUT, "%s: %s has %d entries, at most %d are possible", path, key,
                       json_count(*list), max);
    *n = json_count(*list);
    return 0;
}

int json_read_ints(const struct json *o, const char *path, const char *key, int lo, int hi, int max,
                   int *v, int *n, struct err *e)
{
    const struct json *list;
    if (read_list(o, path, key, max, &list, n, e) < 0) return -1;
    int i = 0;
    for (const struct json *c = json_first(list); c && i < *n; c = json_next(c), i++) {
        double d;
        if (read_number(c, path, key, lo, hi, true, &d, e) < 0) return -1;
        v[i] = (int)d;
    }
    return 0;
}

int json_read_doubles(const struct json *o, const char *path, const char *key, int max, double *v,
                      int *n, struct err *e)
{
    const struct json *list;
    if (read_list(o, path, key, max, &list, n, e) < 0) return -1;
    int i = 0;
    for (const struct json *c = json_first(list); c && i < *n; c = json_next(c), i++)
        if (read_number(c, path, key, -1e30, 1e30, false, &v[i], e) < 0) return -1;
    return 0;
}

int json_read_string(const struct json *o, const char *path, const char *key, const char *fallback,
                     const char **v, struct err *e)
{
    const struct json *n = json_get(o, key);
    char buf[64];
    *v = fallback;
    if (json_is_null(n)) return 0;
    *v = json_string(n);
    if (!*v)
        return err_set(e, ERR_INPUT, "%s: %s is %s, wanted text", path, key,
                       seen(n, buf, sizeof buf));
    return 0;
}
