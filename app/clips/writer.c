/* The list of writers and the calls that check what every writer needs checked; see writer.h. */
#include "app/clips/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WRITER(w) extern const struct writer_kind writer_##w;
#include "app/clips/writers.def"
#undef WRITER
#define WRITER(w) &writer_##w,
static const struct writer_kind *const kinds[] = {
#include "app/clips/writers.def"
};
#undef WRITER

/* What libav would write, for the message of a build without it. */
static const char LIBAV_SUFFIXES[] = "mp4 mov webm";

int writer_kind_count(void) { return (int)ARRAY_LEN(kinds); }

const struct writer_kind *writer_kind_at(int i)
{
    return i >= 0 && i < writer_kind_count() ? kinds[i] : NULL;
}

/* Is suffix one of the words of list? Letters of either case. */
static bool listed(const char *list, const char *suffix)
{
    size_t n = strlen(suffix);
    for (const char *w = list; n > 0 && *w;) {
        size_t len = strcspn(w, " ");
        if (len == n && strncasecmp(w, suffix, n) == 0) return true;
        w += len;
        w += strspn(w, " ");
    }
    return false;
}

/* "" when there is none. */
static const char *suffix_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return dot && dot != base ? dot + 1 : "";
}

const struct writer_kind *writer_kind_for(const char *path, struct err *e)
{
    const char *suffix = suffix_of(path);
    char valid[160] = "";
    size_t len = 0;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i]->takes && kinds[i]->takes(path)) return kinds[i];
        if (listed(kinds[i]->suffixes, suffix)) return kinds[i];
        for (const char *w = kinds[i]->suffixes; *w && len < sizeof valid;) {
            size_t n = strcspn(w, " ");
            len += (size_t)snprintf(valid + len, sizeof valid - len, "%s.%.*s", len ? " " : "",
                                    (int)n, w);
            w += n;
            w += strspn(w, " ");
        }
    }
    static const char forms[] =
        "PNG frames as dir/ or dir/f_%04d.png, and y4m to - (standard output)";
    if (!path[0])
        err_set(e, ERR_USAGE, "the output name is empty; this build writes %s, %s", valid, forms);
    else if (strcasecmp(suffix, "png") == 0)
        err_set(e, ERR_USAGE,
                "%s names one picture; PNG frames need a number in the name (f_%%04d.png) or a "
                "folder (frames/)",
                path);
    else if (!suffix[0])
        err_set(e, ERR_USAGE, "%s has no suffix to tell what to write; this build writes %s, %s",
                path, valid, forms);
    else if (listed(LIBAV_SUFFIXES, suffix))
        err_set(e, ERR_USAGE,
                "%s: .%s needs FFmpeg's libav, which this build was made without; it writes %s, "
                "%s",
                path, suffix, valid, forms);
    else
        err_set(e, ERR_USAGE, "%s: unknown suffix .%s; this build writes %s, %s", path, suffix,
                valid, forms);
    return NULL;
}

int writer_check(const struct writer_params *p, struct err *e)
{
    const struct writer_kind *k = writer_kind_for(p->path, e);
    if (!k) return -1;
    if (p->width < 1 || p->height < 1 || p->width > CLIP_MAX_SIDE || p->height > CLIP_MAX_SIDE)
        return err_set(e, ERR_USAGE, "%s: size %dx%d, wanted 1 to %d a side", p->path, p->width,
                       p->height, CLIP_MAX_SIDE);
    if (p->frames < 1 || p->frames > CLIP_MAX_FRAMES)
        return err_set(e, ERR_USAGE, "%s: %d frames, wanted 1 to %d", p->path, p->frames,
                       CLIP_MAX_FRAMES);
    if (p->fps_num < 1 || p->fps_den < 1 || p->fps_num / p->fps_den > 1000)
        return err_set(e, ERR_USAGE,
                       "%s: %d/%d frames per second, wanted more than 0, at most 1000", p->path,
                       p->fps_num, p->fps_den);
    if (p->settings && strlen(p->settings) > CLIP_MAX_SETTINGS)
        return err_set(e, ERR_USAGE, "%s: settings of %zu bytes, a clip carries at most %zu",
                       p->path, strlen(p->settings), CLIP_MAX_SETTINGS);
    return k->check(p, e);
}

void writer_note(char *text, size_t size, const struct writer_params *p)
{
    struct err ignored;
    const struct writer_kind *k = writer_kind_for(p->path, &ignored);
    text[0] = 0;
    if (k && k->note) k->note(text, size, p);
}

struct writer {
    const struct writer_kind *kind;
    struct writer_params p; /* strings are ours */
    int frames; /* seen so far */
    _Alignas(max_align_t) unsigned char state[];
};

static void writer_free(struct writer *w)
{
    if (!w) return;
    const char *const strings[] = {w->p.path, w->p.codec, w->p.preset, w->p.pix_fmt, w->p.settings};
    for (size_t i = 0; i < ARRAY_LEN(strings); i++)
        free((char *)strings[i]);
    free(w);
}

/* False when there is no memory. */
static bool copy_string(const char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

static int open_writer(struct writer **out, const struct writer_params *p, struct err *e)
{
    const struct writer_kind *k = writer_kind_for(p->path, e);
    struct writer *w = calloc(1, sizeof *w + k->state_size);
    if (!w) goto no_memory;
    w->kind = k;
    w->p = *p;
    w->p.path = w->p.codec = w->p.preset = w->p.pix_fmt = w->p.settings = NULL;
    if (!copy_string(&w->p.path, p->path) || !copy_string(&w->p.codec, p->codec) ||
        !copy_string(&w->p.preset, p->preset) || !copy_string(&w->p.pix_fmt, p->pix_fmt) ||
        !copy_string(&w->p.settings, p->settings))
        goto no_memory;
    if (k->open(w->state, &w->p, e) < 0) {
        writer_free(w);
        return -1;
    }
    *out = w;
    return 0;
no_memory:
    writer_free(w);
    return err_set(e, ERR_RESOURCE, "%s: no memory for its writer", p->path);
}

int writer_open(struct writer **out, const struct writer_params *p, struct err *e)
{
    *out = NULL;
    return writer_check(p, e) < 0 ? -1 : open_writer(out, p, e);
}

int writer_carry(struct writer **w, const char *settings, struct err *e)
{
    struct writer *old = *w, *anew;
    struct writer_params p = old->p;
    if (old->frames)
        return err_set(e, ERR_BUG, "%s: other settings after %d frames", p.path, old->frames);
    p.settings = settings;
    if (open_writer(&anew, &p, e) < 0)
        return -1; /* without a check: it was made at the beginning */
    writer_abort(old);
    *w = anew;
    return 0;
}

int writer_frame(struct writer *w, const uint8_t *rgb, struct err *e)
{
    if (w->frames == w->p.frames)
        return err_set(e, ERR_BUG, "%s: more frames than the %d announced", w->p.path, w->p.frames);
    if (w->kind->frame(w->state, rgb, e) < 0) return -1;
    w->frames++;
    return 0;
}

int writer_close(struct writer *w, struct err *e)
{
    if (!w) return 0;
    int rc;
    if (w->frames != w->p.frames) {
        rc = err_set(e, ERR_BUG, "%s: %d frames came of %d announced", w->p.path, w->frames,
                     w->p.frames);
        w->kind->abort(w->state);
    } else {
        rc = w->kind->close(w->state, e);
    }
    writer_free(w);
    return rc;
}

void writer_abort(struct writer *w)
{
    if (!w) return;
    w->kind->abort(w->state);
    writer_free(w);
}
