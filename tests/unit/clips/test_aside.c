/* Writing aside, for every path form of every writer: what is finished survives a rename that fails,
 * names made by others are never followed or destroyed, what the dead left is swept. */
#include "tests/unit/clips/test_clips.h"

#include "app/clips/aside.h"
#include "app/clips/latents.h"
#include "app/clips/png.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The calls that change names, counted, so that a process can be killed at each. */
static int test_die_after = -1;
static void one_call(void)
{
    if (test_die_after >= 0 && test_die_after-- == 0) kill(getpid(), SIGKILL);
}
int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    one_call();
    return (int)syscall(SYS_renameat, from_dir, from, to_dir, to);
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    one_call();
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}
int unlinkat(int dir, const char *name, int flags)
{
    one_call();
    return (int)syscall(SYS_unlinkat, dir, name, flags);
}

#define W 32
#define H 32

static const char *const paths[] = {"o.y4m", "frames/",
#ifdef DITGEN_HAVE_LIBAV
                                    "o.mp4", "o.webm", "o.mov"
#endif
};

static void reads_back(const char *path)
{
    struct clip c = {0};
    struct err e = {0};
    CHECK_MSG(clip_read(&c, path, true, &e) == 0, "%s: %s", path, e.msg);
    CHECK_MSG(c.frames == 2, "%s: %d frames", path, c.frames);
    clip_fini(&c);
}

/* With overwrite, a folder that is not empty takes the name while frames are made. */
static void name_becomes_folder(const uint8_t *rgb)
{
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct writer_params p = params(paths[i], 2, W, H);
        struct err e = {0};
        struct writer *w = NULL;
        char name[64], kept[300], said[320];
        p.overwrite = true;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(paths[i], "/"), paths[i]);
        CHECK_OK(writer_open(&w, &p, &e));
        CHECK_OK(writer_frame(w, rgb, &e));
        CHECK_OK(writer_frame(w, rgb, &e));
        mkdir(name, 0777);
        snprintf(kept, sizeof kept, "%s/mine", name);
        write_bytes(kept, "x", 1);
        CHECK(writer_close(w, &e) < 0 && e.code == ERR_RESOURCE);
        const char *dot = strrchr(name, '.');
        snprintf(kept, sizeof kept, "%.*s-1%s", (int)(dot ? dot - name : (ptrdiff_t)strlen(name)),
                 name, dot ? dot : "");
        snprintf(said, sizeof said, "clip kept as %s", kept);
        CHECK_MSG(strstr(e.msg, said), "'%s' does not say '%s'", e.msg, said);
        reads_back(kept);
        remove_tree(name);
        remove_tree(kept);
    }
    CHECK(count_entries(".") == 0);
}

/* The folder is renamed while frames are made: the clip goes along. */
static void folder_moves(const uint8_t *rgb)
{
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char path[80], moved[80];
        struct err e = {0};
        struct writer *w = NULL;
        snprintf(path, sizeof path, "here/%s", paths[i]);
        snprintf(moved, sizeof moved, "there/%s", paths[i]);
        mkdir("here", 0777);
        struct writer_params p = params(path, 2, W, H);
        CHECK_OK(writer_open(&w, &p, &e));
        CHECK_OK(writer_frame(w, rgb, &e));
        CHECK_OK(writer_frame(w, rgb, &e));
        CHECK(rename("here", "there") == 0);
        CHECK_OK(writer_close(w, &e));
        reads_back(moved);
        CHECK(count_entries("there") == 1);
        remove_tree("there");
    }
}

/* Neither a link nor a FIFO under a name that parts have, or had, is opened or destroyed. */
static void names_of_others(void)
{
    struct err e = {0};
    char part[64];
    write_bytes("victim", "precious", 8);
    static const char *const old[] = {"l.safetensors.part", "o.y4m.part"};
    for (size_t i = 0; i < ARRAY_LEN(old); i++)
        CHECK(symlink("victim", old[i]) == 0);
    for (int i = 0; i < 3; i++) {
        snprintf(part, sizeof part, ".ditgen-%ld-%d.part", (long)getpid(), i);
        if (i == 0)
            CHECK(symlink("victim", part) == 0);
        else
            CHECK(mkfifo(part, 0666) == 0);
    }
    float latents[8] = {0};
    struct latents_file f = {.latents = latents, .shape = {2, 1, 2, 2}};
    CHECK_OK(latents_write(&f, "l.safetensors", "latents", false, &e));
    CHECK_OK(aside_write_file("t.ini", "text", false, "x", 1, &e));
    struct writer_params p = params("o.y4m", 2, W, H);
    uint8_t *two = make_frames(2, W, H);
    CHECK_OK(write_clip(&p, two, &e));
    reads_back("o.y4m");
    struct bytes b = read_bytes("victim");
    CHECK_STR(b.data, "precious");
    free(b.data);
    struct stat st;
    CHECK(lstat("l.safetensors.part", &st) == 0 && S_ISLNK(st.st_mode));
    /* a link as the output's own name is replaced, not followed */
    CHECK(symlink("victim", "link.y4m") == 0);
    p.path = "link.y4m";
    check_refused(&p, ERR_USAGE, "exists");
    p.overwrite = true;
    CHECK_OK(write_clip(&p, two, &e));
    CHECK(lstat("link.y4m", &st) == 0 && S_ISREG(st.st_mode));
    b = read_bytes("victim");
    CHECK_STR(b.data, "precious");
    free(b.data);
    free(two);
    leave_folder();
    enter_folder();
}

/* A process is killed while it writes; another one at work is left alone. */
static void sweeping(const uint8_t *rgb)
{
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct err e = {0};
        struct writer_params p = params(paths[i], 2, W, H);
        pid_t child = fork();
        if (child == 0) {
            struct writer *w = NULL;
            if (writer_open(&w, &p, &e) == 0) writer_frame(w, rgb, &e);
            kill(getpid(), SIGKILL);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        CHECK_MSG(count_entries(".") == 1, "%s: the killed run left no part?", paths[i]);
        struct aside alive = {0};
        CHECK_OK(aside_open_file(&alive, "alive", "text", false, &e)); /* sweeps */
        CHECK_MSG(count_entries(".") == 1, "%s: the dead one's part stays", paths[i]);
        uint8_t *two = make_frames(2, W, H);
        CHECK_OK(write_clip(&p, two, &e));
        free(two);
        CHECK_OK(aside_commit(&alive, &e)); /* nobody swept the living one's */
        CHECK(count_entries(".") == 2);
        leave_folder();
        enter_folder();
    }
}

/* Frames into a folder that has a clip, killed after every single rename and removal: what stands
 * there is never frames of two clips, and is the whole new clip after the next look. */
static void killed_in_place(void)
{
    uint8_t *old = make_frames(6, W, H), *new = malloc((size_t)3 * W * H * 3);
    memset(new, 200, (size_t)3 * W * H * 3);
    int killed = 0;
    for (int steps = 0; steps < 40; steps++) {
        struct err e = {0};
        struct writer_params p = params("f/x_%02d.png", 6, W, H);
        mkdir("f", 0777);
        CHECK_OK(write_clip(&p, old, &e));
        p.overwrite = true;
        p.frames = 3;
        pid_t child = fork();
        if (child == 0) { /* dies at the given system call of the last part */
            struct writer *w = NULL;
            if (writer_open(&w, &p, &e) < 0) _exit(3);
            for (int i = 0; i < 3; i++)
                writer_frame(w, new, &e);
            test_die_after = steps;
            _exit(writer_close(w, &e) < 0 ? 4 : 0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        if (!WIFSIGNALED(status)) CHECK_MSG(status == 0, "status %x", (unsigned)status);
        /* every frame that stands there under its name is of one clip */
        int n_old = 0, n_new = 0;
        for (int i = 1; i <= 6; i++) {
            char name[64];
            struct clip c;
            snprintf(name, sizeof name, "f/x_%02d.png", i);
            if (access(name, F_OK) < 0 || clip_read(&c, name, true, &e) < 0) continue;
            (c.rgb[0] == 200 && c.rgb[1] == 200 ? &n_new : &n_old)[0]++;
            clip_fini(&c);
        }
        CHECK_MSG(n_old == 0 || n_new == 0, "killed after %d calls: %d old frames and %d new",
                  steps, n_old, n_new);
        struct clip c;
        CHECK_OK(clip_read(&c, "f", true, &e));
        CHECK_MSG(c.frames == 3 || c.frames == 6, "killed after %d calls: then %d frames", steps,
                  c.frames);
        CHECK(c.settings);
        clip_fini(&c);
        remove_tree("f");
        if (!WIFSIGNALED(status)) break;
        killed++;
    }
    CHECK_MSG(killed > 8, "only %d places to be killed at", killed);
    free(old);
    free(new);
}

static bool is_there(const char *name) { return access(name, F_OK) == 0; }

/* What is under way is removed at once, and only that. */
static void abandoned(void)
{
    struct aside file, folder, done;
    struct err e = {0};
    char part[2][300], inside[400];
    CHECK_OK(aside_open_file(&file, "x.bin", "clip", false, &e));
    CHECK_OK(aside_open_folder(&folder, "y", "clip", false, false, &e));
    CHECK_OK(aside_open_file(&done, "z.bin", "clip", false, &e));
    snprintf(part[0], sizeof part[0], "%s", file.part);
    snprintf(part[1], sizeof part[1], "%s", folder.part);
    snprintf(inside, sizeof inside, "%s/1.png", part[1]);
    FILE *f = fopen(inside, "w");
    CHECK(f && fclose(f) == 0 && is_there(inside));
    CHECK_OK(aside_commit(&done, &e));
    aside_abandon();
    CHECK(!is_there(part[0]) && !is_there(part[1]) && is_there("z.bin"));
    aside_discard(&file);
    aside_discard(&folder);
    aside_abandon(); /* nothing is under way any more */
    CHECK(is_there("z.bin") && unlink("z.bin") == 0);
}

int main(void)
{
    enter_folder();
    uint8_t *rgb = make_frames(1, W, H);
    name_becomes_folder(rgb);
    folder_moves(rgb);
    names_of_others();
    sweeping(rgb);
    killed_in_place();
    abandoned();
    free(rgb);
    leave_folder();
    return TEST_RESULT();
}
