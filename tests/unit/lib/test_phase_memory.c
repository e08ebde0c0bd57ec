/* What the plan says of memory is what each phase takes: ten sizes and lengths of prompt, both
 * precisions, a process each, whose highest resident size the system counts from the phase's
 * beginning. */
#include "app/lib/ditgen.h"
#include "tests/check.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#define WITHIN 0.05
#define CODE                                                                                       \
    ((double)(1 << 20)) /* pages of code that no formula knows: they matter beside 10 MiB */

struct clip {
    const char *size, *frames;
    int words; /* of the prompt */
    const char *guidance, *threads;
};

static const struct clip clips[] = {
    {"64x64", "5", 2, "4", "1"},     {"64x64", "5", 600, "4", "1"},
    {"64x64", "17", 40, "1", "2"},   {"128x64", "9", 150, "4", "1"},
    {"128x128", "17", 5, "4", "1"},  {"128x128", "9", 300, "1", "1"},
    {"192x128", "5", 90, "4", "2"},  {"256x192", "9", 3, "4", "2"},
    {"256x256", "5", 600, "4", "1"}, {"256x256", "17", 20, "1", "2"},
};

struct seen {
    size_t peak[DITGEN_PHASES];
    int phase; /* -1: none yet */
};

/* The highest resident size is counted anew from now on; false: this system has no such thing. */
static bool forget_peak(void)
{
    int f = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool ok = f >= 0 && write(f, "5", 1) == 1;
    if (f >= 0) close(f);
    return ok;
}

static size_t peak_now(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    size_t kib = 0;
    while (f && !kib && fgets(line, sizeof line, f))
        sscanf(line, "VmHWM: %zu", &kib);
    if (f) fclose(f);
    return kib * 1024;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct seen *s = ctx;
    /* opening the transformer lies behind the text's last report, and is denoising */
    bool text_ends = p->phase == DITGEN_TEXT && p->done == p->total;
    if (!text_ends && (int)p->phase == s->phase) return 0;
    if (text_ends) s->phase = DITGEN_TEXT;
    if (s->phase >= 0 && s->peak[s->phase] < peak_now()) s->peak[s->phase] = peak_now();
    s->phase = text_ends ? DITGEN_DENOISE : (int)p->phase;
    forget_peak();
    return 0;
}

/* In a process of its own: plan, run, and say both. */
static void child(const struct clip *c, const char *precision, int to)
{
    struct ditgen_error e = {0};
    struct ditgen *d;
    struct ditgen_settings *s;
    struct ditgen_plan plan;
    struct seen seen = {.phase = -1};
    char prompt[4096] = "";
    for (int i = 0; i < c->words; i++)
        strcat(prompt, i ? " cat" : "cat");
    const char *const all[][2] = {{"prompt", prompt},
                                  {"size", c->size},
                                  {"frames", c->frames},
                                  {"steps", "1"},
                                  {"guidance-scale", c->guidance},
                                  {"threads", c->threads},
                                  {"precision", precision}};
    CHECK(ditgen_open(&d, NULL, &e) == 0 && ditgen_settings_open(&s, d, &e) == 0);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        CHECK_MSG(ditgen_set(s, all[i][0], all[i][1], &e) == 0, "%s", e.message);
    CHECK_MSG(ditgen_plan(d, s, &plan, &e) == 0, "%s", e.message);
    forget_peak();
    struct ditgen_callbacks calls = {.ctx = &seen, .progress = on_progress};
    CHECK_MSG(ditgen_generate(d, s, &calls, &e) == 0, "%s", e.message);
    seen.peak[DITGEN_DECODE] = peak_now();
    size_t all_bytes[2 * DITGEN_PHASES];
    for (int i = 0; i < DITGEN_PHASES; i++) {
        all_bytes[2 * i] = (size_t)plan.process_bytes + plan.phase_bytes[i];
        all_bytes[2 * i + 1] = seen.peak[i];
    }
    CHECK(write(to, all_bytes, sizeof all_bytes) == sizeof all_bytes);
    ditgen_settings_close(s);
    ditgen_close(d);
    _exit(TEST_RESULT());
}

static void check_clip(const struct clip *c, const char *precision)
{
    static const char *const names[] = {"text", "denoise", "decode"};
    size_t bytes[2 * DITGEN_PHASES] = {0};
    int ends[2], status = 0;
    CHECK(pipe(ends) == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) child(c, precision, ends[1]);
    close(ends[1]);
    CHECK(read(ends[0], bytes, sizeof bytes) == sizeof bytes);
    close(ends[0]);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    printf("%-8s %2s frames, %3d words, guidance %s, %s threads, %s:", c->size, c->frames, c->words,
           c->guidance, c->threads, precision);
    for (int i = 0; i < DITGEN_PHASES; i++)
        printf("  %s %.1f of %.1f MiB", names[i], (double)bytes[2 * i] / 1048576,
               (double)bytes[2 * i + 1] / 1048576);
    puts("");
    for (int i = 0; i < DITGEN_PHASES; i++) {
        double plan = (double)bytes[2 * i], peak = (double)bytes[2 * i + 1];
        CHECK_MSG(fabs(plan - peak) <= WITHIN * peak + (i == DITGEN_TEXT ? CODE : 0),
                  "%s: predicted %.1f MiB, seen %.1f", names[i], plan / 1048576, peak / 1048576);
    }
}

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
    puts("skipped: sanitizers keep memory of their own");
    return 77;
#endif
    if (!forget_peak()) {
        puts("skipped: this system does not count a phase's memory");
        return 77;
    }
    for (size_t i = 0; i < sizeof clips / sizeof clips[0]; i++) {
        check_clip(&clips[i], "fp32");
        check_clip(&clips[i], "bf16");
    }
    return TEST_RESULT();
}
