/* Names, checks and small files; see output.h. */
#include "app/cli/output.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/lib/assets.h"

#define SLUG 48 /* letters of the prompt in a file name */

/* "A big shark, left!" → "a-big-shark-left"; ends at a word when there is more. */
static void slug(char *to, size_t n, const char *prompt)
{
    size_t len = 0, word = 0;
    const unsigned char *p = (const unsigned char *)prompt;
    for (; *p && len + 1 < n; p++) {
        if (*p < 128 && isalnum(*p)) {
            to[len++] = (char)tolower(*p);
        } else if (*p != '\'' && len && to[len - 1] != '-') {
            word = len;
            to[len++] = '-';
        }
    }
    if (*p && isalnum(*p) && word) len = word; /* cut inside a word */
    while (len && to[len - 1] == '-')
        len--;
    to[len] = 0;
    if (!len) snprintf(to, n, "clip");
}

void output_name(char *name, size_t n, const char *prompt, uint64_t seed, const char *suffix)
{
    char words[SLUG + 1];
    struct err ignored;
    slug(words, sizeof words, prompt);
    if (!suffix) suffix = writer_kind_for("x.mp4", &ignored) ? "mp4" : "y4m";
    snprintf(name, n, "%s-%llu.%s", words, (unsigned long long)seed, suffix);
    for (int i = 2; path_exists(name); i++)
        snprintf(name, n, "%s-%llu-%d.%s", words, (unsigned long long)seed, i, suffix);
}

void output_fps(double fps, int *num, int *den)
{
    if (fabs(fps * 1.001 - round(fps)) < 0.005 &&
        fabs(fps - round(fps)) > 1e-9) { /* 23.976, 29.97, 59.94 */
        *num = (int)lrint(round(fps)) * 1000, *den = 1001;
        return;
    }
    for (*den = 1; *den < 1000; (*den)++)
        if (fabs(fps * *den - round(fps * *den)) < 1e-6) break;
    *num = (int)lrint(fps * *den);
}

void output_params(struct writer_params *p, const struct settings *s, const char *path,
                   const char *text, bool overwrite)
{
    *p = (struct writer_params){.path = path,
                                .width = s->width,
                                .height = s->height,
                                .frames = s->frames,
                                .codec = s->codec,
                                .preset = s->preset,
                                .pix_fmt = s->pix_fmt,
                                .crf = s->crf,
                                .settings = text,
                                .overwrite = overwrite};
    output_fps(s->fps, &p->fps_num, &p->fps_den);
}

int output_check(const char *path, bool overwrite, struct err *e)
{
    char dir[ASSETS_PATH];
    if (strcmp(path, "-") == 0) return 0;
    if (path_is_dir(path)) return err_set(e, ERR_USAGE, "%s: is a folder, wanted a file", path);
    if (path_exists(path) && !overwrite)
        return err_set(e, ERR_USAGE, "%s exists; -y replaces it", path);
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".");
    if (!path_is_dir(dir)) return err_set(e, ERR_RESOURCE, "%s: there is no folder %s", path, dir);
    if (access(dir, W_OK) != 0)
        return err_set(e, ERR_RESOURCE, "%s: cannot be created: %s", path, strerror(errno));
    return 0;
}

/* Opens path.part; the name goes to aside[ASSETS_PATH]. */
static FILE *open_aside(char *aside, const char *path, bool overwrite, struct err *e)
{
    if (output_check(path, overwrite, e) < 0) return NULL;
    int n = snprintf(aside, ASSETS_PATH, "%s.part", path);
    FILE *f = n < ASSETS_PATH ? fopen(aside, "wb") : NULL;
    if (!f) err_set(e, ERR_RESOURCE, "%s: cannot be created: %s", path, strerror(errno));
    return f;
}

static int close_aside(FILE *f, const char *aside, const char *path, struct err *e)
{
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0) bad = true;
    if (!bad && rename(aside, path) == 0) return 0;
    err_set(e, ERR_RESOURCE, "%s: cannot be written: %s", path, strerror(errno));
    unlink(aside);
    return -1;
}

int output_text(const char *path, const char *text, bool overwrite, struct err *e)
{
    char aside[ASSETS_PATH];
    if (strcmp(path, "-") == 0) {
        if (fputs(text, stdout) < 0 || fflush(stdout) != 0)
            return err_set(e, ERR_RESOURCE, "standard output: %s", strerror(errno));
        return 0;
    }
    FILE *f = open_aside(aside, path, overwrite, e);
    if (!f) return -1;
    fputs(text, f);
    return close_aside(f, aside, path, e);
}

int output_latents(const char *path, const float *latents, const int shape[4], bool overwrite,
                   struct err *e)
{
    char aside[ASSETS_PATH], header[200];
    size_t n = (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3];
    int len = snprintf(
        header, sizeof header,
        "{\"latents\":{\"dtype\":\"F32\",\"shape\":[%d,%d,%d,%d],\"data_offsets\":[0,%zu]}}",
        shape[0], shape[1], shape[2], shape[3], n * sizeof(float));
    while (len % 8)
        header[len++] = ' '; /* as other writers align the data */
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)((uint64_t)len >> (8 * i));
    FILE *f = open_aside(aside, path, overwrite, e);
    if (!f) return -1;
    fwrite(size, 1, sizeof size, f);
    fwrite(header, 1, (size_t)len, f);
    fwrite(latents, sizeof(float), n, f); /* little-endian, as every processor this runs on */
    return close_aside(f, aside, path, e);
}
