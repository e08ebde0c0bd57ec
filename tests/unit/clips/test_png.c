/* PNG frames: exact back, names, folders made and refused, hostile patterns and pictures. */
#include "tests/unit/clips/test_clips.h"

#include "app/clips/png.h"

#define W 24
#define H 18

static void round_trip(const char *path, const char *first, int frames)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(frames, W, H);
    struct writer_params p = params(path, frames, W, H);
    CHECK_OK(write_clip(&p, rgb, &e));
    CHECK_MSG(access(first, R_OK) == 0, "%s is not there", first);
    struct clip c;
    CHECK_OK(clip_read(&c, path, true, &e));
    CHECK(c.width == W && c.height == H && c.frames == frames);
    CHECK(memcmp(c.rgb, rgb, (size_t)frames * W * H * 3) == 0);
    CHECK_STR(c.settings, SETTINGS);
    CHECK_STR(c.codec, "png");
    clip_fini(&c);
    CHECK_OK(clip_read(&c, path, false, &e));
    CHECK(c.frames == frames && !c.rgb && c.settings);
    clip_fini(&c);
    CHECK_OK(clip_read(&c, first, true, &e)); /* one picture */
    CHECK(c.frames == 1 && memcmp(c.rgb, rgb, W * H * 3) == 0);
    clip_fini(&c);
    check_refused(&p, ERR_USAGE, "exists; -y");
    free(rgb);
}

static void overwriting(void)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(5, W, H);
    struct writer_params p = params("over/f_%d.png", 5, W, H);
    CHECK_OK(write_clip(&p, rgb, &e));
    write_bytes("over/mine.txt", "x", 1);
    p.frames = 2;
    p.overwrite = true;
    CHECK_OK(write_clip(&p, rgb + W * H * 3, &e));
    CHECK(count_entries("over") ==
          4); /* two frames, settings, mine.txt: no frame of the older clip */
    struct clip c;
    CHECK_OK(clip_read(&c, "over", true, &e));
    CHECK(c.frames == 2 && memcmp(c.rgb, rgb + W * H * 3, 2 * W * H * 3) == 0);
    clip_fini(&c);
    free(rgb);
}

static void aborting(void)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(2, W, H);
    int before = count_entries(".");
    mkdir("there", 0777);
    static const char *const paths[] = {"new/", "there/", "there/x%03d.png"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct writer_params p = params(paths[i], 2, W, H);
        struct writer *w = NULL;
        CHECK_OK(writer_open(&w, &p, &e));
        CHECK_OK(writer_frame(w, rgb, &e));
        CHECK(access("new", F_OK) < 0); /* nothing under the final name yet */
        writer_abort(w);
        CHECK(count_entries("there") == 0 && count_entries(".") == before + 1);
    }
    rmdir("there");
    free(rgb);
}

/* Somebody makes the same folder while the clip is made: theirs stays, ours is kept beside it. */
static void taken_meanwhile(void)
{
    struct err e = {0};
    uint8_t *rgb = make_frames(1, W, H);
    struct writer_params p = params("race/", 1, W, H);
    struct writer *w = NULL;
    CHECK_OK(writer_open(&w, &p, &e));
    CHECK_OK(writer_frame(w, rgb, &e));
    mkdir("race", 0777);
    write_bytes("race/theirs", "t", 1);
    CHECK(writer_close(w, &e) < 0 && e.code == ERR_RESOURCE && strstr(e.msg, "kept as race-1"));
    CHECK(count_entries("race") == 1 && count_entries("race-1") == 2);
    free(rgb);
}

static void bad_names(void)
{
    static const char *const bad[] = {"%s.png",   "%n%d.png", "a%.png",     "a%5d.png",
                                      "%d%d.png", "%00d.png", "%099d.png",  "%0999999999d.png",
                                      "a%x.png",  "%%.png",   "a%d_%s.png", "a%*d.png",
                                      "a%ld.png", "a%-4d.png"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct writer_params p = params(bad[i], 2, W, H);
        check_refused(&p, ERR_USAGE, "f_%04d.png");
    }
    struct err e = {0};
    struct png_name n;
    CHECK_OK(png_name_parse(&n, "d%s/100%%_%03d_%%s.png", &e));
    char name[64];
    png_name_at(&n, 7, name, sizeof name);
    CHECK_STR(name, "100%_007_%s.png");
    CHECK_STR(n.folder, "d%s");
    CHECK(png_name_index(&n, name) == 7 && png_name_index(&n, "100%_1234_%s.png") == 1234);
    CHECK(png_name_index(&n, "100%_07_%s.png") < 0 && png_name_index(&n, "100%_0007_%s.png") < 0);
    CHECK(png_name_index(&n, "100%_007_%s.png.part") < 0 &&
          png_name_index(&n, "100%_99999999999_%s.png") < 0);
    png_name_fini(&n);
    struct writer_params p = params("no/such/", 2, W, H);
    check_refused(&p, ERR_RESOURCE, "folder no cannot be used");
    write_bytes("plain", "x", 1);
    p.path = "plain/f%d.png";
    check_refused(&p, ERR_RESOURCE, "is not a folder");
    p.path = "one.png";
    check_refused(&p, ERR_USAGE, "names one picture");
    p.path = "frames/";
    p.crf = 20;
    check_refused(&p, ERR_USAGE, "PNG frames take no");
}

static void bad_folders(void)
{
    struct err e = {0};
    struct clip c;
    uint8_t *rgb = make_frames(3, W, H);
    struct writer_params p = params("gap/a_%02d.png", 3, W, H);
    CHECK_OK(write_clip(&p, rgb, &e));
    unlink("gap/a_02.png");
    CHECK(clip_read(&c, "gap", true, &e) < 0 && e.code == ERR_INPUT && strstr(e.msg, "missing"));
    rename("gap/a_03.png", "gap/b_02.png");
    CHECK(clip_read(&c, "gap/", true, &e) < 0 && strstr(e.msg, "name one clip"));
    CHECK_OK(clip_read(&c, "gap/b_%02d.png", true, &e));
    CHECK(c.frames == 1);
    clip_fini(&c);
    CHECK(clip_read(&c, "gap/c_%02d.png", true, &e) < 0 && strstr(e.msg, "no PNG frames"));
    write_bytes("gap/b_03.png", "\x89PNG\r\n\x1a\nnonsense", 16);
    CHECK(clip_read(&c, "gap/b_%02d.png", true, &e) < 0 && strstr(e.msg, "b_03.png is not a PNG"));
    write_bytes("gap/settings.ini", "a\0b", 3);
    unlink("gap/b_03.png");
    CHECK(clip_read(&c, "gap/b_%02d.png", true, &e) < 0 && strstr(e.msg, "zero byte"));
    CHECK(clip_read(&c, "nowhere", true, &e) < 0 && e.code == ERR_INPUT);
    CHECK(clip_read(&c, "plain", true, &e) < 0 && strstr(e.msg, "no clip that this build reads"));
    free(rgb);
}

int main(void)
{
    enter_folder();
    round_trip("frames/", "frames/frame_0001.png", 3);
    round_trip("one/f_%04d.png", "one/f_0001.png", 1);
    mkdir("old", 0777);
    write_bytes("old/notes.txt", "x", 1);
    round_trip("old/f%d.png", "old/f1.png", 12); /* f10 sorts after f2 */
    CHECK(count_entries("old") == 14);
    overwriting();
    aborting();
    taken_meanwhile();
    bad_names();
    bad_folders();
    leave_folder();
    return TEST_RESULT();
}
