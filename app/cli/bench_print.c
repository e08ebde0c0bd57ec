/* What bench prints: tables, or one JSON object. */
#include "app/cli/bench.h"

#include <stdio.h>
#include <string.h>

static const struct row_name {
    const char *text, *json;
} row_names[ROWS] = {
    {"text", "text"},       {"open model", "open"}, {"one step", "step"},
    {"denoise", "denoise"}, {"decode", "decode"},   {"all", "all"},
};

static double median(const struct samples *s) /* sorted */
{
    return (s->v[(s->n - 1) / 2] + s->v[s->n / 2]) / 2;
}

static const char *const phase_names[DITGEN_PHASES] = {"text", "denoise", "decode"};

/* The peak that the run's precision is judged by. */
static double judge(const struct report *r)
{
    bool bf16 = r->plan.bf16 && !r->plan.emulated && r->peak.bf16 > 0;
    return bf16 ? r->peak.bf16 : r->peak.fp32;
}

static void print_rate(const struct report *r, enum row row, double flops)
{
    double rate = flops / median(&r->b->rows[row]);
    printf("%s: %.1f GFLOP, %.1f GFLOP/s", row_names[row].text, flops * 1e-9, rate * 1e-9);
    if (bench_on_device(r))
        putchar('\n');
    else
        printf(", %.0f %% of the peak\n", 100 * rate / judge(r));
}

static void print_memory(const char *name, size_t predicted, size_t measured)
{
    const double mib = 1.0 / (1 << 20);
    printf("%-12s %8.0f MiB", name, (double)predicted * mib);
    if (measured)
        printf(" %8.0f MiB %+7.1f %%\n", (double)measured * mib,
               100 * ((double)predicted / (double)measured - 1));
    else
        puts("  not known");
}

static void print_device(const struct report *r)
{
    struct device_info info;
    const char *name = settings_text(r->s, SET_DEVICE);
    for (int i = 1; device_at(i, &info); i++)
        if (strcmp(info.name, name) == 0 || (i == 1 && strcmp(name, "cuda") == 0)) {
            printf("%s: %s", info.name, info.what);
            return;
        }
    printf("%s", name);
}

void bench_print_tables(const struct report *r)
{
    const struct ditgen_plan *p = &r->plan;
    printf("%s, %d threads on %d cores\n", r->cpu.name[0] ? r->cpu.name : "unnamed processor",
           p->threads, r->cpu.cores);
    if (bench_on_device(r)) {
        print_device(r);
    } else {
        printf("peak %.1f GFLOP/s fp32 (%s)", r->peak.fp32 * 1e-9, r->peak.fp32_by);
        if (r->peak.bf16 > 0)
            printf(", %.1f GFLOP/s bf16 (%s)", r->peak.bf16 * 1e-9, r->peak.bf16_by);
    }
    printf("\n%dx%d, %d frames, %d steps of %d branch%s, %d tokens, %s\n",
           settings_int(r->s, SET_WIDTH), settings_int(r->s, SET_HEIGHT),
           settings_int(r->s, SET_FRAMES), settings_int(r->s, SET_STEPS), p->branches,
           p->branches > 1 ? "es" : "", p->tokens, p->precision);
    printf("linear %s; attention %s\n\n%-12s %10s %10s %10s   seconds, %d run%s\n", p->linear,
           p->attention, "phase", "median", "fastest", "slowest", r->b->runs,
           r->b->runs > 1 ? "s" : "");
    for (int i = 0; i < ROWS; i++) {
        const struct samples *s = &r->b->rows[i];
        printf("%-12s %10.3f %10.3f %10.3f\n", row_names[i].text, median(s), s->v[0],
               s->v[s->n - 1]);
    }
    print_rate(r, ROW_STEP, r->step_flops);
    print_rate(r, ROW_DECODE, r->decode_flops);
    bool there = bench_on_device(r);
    printf("\n%-12s %12s %12s %9s\n", there ? "of the GPU" : "memory", "predicted", "measured",
           "off by");
    for (int i = 0; there && i < DITGEN_PHASES; i++)
        print_memory(phase_names[i], p->phase_bytes[i], r->b->vram[i]);
    if (there) {
        printf("%.0f of %.0f blocks streamed\n", p->streamed_blocks, p->blocks);
        return;
    }
    for (int i = 0; i < DITGEN_PHASES; i++)
        print_memory(phase_names[i], r->before + p->phase_bytes[i], r->b->bytes[i]);
    print_memory("peak", p->peak_bytes, r->b->most);
}

void bench_print_json(const struct report *r)
{
    const struct ditgen_plan *p = &r->plan;
    printf("{\"cpu\": ");
    json_put_string(stdout, r->cpu.name);
    printf(", \"threads\": %d, \"cores\": %d, \"level\": \"%s\", \"device\": ", p->threads,
           r->cpu.cores, cpu_level_name(r->cpu.level));
    const char *device = settings_text(r->s, SET_DEVICE);
    json_put_string(stdout, device ? device : "cpu");
    if (r->peak.fp32 > 0) printf(", \"peak_fp32_gflops\": %.3f", r->peak.fp32 * 1e-9);
    if (r->peak.bf16 > 0) printf(", \"peak_bf16_gflops\": %.3f", r->peak.bf16 * 1e-9);
    printf(", \"width\": %d, \"height\": %d, \"frames\": %d, \"steps\": %d, \"branches\": %d, "
           "\"tokens\": %d, \"precision\": \"%s\", \"linear\": ",
           settings_int(r->s, SET_WIDTH), settings_int(r->s, SET_HEIGHT),
           settings_int(r->s, SET_FRAMES), settings_int(r->s, SET_STEPS), p->branches, p->tokens,
           p->precision);
    json_put_string(stdout, p->linear);
    printf(", \"attention\": ");
    json_put_string(stdout, p->attention);
    printf(", \"runs\": %d, \"step_gflop\": %.6g, \"decode_gflop\": %.6g, \"seconds\": {",
           r->b->runs, r->step_flops * 1e-9, r->decode_flops * 1e-9);
    for (int i = 0; i < ROWS; i++) {
        const struct samples *s = &r->b->rows[i];
        printf("%s\"%s\": {\"median\": %.6f, \"fastest\": %.6f, \"slowest\": %.6f, \"n\": %d}",
               i ? ", " : "", row_names[i].json, median(s), s->v[0], s->v[s->n - 1], s->n);
    }
    if (bench_on_device(r)) {
        printf("}, \"streamed_blocks\": %.0f, \"device_predicted_bytes\": {", p->streamed_blocks);
        for (int i = 0; i < DITGEN_PHASES; i++)
            printf("%s\"%s\": %zu", i ? ", " : "", phase_names[i], p->phase_bytes[i]);
        printf("}, \"device_measured_bytes\": {");
        for (int i = 0; i < DITGEN_PHASES; i++)
            printf("%s\"%s\": %zu", i ? ", " : "", phase_names[i], r->b->vram[i]);
        puts("}}");
        return;
    }
    printf("}, \"predicted_bytes\": {");
    for (int i = 0; i < DITGEN_PHASES; i++)
        printf("\"%s\": %zu, ", phase_names[i], r->before + p->phase_bytes[i]);
    printf("\"peak\": %zu}, \"measured_bytes\": {", p->peak_bytes);
    for (int i = 0; i < DITGEN_PHASES; i++)
        if (r->b->bytes[i]) printf("\"%s\": %zu, ", phase_names[i], r->b->bytes[i]);
    printf("\"peak\": %zu}}\n", r->b->most);
}
