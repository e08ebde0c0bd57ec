/* Latents as a safetensors file (format: wan.md 8.2); see latents.h. */
#include "app/clips/latents.h"

#include "app/clips/aside.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_string(FILE *to, const char *text)
{
    fputc('"', to);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(to, "\\%c", *c);
        else if (*c < 32)
            fprintf(to, "\\u%04x", *c);
        else
            fputc(*c, to);
    }
    fputc('"', to);
}

static void put_header(FILE *to, const struct latents_file *f, size_t n)
{
    fputc('{', to);
    if (f->n_notes) fputs("\"__metadata__\":{", to);
    for (int i = 0; i < f->n_notes; i++) {
        if (i) fputc(',', to);
        put_string(to, f->notes[i].key);
        fputc(':', to);
        put_string(to, f->notes[i].text);
    }
    if (f->n_notes) fputs("},", to);
    fprintf(to, "\"latents\":{\"dtype\":\"F32\",\"shape\":[%d,%d,%d,%d],\"data_offsets\":[0,%zu]}",
            f->shape[0], f->shape[1], f->shape[2], f->shape[3], n * sizeof(float));
    size_t at = n;
    for (int i = 0; i < f->n_blocks; i++) {
        const struct latents_block *b = &f->blocks[i];
        fputc(',', to);
        put_string(to, b->name);
        fprintf(to, ":{\"dtype\":\"F32\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}", b->n,
                at * sizeof(float), (at + b->n) * sizeof(float));
        at += b->n;
    }
    fputc('}', to);
    while (ftell(to) % 8) /* as other writers align the data */
        fputc(' ', to);
}

/* Length and text of the header in one piece, heap. */
static int make_header(char **bytes, size_t *len, const struct latents_file *f, size_t n)
{
    FILE *to = open_memstream(bytes, len);
    if (!to) return -1;
    for (int i = 0; i < 8; i++)
        fputc(0, to);
    put_header(to, f, n);
    bool bad = ferror(to) != 0;
    if (fclose(to) != 0 || bad) {
        free(*bytes);
        return -1;
    }
    for (int i = 0; i < 8; i++)
        (*bytes)[i] = (char)((uint64_t)(*len - 8) >> (8 * i));
    return 0;
}

int latents_write(const struct latents_file *f, const char *path, const char *what, bool overwrite,
                  struct err *e)
{
    struct aside a = {0};
    size_t n = 1, len = 0;
    char *header = NULL;
    uint64_t written = 0;
    for (int i = 0; i < 4; i++)
        n *= (size_t)f->shape[i];
    if (make_header(&header, &len, f, n) < 0)
        return err_set(e, ERR_RESOURCE, "%s: no memory for its header", path);
    int rc = aside_open_file(&a, path, what, overwrite, e);
    if (rc == 0) rc = aside_write(a.fd, header, len, &written, path, e);
    /* little-endian, as every processor this runs on */
    if (rc == 0) rc = aside_write(a.fd, f->latents, n * sizeof(float), &written, path, e);
    for (int i = 0; rc == 0 && i < f->n_blocks; i++)
        rc = aside_write(a.fd, f->blocks[i].values, f->blocks[i].n * sizeof(float), &written, path,
                         e);
    if (rc == 0)
        rc = aside_commit(&a, e);
    else
        aside_discard(&a);
    free(header);
    return rc;
}
