/* What a clip is, one fact a line, for the shell tests: decoded back by the readers.
 * Usage: clip_info PATH [settings]: with a second word, prints the settings alone. */
#include "app/clips/writer.h"

#include <stdio.h>

/* FNV-1a, 64 bit */
static uint64_t hash(const uint8_t *p, size_t n)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

int main(int argc, char **argv)
{
    struct clip c = {0};
    struct err e = {0};
    if (argc < 2 || clip_read(&c, argv[1], true, &e) < 0) {
        fprintf(stderr, "clip_info: %s\n", e.msg);
        return e.code ? (int)e.code : 2;
    }
    if (argc > 2) {
        fputs(c.settings ? c.settings : "", stdout);
    } else {
        printf("size %dx%d\nframes %d\nfps %d/%d\npix_fmt %s\ncodec %s\n", c.width, c.height,
               c.frames, c.fps_num, c.fps_den, c.pix_fmt, c.codec);
        printf("rgb %016llx\n", (unsigned long long)hash(c.rgb, (size_t)c.width * (size_t)c.height *
                                                                    (size_t)c.frames * 3));
    }
    clip_fini(&c);
    return 0;
}
