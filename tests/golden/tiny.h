/* Random weights of tiny pipelines, the same bytes as tests/golden/tiny.py draws in Python.
 *
 * A tensor's values depend on its name alone: FNV-1a (32 bit) of the name seeds mt19937, and value
 * = (float)(mean + std * 3.4641016 * ((r32 >> 8) * 2^-24 - 0.5)) in double. Header only; for tests.
 * Failures abort with a line: a test without its inputs has nothing to say. */
#ifndef DITGEN_TESTS_GOLDEN_TINY_H
#define DITGEN_TESTS_GOLDEN_TINY_H

#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tiny_tensor {
    char name[160];
    int n_dims;
    int64_t shape[5];
    double std, mean;
};

static inline uint32_t tiny_hash(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

/* dst[0..n) of the tensor called name. */
static inline void tiny_fill(float *dst, size_t n, const char *name, double std, double mean)
{
    uint32_t st[624];
    st[0] = tiny_hash(name);
    for (uint32_t j = 1; j < 624; j++)
        st[j] = 1812433253u * (st[j - 1] ^ (st[j - 1] >> 30)) + j;
    for (size_t k = 0; k < n; k++) {
        size_t at = k % 624;
        if (at == 0) {
            for (size_t i = 0; i < 624; i++) {
                uint32_t next = st[(i + 1) % 624];
                uint32_t y = (st[i] & 0x80000000u) | (next & 0x7fffffffu);
                st[i] = st[(i + 397) % 624] ^ (y >> 1) ^ (next & 1 ? 0x9908b0dfu : 0);
            }
        }
        uint32_t y = st[at];
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c5680u;
        y ^= (y << 15) & 0xefc60000u;
        y ^= y >> 18;
        double u = (double)(y >> 8) * 0x1p-24;
        dst[k] = (float)(mean + std * 3.4641016 * (u - 0.5));
    }
}

static inline int tiny_ends(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* std and mean by name and shape: activations stay of order one, no parameter is trivial. */
static inline void tiny_scale(struct tiny_tensor *t)
{
    t->std = 0.2;
    t->mean = 0;
    if (tiny_ends(t->name, "bias")) {
        t->std = 0.1;
    } else if (tiny_ends(t->name, "gamma") || (tiny_ends(t->name, "weight") && t->n_dims == 1)) {
        t->mean = 1;
    } else if (strcmp(t->name, "shared.weight") == 0 || tiny_ends(t->name, "embed_tokens.weight")) {
        t->std = 1;
    } else if (tiny_ends(t->name, "weight") && t->n_dims >= 2) {
        double fan_in = 1;
        for (int i = 1; i < t->n_dims; i++)
            fan_in *= (double)t->shape[i];
        t->std = 1 / sqrt(fan_in);
    }
}

static inline size_t tiny_len(const struct tiny_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= (size_t)t->shape[i];
    return n;
}

static inline void tiny_die(const char *what, const char *path)
{
    perror(path);
    fprintf(stderr, "tiny: %s\n", what);
    abort();
}

/* An F32 safetensors file of n tensors, each drawn by its own name, std and mean. */
static inline void tiny_write(const char *path, const struct tiny_tensor *t, int n)
{
    size_t cap = 64 + (size_t)n * 320, len = 0, at = 0;
    char *head = malloc(cap);
    FILE *f = fopen(path, "wb");
    if (!head || !f) tiny_die("cannot write", path);
    len += (size_t)snprintf(head + len, cap - len, "{");
    for (int i = 0; i < n; i++) {
        size_t bytes = tiny_len(&t[i]) * sizeof(float);
        len += (size_t)snprintf(head + len, cap - len, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[",
                                i ? "," : "", t[i].name);
        for (int k = 0; k < t[i].n_dims; k++)
            len +=
                (size_t)snprintf(head + len, cap - len, "%s%" PRId64, k ? "," : "", t[i].shape[k]);
        len += (size_t)snprintf(head + len, cap - len, "],\"data_offsets\":[%zu,%zu]}", at,
                                at + bytes);
        at += bytes;
    }
    len += (size_t)snprintf(head + len, cap - len, "}");
    while (len % 8)
        head[len++] = ' ';
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)((uint64_t)len >> (8 * i));
    if (fwrite(size, 1, 8, f) != 8 || fwrite(head, 1, len, f) != len) tiny_die("short write", path);
    for (int i = 0; i < n; i++) {
        size_t count = tiny_len(&t[i]);
        float *x = malloc((count ? count : 1) * sizeof *x);
        if (!x) tiny_die("no memory", path);
        tiny_fill(x, count, t[i].name, t[i].std, t[i].mean);
        if (fwrite(x, sizeof *x, count, f) != count) tiny_die("short write", path);
        free(x);
    }
    if (fclose(f) != 0) tiny_die("short write", path);
    free(head);
}

/* The list that tiny.write_list() made: one line a tensor, "name d0 d1 ..."; scales by
 * tiny_scale(). Returns the count; *out is the caller's to free. */
static inline int tiny_read_list(struct tiny_tensor **out, const char *list_path)
{
    FILE *f = fopen(list_path, "r");
    if (!f) tiny_die("cannot read", list_path);
    struct tiny_tensor *t = NULL;
    int n = 0;
    char line[512];
    while (fgets(line, sizeof line, f)) {
        t = realloc(t, (size_t)(n + 1) * sizeof *t);
        if (!t) tiny_die("no memory", list_path);
        memset(&t[n], 0, sizeof t[n]);
        char *save, *word = strtok_r(line, " \n", &save);
        if (!word) continue;
        snprintf(t[n].name, sizeof t[n].name, "%s", word);
        while ((word = strtok_r(NULL, " \n", &save)) && t[n].n_dims < 5)
            t[n].shape[t[n].n_dims++] = strtoll(word, NULL, 10);
        tiny_scale(&t[n]);
        n++;
    }
    fclose(f);
    *out = t;
    return n;
}

/* list file → checkpoint. */
static inline void tiny_write_list(const char *path, const char *list_path)
{
    struct tiny_tensor *t;
    int n = tiny_read_list(&t, list_path);
    tiny_write(path, t, n);
    free(t);
}

static inline void tiny_write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, strlen(text), f) != strlen(text) || fclose(f) != 0)
        tiny_die("cannot write", path);
}

/* A new folder under $TMPDIR or /tmp; remove it with tiny_remove(). dir: at least 256 bytes. */
static inline void tiny_temp(char dir[256])
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, 256, "%s/ditgen-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(dir)) tiny_die("no temporary folder", dir);
}

static inline int tiny_remove_one(const char *path, const struct stat *st, int flag,
                                  struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void tiny_remove(const char *dir)
{
    nftw(dir, tiny_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
