/* What holds for every writer of the build: suffixes, refusals, nothing left behind, disk full.
 * Names no writer but by path. */
#include "tests/unit/clips/test_clips.h"

#include <errno.h>
#include <sys/mount.h>

#define W 64
#define H 48

/* Every path form of every writer, made from the list. */
static int make_path(char *path, size_t size, int i)
{
    int n = 0;
    for (int k = 0; k < writer_kind_count(); k++) {
        const char *s = writer_kind_at(k)->suffixes;
        if (!s[0] && n++ == i) {
            snprintf(path, size, "frames/");
            return 1;
        }
        while (*s) {
            size_t len = strcspn(s, " ");
            if (n++ == i) {
                snprintf(path, size, "clip.%.*s", (int)len, s);
                return 1;
            }
            s += len;
            s += strspn(s, " ");
        }
    }
    return 0;
}

static void every_writer(const uint8_t *rgb)
{
    struct err e = {0};
    char path[64];
    for (int i = 0; make_path(path, sizeof path, i); i++) {
        struct writer_params p = params(path, 5, W, H);
        CHECK_OK(writer_check(&p, &e));
        CHECK(count_entries(".") == 0); /* checking makes nothing */
        struct writer *w = NULL;
        CHECK_OK(writer_open(&w, &p, &e));
        CHECK_OK(writer_frame(w, rgb, &e));
        CHECK_MSG(access(path, F_OK) < 0, "%s is there before it is finished", path);
        writer_abort(w);
        CHECK_MSG(count_entries(".") == 0, "%s: abort left something", path);
        w = NULL;
        CHECK_OK(writer_open(&w, &p, &e));
        CHECK_OK(writer_frame(w, rgb, &e));
        CHECK(writer_close(w, &e) < 0 && e.code == ERR_BUG); /* frames are missing */
        CHECK_MSG(count_entries(".") == 0, "%s: a failed close left something", path);
        CHECK_OK(write_clip(&p, rgb, &e));
        CHECK(count_entries(".") == 1);
        struct clip c;
        CHECK_OK(clip_read(&c, path, true, &e));
        CHECK(c.width == W && c.height == H && c.frames == 5);
        CHECK_STR(c.settings, SETTINGS);
        clip_fini(&c);
        check_refused(&p, ERR_USAGE, "-y overwrites");
        p.overwrite = true;
        CHECK_OK(write_clip(&p, rgb, &e));
        remove_tree(path);
        p.settings = NULL;
        p.frames = 1;
        CHECK_OK(write_clip(&p, rgb, &e));
        CHECK_OK(clip_read(&c, path, true, &e));
        CHECK(c.frames == 1 && !c.settings);
        clip_fini(&c);
        remove_tree(path);
    }
}

/* A plain file appears under the name while the clip is made: it stays, the clip is kept beside it.
 */
static void taken_meanwhile(const uint8_t *rgb)
{
    struct err e = {0};
    struct writer_params p = params("t.y4m", 1, W, H);
    struct writer *w = NULL;
    CHECK_OK(writer_open(&w, &p, &e));
    CHECK_OK(writer_frame(w, rgb, &e));
    write_bytes("t.y4m", "theirs", 6);
    CHECK(writer_close(w, &e) < 0 && strstr(e.msg, "kept as t-1.y4m"));
    struct bytes b = read_bytes("t.y4m");
    CHECK_STR(b.data, "theirs");
    free(b.data);
    struct clip c;
    CHECK_OK(clip_read(&c, "t-1.y4m", true, &e));
    clip_fini(&c);
    unlink("t.y4m");
    unlink("t-1.y4m");
}

static void refusals(void)
{
    struct writer_params p = params("clip.avi", 5, W, H);
    check_refused(&p, ERR_USAGE, "unknown suffix .avi");
    check_refused(&p, ERR_USAGE, ".y4m");
    check_refused(&p, ERR_USAGE, "dir/f_%04d.png");
    p.path = "clip";
    check_refused(&p, ERR_USAGE, "no suffix");
    p.path = "";
    check_refused(&p, ERR_USAGE, "empty");
    p.path = "a.y4m/clip";
    check_refused(&p, ERR_USAGE, "no suffix");
    p.path = "nowhere/clip.y4m";
    check_refused(&p, ERR_RESOURCE, "nowhere");
    mkdir("dir.y4m", 0777);
    p.path = "dir.y4m";
    check_refused(&p, ERR_USAGE, "is a folder");
    rmdir("dir.y4m");
    mkfifo("fifo.y4m", 0666);
    p.path = "fifo.y4m";
    p.overwrite = true;
    check_refused(&p, ERR_USAGE, "not a plain file");
    unlink("fifo.y4m");
    p.path = "clip.y4m";
    p.width = 0;
    check_refused(&p, ERR_USAGE, "size 0x48");
    p.width = W;
    p.frames = 0;
    check_refused(&p, ERR_USAGE, "0 frames");
    p.frames = 1;
    p.fps_den = 0;
    check_refused(&p, ERR_USAGE, "frames per second");
    if (geteuid() != 0) { /* root writes everywhere */
        mkdir("locked", 0555);
        p = params("locked/clip.y4m", 5, W, H);
        check_refused(&p, ERR_RESOURCE, "not writable");
        rmdir("locked");
    }
#ifndef DITGEN_HAVE_LIBAV
    p = params("clip.mp4", 5, W, H);
    check_refused(&p, ERR_USAGE, "needs FFmpeg's libav");
#endif
}

/* Noise that no codec makes small, onto a file system of 64 KiB. */
static void disk_full(void)
{
    struct err e = {0};
    char path[64];
    mkdir("small", 0777);
    if (mount("none", "small", "tmpfs", 0, "size=65536") < 0) {
        printf("disk full: skipped, no tmpfs may be mounted here (%s)\n", strerror(errno));
        rmdir("small");
        return;
    }
    int frames = 40, w = 128, h = 128;
    size_t n = (size_t)frames * (size_t)w * (size_t)h * 3;
    uint8_t *rgb = malloc(n);
    struct test_rng r = {5};
    for (size_t i = 0; i < n; i++)
        rgb[i] = (uint8_t)rng_u64(&r);
    CHECK(chdir("small") == 0);
    for (int i = 0; make_path(path, sizeof path, i); i++) {
        struct writer_params p = params(path, frames, w, h);
        CHECK_MSG(write_clip(&p, rgb, &e) < 0, "%s fits?", path);
        CHECK_MSG(e.code == ERR_RESOURCE && strstr(e.msg, "disk full") && strstr(e.msg, path),
                  "%s: code %d: %s", path, (int)e.code, e.msg);
        CHECK_MSG(count_entries(".") == 0, "%s: a full disk left something", path);
    }
    CHECK(chdir("..") == 0);
    umount2("small", MNT_DETACH);
    rmdir("small");
    free(rgb);
}

int main(void)
{
    enter_folder();
    uint8_t *rgb = make_frames(5, W, H);
    every_writer(rgb);
    taken_meanwhile(rgb);
    refusals();
    disk_full();
    CHECK(count_entries(".") == 0);
    free(rgb);
    leave_folder();
    return TEST_RESULT();
}
