/* Promise: any words as a command line give settings within their bounds or one sentence with an
 * exit code; what was accepted, filled in from the model, is written and read back the same.
 *
 * A line of the input is a word. The first byte says what words without a flag are. */
#include "app/cli/cli.h"
#include "app/cli/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORDS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok) abort();
}

/* The model's defaults: opened once. */
static struct ditgen *model(void)
{
    static struct ditgen *d;
    struct ditgen_error e;
    if (!d) must(ditgen_open(&d, TEST_SOURCE_DIR "/assets/emoji", &e) == 0);
    return d;
}

static void reads_back(struct cli *c)
{
    struct ditgen_settings *s = NULL, *all = NULL;
    struct err e = {0};
    char note[256];
    if (cli_resolve(c, model(), note, &e) < 0) {
        must(e.code && e.msg[0]);
        return;
    }
    must(settings_int(c->settings, SET_WIDTH) >= 1 && settings_int(c->settings, SET_STEPS) >= 1);
    char *text = settings_dump(c->settings, false), *again = NULL;
    must(text != NULL);
    must(settings_open(&s, &e) == 0);
    must(profile_from_clip(s, LAYER_CONFIG, text, "dump", &e) == 0);
    must(settings_resolve(&all, s, model(), note, &e) == 0);
    must((again = settings_dump(all, false)) != NULL && strcmp(text, again) == 0);
    free(text), free(again);
    settings_close(s), settings_close(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cli c;
    struct err e = {0};
    char program[] = "ditgen", *argv[MAX_WORDS + 2] = {program};
    int argc = 1;
    char *text = malloc(size + 1);
    if (!text || size < 1) {
        free(text);
        return 0;
    }
    memcpy(text, data, size);
    text[size] = 0;
    for (char *w = text + 1; argc <= MAX_WORDS && w < text + size;) {
        char *end = w + strcspn(w, "\n");
        *end = 0;
        argv[argc++] = w;
        w = end + 1;
    }
    if (cli_parse(&c, argc, argv, (enum cli_words)(data[0] % 3), &e) < 0)
        must(e.code && e.msg[0] && !strchr(e.msg, '\n'));
    else
        reads_back(&c);
    cli_fini(&c);
    free(text);
    return 0;
}
