/* Previews as pictures; see preview.h. */
#include "app/cli/preview.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/clips/aside.h"
#include "app/clips/png.h"
#include "app/lib/assets.h"
#include "model/base/file_map.h"

#define SHEET_WIDTH 1280 /* pixels at most, of all frames side by side */
#define SHEET_FRAMES 8 /* shown, evenly over the clip */
#define FRAME_WIDTH 160 /* cells are repeated up to this */

static bool on_terminal(const char *to) { return strcmp(to, "term") == 0; }

/* Pictures on a terminal: kitty's protocol (also WezTerm, Ghostty, Konsole) or iTerm2's. */
static bool terminal_shows(bool *iterm)
{
    const char *term = getenv("TERM"), *program = getenv("TERM_PROGRAM");
    *iterm = program && strcmp(program, "iTerm.app") == 0;
    if (!isatty(STDERR_FILENO)) return false;
    return *iterm || getenv("KITTY_WINDOW_ID") ||
           (term && (strcmp(term, "xterm-kitty") == 0 || strcmp(term, "xterm-ghostty") == 0)) ||
           (program && strcmp(program, "WezTerm") == 0);
}

int preview_check(const char *to, bool overwrite, struct err *e)
{
    size_t n = strlen(to);
    bool iterm;
    if (on_terminal(to)) {
        if (terminal_shows(&iterm)) return 0;
        return err_set(
            e, ERR_USAGE,
            "--preview term: this terminal shows no pictures (kitty, WezTerm, Ghostty and "
            "iTerm2 do); --preview FILE.png goes everywhere");
    }
    if (n < 5 || strcmp(to + n - 4, ".png") != 0)
        return err_set(e, ERR_USAGE, "--preview '%.100s', wanted FILE.png or term", to);
    return aside_check_file(to, overwrite, e);
}

/* --- the map ------------------------------------------------------------------------------------ */

/* "" when there is no home. */
static void cache_path(char *path, size_t n, uint64_t vae, bool make)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char dir[4200];
    path[0] = 0;
    int len = base && base[0] == '/'   ? snprintf(dir, sizeof dir, "%s/ditgen", base)
              : home && home[0] == '/' ? snprintf(dir, sizeof dir, "%s/.cache/ditgen", home)
                                       : -1;
    if (len < 0 || len >= (int)sizeof dir) return;
    for (char *p = dir + 1; make && *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(dir, 0700);
            *p = '/';
        }
    if (make) mkdir(dir, 0700);
    snprintf(path, n, "%s/preview-%016" PRIx64 ".txt", dir, vae);
}

/* Lines of three numbers, a channel each, the constant last. */
static bool read_map(struct ditgen_preview_map *map, const char *path)
{
    struct err ignored;
    char *text;
    if (!*path || !path_exists(path) || file_read(&text, NULL, path, 65536, &ignored) < 0)
        return false;
    char *at = text, *end;
    int n = 0;
    for (; n < (DITGEN_PREVIEW_CHANNELS + 1) * 3; n++, at = end) {
        float v = strtof(at, &end);
        if (end == at || !(v > -1e6f && v < 1e6f)) break;
        map->to_rgb[n / 3][n % 3] = v;
    }
    bool whole = n >= 6 && n % 3 == 0 && at[strspn(at, " \n")] == 0;
    map->channels = n / 3 - 1;
    free(text);
    return whole;
}

void preview_keep_map(struct preview_show *s, const struct ditgen_preview_map *map)
{
    char text[(DITGEN_PREVIEW_CHANNELS + 1) * 64];
    size_t len = 0;
    struct err e;
    for (int i = 0; i <= map->channels; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%.6g %.6g %.6g\n",
                                (double)map->to_rgb[i][0], (double)map->to_rgb[i][1],
                                (double)map->to_rgb[i][2]);
    cache_path(s->cache, sizeof s->cache, map->vae, true);
    if (*s->cache && aside_write_file(s->cache, "map", true, text, len, &e) < 0)
        progress_say(s->progress, "warning: no preview of the next run: %s", e.msg);
}

void preview_begin(struct preview_show *s, const char *to, const struct ditgen *d,
                   struct progress *p)
{
    *s = (struct preview_show){.progress = p};
    s->map.vae = ditgen_vae_mark(d);
    cache_path(s->cache, sizeof s->cache, s->map.vae, false);
    s->has_map = read_map(&s->map, s->cache);
    if (!to) return;
    if (on_terminal(to))
        terminal_shows(&s->iterm);
    else
        s->to = to;
    if (!s->has_map)
        progress_say(p,
                     "note: previews of this model begin with its next run: how its latents look "
                     "is learned from what this one decodes");
}

/* --- the picture -------------------------------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t n;
};

static void take(void *ctx, void *data, int size)
{
    struct bytes *b = ctx;
    b->data = malloc((size_t)size);
    if (b->data) memcpy(b->data, data, b->n = (size_t)size);
}

/* Some frames side by side, cells repeated. */
static struct bytes draw_sheet(const struct ditgen_preview *p)
{
    struct bytes png = {0};
    int shown = p->frames < SHEET_FRAMES ? p->frames : SHEET_FRAMES;
    while (shown > 1 && shown * p->width > SHEET_WIDTH)
        shown--;
    int times = FRAME_WIDTH / p->width;
    if (times > SHEET_WIDTH / (shown * p->width)) times = SHEET_WIDTH / (shown * p->width);
    if (times < 1) times = 1;
    int w = p->width * times, h = p->height * times, all = w * shown;
    uint8_t *rgb = malloc((size_t)all * (size_t)h * 3);
    for (int y = 0; rgb && y < h; y++)
        for (int x = 0; x < all; x++) {
            int f = shown > 1 ? x / w * (p->frames - 1) / (shown - 1) : 0;
            size_t from = ((size_t)f * (size_t)p->height + (size_t)(y / times)) * (size_t)p->width +
                          (size_t)(x % w / times);
            memcpy(rgb + 3 * ((size_t)y * (size_t)all + (size_t)x), p->rgb + 3 * from, 3);
        }
    if (rgb) png_encode(take, &png, rgb, all, h);
    free(rgb);
    return png;
}

/* n bytes from p as 4 characters each 3. */
static void put_base64(FILE *f, const uint8_t *p, size_t n)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        fputc(set[v >> 18], f);
        fputc(set[v >> 12 & 63], f);
        fputc(i + 1 < n ? set[v >> 6 & 63] : '=', f);
        fputc(i + 2 < n ? set[v & 63] : '=', f);
    }
}

static void put_on_terminal(const struct preview_show *s, const struct bytes *png)
{
    FILE *f = s->progress->to;
    progress_pause(s->progress);
    if (s->iterm) {
        fprintf(f, "\033]1337;File=inline=1;size=%zu:", png->n);
        put_base64(f, png->data, png->n);
        fputs("\a\n", f);
    }
    for (size_t at = 0; !s->iterm && at < png->n;
         at += 3072) { /* at most 4096 characters a piece */
        size_t n = png->n - at < 3072 ? png->n - at : 3072;
        fprintf(f, "\033_G%sm=%d;", at ? "" : "a=T,f=100,q=2,", at + n < png->n);
        put_base64(f, png->data + at, n);
        fputs(at + n < png->n ? "\033\\" : "\033\\\n", f);
    }
    fflush(f);
}

void preview_picture(struct preview_show *s, const struct ditgen_preview *p)
{
    struct err e = {0};
    struct bytes png = draw_sheet(p);
    if (!png.data)
        err_set(&e, ERR_RESOURCE, "no memory for a preview");
    else if (!s->to)
        put_on_terminal(s, &png);
    else
        aside_write_file(s->to, "preview", true, png.data, png.n, &e);
    if (e.code && !s->failed) {
        progress_say(s->progress, "warning: %s; the run goes on", e.msg);
        s->failed = true;
    }
    free(png.data);
}
