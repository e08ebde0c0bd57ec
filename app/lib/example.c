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
    struct ditgen *model = NULL;
    struct ditgen_settings s;
    struct ditgen_error e;
    struct ditgen_callbacks calls = {.frame = save};
    if (ditgen_open(&model, NULL, &e) != 0) goto fail; /* NULL: the model that comes with ditgen */
    ditgen_defaults(model, &s);
    s.prompt = argc > 1 ? argv[1] : "a rocket flies up in outer space";
    s.width = s.height = 64, s.frames = 5,
    s.steps = 2; /* tiny: leave this line out for a real clip */
    if (ditgen_generate(model, &s, &calls, &e) != 0) goto fail;
    ditgen_close(model);
    return 0;
fail:
    fprintf(stderr, "%s\n", e.message);
    ditgen_close(model);
    return e.code;
}
