/* y4m: what is written comes back; settings in either place; pipes; broken files. */
#include "tests/unit/clips/test_clips.h"

#include "app/clips/settings_text.h"
#include "app/clips/y4m.h"

#include <fcntl.h>
#include <signal.h>

static void round_trip(int frames, int width, int height, int long_header)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(frames, width, height);
    struct writer_params p = params("a.y4m", frames, width, height);
    CHECK_OK(write_clip(&p, rgb, &e));
    struct clip c;
    CHECK_OK(clip_read(&c, "a.y4m", true, &e));
    CHECK(c.width == width && c.height == height && c.frames == frames);
    CHECK(c.fps_num == 16 && c.fps_den == 1);
    CHECK_STR(c.pix_fmt, "yuv444p");
    CHECK_STR(c.settings, SETTINGS);
    struct quality q = {0};
    CHECK_OK(quality_clips(&q, rgb, c.rgb, frames, width, height, &e));
    /* 8-bit limited range: 219 luma steps, half a step of rounding in three planes */
    CHECK_MSG(q.psnr > 47 && q.max_difference <= 3, "PSNR %.2f, most %d", q.psnr, q.max_difference);
    clip_fini(&c);
    struct bytes b = read_bytes("a.y4m");
    const char *nl = memchr(b.data, '\n', b.n);
    CHECK(nl && (nl - b.data < 80) == !long_header); /* what ffmpeg accepts */
    p.path = "b.y4m";
    CHECK_OK(write_clip(&p, rgb, &e));
    CHECK(same_bytes("a.y4m", "b.y4m"));
    CHECK_OK(clip_read(&c, "a.y4m", false, &e));
    CHECK(c.frames == frames && !c.rgb && c.settings);
    clip_fini(&c);
    CHECK(count_entries(".") == 2);
    unlink("a.y4m");
    unlink("b.y4m");
    free(b.data);
    free(rgb);
}

/* Standard output into a file or a pipe; returns the child's view through path. */
static void to_stdout(const char *path)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(3, 20, 14);
    struct writer_params p = params("-", 3, 20, 14);
    fflush(stdout);
    int saved = dup(1), fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);
    dup2(fd, 1);
    close(fd);
    int rc = write_clip(&p, rgb, &e);
    dup2(saved, 1);
    close(saved);
    CHECK_OK(rc);
    free(rgb);
}

static void pipe_broken(void)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(3, 64, 64);
    struct writer_params p = params("-", 3, 64, 64);
    int ends[2], saved = dup(1);
    fflush(stdout);
    CHECK(pipe(ends) == 0);
    dup2(ends[1], 1);
    close(ends[1]);
    close(ends[0]); /* nobody reads */
    int rc = write_clip(&p, rgb, &e);
    dup2(saved, 1);
    close(saved);
    CHECK(rc < 0 && e.code == ERR_RESOURCE && strstr(e.msg, "went away"));
    struct sigaction now;
    sigaction(SIGPIPE, NULL, &now);
    CHECK(now.sa_handler == SIG_DFL); /* as it was */
    free(rgb);
}

static int parse(struct clip *c, const char *text, size_t n, struct err *e)
{
    memset(c, 0, sizeof *c);
    int rc = y4m_parse(c, (const uint8_t *)text, n, "t.y4m", true, e);
    if (rc < 0) clip_fini(c);
    return rc;
}

static void refuses(const char *text, size_t n, const char *words)
{
    struct err e = {0};
    struct clip c;
    CHECK_MSG(parse(&c, text, n, &e) < 0, "accepted: %s", text);
    CHECK_MSG(e.code == ERR_INPUT && strstr(e.msg, words), "\"%s\" does not say \"%s\"", e.msg,
              words);
}

static void foreign_files(void)
{
    struct err e = {0};
    struct clip c;
    /* white and black by hand: Y 235 and 16, chroma 128; default colour is 420 */
    static const char ok[] = "YUV4MPEG2 W2 H2 F25:1 Ip A1:1\nFRAME\n\xeb\x10\xeb\x10\x80\x80";
    CHECK_OK(parse(&c, ok, sizeof ok - 1, &e));
    CHECK(c.frames == 1 && c.fps_num == 25 && c.rgb[0] == 255 && c.rgb[3] == 0 && c.rgb[6] == 255);
    CHECK_STR(c.pix_fmt, "yuv420p");
    CHECK(!c.settings);
    clip_fini(&c);
    /* pure red in BT.601: Y 81.5, Cb 90.2, Cr 240 */
    static const char red[] = "YUV4MPEG2 W1 H1 F25:1 C444\nFRAME Ip\n\x51\x5a\xf0";
    CHECK_OK(parse(&c, red, sizeof red - 1, &e));
    CHECK(c.rgb[0] >= 253 && c.rgb[1] <= 2 && c.rgb[2] <= 2);
    clip_fini(&c);
#define T(s) s, sizeof s - 1
    refuses(T("YUV4MPEG2 W2 H2"), "header line");
    refuses(T("YUV4MPEG2 H2\nFRAME\n"), "no W and H");
    refuses(T("YUV4MPEG2 W0 H2\n"), "W0");
    refuses(T("YUV4MPEG2 W-5 H2\n"), "W-5");
    refuses(T("YUV4MPEG2 W99999999999 H2\n"), "W999");
    refuses(T("YUV4MPEG2 W2 H2 F1\n"), "frame rate");
    refuses(T("YUV4MPEG2 W2 H2 F1:1 C422\n"), "C422");
    refuses(T("YUV4MPEG2 W2 H2 F1:1 C420p10\n"), "C420p10");
    refuses(T("YUV4MPEG2 W2 H2 F1:1 It\n"), "interlaced");
    refuses(T("YUV4MPEG2 W2 H2 F1:1\n"), "no frame");
    refuses(T("YUV4MPEG2 W2 H2 F1:1\nFRAME\nabc"), "3 of 6 bytes");
    refuses(T("YUV4MPEG2 W2 H2 F1:1\nframe\nabcdef"), "FRAME");
    refuses(T("YUV4MPEG2 W1 H1 F1:1 XDITGEN=%zz\nFRAME\nabc"), "broken settings");
    refuses(T("YUV4MPEG2 W1 H1 F1:1 XDITGEN=a%00\nFRAME\nabc"), "broken settings");
    refuses(T("YUV4MPEG2 W1 H1 F1:1 XDITGEN=a%4\nFRAME\nabc"), "broken settings");
    refuses(T("YUV4MPEG2 W16384 H16384 F1:1 C444\nFRAME\nabc"), "cut short");
}

static void settings_words(void)
{
    char all[256];
    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = 0;
    char *word = settings_encode(all);
    for (const unsigned char *p = (unsigned char *)word; *p; p++)
        CHECK(*p > 0x20 && *p != 0x7f);
    char *back = settings_decode(word, strlen(word));
    CHECK_STR(back, all);
    free(back);
    free(word);
}

int main(void)
{
    struct err e = {0};
    enter_folder();
    round_trip(9, 33, 17, 0); /* fits over the FRAME lines; odd sizes are fine in 4:4:4 */
    round_trip(1, 16, 16, 1); /* does not */
    to_stdout("out.y4m");
    uint8_t *rgb = make_frames(3, 20, 14);
    struct writer_params p = params("file.y4m", 3, 20, 14);
    CHECK_OK(write_clip(&p, rgb, &e));
    CHECK(same_bytes("out.y4m", "file.y4m"));
    check_refused(&p, ERR_USAGE, "-y overwrites");
    p.overwrite = true;
    CHECK_OK(write_clip(&p, rgb, &e));
    p.codec = "libx264";
    check_refused(&p, ERR_USAGE, "uncompressed");
    free(rgb);
    pipe_broken();
    foreign_files();
    settings_words();
    leave_folder();
    return TEST_RESULT();
}
