/* PNG pictures and the names of numbered frames: what the PNG writer and reader share. */
#ifndef DITGEN_APP_WRITERS_PNG_H
#define DITGEN_APP_WRITERS_PNG_H

#include "app/clips/writer.h"

#define PNG_MAX_FILE ((size_t)256 << 20)
#define PNG_MAX_PIXELS ((int64_t)64 << 20)
#define PNG_SETTINGS "settings.ini"

/* --- pictures (stb.c): 0, or -1 when the data is no PNG within the bounds -----------------------
 */
/* *rgb [H, W, 3] is the caller's to free(). */
int png_decode(uint8_t **rgb, int *width, int *height, const uint8_t *data, size_t size);
int png_size(int *width, int *height, const uint8_t *data, size_t size);
/* Calls sink once with the file. */
int png_encode(void (*sink)(void *ctx, void *data, int size), void *ctx, const uint8_t *rgb,
               int width, int height);

/* --- names (png_name.c) -------------------------------------------------------------------------
 */
struct png_name { /* folder/prefixNUMBERsuffix */
    char *folder;
    char prefix[256], suffix[256];
    int digits; /* at least so many, zeros in front */
};
/* "dir/" or "dir/name_%04d.png": one %d or %0Nd (N 1 to 9) in the last part of the path, "%%" for a
 * percent sign; the text never meets printf(). ERR_USAGE. */
int png_name_parse(struct png_name *n, const char *path, struct err *e);
void png_name_fini(struct png_name *n);
bool png_name_is(const char *path); /* does the path have one of the two forms? */
void png_name_at(const struct png_name *n, int index, char *name, size_t size); /* without folder */
/* The number in a file's name, or -1 when it is not one of these names. */
int png_name_index(const struct png_name *n, const char *name);

/* --- putting frames in place (png_place.c) ------------------------------------------------------- */
struct aside;
/* The finished frames of a (a folder within n->folder) replace those of that name and the settings.
 * From here on the clip is whole under the name ".ditgen-PID-N.ready": a process that is killed
 * midway leaves some frames of one clip, never of two, and png_settle() brings the rest. Frees a. */
int png_place(struct aside *a, const struct png_name *n, struct err *e);
/* Finishes what killed processes began to put in place. False: something is still under way. */
bool png_settle(const char *folder);

bool png_reads(const char *path, const uint8_t *head, size_t n);
int png_read(struct clip *c, const char *path, bool want_frames, struct err *e);

#endif
