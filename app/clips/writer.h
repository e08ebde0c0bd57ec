/* Frames → files and back: plug-ins behind one door. One file and one line in writers.def each.
 *
 * Frames arrive in order as 8-bit RGB. Nothing appears under the final name before writer_close()
 * succeeds: writers write aside (same folder) and rename; writer_abort() leaves nothing behind. The
 * one exception: when the name was taken by somebody else meanwhile and overwrite is off, the
 * finished clip is kept under a free name, which the error tells. Output is bit-exact for equal
 * input: no dates, paths or library versions.
 *
 * Owner: writer_open → writer_close or writer_abort. Threads: one at a time; a writer to "-"
 * ignores SIGPIPE while it is open.
 *
 * Errors, with the path: ERR_USAGE (suffix, codec, pixel format, a file that exists), ERR_RESOURCE
 * (disk full, folder missing or not writable, the reader of a pipe gone), ERR_INPUT (a clip that
 * cannot be read). */
#ifndef DITGEN_APP_WRITERS_WRITER_H
#define DITGEN_APP_WRITERS_WRITER_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct writer_params {
    /* "-": y4m to standard output; "dir/" (frame_%04d.png) or "dir/f_%04d.png": PNG frames,
     * numbered from 1 as ffmpeg does, with settings.ini beside them */
    const char *path;
    int width, height, frames;
    int fps_num, fps_den; /* frames per second as a fraction */
    const char *codec, *preset, *pix_fmt; /* NULL: the container's default */
    int crf; /* -1: default */
    const char *settings; /* the .ini text that every clip carries, or NULL */
    bool overwrite;
};

struct clip;
struct writer_kind { /* plug-in */
    const char *name, *summary;
    const char *suffixes; /* "mp4 mov webm", separated by blanks; empty: by path form only */
    size_t state_size; /* zeroed before open */
    bool encodes; /* codec, preset, pix_fmt and crf mean something to it */
    /* Path forms beyond suffixes ("-", "dir/"); NULL: none. */
    bool (*takes)(const char *path);
    /* What can be refused before any work. */
    int (*check)(const struct writer_params *p, struct err *e);
    /* p and its strings outlive the state. After a failed open nothing else is called: open cleans
     * up. */
    int (*open)(void *state, const struct writer_params *p, struct err *e);
    int (*frame)(void *state, const uint8_t *rgb, struct err *e); /* [H, W, 3] */
    int (*close)(void *state, struct err *e); /* finishes and renames; cleans up also on failure */
    void (*abort)(void *state); /* removes what was written aside */
    /* Who will not play what was asked for, as a sentence, or ""; NULL: everybody who reads the kind
     * does. */
    void (*note)(char *text, size_t size, const struct writer_params *p);
    /* Reading back: is it ours, by path form or first bytes (n may be 0 for a folder); then read.
     */
    bool (*reads)(const char *path, const uint8_t *head, size_t n);
    int (*read)(struct clip *c, const char *path, bool want_frames, struct err *e);
};
int writer_kind_count(void);
const struct writer_kind *writer_kind_at(int i);

/* Which kind writes this path; ERR_USAGE listing the valid suffixes of this build. */
const struct writer_kind *writer_kind_for(const char *path, struct err *e);
/* Everything that can be refused before any work: suffix, codec, an existing file without
 * overwrite, a folder that is missing or not writable. */
int writer_check(const struct writer_params *p, struct err *e);

/* After a check: a warning for people, or "". */
void writer_note(char *text, size_t size, const struct writer_params *p);

struct writer;
int writer_open(struct writer **w, const struct writer_params *p, struct err *e);
/* Other settings for the clip to carry, before the first frame and not into a pipe. A file that has
 * come to stand at the path since writer_open() is found by writer_close(), as else. On failure *w is
 * as it was. */
int writer_carry(struct writer **w, const char *settings, struct err *e);
int writer_frame(struct writer *w, const uint8_t *rgb, struct err *e);
int writer_close(struct writer *w, struct err *e); /* frees w also on failure; NULL is fine */
void writer_abort(struct writer *w); /* takes NULL */

/* Reading back: for compare, rerun and tests. path: clip, PNG folder or pattern, one PNG, y4m. */
struct clip {
    int width, height, frames;
    int fps_num, fps_den; /* 0, 0: unknown (PNG) */
    char pix_fmt[32], codec[32];
    uint8_t *rgb; /* [frames, H, W, 3]; NULL when only the settings were asked for */
    char *settings; /* heap, NULL: none */
};
/* Hostile files are bounded: CLIP_MAX_SIDE a side, CLIP_MAX_FRAMES, CLIP_MAX_BYTES of frames. */
#define CLIP_MAX_SIDE 16384
#define CLIP_MAX_FRAMES 100000
#define CLIP_MAX_BYTES ((size_t)4 << 30)
#define CLIP_MAX_SETTINGS ((size_t)16 << 20) /* two prompts of 1 MiB, escaped, and the rest */
int clip_read(struct clip *c, const char *path, bool want_frames, struct err *e);
void clip_fini(struct clip *c);

#endif
