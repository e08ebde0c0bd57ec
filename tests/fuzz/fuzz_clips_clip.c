/* Whatever clip file is given: one sentence, or frames within the bounds and settings that are
 * text.
 *
 * The first byte picks the reader: 0 y4m, 1 a PNG picture, 2 the settings word, 3 latents, else
 * all. */
#include "app/clips/clip.h"
#include "app/clips/latents.h"
#include "app/clips/png.h"
#include "app/clips/settings_text.h"
#include "app/clips/y4m.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds) abort();
}

static void try_y4m(const uint8_t *data, size_t size)
{
    struct clip c = {0};
    struct err e = {0};
    if (y4m_parse(&c, data, size, "fuzz.y4m", true, &e) < 0) {
        require(e.code != ERR_NONE && e.msg[0]);
    } else {
        size_t bytes = (size_t)c.frames * clip_frame_bytes(&c);
        require(c.frames > 0 && c.frames <= CLIP_MAX_FRAMES && c.width > 0 && c.height > 0);
        require(bytes <=
                3 * 2 * size); /* 4:2:0 holds 1.5 bytes a pixel: nothing comes from nowhere */
        volatile uint8_t last = c.rgb[bytes - 1];
        (void)last;
        require(!c.settings || strlen(c.settings) <= CLIP_MAX_SETTINGS);
    }
    clip_fini(&c);
}

static void try_png(const uint8_t *data, size_t size)
{
    uint8_t *rgb;
    int w = 0, h = 0;
    if (png_decode(&rgb, &w, &h, data, size) == 0) {
        require(w > 0 && h > 0 && w <= CLIP_MAX_SIDE && h <= CLIP_MAX_SIDE &&
                (int64_t)w * h <= PNG_MAX_PIXELS);
        volatile uint8_t last = rgb[3 * (size_t)w * (size_t)h - 1];
        (void)last;
    }
    free(rgb);
}

/* What decodes comes back the same through encode and decode. */
static void try_settings(const uint8_t *data, size_t size)
{
    char *text = settings_decode((const char *)data, size);
    char *word = text ? settings_encode(text) : NULL;
    char *again = word ? settings_decode(word, strlen(word)) : NULL;
    if (word) require(again && strcmp(text, again) == 0 && !strpbrk(word, " \n\t\r"));
    free(again);
    free(word);
    free(text);
}

static void try_latents(const uint8_t *data, size_t size)
{
    struct latents l;
    struct err e = {0};
    if (latents_parse(&l, data, size, "fuzz.safetensors", &e) < 0) {
        require(e.code != ERR_NONE && e.msg[0] && !l.values);
    } else {
        require(l.n > 0 && l.n <= size);
        volatile float last = l.values[l.n - 1];
        (void)last;
    }
    latents_fini(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    int pick = data[0] < 4 ? data[0] : 4;
    if (pick == 0 || pick == 4) try_y4m(data + 1, size - 1);
    if (pick == 1 || pick == 4) try_png(data + 1, size - 1);
    if (pick == 2 || pick == 4) try_settings(data + 1, size - 1);
    if (pick == 3 || pick == 4) try_latents(data + 1, size - 1);
    return 0;
}
