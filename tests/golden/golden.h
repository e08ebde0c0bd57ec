/* Reads the golden files of tests/golden/data: safetensors of our own making, so any surprise
 * aborts. For tests of rooms below model/weights or beside it; header only.
 *
 *     struct golden g = golden_open("sched.safetensors");
 *     size_t n;
 *     const float *x = golden_f32(&g, "noise.0.16", &n);
 *     golden_close(&g); */
#ifndef DITGEN_TESTS_GOLDEN_GOLDEN_H
#define DITGEN_TESTS_GOLDEN_GOLDEN_H

#include "model/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden {
    char path[1024];
    char *bytes; /* whole file */
    size_t data; /* where tensors begin */
    size_t size;
    struct json *head;
};

static inline void golden_die(const struct golden *g, const char *what)
{
    fprintf(stderr, "%s: %s\n", g->path, what);
    abort();
}

static inline struct golden golden_open(const char *name)
{
    struct golden g = {0};
    struct err e;
    snprintf(g.path, sizeof g.path, "%s/tests/golden/data/%s", TEST_SOURCE_DIR, name);
    FILE *f = fopen(g.path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) golden_die(&g, "cannot be read");
    long size = ftell(f);
    rewind(f);
    g.size = size > 0 ? (size_t)size : 0;
    g.bytes = malloc(g.size + 1);
    if (!g.bytes || fread(g.bytes, 1, g.size, f) != g.size || g.size < 8)
        golden_die(&g, "cannot be read");
    fclose(f);
    size_t len = 0;
    for (int i = 0; i < 8; i++)
        len |= (size_t)(unsigned char)g.bytes[i] << (8 * i);
    g.data = len + 8;
    if (g.data > g.size) golden_die(&g, "is cut off");
    if (json_parse(&g.head, g.bytes + 8, len, g.path, &e) < 0) golden_die(&g, e.msg);
    return g;
}

static inline void golden_close(struct golden *g)
{
    json_close(g->head);
    free(g->bytes);
    memset(g, 0, sizeof *g);
}

static inline int golden_has(const struct golden *g, const char *name)
{
    return json_get(g->head, name) != NULL;
}

/* Elements of a tensor of the dtype ("F32"); *count of them; shape (may be NULL) takes its dims. */
static inline const void *golden_find(const struct golden *g, const char *name, const char *dtype,
                                      size_t elem, size_t *count, int shape[8])
{
    const struct json *t = json_get(g->head, name);
    const char *has = json_string(json_get(t, "dtype"));
    double from, to, dim;
    if (!t || !has || strcmp(has, dtype) != 0) {
        fprintf(stderr, "%s: wanted as %s\n", name, dtype);
        golden_die(g, "tensor is missing or of another type");
    }
    const struct json *offsets = json_get(t, "data_offsets"), *dims = json_get(t, "shape");
    if (!json_number(json_at(offsets, 0), &from) || !json_number(json_at(offsets, 1), &to) ||
        to < from || g->data + (size_t)to > g->size)
        golden_die(g, "tensor lies outside the file");
    for (int i = 0; shape && i < 8 && i < json_count(dims); i++)
        shape[i] = json_number(json_at(dims, i), &dim) ? (int)dim : 0;
    *count = ((size_t)to - (size_t)from) / elem;
    return g->bytes + g->data + (size_t)from;
}

/* Borrowed; safetensors files of the reference library keep tensors aligned to their type. */
static inline const float *golden_f32(const struct golden *g, const char *name, size_t *n)
{
    return golden_find(g, name, "F32", 4, n, NULL);
}
static inline const int32_t *golden_i32(const struct golden *g, const char *name, size_t *n)
{
    return golden_find(g, name, "I32", 4, n, NULL);
}
static inline const unsigned char *golden_u8(const struct golden *g, const char *name, size_t *n)
{
    return golden_find(g, name, "U8", 1, n, NULL);
}
/* A string of __metadata__, or NULL. */
static inline const char *golden_text(const struct golden *g, const char *key)
{
    return json_string(json_get(json_get(g->head, "__metadata__"), key));
}

#endif
