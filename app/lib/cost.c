/* Predicting work, seconds and memory; see cost.h. */
#include "app/lib/cost.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Fastest of a few runs, for about 20 ms. */
static double time_attention(const struct attn_params *p, const struct attn_cross *c, void *scratch)
{
    struct err ignored;
    double best = 0, begin = seconds_now(), t0 = begin;
    for (int i = 0; i < 50; i++) {
        if (attn_cross_run(p, c, scratch, &ignored) < 0) return 0;
        double t1 = seconds_now();
        if (i > 0 && (best == 0 || t1 - t0 < best)) best = t1 - t0;
        if (i > 1 && t1 - begin > 0.02) break;
        t0 = t1;
    }
    return best;
}

double cost_probe(struct ditgen *d, const struct attn_params *p)
{
    enum { ROWS = 512, HEADS = 4, DIM = 64, SIDE = HEADS * DIM };
    if (d->probed_flops[p->precision] > 0 && d->probed_flops_threads == p->threads)
        return d->probed_flops[p->precision];
    double best = 0;
    void *scratch = NULL;
    size_t bytes = attn_cross_scratch(p, ROWS, ROWS, HEADS, DIM);
    float *x = calloc((size_t)ROWS * SIDE, sizeof *x), *y = calloc((size_t)ROWS * SIDE, sizeof *y);
    struct attn_cross c = {.q = x,
                           .k = x,
                           .v = x,
                           .o = y,
                           .len_q = ROWS,
                           .len_k = ROWS,
                           .n_heads = HEADS,
                           .head_dim = DIM};
    if (x && y && (scratch = aligned_alloc(64, (bytes + 64) / 64 * 64)))
        best = time_attention(p, &c, scratch);
    free(scratch);
    free(x), free(y);
    d->probed_flops_threads = p->threads;
    return d->probed_flops[p->precision] = best > 0 ? 4.0 * ROWS * ROWS * SIDE / best : 0;
}

/* A number in the first line of a small file, or of the line that begins with key. */
static bool read_number(const char *path, const char *key, double *v)
{
    FILE *f = fopen(path, "r");
    if (!f) return false;
    char line[256];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        size_t n = key ? strlen(key) : 0;
        if (n && strncmp(line, key, n) != 0) continue;
        found = sscanf(line + n, " %lf", v) == 1;
        if (!key) break;
    }
    fclose(f);
    return found;
}

size_t cost_available(void)
{
    double kib = 0, limit = 0, used = 0, cache = 0, free_bytes = 0;
    if (read_number("/proc/meminfo", "MemAvailable:", &kib)) free_bytes = kib * 1024;
    static const struct {
        const char *max, *now, *stat, *key;
    } groups[] = {{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                   "/sys/fs/cgroup/memory.stat", "inactive_file "},
                  {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                   "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                   "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file "}};
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        if (!read_number(groups[i].max, NULL, &limit) || !read_number(groups[i].now, NULL, &used))
            continue;
        read_number(groups[i].stat, groups[i].key, &cache);
        double left = limit - used + cache;
        if (left > 0 && (free_bytes == 0 || left < free_bytes)) free_bytes = left;
    }
    return (size_t)free_bytes;
}

size_t cost_resident(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    long total = 0, resident = 0;
    int n = fscanf(f, "%ld %ld", &total, &resident);
    fclose(f);
    return n == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Code, tables and stacks that a run touches after the plan was made (tests/cli/memory.sh): 8 to 10
 * MiB at four sizes, y4m and mp4, most of it oneDNN's; 2 to 3 MiB without it. */
#define RESIDENT_LATER ((size_t)9 << 20)
#define RESIDENT_LATER_PLAIN_C ((size_t)5 << 19)

/* Rates of the other code beside the probe's, by the user seconds of `ditgen -t 1` at 256x256x33 on
 * a Zen 3 core. */
#define RATE_LINEAR 0.9
#define RATE_CONV 2.5 /* Winograd: counted as the plain sum */
#define RATE_PLAIN_C 0.1 /* linear layers without oneDNN */
#define RATE_READ 1e9 /* bytes a second of a weight file that is not in the page cache yet */

static bool linear_in_plain_c(void) { return strstr(model_backend(), "slow") != NULL; }

static void plan_seconds(struct ditgen_plan *p, struct ditgen *d, const struct run *r)
{
    struct model_work w;
    double rate = cost_probe(d, &r->params.attn);
    if (rate <= 0) return;
    double linear = rate * (linear_in_plain_c() ? RATE_PLAIN_C : RATE_LINEAR);
    model_work(&w, &d->info, &r->clip, TEXT_ROWS);
    p->phase_seconds[DITGEN_TEXT] =
        p->branches * w.text / linear + (double)d->info.weight_bytes[0] / RATE_READ;
    for (int i = 0; i < 2; i++) /* least and most of what a method computes */
        p->denoise_seconds[i] = (double)r->clip.num_steps * p->branches *
                                ((w.linear - r->forecast.copied * w.copied) / linear +
                                 (w.attn - (1 - r->forecast.density[i]) * w.self) / rate);
    p->phase_seconds[DITGEN_DENOISE] = (p->denoise_seconds[0] + p->denoise_seconds[1]) / 2;
    p->phase_seconds[DITGEN_DECODE] = w.decode / (rate * RATE_CONV);
    for (int i = 0; i < DITGEN_PHASES; i++)
        p->seconds += p->phase_seconds[i];
}

/* The kernel that attention will pick: the best first that runs here; bf16 products are for bf16.
 */
static const char *kernel_name(const struct attn_params *a)
{
    if (a->kernel) return a->kernel;
    for (int i = 0; i < attn_kernel_count(); i++) {
        struct attn_kernel_info k = attn_kernel_at(i);
        if (k.needs > a->cpu.level) continue;
        if (k.needs >= CPU_AVX512_BF16 && a->precision != PRECISION_BF16) continue;
        return k.name;
    }
    return "none";
}

/* As long as the method's text is. */
static const char *plan_attention(struct ditgen *d, const struct run *r)
{
    char *text = NULL;
    int n = asprintf(&text, "%s (%s)%s", settings_text(r->settings, SET_ATTENTION),
                     kernel_name(&r->params.attn),
                     r->forecast.exact ? "" : ", approximate: leaves out part of the attention");
    free(d->plan_attention);
    return d->plan_attention = n < 0 ? NULL : text;
}

int cost_plan(struct ditgen_plan *p, struct ditgen *d, const struct run *r, struct err *e)
{
    memset(p, 0, sizeof *p);
    struct dit_grid g = model_grid(&d->info, &r->clip);
    p->tokens = dit_tokens(&d->info.dit, &g);
    p->branches = r->clip.guided ? 2 : 1;
    p->threads = r->params.threads;
    p->precision = precision_name(r->params.precision);
    p->bf16 = r->params.precision != PRECISION_FP32;
    p->emulated = r->params.precision == PRECISION_BF16_EMULATED;
    p->slow = p->emulated || linear_in_plain_c();
    p->linear = model_backend();
    if (!(p->attention = plan_attention(d, r)))
        return err_set(e, ERR_RESOURCE, "no memory for the plan");
    p->density[0] = r->forecast.density[0];
    p->density[1] = r->forecast.density[1];
    p->copied = r->forecast.copied;
    p->cache_bytes = (double)r->forecast.cache_bytes;
    p->cache_wanted = (double)r->forecast.cache_wanted;
    p->cache_left_out = r->forecast.pairs_left_out;
    if (model_plan_bytes(&d->info, &r->params, &r->clip, TEXT_ROWS, p->phase_bytes, e) < 0)
        return -1;
    size_t resident =
        cost_resident() + (linear_in_plain_c() ? RESIDENT_LATER_PLAIN_C : RESIDENT_LATER);
    for (int i = 0; i < DITGEN_PHASES; i++) {
        size_t bytes = resident + p->phase_bytes[i];
        if (bytes > p->peak_bytes) p->peak_bytes = bytes;
    }
    p->available_bytes = cost_available();
    p->fits = !p->available_bytes || p->peak_bytes <= p->available_bytes + resident;
    plan_seconds(p, d, r);
    return 0;
}
