/* Previews: a map fitted to one clip shows the next one's colours, and they take less than 1 % of the
 * time that passes between them. */
#include <time.h>

#include "app/lib/ditgen.h"
#include "app/lib/preview.h"
#include "tests/check.h"

#define SIDE 64
#define FRAMES 5
#define CELL 8

struct seen {
    struct ditgen_preview_map map;
    bool fitted;
    uint8_t rgb[FRAMES][SIDE * SIDE * 3];
    int shown;
    double inside; /* seconds spent showing */
    int nap_ms;
    uint8_t last[2 * (SIDE / CELL) * (SIDE / CELL) * 3];
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct seen *s = ctx;
    CHECK(width == SIDE && height == SIDE && index < FRAMES);
    memcpy(s->rgb[index], rgb, sizeof s->rgb[0]);
    return 0;
}

static void on_fitted(void *ctx, const struct ditgen_preview_map *map)
{
    struct seen *s = ctx;
    s->map = *map;
    s->fitted = true;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int on_preview(void *ctx, const struct ditgen_preview *p)
{
    struct seen *s = ctx;
    double t0 = now();
    CHECK(p->frames == 2 && p->width == SIDE / CELL && p->height == SIDE / CELL);
    CHECK(p->step >= 1 && p->step < p->steps);
    memcpy(s->last, p->rgb, sizeof s->last);
    nanosleep(&(struct timespec){.tv_nsec = s->nap_ms * 1000000L}, NULL);
    s->shown++;
    s->inside += now() - t0;
    return 0;
}

/* Mean squared difference between the last preview and the clip's mean colour of each cell. */
static double difference(const struct seen *s)
{
    double sum = 0;
    int n = 0;
    for (int t = 0; t < 2; t++)
        for (int y = 0; y < SIDE / CELL; y++)
            for (int x = 0; x < SIDE / CELL; x++)
                for (int k = 0; k < 3; k++) {
                    double mean = 0;
                    int from = t ? 1 : 0, to = t ? FRAMES : 1;
                    for (int f = from; f < to; f++)
                        for (int i = 0; i < CELL * CELL; i++)
                            mean +=
                                s->rgb[f][3 * ((y * CELL + i / CELL) * SIDE + x * CELL + i % CELL) +
                                          k];
                    mean /= (to - from) * CELL * CELL;
                    double d = mean - s->last[3 * ((t * SIDE / CELL + y) * (SIDE / CELL) + x) + k];
                    sum += d * d;
                    n++;
                }
    return sum / n;
}

static void run(struct ditgen *d, struct ditgen_callbacks *c, const char *prompt, const char *steps)
{
    struct ditgen_settings *s;
    struct ditgen_error e;
    const char *const all[][2] = {{"prompt", prompt}, {"size", "64x64"}, {"frames", "5"},
                                  {"steps", steps},   {"threads", "1"},  {"seed", "3"}};
    CHECK(ditgen_settings_open(&s, d, &e) == 0);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        CHECK(ditgen_set(s, all[i][0], all[i][1], &e) == 0);
    CHECK_MSG(ditgen_generate(d, s, c, &e) == 0, "%s", e.message);
    ditgen_settings_close(s);
}

/* The rule by itself, with times that are given. */
static void rule(void)
{
    struct ditgen_preview_map map = {.channels = 4};
    struct preview p = {.map = &map, .made = 100, .cost = 0.02};
    CHECK(!preview_due(&p, 101.9) && preview_due(&p, 102.1));
    p.map = NULL;
    CHECK(!preview_due(&p, 1e9));
}

int main(void)
{
    struct ditgen *d;
    struct ditgen_error e;
    static struct seen first, second;
    rule();
    CHECK(ditgen_open(&d, NULL, &e) == 0);
    struct ditgen_callbacks c = {
        .ctx = &first, .frame = on_frame, .preview = on_preview, .fitted = on_fitted};
    run(d, &c, "a red rose", "8");
    CHECK(first.fitted && first.shown == 0); /* no map yet */
    CHECK(first.map.channels == 16 && first.map.vae == ditgen_vae_mark(d));

    second.nap_ms = 1;
    c = (struct ditgen_callbacks){
        .ctx = &second, .frame = on_frame, .preview = on_preview, .map = &first.map};
    double t0 = now();
    run(d, &c, "a big shark moves left underwater", "40");
    double all = now() - t0;
    CHECK(second.shown > 0);
    /* one more than its share, for the last that may still pay itself back */
    double one = second.inside / second.shown;
    CHECK_MSG(second.inside <= 0.01 * all + one, "%d previews took %.4f of %.4f s", second.shown,
              second.inside, all);
    double mse = difference(&second);
    printf("%d previews, the last %.1f dB from the clip's cells\n", second.shown,
           10 * log10(255 * 255 / mse));
    CHECK(10 * log10(255 * 255 / mse) > 12); /* seen, not measured: a grey picture is at 8 */
    ditgen_close(d);
    return TEST_RESULT();
}
