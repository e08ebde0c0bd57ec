/* Frames as numbered PNG files with settings.ini beside them. Names: png.h.
 *
 * A new folder is made aside and renamed whole. Into a folder that is there, frames are made in a
 * folder aside within it and put in place at close (png_place.c). */
#include "app/clips/png.h"

#include "app/clips/aside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct png {
    const struct writer_params *p;
    struct png_name name;
    struct aside aside;
    bool inside; /* the folder was there */
    int frames;
    uint64_t written;
};

/* First file in the folder that this clip would replace or mix with, into found; false: none. */
static bool find_old(const struct png *s, char *found, size_t size)
{
    DIR *d = opendir(s->name.folder);
    bool any = false;
    for (struct dirent *f; d && !any && (f = readdir(d)) != NULL;)
        if (png_name_index(&s->name, f->d_name) >= 0 ||
            (s->p->settings && strcmp(f->d_name, PNG_SETTINGS) == 0)) {
            snprintf(found, size, "%s", f->d_name);
            any = true;
        }
    if (d) closedir(d);
    return any;
}

static int check_folder(const struct png *s, struct err *e)
{
    const char *folder = s->name.folder;
    struct stat st;
    if (stat(folder, &st) < 0)
        return aside_check_folder(folder, e); /* only the last part may be missing */
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_RESOURCE, "%s: %s is not a folder", s->p->path, folder);
    if (access(folder, W_OK | X_OK) < 0)
        return err_set(e, ERR_RESOURCE, "%s: the folder is not writable (%s)", folder,
                       strerror(errno));
    png_settle(folder);
    char found[300];
    if (!s->p->overwrite && find_old(s, found, sizeof found))
        return err_set(e, ERR_USAGE, "%s/%s exists; -y overwrites the frames and settings there",
                       folder, found);
    return 0;
}

static int png_check(const struct writer_params *p, struct err *e)
{
    if (p->codec || p->preset || p->pix_fmt || p->crf >= 0)
        return err_set(e, ERR_USAGE,
                       "%s: PNG frames take no -c:v, -crf, -preset or -pix_fmt; those are for mp4, "
                       "mov and webm",
                       p->path);
    if ((int64_t)p->width * p->height > PNG_MAX_PIXELS)
        return err_set(e, ERR_USAGE, "%s: frames of %dx%d, PNG frames have at most %lld pixels",
                       p->path, p->width, p->height, (long long)PNG_MAX_PIXELS);
    struct png s = {.p = p};
    int rc = png_name_parse(&s.name, p->path, e);
    if (rc == 0) rc = check_folder(&s, e);
    png_name_fini(&s.name);
    return rc;
}

static void png_free(struct png *s)
{
    aside_discard(&s->aside);
    png_name_fini(&s->name);
}

static int png_open(void *state, const struct writer_params *p, struct err *e)
{
    struct png *s = state;
    s->p = p;
    if (png_name_parse(&s->name, p->path, e) < 0) return -1;
    struct stat st;
    s->inside = stat(s->name.folder, &st) == 0;
    if (aside_open_folder(&s->aside, s->name.folder, "clip", s->inside, p->overwrite, e) == 0)
        return 0;
    png_free(s);
    return -1;
}

/* A whole file in the folder aside; the message has the name it will get. */
static int write_file(struct png *s, const char *name, const void *data, size_t n, struct err *e)
{
    char *path = path_join(s->name.folder, name);
    if (!path) return err_set(e, ERR_RESOURCE, "%s: no memory for its name", name);
    int rc = -1;
    int fd = openat(s->aside.fd, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0)
        aside_failed(path, errno, s->written, e);
    else
        rc = aside_write(fd, data, n, &s->written, path, e);
    if (fd >= 0 && close(fd) < 0 && rc == 0) rc = aside_failed(path, errno, s->written, e);
    free(path);
    return rc;
}

struct picture { /* what stb hands over, once */
    struct png *png;
    const char *name;
    struct err *e;
    int rc;
};

static void take_picture(void *ctx, void *data, int size)
{
    struct picture *t = ctx;
    t->rc = write_file(t->png, t->name, data, (size_t)size, t->e);
}

static int png_frame(void *state, const uint8_t *rgb, struct err *e)
{
    struct png *s = state;
    char name[512];
    png_name_at(&s->name, s->frames + 1, name, sizeof name);
    struct picture t = {s, name, e, 1};
    if (png_encode(take_picture, &t, rgb, s->p->width, s->p->height) < 0 || t.rc == 1)
        return err_set(e, ERR_RESOURCE, "%s: no memory to compress a picture", name);
    if (t.rc == 0) s->frames++;
    return t.rc;
}

/* Into the folder that is there; frames of others that appeared meanwhile are not replaced. */
static int close_inside(struct png *s, struct err *e)
{
    char found[300];
    if (!s->p->overwrite && find_old(s, found, sizeof found)) {
        err_set(e, ERR_RESOURCE, "%s/%s appeared while the clip was made", s->name.folder, found);
        char *base = path_join(s->name.folder, "frames");
        aside_keep(&s->aside, base ? base : "frames", e);
        free(base);
        return -1;
    }
    return png_place(&s->aside, &s->name, e);
}

static int png_close(void *state, struct err *e)
{
    struct png *s = state;
    int rc = 0;
    if (s->p->settings) rc = write_file(s, PNG_SETTINGS, s->p->settings, strlen(s->p->settings), e);
    if (rc == 0) rc = s->inside ? close_inside(s, e) : aside_commit(&s->aside, e);
    png_free(s);
    return rc;
}

static void png_abort(void *state) { png_free(state); }

const struct writer_kind writer_png = {
    .name = "png",
    .summary = "numbered PNG frames: dir/ or dir/f_%04d.png",
    .suffixes = "",
    .state_size = sizeof(struct png),
    .takes = png_name_is,
    .check = png_check,
    .open = png_open,
    .frame = png_frame,
    .close = png_close,
    .abort = png_abort,
    .reads = png_reads,
    .read = png_read,
};
