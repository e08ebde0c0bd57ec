/* Predicting work, seconds and memory; see cost.h. */
#include "app/lib/cost.h"

#include "model/base/clock.h"
#include "model/base/cpu.h"
#include "model/base/limits.h"
#include "model/base/threads.h"

#include <stdint.h>
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

/* Code, tables and stacks that a phase touches after the plan was made, most of it oneDNN's
 * (tests/unit/lib/test_phase_memory.c prints both sides). */
static const size_t resident_later[DITGEN_PHASES] = {(size_t)3 << 19, (size_t)4 << 19,
                                                     (size_t)9 << 19};
#define RESIDENT_LATER_PLAIN_C ((size_t)5 << 19) /* of denoising and decoding, at most */
/* Below AVX-512 oneDNN multiplies fp32 by its older code, all of which is generated at the first product,
 * and packs into memory of its own, whatever the phase. */
#define RESIDENT_SGEMM ((size_t)7 << 19)

static size_t resident_of(int phase)
{
    size_t later = resident_later[phase];
    if (model_is_slow()) return later < RESIDENT_LATER_PLAIN_C ? later : RESIDENT_LATER_PLAIN_C;
    return cpu_level() < CPU_AVX512 ? later + RESIDENT_SGEMM : later;
}

/* Rates of the other code beside the probe's, by the user seconds of `ditgen -t 1` at 256x256x33 on
 * a Zen 3 core. */
#define RATE_LINEAR 0.9
#define RATE_CONV 2.5 /* Winograd: counted as the plain sum */
#define RATE_PLAIN_C 0.1 /* linear layers without oneDNN */
#define RATE_READ 1e9 /* bytes a second of a weight file that is not in the page cache yet */

static int plan_seconds(struct ditgen_plan *p, struct ditgen *d, const struct run *r, int text_rows,
                        struct err *e)
{
    struct model_work w;
    double rate = cost_probe(d, &r->params.attn), planning;
    if (rate <= 0) return 0;
    if (model_time_planning(&planning, &r->forecast, &d->info, &r->params, &r->clip, e) < 0)
        return -1;
    double linear = rate * (model_is_slow() ? RATE_PLAIN_C : RATE_LINEAR);
    model_work(&w, &d->info, &r->clip, text_rows);
    p->phase_seconds[DITGEN_TEXT] =
        p->branches * w.text / linear + (double)d->info.weight_bytes[0] / RATE_READ;
    double steps[2] = {r->clip.num_steps, r->clip.num_steps}; /* computed */
    if (r->cache.name) steps[0] = r->cache.least, steps[1] = r->cache.most;
    for (int i = 0; i < 2; i++) { /* least and most of what a method computes */
        double plans = r->forecast.planned[i] * planning * steps[i] / r->clip.num_steps;
        p->planning_seconds = plans; /* the most stands */
        p->denoise_seconds[i] =
            plans + steps[i] * p->branches *
                        ((w.linear - r->forecast.copied * w.copied) / linear +
                         (w.attn - (1 - r->forecast.density[i]) * w.self) / rate);
    }
    p->phase_seconds[DITGEN_DENOISE] = (p->denoise_seconds[0] + p->denoise_seconds[1]) / 2;
    p->phase_seconds[DITGEN_DECODE] = w.decode / (rate * RATE_CONV);
    for (int i = 0; i < DITGEN_PHASES; i++)
        p->seconds += p->phase_seconds[i];
    return 0;
}

/* As long as the method's text is. */
static const char *plan_attention(struct ditgen *d, const struct run *r)
{
    char *text = NULL;
    bool whole = r->forecast.density[0] == 1 && r->forecast.copied == 0; /* but in fewer bits */
    int n = asprintf(&text, "%s (%s)%s%s", settings_text(r->settings, SET_ATTENTION),
                     r->forecast.kernel, r->forecast.exact ? "" : ", approximate",
                     r->forecast.exact || whole ? "" : ": leaves out part of the attention");
    free(d->plan_attention);
    return d->plan_attention = n < 0 ? NULL : text;
}

int cost_text(struct cost_text *t, struct model *m, const struct run *r, struct err *e)
{
    const char *texts[2] = {settings_text(r->settings, SET_PROMPT),
                            settings_text(r->settings, SET_NEGATIVE)};
    *t = (struct cost_text){0};
    for (int b = 0; b < (r->clip.guided ? 2 : 1); b++) {
        int n = TEXT_ROWS;
        if (texts[b] && model_count_tokens(m, texts[b], &n, e) < 0) return -1;
        if (n > t->most) t->most = n;
        t->all += n;
    }
    return 0;
}

/* What a run holds beside the model's parts: latents, the solver's memory, embeddings, a picture. */
struct own {
    size_t latents, solver, embeds, picture;
};

static void own_bytes(struct own *o, const struct ditgen *d, const struct run *r,
                      const struct cost_text *t)
{
    struct dit_grid g = model_grid(&d->info, &r->clip);
    size_t n = (size_t)d->info.vae.z_dim * (size_t)g.frames * (size_t)g.height * (size_t)g.width;
    o->latents = n * sizeof(float);
    o->solver = denoise_bytes(r->solver, n, r->clip.guided);
    o->embeds = (size_t)t->all * (size_t)d->info.text.d_model * sizeof(float);
    o->picture = (size_t)r->clip.width * (size_t)r->clip.height * 3;
}

/* The model's parts and the run's own, of each phase. */
static int phase_bytes(size_t bytes[DITGEN_PHASES], const struct ditgen *d, const struct run *r,
                       const struct cost_text *t, struct err *e)
{
    struct own o;
    own_bytes(&o, d, r, t);
    if (model_plan_bytes(&d->info, &r->params, &r->clip, t->most, bytes, e) < 0) return -1;
    if (device_place(r->params.device) != PLACE_HOST) /* those are the device's */
        memset(bytes, 0, DITGEN_PHASES * sizeof *bytes);
    bytes[DITGEN_TEXT] += o.embeds;
    bytes[DITGEN_DENOISE] += o.embeds + o.latents + o.solver;
    bytes[DITGEN_DECODE] += o.embeds + o.latents + o.picture;
    return 0;
}

int cost_plan(struct ditgen_plan *p, struct ditgen *d, const struct run *r,
              const struct cost_text *t, struct err *e)
{
    memset(p, 0, sizeof *p);
    struct dit_grid g = model_grid(&d->info, &r->clip);
    p->tokens = dit_tokens(&d->info.dit, &g);
    p->text_tokens = t->most;
    p->branches = r->clip.guided ? 2 : 1;
    p->threads = r->params.threads;
    p->precision = precision_name(r->params.precision);
    p->bf16 = r->params.precision != PRECISION_FP32;
    p->emulated = r->params.precision == PRECISION_BF16_EMULATED;
    bool away = device_place(r->params.device) != PLACE_HOST;
    p->slow = !away && (p->emulated || model_is_slow());
    p->linear = model_backend_on(r->params.device);
    if (!(p->attention = plan_attention(d, r)))
        return err_set(e, ERR_RESOURCE, "no memory for the plan");
    p->density[0] = r->forecast.density[0];
    p->density[1] = r->forecast.density[1];
    p->copied = r->forecast.copied;
    p->cache_bytes = (double)r->forecast.cache_bytes;
    p->cache_wanted = (double)r->forecast.cache_wanted;
    p->cache_left_out = r->forecast.pairs_left_out;
    if (r->cache.name) {
        p->computed_steps[0] = r->cache.least, p->computed_steps[1] = r->cache.most;
        p->step_cache_bytes = (double)r->cache.bytes;
    }
    if (phase_bytes(p->phase_bytes, d, r, t, e) < 0) return -1;
    bool there = device_place(r->params.device) != PLACE_HOST;
    struct model_vram v = {0};
    if (there && cost_device(&v, d, r, t, e) < 0) return -1;
    p->phase_bytes[DITGEN_DENOISE] += v.pinned + v.host;
    size_t before = limit_resident();
    p->process_bytes = (double)before;
    for (int i = 0; i < DITGEN_PHASES; i++) {
        p->phase_bytes[i] += resident_of(i);
        if (before + p->phase_bytes[i] > p->peak_bytes) p->peak_bytes = before + p->phase_bytes[i];
    }
    for (int i = 0; there && i < DITGEN_PHASES; i++) { /* what is told of phases is the device's */
        p->phase_bytes[i] = v.bytes[i];
        if ((double)v.bytes[i] > p->device_bytes) p->device_bytes = (double)v.bytes[i];
    }
    p->device_free = v.limit == SIZE_MAX ? 0 : (double)v.limit;
    p->blocks = v.n_blocks;
    p->streamed_blocks = v.streamed;
    p->pinned_bytes = (double)v.pinned;
    p->available_bytes = limit_memory();
    struct err limit;
    p->fits = (!p->available_bytes || p->peak_bytes - before <= p->available_bytes) &&
              cost_check_limits(d, r, t, &limit) == 0;
    p->fits = p->fits && cost_check_device(&v, d, r, t, &limit) == 0;
    return there ? 0 : plan_seconds(p, d, r, t->most, e);
}

/* Of address space: a thread's stack, and the arena that the allocator keeps for it. */
#define THREAD_SPACE (((size_t)8 << 20) + ((size_t)128 << 20))
#define SPACE_LATER                                                                                \
    ((size_t)48 << 20) /* code that libraries make and load, frames that a writer keeps */
#define WRITER_PIXEL 200 /* bytes a pixel of the frames that an encoder keeps */

static int refuse_limit(const char *what, const char *flag, size_t want, size_t left, struct err *e)
{
    return err_set(e, ERR_RESOURCE,
                   "this clip takes up to %.0f MiB more %s, and the limit (ulimit %s) leaves %.0f; "
                   "raise it, or try a smaller size or fewer frames",
                   (double)want / 1048576, what, flag, (double)left / 1048576);
}

int cost_check_limits(const struct ditgen *d, const struct run *r, const struct cost_text *t,
                      struct err *e)
{
    size_t bytes[DITGEN_PHASES], space, data, most_space = 0, most_data = 0;
    struct own o;
    limit_room(&space, &data);
    if (space == SIZE_MAX && data == SIZE_MAX) return 0;
    if (phase_bytes(bytes, d, r, t, e) < 0) return -1;
    int threads = threads_for_openmp(r->params.threads); /* now, so that they are counted */
    limit_room(&space, &data);
    own_bytes(&o, d, r, t);
    for (int i = 0; i < DITGEN_PHASES; i++) { /* a part is mapped while its phase lasts */
        if (bytes[i] > most_data) most_data = bytes[i];
        if (bytes[i] + d->info.weight_bytes[i] > most_space)
            most_space = bytes[i] + d->info.weight_bytes[i];
    }
    size_t later = SPACE_LATER + o.picture / 3 * WRITER_PIXEL + o.latents + o.solver;
    most_data += later;
    most_space += later;
    if (!model_is_slow()) most_space += (size_t)(threads - 1) * THREAD_SPACE; /* OpenMP's own */
    if (most_space > space) return refuse_limit("address space", "-v", most_space, space, e);
    return most_data > data ? refuse_limit("memory", "-d", most_data, data, e) : 0;
}
