/* bench: seconds and memory of every phase, medians over runs, beside the machine's peak of the
 * same run.
 *
 * Takes the flags of generate that choose a model and a clip; writes no clip. Memory of a phase is
 * the process's highest resident size in it, as the plan predicts it;
 * where the system cannot start that mark anew, only the whole run has one. */
#include "app/cli/bench.h"
#include "app/cli/bench_attention.h"
#include "app/cli/cli.h"
#include "app/cli/cmd.h"
#include "app/cli/device.h"
#include "app/lib/cost.h"
#include "model/base/clock.h"
#include "model/base/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_RUNS 100
#define PROMPT "a rocket flies up in outer space"

static const char USAGE[] =
    "ditgen bench [--runs N] [--json] [flags of generate]\n"
    "  --runs N  how often (1 to 100; default 3)\n"
    "  --json    one JSON object instead of tables\n"
    "Of generate's flags: the prompt, -m, -n, -W -H --size --frames --seconds --steps --turbo -s\n"
    "--guidance-scale --flow-shift --solver -t --precision --attention --kernel --profile "
    "--config.\n"
    "ditgen bench attention: every attention method beside fewer steps (--help tells more).\n"
    "Prints seconds of each phase (median, fastest, slowest), predicted and measured peak memory,\n"
    "and the floating-point peak of this machine, measured just before.\n";

/* --- what is measured --- */

static void sample(struct bench *b, enum row row, double seconds)
{
    b->rows[row].v[b->rows[row].n++] = seconds;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Starts the highest resident size of this process anew; false: the system does not. */
static bool mark_memory(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return false;
    bool ok = fputs("5", f) >= 0;
    return fclose(f) == 0 && ok;
}

static size_t marked_memory(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return (size_t)kib * 1024;
}

static void end_memory(struct bench *b, enum ditgen_phase phase)
{
    if (!b->marks || b->run > 0) return;
    b->bytes[phase] = marked_memory();
    if (b->bytes[phase] > b->most) b->most = b->bytes[phase];
    mark_memory();
}

/* A device's host is a step ahead of it (model_step_done): a report ends the step before, the last one two. */
static void steps_end(struct bench *b, const struct ditgen_progress *p, double now)
{
    bool ahead = device_place(b->d->device) != PLACE_HOST && p->total > 1;
    int n = !ahead ? 1 : p->done == 1 ? 0 : p->done == p->total ? 2 : 1;
    b->done = p->done;
    if (!n) return;
    for (int i = 0; i < n; i++)
        sample(b, ROW_STEP, (now - b->last) / n);
    b->denoise += now - b->last;
    b->last = now;
}

/* Text ends with its last report; opening the transformer lies between that and the first of
 * denoise, whose memory it is; what closes it and opens the VAE belongs to decoding. */
static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct bench *b = ctx;
    double now = clock_seconds();
    if (p->phase == DITGEN_TEXT) {
        b->text = now - b->begin;
        b->last = now;
        if (p->done == p->total)
            end_memory(b, DITGEN_TEXT); /* opening is denoising's, as planned */
    } else if (p->phase == DITGEN_DENOISE && b->phase == DITGEN_TEXT) {
        b->load = now - b->last;
        b->denoise = 0;
        b->done = 0;
        b->last = now;
    } else if (p->phase == DITGEN_DENOISE && p->done > b->done) {
        steps_end(b, p, now);
    } else if (p->phase == DITGEN_DECODE && b->phase == DITGEN_DENOISE) {
        end_memory(b, DITGEN_DENOISE);
    }
    b->phase = p->phase;
    if (b->progress) progress_update(b->progress, p);
    return 0;
}

static int one_run(struct bench *b, struct ditgen *d, const struct ditgen_settings *s,
                   struct err *e)
{
    struct ditgen_error de;
    struct ditgen_callbacks calls = {.ctx = b, .progress = on_progress};
    b->d = d;
    b->phase = DITGEN_TEXT;
    b->marks = b->run == 0 && mark_memory();
    b->begin = b->last = clock_seconds();
    memset(d->device_peak, 0, sizeof d->device_peak);
    if (ditgen_generate(d, s, &calls, &de) < 0)
        return err_set(e, (enum err_code)de.code, "%s", de.message);
    double end = clock_seconds();
    end_memory(b, DITGEN_DECODE);
    /* second best: it outlives exec, so that it may be the largest size of whoever started us */
    struct rusage usage;
    if (b->run == 0) memcpy(b->vram, d->device_peak, sizeof b->vram);
    if (b->run == 0 && !b->marks && getrusage(RUSAGE_SELF, &usage) == 0)
        b->most = (size_t)usage.ru_maxrss * 1024;
    sample(b, ROW_TEXT, b->text);
    sample(b, ROW_LOAD, b->load);
    sample(b, ROW_DENOISE, b->denoise);
    sample(b, ROW_DECODE, end - b->last);
    sample(b, ROW_ALL, end - b->begin);
    return 0;
}

/* --- the command --- */

/* Takes its own flags out of argv; the rest is generate's. */
static int take_own_flags(struct bench *b, int *argc, char **argv, struct err *e)
{
    int n = 1;
    b->runs = 3;
    for (int i = 1; i < *argc; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], "--json") == 0) {
            b->json = true;
        } else if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            b->help = true;
        } else if (strcmp(argv[i], "--runs") == 0) {
            if (++i < *argc) value = argv[i];
            if (!value) return err_set(e, ERR_USAGE, "--runs wants a number");
        } else if (strncmp(argv[i], "--runs=", 7) == 0) {
            value = argv[i] + 7;
        } else {
            argv[n++] = argv[i];
        }
        if (value && parse_int(value, 1, MAX_RUNS, &b->runs) < 0)
            return err_set(e, ERR_USAGE, "--runs is %.40s, wanted 1 to %d", value, MAX_RUNS);
    }
    *argc = n;
    return 0;
}

static int refuse_foreign(const struct cli *c, struct err *e)
{
    const char *flag = c->output        ? "-o"
                       : c->latents     ? "--save-latents"
                       : c->dump_config ? "--dump-config"
                       : c->plan        ? "--plan"
                       : c->file        ? "-f"
                                        : NULL;
    return flag ? err_set(e, ERR_USAGE, "bench takes no %s: it writes no clip", flag) : 0;
}

static int alloc_samples(struct bench *b, int steps, struct err *e)
{
    for (int i = 0; i < ROWS; i++) {
        size_t n = (size_t)b->runs * (size_t)(i == ROW_STEP ? steps : 1);
        b->rows[i].v = malloc(n * sizeof(double));
        if (!b->rows[i].v) return err_set(e, ERR_RESOURCE, "no memory for %zu timings", n);
    }
    return 0;
}

static int measure(struct report *r, struct bench *b, struct ditgen *d, struct err *e)
{
    struct model_clip clip = {.width = settings_int(r->s, SET_WIDTH),
                              .height = settings_int(r->s, SET_HEIGHT),
                              .frames = settings_int(r->s, SET_FRAMES),
                              .num_steps = settings_int(r->s, SET_STEPS),
                              .guided = r->plan.branches > 1};
    struct model_work work;
    if (alloc_samples(b, settings_int(r->s, SET_STEPS), e) < 0) return -1;
    cpu_detect(&r->cpu);
    threads_set(r->plan.threads);
    if (!bench_on_device(r))
        peak_measure(&r->peak, r->cpu.level); /* the processor's is no judge of a card */
    model_work(&work, &d->info, &clip, (int)r->plan.text_tokens);
    r->step_flops = r->plan.branches * (work.linear + work.attn);
    r->decode_flops = work.decode;
    for (b->run = 0; b->run < b->runs; b->run++)
        if (one_run(b, d, r->s, e) < 0) return -1;
    for (int i = 0; i < ROWS; i++)
        qsort(b->rows[i].v, (size_t)b->rows[i].n, sizeof(double), by_value);
    return 0;
}

static int bench_run(struct bench *b, struct cli *c, struct err *e)
{
    struct ditgen *d = NULL;
    struct ditgen_error de;
    struct progress progress;
    struct report r = {.b = b};
    char note[256], where[CLI_DEVICE_NOTE];
    int rc = -1;
    if (ditgen_open(&d, settings_text(c->settings, SET_MODEL), &de) < 0) goto library;
    if (cli_resolve(c, d, note, e) < 0) goto out;
    r.s = c->settings;
    if (cli_device(c, where, e) < 0) goto out;
    if (where[0]) fprintf(stderr, "%s\n", where);
    r.before = limit_resident();
    if (cli_plan(c, d, &r.plan, where, e) < 0) goto out;
    if (where[0]) fprintf(stderr, "%s\n", where);
    progress_init(&progress, stderr, c->progress == 1,
                  c->quiet || (c->progress == 0 && !isatty(STDERR_FILENO)));
    b->progress = &progress;
    rc = measure(&r, b, d, e);
    progress_pause(&progress);
    if (rc == 0 && b->json)
        bench_print_json(&r);
    else if (rc == 0)
        bench_print_tables(&r);
    goto out;
library:
    err_set(e, (enum err_code)de.code, "%s", de.message);
out:
    ditgen_close(d);
    return rc;
}

int cmd_bench(int argc, char **argv, struct err *e)
{
    struct bench b = {0};
    struct cli c = {0};
    if (argc > 1 && strcmp(argv[1], "attention") == 0)
        return bench_attention(argc - 1, argv + 1, e);
    int rc = take_own_flags(&b, &argc, argv, e);
    if (rc == 0 && b.help) {
        fputs(USAGE, stdout);
        return 0;
    }
    if (rc < 0) return -1;
    rc = cli_parse(&c, argc, argv, CLI_PROMPT, e);
    if (rc == 0) rc = refuse_foreign(&c, e);
    if (rc == 0 && !settings_from(c.settings, SET_PROMPT))
        rc = settings_set(c.settings, LAYER_FLAG, "prompt", PROMPT, e);
    if (rc == 0 && !settings_from(c.settings, SET_SEED)) /* nothing is drawn: runs compare */
        rc = settings_set(c.settings, LAYER_FLAG, "seed", "1", e);
    if (rc == 0) rc = bench_run(&b, &c, e);
    for (int i = 0; i < ROWS; i++)
        free(b.rows[i].v);
    cli_fini(&c);
    return rc;
}
