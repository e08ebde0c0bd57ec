/* Where a clip goes: a name when nobody gave one, the checks before any work, and the frames' way
 * into a writer. Errors: as writer.h. */
#ifndef DITGEN_APP_OUTPUT_H
#define DITGEN_APP_OUTPUT_H

#include "app/lib/settings.h"
#include "app/clips/writer.h"

/* "a-rocket-flies-up-42.mp4", or ...-42-2.mp4 when that is taken. suffix "mp4" or NULL: mp4 when
 * this build writes it, else y4m. name[n]. */
void output_name(char *name, size_t n, const char *prompt, uint64_t seed, const char *suffix);

/* Frames per second as a fraction: 16 → 16/1, 29.97 → 30000/1001, 12.5 → 25/2. */
void output_fps(double fps, int *num, int *den);

/* path and settings text are borrowed. */
void output_params(struct writer_params *p, const struct ditgen_settings *s, const char *path,
                   const char *text, bool overwrite);

/* latents [shape] as a safetensors file with one tensor "latents", and the settings of its clip. */
int output_latents(const char *path, const float *latents, const int shape[4], const char *settings,
                   bool overwrite, struct err *e);
/* text under the name, written aside and renamed; "-" is standard output. */
int output_text(const char *path, const char *text, bool overwrite, struct err *e);
/* Refuses an existing file without overwrite, and a folder that is not there. */
int output_check(const char *path, bool overwrite, struct err *e);

#endif
