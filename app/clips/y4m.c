/* Uncompressed frames that every tool reads; needs no library. Format: y4m.h. */
#include "app/clips/y4m.h"

#include "app/clips/aside.h"
#include "app/clips/settings_text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct y4m {
    const struct writer_params *p;
    const char *name; /* for messages */
    bool piped; /* to "-" */
    int fd; /* the aside's, or standard output */
    struct aside aside;
    struct sigaction old_sigpipe;
    uint64_t written;
    size_t pixels;
    uint8_t *planes; /* [3, H, W] Y, Cb, Cr */
    char *word; /* encoded settings, or NULL */
    size_t sent; /* bytes of word that FRAME lines have carried; SIZE_MAX: none is to */
};

static bool is_pipe(const char *path) { return strcmp(path, "-") == 0; }

static int y4m_check(const struct writer_params *p, struct err *e)
{
    if (p->codec || p->preset || p->pix_fmt || p->crf >= 0)
        return err_set(e, ERR_USAGE,
                       "%s: y4m is uncompressed yuv444p; -c:v, -crf, -preset and -pix_fmt are for "
                       "mp4, mov and "
                       "webm",
                       p->path);
    if (!is_pipe(p->path)) return aside_check_file(p->path, p->overwrite, e);
    int flags = fcntl(STDOUT_FILENO, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
        return err_set(e, ERR_RESOURCE,
                       "standard output is closed; -o - needs a pipe or a file there");
    if (isatty(STDOUT_FILENO))
        return err_set(e, ERR_USAGE,
                       "-o - would write a clip to the terminal; pipe it or name a file");
    return 0;
}

static void y4m_free(struct y4m *s)
{
    if (s->piped) sigaction(SIGPIPE, &s->old_sigpipe, NULL);
    free(s->planes);
    free(s->word);
    aside_discard(&s->aside);
}

/* Where the settings go: over the FRAME lines when they fit; else into the stream header, but not
 * of a pipe, because the program that reads it would refuse the long line (y4m.h). */
static bool word_in_header(const struct y4m *s)
{
    if (!s->word || strlen(s->word) <= (size_t)s->p->frames * Y4M_CHUNK) return false;
    struct stat st;
    return fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode);
}

static int y4m_open(void *state, const struct writer_params *p, struct err *e)
{
    struct y4m *s = state;
    s->p = p;
    s->fd = -1;
    s->name = p->path;
    s->pixels = (size_t)p->width * (size_t)p->height;
    if (is_pipe(p->path)) {
        /* a reader that goes away is an error to report, not the end of the process */
        struct sigaction ignore = {.sa_handler = SIG_IGN};
        sigaction(SIGPIPE, &ignore, &s->old_sigpipe);
        s->piped = true;
        s->name = "standard output";
        s->fd = STDOUT_FILENO;
    } else if (aside_open_file(&s->aside, p->path, "clip", p->overwrite, e) < 0) {
        return -1;
    } else {
        s->fd = s->aside.fd;
    }
    s->planes = malloc(3 * s->pixels);
    if (p->settings) s->word = settings_encode(p->settings);
    if (!s->planes || (p->settings && !s->word)) {
        err_set(e, ERR_RESOURCE, "%s: no memory for a frame", s->name);
        goto fail;
    }
    char line[160];
    int n = snprintf(line, sizeof line,
                     Y4M_MAGIC " W%d H%d F%d:%d Ip A1:1 C444 XCOLORRANGE=LIMITED XMATRIX=BT601",
                     p->width, p->height, p->fps_num, p->fps_den);
    if (aside_write(s->fd, line, (size_t)n, &s->written, s->name, e) < 0) goto fail;
    if (word_in_header(s)) {
        if (aside_write(s->fd, " " Y4M_WORD, strlen(Y4M_WORD) + 1, &s->written, s->name, e) < 0 ||
            aside_write(s->fd, s->word, strlen(s->word), &s->written, s->name, e) < 0)
            goto fail;
        s->sent = SIZE_MAX;
    } else if (!s->word || strlen(s->word) > (size_t)p->frames * Y4M_CHUNK) {
        s->sent = SIZE_MAX;
    }
    if (aside_write(s->fd, "\n", 1, &s->written, s->name, e) < 0) goto fail;
    return 0;
fail:
    y4m_free(s);
    return -1;
}

/* BT.601 limited range in 16.16: Kr 0.299, Kb 0.114, luma 219 steps, chroma 224. Rounds to nearest.
 */
static void rgb_to_planes(uint8_t *planes, const uint8_t *rgb, size_t n)
{
    uint8_t *y = planes, *u = planes + n, *v = u + n;
    for (size_t i = 0; i < n; i++) {
        int r = rgb[3 * i], g = rgb[3 * i + 1], b = rgb[3 * i + 2];
        y[i] = (uint8_t)((16829 * r + 33039 * g + 6416 * b + (16 << 16) + 32768) >> 16);
        u[i] = (uint8_t)((-9714 * r - 19070 * g + 28784 * b + (128 << 16) + 32768) >> 16);
        v[i] = (uint8_t)((28784 * r - 24103 * g - 4681 * b + (128 << 16) + 32768) >> 16);
    }
}

static int y4m_frame(void *state, const uint8_t *rgb, struct err *e)
{
    struct y4m *s = state;
    char line[96] = "FRAME\n";
    int n = 6;
    if (s->sent != SIZE_MAX && s->word[s->sent]) {
        n = snprintf(line, sizeof line, "FRAME " Y4M_WORD "%.*s\n", Y4M_CHUNK, s->word + s->sent);
        s->sent += strnlen(s->word + s->sent, Y4M_CHUNK);
    }
    rgb_to_planes(s->planes, rgb, s->pixels);
    if (aside_write(s->fd, line, (size_t)n, &s->written, s->name, e) < 0) return -1;
    return aside_write(s->fd, s->planes, 3 * s->pixels, &s->written, s->name, e);
}

static int y4m_close(void *state, struct err *e)
{
    struct y4m *s = state;
    int rc = s->piped ? 0 : aside_commit(&s->aside, e);
    y4m_free(s);
    return rc;
}

static void y4m_abort(void *state) { y4m_free(state); }

const struct writer_kind writer_y4m = {
    .name = "y4m",
    .summary = "uncompressed yuv444p, to a file or through a pipe",
    .suffixes = "y4m",
    .state_size = sizeof(struct y4m),
    .takes = is_pipe,
    .check = y4m_check,
    .open = y4m_open,
    .frame = y4m_frame,
    .close = y4m_close,
    .abort = y4m_abort,
    .reads = y4m_reads,
    .read = y4m_read,
};
