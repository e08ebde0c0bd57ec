/* Whatever lies in a folder of PNG frames: one sentence, or a clip; and a writer that overwrites it
 * leaves its own frames and nothing of others'.
 *
 * Input: entries of a name ended by a zero byte, two bytes of length, and so much content; a name that
 * ends in "/" makes a folder, one that begins with "@" is a link to the rest of it. */
#include "app/clips/aside.h"
#include "app/clips/clip.h"
#include "app/clips/png.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds) abort();
}

/* Only names below the folder. */
static bool harmless(const char *name)
{
    return name[0] && name[0] != '/' && !strstr(name, "..") && strlen(name) < 200;
}

static void fill(int dir, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        const char *name = (const char *)data + at;
        size_t n = strnlen(name, size - at);
        if (at + n + 3 > size) return;
        size_t len = (size_t)data[at + n + 1] | (size_t)data[at + n + 2] << 8;
        at += n + 3;
        if (len > size - at) len = size - at;
        if (harmless(name + (name[0] == '@'))) {
            if (name[0] == '@') {
                if (symlinkat(name + 1, dir, "frame_0001.png") < 0) return; /* there, or too long */
            } else if (name[n - 1] == '/') {
                mkdirat(dir, name, 0700);
            } else {
                int fd = openat(dir, name, O_CREAT | O_WRONLY | O_NOFOLLOW | O_EXCL, 0600);
                if (fd >= 0) {
                    if (write(fd, data + at, len) < 0) abort();
                    close(fd);
                }
            }
        }
        at += len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[] = "/tmp/ditgen-fuzz-XXXXXX", pattern[64], command[80];
    struct err e = {0};
    struct clip c;
    if (size > 65536 || !mkdtemp(path)) return 0;
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    fill(dir, data, size);
    if (clip_read(&c, path, true, &e) < 0) {
        require(e.code != ERR_NONE && e.msg[0] && !c.rgb && !c.settings);
    } else {
        require(c.frames > 0 && c.frames <= CLIP_MAX_FRAMES && c.width > 0 && c.height > 0);
        clip_fini(&c);
    }
    static const uint8_t grey[3] = {9, 9, 9};
    snprintf(pattern, sizeof pattern, "%s/frame_%%04d.png", path);
    struct writer_params p = {.path = pattern,
                              .width = 1,
                              .height = 1,
                              .frames = 1,
                              .fps_num = 1,
                              .fps_den = 1,
                              .crf = -1,
                              .overwrite = true};
    struct writer *w = NULL;
    if (writer_open(&w, &p, &e) == 0) {
        if (writer_frame(w, grey, &e) < 0)
            writer_abort(w);
        else if (writer_close(w, &e) == 0) {
            if (clip_read(&c, pattern, true, &e) < 0) {
                require(strstr(e.msg, "not in place yet") !=
                        NULL); /* a folder within that folder */
                c = (struct clip){.frames = 1, .width = 1, .height = 1, .rgb = calloc(1, 3)};
                if (c.rgb) memset(c.rgb, 9, 3);
            }
            require(c.frames == 1 && c.width == 1 && memcmp(c.rgb, grey, 3) == 0);
            clip_fini(&c);
        } else {
            require(e.msg[0]);
        }
    }
    close(dir);
    snprintf(command, sizeof command, "rm -rf -- %s", path);
    require(system(command) == 0);
    return 0;
}
