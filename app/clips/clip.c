/* Reading clips back: finds the kind, keeps the bounds; see writer.h and clip.h. */
#include "app/clips/clip.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int clip_check_size(int64_t width, int64_t height, const char *path, struct err *e)
{
    if (width < 1 || height < 1 || width > CLIP_MAX_SIDE || height > CLIP_MAX_SIDE)
        return err_set(e, ERR_INPUT, "%s: frames of %lldx%lld, wanted 1 to %d a side", path,
                       (long long)width, (long long)height, CLIP_MAX_SIDE);
    return 0;
}

int clip_reserve(struct clip *c, int frames, int *room, const char *path, struct err *e)
{
    if (frames <= *room) return 0;
    size_t one = clip_frame_bytes(c);
    int most =
        (int)(CLIP_MAX_BYTES / one < CLIP_MAX_FRAMES ? CLIP_MAX_BYTES / one : CLIP_MAX_FRAMES);
    if (frames > most)
        return err_set(e, ERR_INPUT,
                       "%s: more than %d frames of %dx%d; only shorter clips are read", path, most,
                       c->width, c->height);
    int want = *room * 2 > frames ? *room * 2 : frames;
    if (want > most) want = most;
    uint8_t *rgb = realloc(c->rgb, (size_t)want * one);
    if (!rgb)
        return err_set(e, ERR_RESOURCE, "%s: no memory for %d frames of %dx%d (%zu bytes)", path,
                       want, c->width, c->height, (size_t)want * one);
    c->rgb = rgb;
    *room = want;
    return 0;
}

int clip_read(struct clip *c, const char *path, bool want_frames, struct err *e)
{
    memset(c, 0, sizeof *c);
    uint8_t head[64];
    size_t n = 0;
    struct stat st;
    if (stat(path, &st) < 0) {
        if (errno != ENOENT || !strchr(path, '%'))
            return err_set(e, ERR_INPUT, "%s: cannot be read (%s)", path, strerror(errno));
    } else if (S_ISREG(st.st_mode)) {
        FILE *f = fopen(path, "rb");
        if (!f) return err_set(e, ERR_INPUT, "%s: cannot be read (%s)", path, strerror(errno));
        n = fread(head, 1, sizeof head, f);
        fclose(f);
    } else if (!S_ISDIR(st.st_mode)) {
        return err_set(e, ERR_INPUT, "%s is neither a plain file nor a folder", path);
    }
    for (int i = 0; i < writer_kind_count(); i++) {
        const struct writer_kind *k = writer_kind_at(i);
        if (!k->reads(path, head, n)) continue;
        int rc = k->read(c, path, want_frames, e);
        if (rc < 0) clip_fini(c);
        return rc;
    }
    bool box = n >= 12 && memcmp(head + 4, "ftyp", 4) == 0;
    bool ebml = n >= 4 && memcmp(head, "\x1a\x45\xdf\xa3", 4) == 0;
    if (box || ebml)
        return err_set(e, ERR_INPUT,
                       "%s: %s needs FFmpeg's libav, which this build was made without", path,
                       box ? "mp4" : "webm");
    return err_set(e, ERR_INPUT,
                   "%s is no clip that this build reads (mp4, mov, webm, y4m, PNG frames)", path);
}

void clip_fini(struct clip *c)
{
    free(c->rgb);
    free(c->settings);
    memset(c, 0, sizeof *c);
}
