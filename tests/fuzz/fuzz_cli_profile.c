/* Promise: any bytes as a profile, as stored settings or as ditgen.ini give settings within their
 * bounds or one sentence; what was accepted is written and read back the same. */
#include "app/lib/defaults.h"
#include "app/cli/profile.h"
#include "app/cli/ran.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok) abort();
}

static void as_file(const uint8_t *data, size_t size)
{
    struct ditgen_settings *s = NULL;
    struct err e = {0};
    char path[64];
    int fd = memfd_create("profile", 0);
    if (fd < 0) return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size && settings_open(&s, &e) == 0) {
        if (profile_load_file(s, LAYER_CONFIG, path, &e) < 0) must(e.code && e.msg[0]);
        settings_close(s);
    }
    close(fd);
}

static void as_stored(const char *text)
{
    struct ditgen_settings *s = NULL, *t = NULL;
    struct ran ran = {0};
    struct err e = {0};
    if (ran_read(&ran, text, "clip", &e) < 0) must(e.code && e.msg[0]);
    e = (struct err){0};
    must(settings_open(&s, &e) == 0 && settings_open(&t, &e) == 0);
    if (profile_from_clip(s, LAYER_CONFIG, text, "clip", &e) < 0) {
        must(e.code && e.msg[0]);
    } else {
        const char *prompt = settings_text(s, SET_PROMPT);
        must(settings_int(s, SET_WIDTH) <= 16384 && settings_int(s, SET_STEPS) <= 1000);
        if (prompt) {
            char *line = NULL;
            size_t n = 0;
            FILE *f = open_memstream(&line, &n);
            must(f != NULL);
            fputs(prompt, f);
            fclose(f);
            must(settings_set(t, LAYER_FLAG, "prompt", line, &e) == 0 &&
                 strcmp(settings_text(t, SET_PROMPT), prompt) == 0);
            free(line);
        }
    }
    settings_close(s);
    settings_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct defaults d = {0};
    struct err e = {0};
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    as_file(data, size);
    as_stored(text);
    if (defaults_parse(&d, text, size, "ditgen.ini", &e) < 0) must(e.code && e.msg[0]);
    defaults_fini(&d);
    free(text);
    return 0;
}
