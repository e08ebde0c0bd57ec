/* Whatever mp4, mov or webm is given: one sentence, or frames within the bounds and settings that are
 * text. Through memory files, because libav opens by name. */
#include "app/clips/clip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    int fd = memfd_create("clip", MFD_CLOEXEC);
    if (fd < 0 || size > 1 << 20) goto done;
    if (write(fd, data, size) != (ssize_t)size) goto done;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int frames = 0; frames < 2; frames++) {
        struct clip c;
        struct err e = {0};
        if (clip_read(&c, path, frames, &e) < 0) {
            require(e.code != ERR_NONE && e.msg[0] && !c.rgb && !c.settings);
            continue;
        }
        require(c.frames > 0 && c.frames <= CLIP_MAX_FRAMES && c.width > 0 && c.height > 0 &&
                c.width <= CLIP_MAX_SIDE && c.height <= CLIP_MAX_SIDE);
        require(!c.settings || strlen(c.settings) <= CLIP_MAX_SETTINGS);
        if (frames) {
            size_t bytes = (size_t)c.frames * clip_frame_bytes(&c);
            require(bytes <= CLIP_MAX_BYTES);
            volatile uint8_t last = c.rgb[bytes - 1];
            (void)last;
        }
        clip_fini(&c);
    }
done:
    if (fd >= 0) close(fd);
    return 0;
}
