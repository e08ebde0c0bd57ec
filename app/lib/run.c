/* Checking settings and choosing what runs; see run.h. */
#include "app/lib/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/base/threads.h"

static int check_near(const struct ditgen *d, const char *flag, int v,
                      void (*near)(const struct model_info *m, int v, int *below, int *above),
                      struct err *e)
{
    int below, above;
    near(&d->info, v, &below, &above);
    if (below == v && above == v) return 0;
    if (below < 1 || below == above)
        return err_set(e, ERR_USAGE, "%s is %d; the nearest this model can do is %d", flag, v,
                       above);
    return err_set(e, ERR_USAGE, "%s is %d; the nearest this model can do are %d and %d", flag, v,
                   below, above);
}

static int check_range(const char *flag, int v, int lo, int hi, struct err *e)
{
    if (v >= lo && v <= hi) return 0;
    return err_set(e, ERR_USAGE, "%s is %d, wanted %d to %d", flag, v, lo, hi);
}

static int choose_clip(struct run *r, const struct ditgen *d, const struct ditgen_settings *s,
                       struct err *e)
{
    /* the bounds keep every product below 2^63 and every side below 2^15 */
    if (check_range("--width", s->width, 1, 16384, e) < 0) return -1;
    if (check_range("--height", s->height, 1, 16384, e) < 0) return -1;
    if (check_range("--frames", s->frames, 1, 100000, e) < 0) return -1;
    if (check_range("--steps", s->steps, 1, MAX_STEPS, e) < 0) return -1;
    if (check_near(d, "--width", s->width, model_size_near, e) < 0) return -1;
    if (check_near(d, "--height", s->height, model_size_near, e) < 0) return -1;
    if (check_near(d, "--frames", s->frames, model_frames_near, e) < 0) return -1;
    if (!(s->guidance_scale >= 0 && s->guidance_scale <= 1000))
        return err_set(e, ERR_USAGE, "--guidance-scale is %g, wanted 0 to 1000", s->guidance_scale);
    r->guidance_scale = s->guidance_scale;
    r->clip = (struct model_clip){.width = s->width,
                                  .height = s->height,
                                  .frames = s->frames,
                                  .num_steps = s->steps,
                                  .guided = s->guidance_scale > 1};
    return 0;
}

static int choose_solver(struct run *r, const struct ditgen *d, const struct ditgen_settings *s,
                         struct err *e)
{
    const char *name = s->solver ? s->solver : d->scheduler.solver;
    r->solver = solver_find(name);
    if (!r->solver) {
        char all[256] = "";
        for (int i = 0; i < solver_count(); i++) {
            size_t n = strlen(all);
            snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", solver_at(i)->name);
        }
        return err_set(e, ERR_USAGE, "there is no --solver '%s'; there are %s", name, all);
    }
    r->flow_shift = s->flow_shift;
    if (!(r->flow_shift > 0 && r->flow_shift <= 1000))
        return err_set(e, ERR_USAGE, "--flow-shift is %g, wanted more than 0, at most 1000",
                       r->flow_shift);
    return r->solver->schedule(&r->schedule, s->steps, r->flow_shift,
                               s->sigma_grid_036 ? COMPAT_DIFFUSERS_036 : COMPAT_DIFFUSERS_037, e);
}

static int choose_precision(enum precision *p, const char *name, struct err *e)
{
    if (!name || strcmp(name, "auto") == 0)
        *p = model_has_bf16() ? PRECISION_BF16 : PRECISION_FP32;
    else if (strcmp(name, "fp32") == 0)
        *p = PRECISION_FP32;
    else if (strcmp(name, "bf16") == 0)
        *p = model_has_bf16() ? PRECISION_BF16 : PRECISION_BF16_EMULATED;
    else
        return err_set(e, ERR_USAGE, "--precision is '%s', wanted auto, fp32 or bf16", name);
    return 0;
}

static int parse_attn_options(struct run *r, const struct attn_method *m, const char *text,
                              struct err *e)
{
    r->attn_options = calloc(1, m->options_size ? m->options_size : 1);
    if (!r->attn_options)
        return err_set(e, ERR_RESOURCE, "no memory for the options of %s", m->name);
    if (option_defaults(m->options, r->attn_options, e) < 0) return -1;
    r->params.attn.method = m;
    while (text && *(text += strspn(text, " ,"))) {
        char word[256];
        size_t n = strcspn(text, " ,");
        if (n >= sizeof word)
            return err_set(e, ERR_USAGE, "an option of --attention %s is %zu bytes long", m->name,
                           n);
        memcpy(word, text, n);
        word[n] = 0;
        text += n;
        char *value = strchr(word, '=');
        if (value) *value++ = 0;
        const struct option *o = option_find(m->options, word);
        if (!o) return err_set(e, ERR_USAGE, "--attention %s has no option '%s'", m->name, word);
        if (option_parse(o, r->attn_options, value ? value : "true", e) < 0) return -1;
    }
    return 0;
}

static int choose_attention(struct run *r, struct ditgen *d, const struct ditgen_settings *s,
                            struct err *e)
{
    const char *name = s->attention ? s->attention : "dense";
    const struct attn_method *m = attn_method_find(name);
    if (!m) {
        char all[256] = "";
        for (int i = 0; i < attn_method_count(); i++) {
            size_t n = strlen(all);
            snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", attn_method_at(i)->name);
        }
        return err_set(e, ERR_USAGE, "there is no --attention '%s'; there are %s", name, all);
    }
    if (parse_attn_options(r, m, s->attention_options, e) < 0) return -1;
    struct attn_params *a = &r->params.attn;
    a->options = r->attn_options;
    a->kernel = s->kernel;
    a->cpu = d->cpu;
    a->precision = r->params.precision;
    a->threads = r->params.threads;
    a->log = r->params.log;

    return model_check_attention(&d->info, &r->params, &r->clip, e);
}

static int choose_threads(struct ditgen *d, int wanted, struct err *e)
{
    if (wanted < 0 || wanted > 1024)
        return err_set(e, ERR_USAGE, "--threads is %d, wanted 1 to 1024 (0: by a probe)", wanted);
    if (wanted > 0) return wanted;
    if (d->probed_threads == 0) d->probed_threads = threads_probe();
    return d->probed_threads;
}

int run_init(struct run *r, struct ditgen *d, const struct ditgen_settings *s,
             const struct log *log, struct err *e)
{
    memset(r, 0, sizeof *r);
    if (choose_clip(r, d, s, e) < 0) goto fail;
    if (choose_solver(r, d, s, e) < 0) goto fail;
    if (choose_precision(&r->params.precision, s->precision, e) < 0) goto fail;
    int threads = choose_threads(d, s->threads, e);
    if (threads < 0) goto fail;
    threads_set(threads);
    r->params.threads = threads;
    r->params.log = log;
    r->params.collapse_pads = !s->long_text;
    r->params.fix_text = !s->raw_text;
    r->params.turbo = s->turbo && d->info.turbo_whole;
    if (s->turbo && !d->info.turbo_whole) {
        snprintf(r->lora, sizeof r->lora, "%s/transformer_turbo/pytorch_lora_weights.safetensors",
                 d->info.dir);
        r->params.lora = r->lora;
        r->params.lora_strength = 1;
    }
    r->truncate_frames = s->truncate_frames != 0;
    if (choose_attention(r, d, s, e) < 0) goto fail;
    return 0;
fail:
    run_fini(r);
    return -1;
}

void run_fini(struct run *r)
{
    if (r->params.attn.method) option_free(r->params.attn.method->options, r->attn_options);
    free(r->attn_options);
    r->attn_options = NULL;
    r->params.attn.method = NULL;
}
