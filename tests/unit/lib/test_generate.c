/* The C library on the embedded model at its smallest: frames in order, repeatable, cancelled
 * anywhere, bad settings refused with a sentence. */
#include "app/lib/ditgen.h"
#include "tests/check.h"

#define SIDE 32
#define FRAMES 5

struct seen {
    int frames, calls[DITGEN_PHASES], last_done;
    int stop_phase; /* -1: never */
    int stop_frame; /* -1: never */
    uint64_t hash;
    int latents;
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct seen *s = ctx;
    CHECK(index == s->frames && width == SIDE && height == SIDE);
    if (index == s->stop_frame) return 1;
    s->frames++;
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        s->hash = (s->hash ^ rgb[i]) * 1099511628211u;
    return 0;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct seen *s = ctx;
    s->calls[p->phase]++;
    CHECK(p->done >= 0 && p->done <= p->total && p->block >= 0 && p->block <= p->blocks);
    CHECK(p->seconds >= 0);
    s->last_done = p->done;
    return (int)p->phase == s->stop_phase;
}

static int on_latents(void *ctx, const float *latents, const int shape[4])
{
    struct seen *s = ctx;
    size_t n = (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3];
    s->latents++;
    for (size_t i = 0; i < n; i++)
        CHECK(isfinite(latents[i]));
    return 0;
}

static struct ditgen_settings tiny(const struct ditgen *d)
{
    struct ditgen_settings s;
    ditgen_defaults(d, &s);
    s.prompt = "a rocket";
    s.width = s.height = SIDE, s.frames = FRAMES, s.steps = 2, s.threads = 1;
    return s;
}

static int generate(struct ditgen *d, const struct ditgen_settings *s, struct seen *seen,
                    struct ditgen_error *e)
{
    struct ditgen_callbacks c = {
        .ctx = seen, .frame = on_frame, .progress = on_progress, .latents = on_latents};
    memset(e, 0, sizeof *e);
    return ditgen_generate(d, s, &c, e);
}

static void whole(struct ditgen *d)
{
    struct seen a = {.stop_phase = -1, .stop_frame = -1}, b = a, c = a;
    struct ditgen_error e;
    struct ditgen_settings s = tiny(d);
    CHECK_MSG(generate(d, &s, &a, &e) == 0, "%s", e.message);
    CHECK(a.frames == FRAMES && a.latents == 1 && a.last_done == FRAMES);
    CHECK(a.calls[DITGEN_TEXT] > 0 && a.calls[DITGEN_DENOISE] > 2 &&
          a.calls[DITGEN_DECODE] >= FRAMES);
    CHECK(generate(d, &s, &b, &e) == 0 && b.hash == a.hash); /* the same handle again */
    s.seed = 1;
    CHECK(generate(d, &s, &c, &e) == 0 && c.hash != a.hash);
    CHECK(ditgen_generate(d, &s, NULL, &e) == 0); /* no callbacks at all */
}

static void cancelled(struct ditgen *d)
{
    struct ditgen_error e;
    struct ditgen_settings s = tiny(d);
    for (int phase = 0; phase < DITGEN_PHASES; phase++) {
        struct seen a = {.stop_phase = phase, .stop_frame = -1};
        CHECK(generate(d, &s, &a, &e) < 0 && e.code == DITGEN_CANCELLED && e.message[0]);
        CHECK(a.calls[phase] == 1 && a.frames == 0);
    }
    struct seen a = {.stop_phase = -1, .stop_frame = 2};
    CHECK(generate(d, &s, &a, &e) < 0 && e.code == DITGEN_CANCELLED && a.frames == 2);
}

static void refused(struct ditgen *d)
{
    struct ditgen_plan p;
    struct ditgen_error e;
    struct seen none = {.stop_phase = -1, .stop_frame = -1};
    const struct ditgen_settings good = tiny(d);
    struct ditgen_settings bad[16];
    int n = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        bad[i] = good;
    bad[n++].width = 33;
    bad[n++].width = 0;
    bad[n++].height = -16;
    bad[n++].height = 1 << 30;
    bad[n++].frames = 6;
    bad[n++].frames = 0;
    bad[n++].steps = 0;
    bad[n++].steps = 1001;
    bad[n++].guidance_scale = NAN;
    bad[n++].flow_shift = 0;
    bad[n++].solver = "heun";
    bad[n++].precision = "fp8";
    bad[n++].threads = -1;
    bad[n++].attention = "none";
    bad[n++].attention_options = "what=1";
    bad[n++].kernel = "none";
    for (int i = 0; i < n; i++) {
        CHECK_MSG(ditgen_plan(d, &bad[i], &p, &e) < 0 && e.code == DITGEN_USAGE && e.message[0],
                  "row %d", i);
        CHECK(generate(d, &bad[i], &none, &e) < 0 && e.code == DITGEN_USAGE);
    }
    struct ditgen_settings s = good;
    s.prompt = NULL;
    CHECK(generate(d, &s, &none, &e) < 0 && e.code == DITGEN_USAGE);
    CHECK(none.frames == 0);
}

static void planned(struct ditgen *d)
{
    struct ditgen_plan p, big;
    struct ditgen_error e;
    struct ditgen_settings s = tiny(d);
    CHECK(ditgen_plan(d, &s, &p, &e) == 0);
    CHECK(p.tokens == 2 * 2 * 2 && p.branches == 2 && p.threads == 1 &&
          p.fits); /* 2 latent frames of 4x4 */
    CHECK(p.peak_bytes > 0 && p.seconds > 0 && p.linear[0] && p.attention[0] && p.precision[0]);
    s.guidance_scale = 1, s.width = 64;
    CHECK(ditgen_plan(d, &s, &big, &e) == 0);
    CHECK(big.branches == 1 && big.tokens == 2 * p.tokens);
    CHECK(big.phase_bytes[DITGEN_DECODE] > p.phase_bytes[DITGEN_DECODE]);
}

int main(void)
{
    struct ditgen *d = NULL;
    struct ditgen_error e;
    CHECK(ditgen_open(&d, TEST_SOURCE_DIR "/assets/emoji", &e) == 0);
    if (d) {
        whole(d);
        cancelled(d);
        refused(d);
        planned(d);
    }
    ditgen_close(d);
    return TEST_RESULT();
}
