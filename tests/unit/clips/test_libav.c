/* mp4, mov and webm: decoded back they are the clip; options refused before any work; bytes repeat.
 */
#include "tests/unit/clips/test_clips.h"

#ifndef DITGEN_HAVE_LIBAV
int main(void)
{
    printf("skipped: built without libav\n");
    return 0;
}
#else

#include <libavcodec/avcodec.h>
#include <libavutil/pixdesc.h>

#define W 96
#define H 64
#define FRAMES 9

/* The bytes of a file hold no mark of who made it, and when. */
static void check_anonymous(const char *path)
{
    static const char *const marks[] = {"Lavf5", "Lavf6",  "Lavc",    "x264",
                                        "x265",  "libvpx", "ditgen-", "/tmp"};
    struct bytes b = read_bytes(path);
    for (size_t i = 0; i < ARRAY_LEN(marks); i++)
        CHECK_MSG(!memmem(b.data, b.n, marks[i], strlen(marks[i])), "%s holds \"%s\"", path,
                  marks[i]);
    free(b.data);
}

static bool has_encoder(const char *name)
{
    if (!name || avcodec_find_encoder_by_name(name) || avcodec_descriptor_get_by_name(name))
        return true;
    printf("skipped: no %s in this FFmpeg\n", name);
    return false;
}

static void round_trip(const char *path, const char *encoder, const char *pix_fmt,
                       const char *codec, double psnr)
{
    if (!has_encoder(encoder)) return;
    struct err e = {0};
    uint8_t *rgb = make_frames(FRAMES, W, H);
    struct writer_params p = params(path, FRAMES, W, H);
    p.codec = encoder;
    p.pix_fmt = pix_fmt;
    p.overwrite = true;
    CHECK_OK(write_clip(&p, rgb, &e));
    struct clip c;
    CHECK_OK(clip_read(&c, path, true, &e));
    CHECK(c.width == W && c.height == H && c.frames == FRAMES);
    CHECK_MSG(c.fps_num == 16 * c.fps_den, "%s: %d/%d frames per second", path, c.fps_num,
              c.fps_den);
    CHECK_STR(c.codec, codec);
    /* RGB is coded by planes */
    CHECK_STR(c.pix_fmt, !pix_fmt ? "yuv420p" : strcmp(pix_fmt, "rgb24") == 0 ? "gbrp" : pix_fmt);
    CHECK_STR(c.settings, SETTINGS);
    if (c.rgb && c.frames == FRAMES) {
        struct quality q = {0};
        CHECK_OK(quality_clips(&q, rgb, c.rgb, FRAMES, W, H, &e));
        CHECK_MSG(q.psnr > psnr, "%s %s: PSNR %.2f, wanted %.0f", path, codec, q.psnr, psnr);
        CHECK_MSG(q.psnr_worst > psnr - 3, "%s %s: worst frame %.2f", path, codec, q.psnr_worst);
        printf("%s %s %s: PSNR %.2f dB, worst %.2f, SSIM %.4f\n", path, codec, c.pix_fmt, q.psnr,
               q.psnr_worst, q.ssim);
    }
    clip_fini(&c);
    CHECK_OK(clip_read(&c, path, false, &e));
    CHECK(c.frames == FRAMES && !c.rgb && c.settings);
    clip_fini(&c);
    check_anonymous(path);
    rename(path, "first");
    CHECK_OK(write_clip(&p, rgb, &e));
    CHECK_MSG(same_bytes(path, "first"), "%s %s: other bytes the second time", path, codec);
    unlink("first");
    free(rgb);
}

/* Bytes do not follow from what the heap held before: this program again, with the allocator
 * filling memory by two patterns (glibc's MALLOC_PERTURB_; elsewhere it is a plain repetition). */
static void heap_independent(const char *self)
{
    static const char *const sizes[] = {"64 96 yuv420p", "100 50 yuv420p", "64 96 yuv444p"};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char command[2400];
        snprintf(command, sizeof command,
                 "MALLOC_PERTURB_=85 '%s' write %s heap-a.mp4 && MALLOC_PERTURB_=165 '%s' write %s "
                 "heap-b.mp4",
                 self, sizes[i], self, sizes[i]);
        CHECK(system(command) == 0);
        CHECK_MSG(same_bytes("heap-a.mp4", "heap-b.mp4"), "%s: bytes follow from the heap",
                  sizes[i]);
        unlink("heap-a.mp4");
        unlink("heap-b.mp4");
    }
}

/* write WIDTH HEIGHT PIX_FMT FILE: one clip, for heap_independent(). */
static int write_only(char **argv)
{
    struct err e = {0};
    int w = atoi(argv[2]), h = atoi(argv[3]);
    uint8_t *rgb = make_frames(FRAMES, w, h);
    struct writer_params p = params(argv[5], FRAMES, w, h);
    p.pix_fmt = argv[4];
    int rc = has_encoder("libx264") ? write_clip(&p, rgb, &e) : 0;
    free(rgb);
    return rc < 0;
}

/* Every encoder of this FFmpeg in every container with every pixel format: refused before any work,
 * or written and read back as the clip. */
static void everything_accepted(void)
{
    static const char *const names[] = {"e.mp4", "e.mov", "e.webm"};
    static const enum AVPixelFormat some[] = {AV_PIX_FMT_YUV420P, AV_PIX_FMT_RGB24,
                                              AV_PIX_FMT_GRAY8, AV_PIX_FMT_YUV444P,
                                              AV_PIX_FMT_NONE};
    uint8_t *rgb = make_frames(3, 64, 48);
    const AVCodec *codec;
    int accepted = 0, refused = 0;
    for (void *at = NULL; (codec = av_codec_iterate(&at)) != NULL;) {
        if (!av_codec_is_encoder(codec) || codec->type != AVMEDIA_TYPE_VIDEO) continue;
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            for (const enum AVPixelFormat *f = codec->pix_fmts ? codec->pix_fmts : some;
                 *f != AV_PIX_FMT_NONE; f++) {
                struct err e = {0};
                struct writer_params p = params(names[i], 3, 64, 48);
                p.codec = codec->name;
                p.pix_fmt = av_get_pix_fmt_name(*f);
                p.overwrite = true;
                if (writer_check(&p, &e) < 0) {
                    CHECK(e.code == ERR_USAGE);
                    refused++;
                    continue;
                }
                struct clip c = {0};
                struct quality q = {0};
                accepted++;
                CHECK_MSG(write_clip(&p, rgb, &e) == 0, "%s %s: %s", p.codec, p.pix_fmt, e.msg);
                CHECK_MSG(clip_read(&c, p.path, true, &e) == 0, "%s %s in %s: %s", p.codec,
                          p.pix_fmt, p.path, e.msg);
                if (c.frames == 3 && c.width == 64 && c.height == 48)
                    quality_clips(&q, rgb, c.rgb, 3, 64, 48, &e);
                CHECK_MSG(q.psnr > 30, "%s %s in %s: %d frames, %.1f dB", p.codec, p.pix_fmt,
                          p.path, c.frames, q.psnr);
                CHECK_STR(c.settings, SETTINGS);
                clip_fini(&c);
            }
    }
    printf("%d codecs and formats written and read back, %d refused\n", accepted, refused);
    CHECK(accepted > 20);
    unlink("e.mp4");
    unlink("e.mov");
    unlink("e.webm");
    free(rgb);
}

/* Tags that players want, and the sentences for those who do not play. */
static void players(void)
{
    static const struct {
        const char *path, *codec, *pix_fmt;
        int crf;
        const char *says; /* NULL: nothing */
    } cases[] = {
        {"p.mp4", NULL, NULL, -1, NULL},
        {"p.webm", NULL, NULL, -1, NULL},
        {"p.y4m", NULL, NULL, -1, NULL},
        {"p.mp4", NULL, NULL, 0, "Safari"},
        {"p.mp4", NULL, "yuv444p", -1, "-pix_fmt yuv420p"},
        {"p.mp4", NULL, "yuv420p10le", -1, "10 bits"},
        {"p.webm", NULL, "yuv444p", -1, "Safari"},
        {"p.mov", "mpeg4", NULL, -1, "no browser"},
        {"p.mov", "prores", "yuv422p10le", -1, "editing"},
        {"p.mp4", "libx265", NULL, -1, "H.265"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct writer_params p = params(cases[i].path, 3, 64, 48);
        char note[400];
        if (!has_encoder(cases[i].codec)) continue;
        p.codec = cases[i].codec;
        p.pix_fmt = cases[i].pix_fmt;
        p.crf = cases[i].crf;
        writer_note(note, sizeof note, &p);
        CHECK_MSG(cases[i].says ? strstr(note, cases[i].says) != NULL : !note[0], "%s %s: '%s'",
                  p.path, p.codec ? p.codec : "", note);
    }
    if (!has_encoder("libx265")) return;
    struct err e = {0};
    uint8_t *rgb = make_frames(3, 64, 48);
    struct writer_params p = params("p.mp4", 3, 64, 48);
    p.codec = "libx265";
    CHECK_OK(write_clip(&p, rgb, &e));
    struct bytes b = read_bytes("p.mp4");
    CHECK(memmem(b.data, b.n, "hvc1", 4) && !memmem(b.data, b.n, "hev1", 4));
    free(b.data);
    unlink("p.mp4");
    free(rgb);
}

/* moov before mdat: a browser can start before it has the whole file. */
static void faststart(void)
{
    struct bytes b = read_bytes("a.mp4");
    char *moov = memmem(b.data, b.n, "moov", 4), *mdat = memmem(b.data, b.n, "mdat", 4);
    CHECK(moov && mdat && moov < mdat);
    free(b.data);
}

/* Colour is where it belongs: a flat patch of a saturated colour survives within a few steps. */
static void colours(void)
{
    static const uint8_t patch[6][3] = {{255, 0, 0},   {0, 255, 0},  {0, 0, 255},
                                        {255, 255, 0}, {12, 34, 56}, {200, 190, 180}};
    struct err e = {0};
    uint8_t *rgb = malloc(6 * 64 * 64 * 3);
    for (int f = 0; f < 6; f++)
        for (int i = 0; i < 64 * 64; i++)
            memcpy(rgb + (f * 64 * 64 + i) * 3, patch[f], 3);
    struct writer_params p = params("c.mp4", 6, 64, 64);
    p.crf = 4;
    CHECK_OK(write_clip(&p, rgb, &e));
    struct clip c;
    CHECK_OK(clip_read(&c, "c.mp4", true, &e));
    for (int f = 0; f < 6 && c.rgb; f++)
        for (int k = 0; k < 3; k++) {
            int got = c.rgb[(f * 64 * 64 + 32 * 64 + 32) * 3 + k];
            CHECK_MSG(abs(got - patch[f][k]) <= 4, "frame %d channel %d: %d, wanted %d", f, k, got,
                      patch[f][k]);
        }
    clip_fini(&c);
    free(rgb);
}

static void refusals(void)
{
    struct writer_params p = params("r.mp4", 5, 95, 64);
    check_refused(&p, ERR_USAGE, "multiple of 2");
    check_refused(&p, ERR_USAGE, "yuv444p takes any size");
    p.pix_fmt = "yuv444p";
    struct err e = {0};
    CHECK_OK(writer_check(&p, &e));
    p.width = W;
    p.pix_fmt = "mauve";
    check_refused(&p, ERR_USAGE, "no such pixel format; libx264 takes yuv420p");
    p.pix_fmt = "rgb24";
    check_refused(&p, ERR_USAGE, "libx264 does not take it");
    p.pix_fmt = NULL;
    p.codec = "nothing";
    check_refused(&p, ERR_USAGE, "-c:v nothing");
    p.codec = "libsvtav1";
    check_refused(&p, ERR_USAGE, "-c:v libsvtav1");
    p.codec = "aac";
    check_refused(&p, ERR_USAGE, "-c:v aac");
    p.codec = "libvpx";
    check_refused(&p, ERR_USAGE, "a .mp4 file cannot hold vp8");
    p.codec = NULL;
    p.crf = 52;
    check_refused(&p, ERR_USAGE, "-crf 52: libx264 takes 0 (best) to 51");
    p.crf = -1;
    p.preset = "fas";
    check_refused(&p, ERR_USAGE, "libx264 takes ultrafast");
    p.preset = "fast medium";
    check_refused(&p, ERR_USAGE, "-preset fast medium");
    p.path = "r.webm";
    p.preset = "fast";
    check_refused(&p, ERR_USAGE, "has no presets");
    p.preset = NULL;
    p.codec = "libx264";
    check_refused(&p, ERR_USAGE, "a .webm file cannot hold h264");
    p.codec = "mpeg4";
    p.path = "r.mov";
    p.crf = 10;
    check_refused(&p, ERR_USAGE, "mpeg4 has no such option");
    CHECK(access("r.mp4", F_OK) < 0 && access("r.mov", F_OK) < 0 && access("r.webm", F_OK) < 0);
}

static void crf_and_preset_count(void)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(FRAMES, W, H);
    struct writer_params p = params("q1.mp4", FRAMES, W, H);
    p.crf = 10;
    CHECK_OK(write_clip(&p, rgb, &e));
    p.path = "q2.mp4";
    p.crf = 40;
    CHECK_OK(write_clip(&p, rgb, &e));
    p.path = "q3.mp4";
    p.preset = "ultrafast";
    CHECK_OK(write_clip(&p, rgb, &e));
    struct stat a, b;
    CHECK(stat("q1.mp4", &a) == 0 && stat("q2.mp4", &b) == 0 && a.st_size > b.st_size);
    CHECK(!same_bytes("q2.mp4", "q3.mp4"));
    free(rgb);
}

/* Every cut of a clip, and bytes turned over: a sentence or a clip within bounds. */
static void broken_files(struct test_rng *r)
{
    static const char *const paths[] = {"a.mp4", "a.webm"};
    for (size_t k = 0; k < ARRAY_LEN(paths); k++) {
        struct bytes b = read_bytes(paths[k]);
        for (int i = 0; i < 60; i++) {
            size_t n = i < 30 ? (size_t)rng_int(r, 0, (int)b.n - 1) : b.n;
            char *copy = malloc(b.n + 1);
            memcpy(copy, b.data, b.n);
            for (int j = 0; i >= 30 && j < 4; j++)
                copy[rng_int(r, j < 2 ? 0 : (int)b.n / 3, (int)b.n - 1)] = (char)rng_u64(r);
            write_bytes("broken", copy, n);
            free(copy);
            struct err e = {0};
            struct clip c;
            int rc = clip_read(&c, "broken", true, &e);
            if (rc < 0)
                CHECK(e.code != 0 && e.msg[0]);
            else
                CHECK(c.frames > 0 && c.width <= CLIP_MAX_SIDE && c.height <= CLIP_MAX_SIDE);
            if (rc == 0) clip_fini(&c);
        }
        free(b.data);
    }
    unlink("broken");
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "write") == 0) return write_only(argv);
    struct test_rng r = test_seed(argc, argv);
    char self[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    enter_folder();
    if (!has_encoder("libx264") || !has_encoder("libvpx-vp9")) {
        leave_folder();
        return 0;
    }
    /* crf 18 of a smooth clip; chroma at half size costs the coloured edge */
    round_trip("a.mp4", NULL, NULL, "h264", 35);
    round_trip("a.mov", NULL, NULL, "h264", 35);
    round_trip("a.webm", NULL, NULL, "vp9", 35);
    round_trip("444.mp4", "h264", "yuv444p", "h264", 40);
    round_trip("10.mp4", "libx264", "yuv420p10le", "h264", 35);
    round_trip("rgb.mov", "libx264rgb", "rgb24", "h264", 40);
    round_trip("vp8.webm", "libvpx", NULL, "vp8", 35);
    round_trip("old.mov", "mpeg4", NULL, "mpeg4", 32);
    round_trip("jpeg.mov", "mjpeg", "yuvj420p", "mjpeg", 35);
    round_trip("CAPS.MP4", NULL, NULL, "h264", 35);
    round_trip("a:b %d.mp4", NULL, NULL, "h264", 35); /* a name, not a protocol, not a pattern */
    faststart();
    everything_accepted();
    players();
    heap_independent(self);
    colours();
    refusals();
    crf_and_preset_count();
    broken_files(&r);
    leave_folder();
    return TEST_RESULT();
}
#endif
