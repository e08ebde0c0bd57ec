/* Names, checks and small files; see output.h. */
#include "app/cli/output.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/clips/aside.h"
#include "app/clips/latents.h"
#include "app/lib/assets.h"

#define SLUG 48 /* letters of the prompt in a file name */

/* "A big shark, left!" → "a-big-shark-left"; ends at a word when there is more. */
static void slug(char *to, size_t n, const char *prompt)
{
    size_t len = 0, word = 0;
    const unsigned char *p = (const unsigned char *)prompt;
    for (; *p && len + 1 < n; p++) {
        if (*p < 128 && isalnum(*p)) {
            to[len++] = (char)tolower(*p);
        } else if (*p != '\'' && len && to[len - 1] != '-') {
            word = len;
            to[len++] = '-';
        }
    }
    if (*p && isalnum(*p) && word) len = word; /* cut inside a word */
    while (len && to[len - 1] == '-')
        len--;
    to[len] = 0;
    if (!len) snprintf(to, n, "clip");
}

void output_name(char *name, size_t n, const char *prompt, uint64_t seed, const char *suffix)
{
    char words[SLUG + 1];
    struct err ignored;
    slug(words, sizeof words, prompt);
    if (!suffix) suffix = writer_kind_for("x.mp4", &ignored) ? "mp4" : "y4m";
    snprintf(name, n, "%s-%llu.%s", words, (unsigned long long)seed, suffix);
    for (int i = 2; path_exists(name); i++)
        snprintf(name, n, "%s-%llu-%d.%s", words, (unsigned long long)seed, i, suffix);
}

void output_fps(double fps, int *num, int *den)
{
    if (fabs(fps * 1.001 - round(fps)) < 0.005 &&
        fabs(fps - round(fps)) > 1e-9) { /* 23.976, 29.97, 59.94 */
        *num = (int)lrint(round(fps)) * 1000, *den = 1001;
        return;
    }
    for (*den = 1; *den < 1000; (*den)++)
        if (fabs(fps * *den - round(fps * *den)) < 1e-6) break;
    *num = (int)lrint(fps * *den);
}

/* A profile's words about encoders are for writers that have one; what was typed or called is the
 * writer's to refuse. */
static bool is_meant(const struct ditgen_settings *s, enum setting_id id, bool encodes)
{
    return encodes || settings_from(s, id) > LAYER_PROFILE;
}

void output_params(struct writer_params *p, const struct ditgen_settings *s, const char *path,
                   const char *text, bool overwrite)
{
    struct err ignored = {0};
    const struct writer_kind *kind = writer_kind_for(path, &ignored);
    bool encodes = !kind || kind->encodes;
    *p = (struct writer_params){
        .path = path,
        .width = settings_int(s, SET_WIDTH),
        .height = settings_int(s, SET_HEIGHT),
        .frames = settings_int(s, SET_FRAMES),
        .codec = is_meant(s, SET_CODEC, encodes) ? settings_text(s, SET_CODEC) : NULL,
        .preset = is_meant(s, SET_PRESET, encodes) ? settings_text(s, SET_PRESET) : NULL,
        .pix_fmt = is_meant(s, SET_PIX_FMT, encodes) ? settings_text(s, SET_PIX_FMT) : NULL,
        .crf = is_meant(s, SET_CRF, encodes) ? settings_int(s, SET_CRF) : -1,
        .settings = text,
        .overwrite = overwrite};
    output_fps(settings_real(s, SET_FPS), &p->fps_num, &p->fps_den);
}

int output_check(const char *path, bool overwrite, struct err *e)
{
    return strcmp(path, "-") == 0 ? 0 : aside_check_file(path, overwrite, e);
}

int output_text(const char *path, const char *text, bool overwrite, struct err *e)
{
    if (strcmp(path, "-") != 0)
        return aside_write_file(path, "text", overwrite, text, strlen(text), e);
    if (fputs(text, stdout) < 0 || fflush(stdout) != 0)
        return err_set(e, ERR_RESOURCE, "standard output: %s", strerror(errno));
    return 0;
}

int output_latents(const char *path, const float *latents, const int shape[4], const char *settings,
                   bool overwrite, struct err *e)
{
    const struct latents_note note = {LATENTS_SETTINGS, settings};
    struct latents_file f = {.latents = latents, .notes = &note, .n_notes = settings ? 1 : 0};
    memcpy(f.shape, shape, sizeof f.shape);
    return latents_write(&f, path, "latents", overwrite, e);
}
