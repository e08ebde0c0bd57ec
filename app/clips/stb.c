/* The vendored picture code, compiled once. Allocation is bounded, so that a small hostile PNG
 * cannot ask for all of memory. */
#include "app/clips/png.h"

#include <stdlib.h>
#include <string.h>

/* 64 Mpixel as RGBA, a filter byte a row, and room to double */
#define STB_MAX_BYTES ((size_t)600 << 20)

static void *bounded_realloc(void *p, size_t n)
{
    return n > STB_MAX_BYTES ? NULL : realloc(p, n ? n : 1);
}

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"
#endif
#define STBI_MALLOC(n) bounded_realloc(NULL, n)
#define STBI_REALLOC(p, n) bounded_realloc(p, n)
#define STBI_FREE(p) free(p)
#define STBI_MAX_DIMENSIONS CLIP_MAX_SIDE
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STB_IMAGE_IMPLEMENTATION
#include "app/clips/vendor/stb_image.h"
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include "app/clips/vendor/stb_image_write.h"

/* Are the chunks whole, and is the first IDAT not empty? On an empty one stb computes
 * with a NULL. */
static bool chunks_sound(const uint8_t *data, size_t size)
{
    for (size_t at = 8; size - at >= 12;) {
        const uint8_t *p = data + at;
        size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (n > size - at - 12) return false;
        if (memcmp(p + 4, "IDAT", 4) == 0) return n > 0;
        at += 12 + n;
    }
    return false;
}

int png_decode(uint8_t **rgb, int *width, int *height, const uint8_t *data, size_t size)
{
    int w, h, channels;
    *rgb = NULL;
    if (size < 8 || size > PNG_MAX_FILE || !chunks_sound(data, size) ||
        !stbi_info_from_memory(data, (int)size, &w, &h, &channels))
        return -1;
    if (w > CLIP_MAX_SIDE || h > CLIP_MAX_SIDE || (int64_t)w * h > PNG_MAX_PIXELS) return -1;
    *rgb = stbi_load_from_memory(data, (int)size, width, height, &channels, 3);
    return *rgb ? 0 : -1;
}

int png_size(int *width, int *height, const uint8_t *data, size_t size)
{
    int channels;
    if (size < 8 || size > PNG_MAX_FILE ||
        !stbi_info_from_memory(data, (int)size, width, height, &channels))
        return -1;
    return 0;
}

int png_encode(void (*sink)(void *ctx, void *data, int size), void *ctx, const uint8_t *rgb,
               int width, int height)
{
    return stbi_write_png_to_func(sink, ctx, width, height, 3, rgb, 3 * width) ? 0 : -1;
}
