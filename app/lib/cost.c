/* Predicting work, seconds and memory; see cost.h. */
#include "app/lib/cost.h"

#include "model/base/clock.h"
#include "model/base/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fastest of a few runs, for about 20 ms. */
static double time_attention(const struct attn_params *p, const struct attn_cross *c, void *scratch)
{
    struct err ignored;
    double best = 0, begin = clock_seconds(), t0 = begin;
    for (int i = 0; i < 50; i++) {
        if (attn_cross_run(p, c, scratch, &ignored) < 0) return 0;
        double t1 = clock_seconds();
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

static void plan_seconds(struct ditgen_plan *p, struct ditgen *d, const struct run *r)
{
    struct model_work w;
    double rate = cost_probe(d, &r->params.attn);
    if (rate <= 0) return;
    double linear = rate * (model_is_slow() ? RATE_PLAIN_C : RATE_LINEAR);
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

/* As long as the method's text is. */
static const char *plan_attention(struct ditgen *d, const struct run *r)
{
    char *text = NULL;
    int n =
        asprintf(&text, "%s (%s)%s", settings_text(r->settings, SET_ATTENTION), r->forecast.kernel,
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
    p->slow = p->emulated || model_is_slow();
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
        limit_resident() + (model_is_slow() ? RESIDENT_LATER_PLAIN_C : RESIDENT_LATER);
    for (int i = 0; i < DITGEN_PHASES; i++) {
        size_t bytes = resident + p->phase_bytes[i];
        if (bytes > p->peak_bytes) p->peak_bytes = bytes;
    }
    p->available_bytes = limit_memory();
    p->fits = !p->available_bytes || p->peak_bytes <= p->available_bytes + resident;
    plan_seconds(p, d, r);
    return 0;
}
