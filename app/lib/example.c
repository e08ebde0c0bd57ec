/* The C library in thirty lines: one prompt, frames as PPM files.
 * cc example.c $(pkg-config --cflags --libs ditgen) && ./a.out "a red apple jumps on a green
 * meadow" */
#include <ditgen/ditgen.h>
#include <stdio.h>

static int save(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    char name[64];
    (void)ctx;
    snprintf(name, sizeof name, "frame_%03d.ppm", index);
    FILE *f = fopen(name, "wb");
    if (!f) return 1; /* stops the run */
    fprintf(f, "P6 %d %d 255\n", width, height);
    fwrite(rgb, 3, (size_t)width * (size_t)height, f);
    return fclose(f) != 0;
}

int main(int argc, char **argv)
{
    const char *prompt = argc > 1 ? argv[1] : "a rocket flies up in outer space";
    struct ditgen *model = NULL;
    struct ditgen_settings *s = NULL;
    struct ditgen_error e = {0};
    struct ditgen_callbacks calls = {.frame = save};
    if (ditgen_open(&model, NULL, &e) != 0) goto fail; /* NULL: the model that comes with ditgen */
    if (ditgen_settings_open(&s, model, &e) != 0) goto fail;
    if (ditgen_set(s, "prompt", prompt, &e) != 0) goto fail;
    if (ditgen_set(s, "size", "64x64", &e) != 0) goto fail; /* tiny: without these three lines */
    if (ditgen_set(s, "frames", "5", &e) != 0) goto fail; /* it is the size that the model */
    if (ditgen_set(s, "steps", "2", &e) != 0) goto fail; /* was trained at */
    ditgen_generate(model, s, &calls, &e);
fail:
    if (e.code) fprintf(stderr, "%s\n", e.message);
    ditgen_settings_close(s);
    ditgen_close(model);
    return e.code;
}
