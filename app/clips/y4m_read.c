/* Reading y4m: C444 and the 4:2:0 forms, 8 bits, progressive. Format and hostile input: y4m.h,
 * writer.h.
 *
 * 4:2:0 chroma is taken as centred (420jpeg) and interpolated linearly; for mpeg2 siting that is a
 * quarter of a pixel off. */
#include "app/clips/y4m.h"

#include "app/clips/clip.h"
#include "app/clips/settings_text.h"
#include "model/base/file_map.h"
#include "model/base/option.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct y4m_input {
    const char *path;
    const uint8_t *at, *end;
    bool is_420;
    bool full_range;
    char *word; /* settings as encoded, gathered from X words */
    size_t word_len;
};

/* One header line, without its newline, or NULL: none within limit bytes. Moves past it. */
static const uint8_t *next_line(struct y4m_input *in, size_t limit, size_t *len)
{
    size_t left = (size_t)(in->end - in->at);
    const uint8_t *line = in->at, *nl = memchr(line, '\n', left < limit ? left : limit);
    if (!nl) return NULL;
    *len = (size_t)(nl - line);
    in->at = nl + 1;
    return line;
}

static int add_word(struct y4m_input *in, const char *chunk, size_t n, struct err *e)
{
    if (in->word_len + n > 3 * CLIP_MAX_SETTINGS)
        return err_set(e, ERR_INPUT, "%s: settings larger than %zu bytes", in->path,
                       CLIP_MAX_SETTINGS);
    char *word = realloc(in->word, in->word_len + n + 1);
    if (!word) return err_set(e, ERR_RESOURCE, "%s: no memory for its settings", in->path);
    memcpy(word + in->word_len, chunk, n);
    in->word = word;
    in->word_len += n;
    return 0;
}

static int parse_colour(struct y4m_input *in, struct clip *c, const char *name, struct err *e)
{
    static const char *const planar_420[] = {"420", "420jpeg", "420mpeg2", "420paldv"};
    for (size_t i = 0; i < ARRAY_LEN(planar_420); i++)
        if (strcmp(name, planar_420[i]) == 0) in->is_420 = true;
    if (!in->is_420 && strcmp(name, "444") != 0)
        return err_set(e, ERR_INPUT, "%s: colour C%s; 420jpeg, 420mpeg2, 420paldv and 444 are read",
                       in->path, name);
    snprintf(c->pix_fmt, sizeof c->pix_fmt, "%s", in->is_420 ? "yuv420p" : "yuv444p");
    return 0;
}

/* One blank-separated parameter of the stream header, NUL-terminated; n is its length. */
static int parse_param(struct y4m_input *in, struct clip *c, const char *word, size_t n,
                       struct err *e)
{
    const char *value = word + 1;
    char *colon = strchr(word, ':');
    switch (word[0]) {
    case 'W':
    case 'H':
        if (parse_int(value, 1, CLIP_MAX_SIDE, word[0] == 'W' ? &c->width : &c->height) < 0)
            return err_set(e, ERR_INPUT, "%s: %.40s in its header, wanted 1 to %d", in->path, word,
                           CLIP_MAX_SIDE);
        return 0;
    case 'F':
        if (colon) *colon = 0;
        if (!colon || parse_int(value, 0, 1000000000, &c->fps_num) < 0 ||
            parse_int(colon + 1, 0, 1000000000, &c->fps_den) < 0)
            return err_set(e, ERR_INPUT, "%s: frame rate %.40s in its header, wanted Fnum:den",
                           in->path, word);
        return 0;
    case 'I':
        if (value[0] != 'p' && value[0] != '?' && value[0] != 0)
            return err_set(e, ERR_INPUT, "%s: interlaced (%.20s); only progressive clips are read",
                           in->path, word);
        return 0;
    case 'C':
        in->is_420 = false;
        if (n > 20) return err_set(e, ERR_INPUT, "%s: unknown colour %.20s...", in->path, word);
        return parse_colour(in, c, value, e);
    case 'X':
        if (strcmp(word, "XCOLORRANGE=FULL") == 0) in->full_range = true;
        if (strncmp(word, Y4M_WORD, strlen(Y4M_WORD)) == 0)
            return add_word(in, word + strlen(Y4M_WORD), n - strlen(Y4M_WORD), e);
        return 0;
    default:
        return 0; /* aspect, comments and whatever comes: not ours */
    }
}

static int parse_header(struct y4m_input *in, struct clip *c, struct err *e)
{
    size_t len, magic = strlen(Y4M_MAGIC);
    const uint8_t *line = next_line(in, 3 * CLIP_MAX_SETTINGS + 4096, &len);
    if (!line || len < magic || memcmp(line, Y4M_MAGIC, magic) != 0 ||
        (len > magic && line[magic] != ' '))
        return err_set(e, ERR_INPUT, "%s: no y4m header line", in->path);
    if (memchr(line, 0, len))
        return err_set(e, ERR_INPUT, "%s: a zero byte in the y4m header", in->path);
    char *copy = strndup((const char *)line, len);
    if (!copy) return err_set(e, ERR_RESOURCE, "%s: no memory for its header", in->path);
    int rc = parse_colour(in, c, "420jpeg", e); /* the format's default */
    char *save = NULL;
    for (char *w = strtok_r(copy + magic, " ", &save); w && rc == 0; w = strtok_r(NULL, " ", &save))
        rc = parse_param(in, c, w, strlen(w), e);
    free(copy);
    if (rc < 0) return -1;
    if (!c->width || !c->height)
        return err_set(e, ERR_INPUT, "%s: no W and H in the y4m header", in->path);
    snprintf(c->codec, sizeof c->codec, "rawvideo");
    return 0;
}

/* One FRAME line: *data is the planes. Returns 0 at the end of the file, 1 with a frame, -1. */
static int next_frame(struct y4m_input *in, size_t bytes, int index, const uint8_t **data,
                      struct err *e)
{
    if (in->at == in->end) return 0;
    size_t len;
    const uint8_t *line = next_line(in, 4096, &len);
    if (!line || len < 5 || memcmp(line, "FRAME", 5) != 0 || (len > 5 && line[5] != ' '))
        return err_set(e, ERR_INPUT, "%s: frame %d does not start with FRAME", in->path, index + 1);
    const char *word = (const char *)line + 5, *end = (const char *)line + len;
    while (word < end) {
        const char *next = memchr(word + 1, ' ', (size_t)(end - word) - 1);
        if (!next) next = end;
        size_t n = (size_t)(next - word), tag = strlen(Y4M_WORD);
        if (n > tag && memcmp(word + 1, Y4M_WORD, tag) == 0 &&
            add_word(in, word + 1 + tag, n - 1 - tag, e) < 0)
            return -1;
        word = next;
    }
    if ((size_t)(in->end - in->at) < bytes)
        return err_set(e, ERR_INPUT, "%s: cut short in frame %d: %zu of %zu bytes", in->path,
                       index + 1, (size_t)(in->end - in->at), bytes);
    *data = in->at;
    in->at += bytes;
    return 1;
}

static uint8_t clamp_u8(int v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* Chroma of pixel (x, y) in 4:2:0, times 16: weights 3/4 and 1/4 each way, edges repeated. */
static int chroma_420(const uint8_t *plane, int cw, int ch, int x, int y)
{
    int x0 = x / 2, y0 = y / 2, x1 = x & 1 ? x0 + 1 : x0 - 1, y1 = y & 1 ? y0 + 1 : y0 - 1;
    x1 = x1 < 0 ? 0 : x1 >= cw ? cw - 1 : x1;
    y1 = y1 < 0 ? 0 : y1 >= ch ? ch - 1 : y1;
    const uint8_t *r0 = plane + (size_t)y0 * (size_t)cw, *r1 = plane + (size_t)y1 * (size_t)cw;
    return 9 * r0[x0] + 3 * r0[x1] + 3 * r1[x0] + r1[x1];
}

/* BT.601 back to RGB in 16.16, rounded; chroma comes times 16. */
static void planes_to_rgb(uint8_t *rgb, const uint8_t *data, const struct clip *c,
                          const struct y4m_input *in)
{
    size_t w = (size_t)c->width, h = (size_t)c->height;
    int cw = in->is_420 ? (c->width + 1) / 2 : c->width,
        ch = in->is_420 ? (c->height + 1) / 2 : c->height;
    const uint8_t *u = data + w * h, *v = u + (size_t)cw * (size_t)ch;
    int64_t ky = in->full_range ? 65536 : 76309; /* 255/219 */
    int64_t kr = in->full_range ? 91881 : 104597, kb = in->full_range ? 116130 : 132201;
    int64_t gu = in->full_range ? 22554 : 25675, gv = in->full_range ? 46802 : 53279;
    int black = in->full_range ? 0 : 16;
    for (size_t i = 0; i < w * h; i++) {
        int x = (int)(i % w), y = (int)(i / w);
        int64_t cu = in->is_420 ? chroma_420(u, cw, ch, x, y) : 16 * u[i];
        int64_t cv = in->is_420 ? chroma_420(v, cw, ch, x, y) : 16 * v[i];
        int64_t luma = ky * 16 * (data[i] - black) + (1 << 19);
        cu -= 2048;
        cv -= 2048;
        rgb[3 * i] = clamp_u8((int)((luma + kr * cv) >> 20));
        rgb[3 * i + 1] = clamp_u8((int)((luma - gu * cu - gv * cv) >> 20));
        rgb[3 * i + 2] = clamp_u8((int)((luma + kb * cu) >> 20));
    }
}

static int parse_all(struct y4m_input *in, struct clip *c, bool want_frames, struct err *e)
{
    if (parse_header(in, c, e) < 0) return -1;
    size_t luma = (size_t)c->width * (size_t)c->height;
    size_t chroma = in->is_420 ? ((size_t)c->width + 1) / 2 * (((size_t)c->height + 1) / 2) : luma;
    int room = 0, rc;
    const uint8_t *data = NULL;
    while ((rc = next_frame(in, luma + 2 * chroma, c->frames, &data, e)) > 0) {
        if (c->frames == CLIP_MAX_FRAMES)
            return err_set(e, ERR_INPUT, "%s: more than %d frames", in->path, CLIP_MAX_FRAMES);
        if (want_frames) {
            if (clip_reserve(c, c->frames + 1, &room, in->path, e) < 0) return -1;
            planes_to_rgb(c->rgb + (size_t)c->frames * clip_frame_bytes(c), data, c, in);
        }
        c->frames++;
    }
    if (rc < 0) return -1;
    if (!c->frames) return err_set(e, ERR_INPUT, "%s: a y4m header and no frame", in->path);
    if (!in->word) return 0;
    c->settings = settings_decode(in->word, in->word_len);
    if (!c->settings || strlen(c->settings) > CLIP_MAX_SETTINGS)
        return err_set(e, ERR_INPUT, "%s: broken settings in its X words", in->path);
    return 0;
}

int y4m_parse(struct clip *c, const uint8_t *data, size_t size, const char *path, bool want_frames,
              struct err *e)
{
    struct y4m_input in = {.path = path, .at = data, .end = data + size};
    int rc = parse_all(&in, c, want_frames, e);
    free(in.word);
    return rc;
}

int y4m_read(struct clip *c, const char *path, bool want_frames, struct err *e)
{
    struct file_map m;
    if (file_map_open(&m, path, e) < 0) return -1;
    int rc = m.size ? y4m_parse(c, m.data, m.size, path, want_frames, e)
                    : err_set(e, ERR_INPUT, "%s: an empty file", path);
    file_map_close(&m);
    return rc;
}

bool y4m_reads(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    return n >= strlen(Y4M_MAGIC) && memcmp(head, Y4M_MAGIC, strlen(Y4M_MAGIC)) == 0;
}
