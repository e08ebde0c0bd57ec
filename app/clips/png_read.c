/* Reading PNG frames: a folder of one clip, a pattern, or one picture. Bounds: writer.h, png.h. */
#include "app/clips/png.h"

#include "app/clips/aside.h"
#include "app/clips/clip.h"
#include "model/base/file_map.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

struct numbered { /* one file of a clip */
    int index;
    char name[256];
};
struct listing {
    struct numbered *files;
    int n, room;
};

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool png_reads(const char *path, const uint8_t *head, size_t n)
{
    return png_name_is(path) || is_folder(path) ||
           (n >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0);
}

/* The number before ".png" and the length of what stands before it; -1: no such name. */
static int trailing_number(const char *name, size_t *prefix)
{
    size_t n = strlen(name);
    if (n < 5 || strcasecmp(name + n - 4, ".png") != 0) return -1;
    size_t end = n - 4, at = end;
    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9')
        at--;
    if (at == end || end - at > 9) return -1;
    *prefix = at;
    return atoi(name + at);
}

static int add_file(struct listing *l, const char *name, int index, const char *path, struct err *e)
{
    if (l->n == CLIP_MAX_FRAMES)
        return err_set(e, ERR_INPUT, "%s: more than %d frames", path, CLIP_MAX_FRAMES);
    if (l->n == l->room) {
        int room = l->room ? 2 * l->room : 64;
        struct numbered *files = realloc(l->files, (size_t)room * sizeof *files);
        if (!files) return err_set(e, ERR_RESOURCE, "%s: no memory for %d names", path, room);
        l->files = files;
        l->room = room;
    }
    struct numbered *f = &l->files[l->n++];
    f->index = index;
    snprintf(f->name, sizeof f->name, "%s", name);
    return 0;
}

/* pattern NULL: every numbered PNG of the folder, which must all have one name. */
static int list_folder(struct listing *l, const char *folder, const struct png_name *pattern,
                       struct err *e)
{
    DIR *d = opendir(folder);
    if (!d)
        return err_set(e, ERR_INPUT, "%s: the folder cannot be read (%s)", folder, strerror(errno));
    int rc = 0;
    size_t prefix = 0, first = 0;
    for (struct dirent *f; rc == 0 && (f = readdir(d)) != NULL;) {
        int index =
            pattern ? png_name_index(pattern, f->d_name) : trailing_number(f->d_name, &prefix);
        if (index < 0 || f->d_name[0] == '.') continue; /* parts and what others hide */
        if (!l->n) first = prefix;
        if (!pattern && l->n &&
            (prefix != first || strncmp(f->d_name, l->files[0].name, prefix) != 0))
            rc = err_set(e, ERR_INPUT,
                         "%s holds %s and %s; name one clip by its pattern (f_%%04d.png)", folder,
                         l->files[0].name, f->d_name);
        else
            rc = add_file(l, f->d_name, index, folder, e);
    }
    closedir(d);
    return rc;
}

static int by_index(const void *a, const void *b)
{
    const struct numbered *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

static int check_listing(struct listing *l, const char *folder, struct err *e)
{
    if (!l->n) return err_set(e, ERR_INPUT, "%s: no PNG frames in it", folder);
    qsort(l->files, (size_t)l->n, sizeof *l->files, by_index);
    for (int i = 1; i < l->n; i++)
        if (l->files[i].index != l->files[i - 1].index + 1)
            return err_set(e, ERR_INPUT, "%s: after %s comes %s; a frame is %s", folder,
                           l->files[i - 1].name, l->files[i].name,
                           l->files[i].index == l->files[i - 1].index ? "there twice" : "missing");
    return 0;
}

static int decode_file(struct clip *c, int *room, const char *path, bool want_frames, struct err *e)
{
    struct file_map m;
    if (file_map_open(&m, path, e) < 0) return -1;
    int w = 0, h = 0, rc = -1;
    uint8_t *rgb = NULL;
    if (want_frames ? png_decode(&rgb, &w, &h, m.data, m.size) : png_size(&w, &h, m.data, m.size)) {
        err_set(e, ERR_INPUT, "%s is not a PNG picture, or is broken or too large", path);
    } else if (c->frames && (w != c->width || h != c->height)) {
        err_set(e, ERR_INPUT, "%s is %dx%d, the frames before it are %dx%d", path, w, h, c->width,
                c->height);
    } else if (clip_check_size(w, h, path, e) == 0) {
        c->width = w;
        c->height = h;
        rc = want_frames ? clip_reserve(c, c->frames + 1, room, path, e) : 0;
    }
    if (rc == 0 && rgb)
        memcpy(c->rgb + (size_t)c->frames * clip_frame_bytes(c), rgb, clip_frame_bytes(c));
    if (rc == 0) c->frames++;
    free(rgb);
    file_map_close(&m);
    return rc;
}

static int read_settings(struct clip *c, const char *folder, struct err *e)
{
    char *path = path_join(folder, PNG_SETTINGS);
    if (!path) return err_set(e, ERR_RESOURCE, "%s: no memory for its settings", folder);
    struct stat st;
    size_t len;
    int rc = 0;
    if (stat(path, &st) == 0 &&
        (rc = file_read(&c->settings, &len, path, CLIP_MAX_SETTINGS, e)) == 0 &&
        strlen(c->settings) != len)
        rc = err_set(e, ERR_INPUT, "%s: a zero byte in it; not a text file", path);
    free(path);
    return rc;
}

static int read_listing(struct clip *c, struct listing *l, const char *folder, bool want_frames,
                        struct err *e)
{
    int room = 0, rc = check_listing(l, folder, e);
    for (int i = 0; rc == 0 && i < (want_frames ? l->n : 1); i++) {
        char *path = path_join(folder, l->files[i].name);
        rc = path ? decode_file(c, &room, path, want_frames, e)
                  : err_set(e, ERR_RESOURCE, "%s: no memory for a name", folder);
        free(path);
    }
    c->frames = l->n;
    return rc;
}

int png_read(struct clip *c, const char *path, bool want_frames, struct err *e)
{
    struct listing l = {0};
    struct png_name pattern = {0};
    bool is_picture = !is_folder(path) && !png_name_is(path);
    int room = 0, rc;
    char *folder = is_folder(path) ? strdup(path) : path_folder(path);
    snprintf(c->codec, sizeof c->codec, "png");
    snprintf(c->pix_fmt, sizeof c->pix_fmt, "rgb24");
    if (folder && !is_picture && !png_settle(folder)) {
        rc = err_set(
            e, ERR_INPUT,
            "%s: a clip there is not in place yet (.ditgen-*.ready): another run is at it, or it "
            "cannot be finished; -y replaces it",
            folder);
    } else if (!folder) {
        rc = err_set(e, ERR_RESOURCE, "%s: no memory for its name", path);
    } else if (is_folder(path)) {
        rc = list_folder(&l, path, NULL, e);
        if (rc == 0) rc = read_listing(c, &l, path, want_frames, e);
    } else if (png_name_is(path)) {
        rc = png_name_parse(&pattern, path, e);
        if (rc == 0) rc = list_folder(&l, folder, &pattern, e);
        if (rc == 0) rc = read_listing(c, &l, folder, want_frames, e);
    } else {
        rc = decode_file(c, &room, path, want_frames, e);
    }
    if (rc == 0) rc = read_settings(c, folder, e);
    png_name_fini(&pattern);
    free(l.files);
    free(folder);
    return rc;
}
