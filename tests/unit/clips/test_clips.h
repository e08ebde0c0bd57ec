/* What the writer tests share: a synthetic clip, a folder of their own, files as bytes. */
#ifndef DITGEN_TESTS_UNIT_APP_TEST_WRITER_CLIPS_H
#define DITGEN_TESTS_UNIT_APP_TEST_WRITER_CLIPS_H

#include "app/clips/quality.h"
#include "app/clips/writer.h"
#include "tests/check.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define SETTINGS                                                                                   \
    "[prompt]\nprompt = a rocket = 100% fun + \xe7\x81\xab\xe7\xae\xad; \"quoted\"\nseed = "       \
    "42\nsteps = 6\n"

/* A coloured gradient with a disc that moves: smooth enough to compress, coloured enough to judge.
 */
static inline uint8_t *make_frames(int frames, int width, int height)
{
    uint8_t *rgb = malloc((size_t)frames * (size_t)width * (size_t)height * 3), *p = rgb;
    for (int f = 0; f < frames; f++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++, p += 3) {
                double cx = width * (0.3 + 0.05 * f), cy = height * 0.5, r = height * 0.25;
                double d = hypot(x - cx, y - cy) - r, in = d < -2 ? 1 : d > 2 ? 0 : (2 - d) / 4;
                p[0] = (uint8_t)lrint(in * 220 + (1 - in) * (40 + 120.0 * x / width));
                p[1] = (uint8_t)lrint(in * 60 + (1 - in) * (60 + 100.0 * y / height));
                p[2] = (uint8_t)lrint(in * 40 + (1 - in) * (200 - 90.0 * x / width));
            }
    return rgb;
}

static char test_folder[512];
/* A fresh folder under $TMPDIR or /tmp; the last part of every path in the tests. */
static inline void enter_folder(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(test_folder, sizeof test_folder, "%s/writer-test-XXXXXX",
             base && *base ? base : "/tmp");
    if (!mkdtemp(test_folder) || chdir(test_folder) < 0) {
        perror(test_folder);
        exit(1);
    }
}
static inline void remove_tree(const char *path)
{
    char command[700];
    snprintf(command, sizeof command, "rm -rf -- '%s'", path);
    if (system(command) != 0) fprintf(stderr, "%s stays behind\n", path);
}
static inline void leave_folder(void)
{
    if (chdir("/") == 0) remove_tree(test_folder);
}

/* Entries of a folder, hidden ones too. */
static inline int count_entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *f; d && (f = readdir(d)) != NULL;)
        n += strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0;
    if (d) closedir(d);
    return n;
}

struct bytes {
    char *data;
    size_t n;
};
static inline struct bytes read_bytes(const char *path)
{
    struct bytes b = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return b;
    fseek(f, 0, SEEK_END);
    b.n = (size_t)ftell(f);
    rewind(f);
    b.data = malloc(b.n + 1);
    b.n = fread(b.data, 1, b.n, f);
    b.data[b.n] = 0;
    fclose(f);
    return b;
}
static inline int same_bytes(const char *a, const char *b)
{
    struct bytes x = read_bytes(a), y = read_bytes(b);
    int same = x.data && y.data && x.n == y.n && memcmp(x.data, y.data, x.n) == 0;
    free(x.data);
    free(y.data);
    return same;
}
static inline void write_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n);
    if (f) fclose(f);
}

static inline struct writer_params params(const char *path, int frames, int width, int height)
{
    return (struct writer_params){.path = path,
                                  .width = width,
                                  .height = height,
                                  .frames = frames,
                                  .fps_num = 16,
                                  .fps_den = 1,
                                  .crf = -1,
                                  .settings = SETTINGS};
}
/* Writes all frames; the first failure wins. */
static inline int write_clip(const struct writer_params *p, const uint8_t *rgb, struct err *e)
{
    struct writer *w = NULL;
    if (writer_open(&w, p, e) < 0) return -1;
    for (int f = 0; f < p->frames; f++)
        if (writer_frame(w, rgb + (size_t)f * (size_t)p->width * (size_t)p->height * 3, e) < 0) {
            writer_abort(w);
            return -1;
        }
    return writer_close(w, e);
}
/* writer_check() and writer_open() both refuse, with this code and these words in the sentence. */
static inline void check_refused(const struct writer_params *p, enum err_code code,
                                 const char *words)
{
    struct err e = {0};
    struct writer *w = NULL;
    CHECK_MSG(writer_check(p, &e) < 0, "%s was accepted", p->path);
    CHECK_MSG(e.code == code, "%s: code %d, wanted %d: %s", p->path, (int)e.code, (int)code, e.msg);
    CHECK_MSG(strstr(e.msg, words), "\"%s\" does not say \"%s\"", e.msg, words);
    CHECK(writer_open(&w, p, &e) < 0 && !w);
}

#endif
