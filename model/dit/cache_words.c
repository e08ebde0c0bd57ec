/* Step caches by name: the table, "NAME:option=value,..." read and written out, what a run of one
 * will compute; see dit.h and cache.h. */
#include "model/dit/dit_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CACHE(c) &cache_##c,
static const struct dit_cache *const caches[] = {
#include "model/dit/caches.def"
};
#undef CACHE

int dit_caches(void) { return (int)ARRAY_LEN(caches); }

struct dit_cache_info dit_cache_info(int i)
{
    if (i < 0 || i >= dit_caches()) return (struct dit_cache_info){0};
    const struct dit_cache *c = caches[i];
    return (struct dit_cache_info){.name = c->name,
                                   .summary = c->summary,
                                   .paper = c->paper,
                                   .options = c->options,
                                   .options_size = sizeof(struct dit_cache_knobs),
                                   .budgeted = c->budgeted,
                                   .calibrated = c->needs_poly || c->needs_ratio};
}

/* --- reading ------------------------------------------------------------------------------------ */

static int unknown(const char *name, size_t n, struct err *e)
{
    char all[256] = "none";
    for (size_t i = 0; i < ARRAY_LEN(caches); i++) {
        size_t len = strlen(all);
        snprintf(all + len, sizeof all - len, ", %s", caches[i]->name);
    }
    return err_set(e, ERR_USAGE, "there is no step cache '%.*s'; there are %s",
                   n < 60 ? (int)n : 60, name, all);
}

static int take_option(const struct dit_cache *c, struct dit_cache_knobs *k, char *word,
                       struct err *e)
{
    char all[256] = "", *value = strchr(word, '=');
    if (value) *value++ = 0;
    const struct option *o = option_find(c->options, word);
    if (o) {
        if (option_parse(o, k, value ? value : "true", e) == 0) return 0;
        return err_wrap(e, "step cache %s", c->name);
    }
    for (o = c->options; o->name; o++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "", o->name);
    }
    return err_set(e, ERR_USAGE, "step cache %s has no option '%.60s'; it has %s", c->name, word,
                   all);
}

static int read_poly(double poly[DIT_POLY], const char *text, struct err *e)
{
    const char *at = text;
    for (int i = 0; i < DIT_POLY; i++) {
        char word[64];
        size_t n = strcspn(at, "/");
        if (n >= sizeof word || (i < DIT_POLY - 1) != (at[n] == '/')) break;
        memcpy(word, at, n);
        word[n] = 0;
        if (parse_double(word, -1e12, 1e12, &poly[i]) < 0) break;
        if (i == DIT_POLY - 1) return 0;
        at += n + 1;
    }
    return err_set(e, ERR_USAGE, "poly is '%.100s', wanted auto or five numbers a4/a3/a2/a1/a0",
                   text);
}

int step_cache_parse(const struct dit_cache **kind, struct dit_cache_knobs *k, const char *text,
                     struct err *e)
{
    *kind = NULL;
    *k = (struct dit_cache_knobs){0};
    if (!text || !*text || strcmp(text, "none") == 0) return 0;
    size_t n = strcspn(text, ":");
    const struct dit_cache *c = NULL;
    for (size_t i = 0; i < ARRAY_LEN(caches); i++)
        if (strlen(caches[i]->name) == n && memcmp(caches[i]->name, text, n) == 0) c = caches[i];
    if (!c) return unknown(text, n, e);
    char *words = strdup(text[n] ? text + n + 1 : "");
    if (!words) return err_set(e, ERR_RESOURCE, "no memory for the step cache's options");
    double ignored[DIT_POLY];
    int rc = option_defaults(c->options, k, e);
    for (char *at = words; rc == 0 && at && *at;) {
        char *comma = strchr(at, ',');
        if (comma) *comma = 0;
        rc = take_option(c, k, at, e);
        at = comma ? comma + 1 : NULL;
    }
    if (rc == 0 && k->poly && strcmp(k->poly, "auto") != 0 && read_poly(ignored, k->poly, e) < 0)
        rc = err_wrap(e, "step cache %s", c->name);
    free(words);
    if (rc < 0)
        option_free(c->options, k);
    else
        *kind = c;
    return rc;
}

int dit_cache_check(const char *text, char *canonical, size_t n, struct err *e)
{
    const struct dit_cache *c;
    struct dit_cache_knobs k;
    if (step_cache_parse(&c, &k, text, e) < 0) return -1;
    size_t len = (size_t)snprintf(canonical, canonical ? n : 0, "%s", c ? c->name : "none");
    for (const struct option *o = c ? c->options : NULL; o && o->name; o++) {
        char value[256];
        option_print(o, &k, value, sizeof value);
        len += (size_t)snprintf(canonical && len < n ? canonical + len : NULL,
                                canonical && len < n ? n - len : 0, "%c%s=%s",
                                o == c->options ? ':' : ',', o->name, value);
    }
    if (c) option_free(c->options, &k);
    if (canonical && len >= n)
        return err_set(e, ERR_USAGE, "the step cache and its options are longer than %zu bytes", n);
    return 0;
}

int dit_cache_words_check(const char *text, struct err *e)
{
    return dit_cache_check(text, NULL, 0, e);
}

/* --- coefficients ------------------------------------------------------------------------------- */

/* TeaCache's own, of Wan2.1: attention-kernels.md 5.1. [0] of the modulation, [1] of time. */
static const struct published {
    int width, in_channels, frame; /* frame: most tokens a latent frame, 0: any */
    double poly[2][DIT_POLY];
} published[] = {
    {1536,
     16,
     0,
     {{-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2},
      {2.39676752e3, -1.31110545e3, 2.01331979e2, -8.29855975, 1.37887774e-1}}},
    {5120,
     16,
     0,
     {{-3.03318725e5, 4.90537029e4, -2.65530556e3, 5.87365115e1, -3.15583525e-1},
      {-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404}}},
    {5120,
     36,
     2400, /* between 832x480 (1,560) and 1280x720 (3,600) */
     {{2.57151496e5, -3.54229917e4, 1.40286849e3, -1.35890334e1, 1.32517977e-1},
      {-3.02331670e2, 2.23948934e2, -5.25463970e1, 5.87348440, -2.01973289e-1}}},
    {5120,
     36,
     0,
     {{8.10705460e3, 2.13393892e3, -3.72934672e2, 1.66203073e1, -4.17769401e-2},
      {-114.36346466, 65.26524496, -18.82220707, 4.91518089, -0.23412683}}},
};

static int no_calibration(const struct dit_cache *c, const struct dit_cache_params *p,
                          struct err *e)
{
    return err_set(
        e, ERR_USAGE,
        "step cache %s has to be calibrated for a model, and %s; 'ditgen calibrate' does "
        "it",
        c->name, p->why_not ? p->why_not : "this one is not");
}

int step_cache_poly(double poly[DIT_POLY], const struct dit_cache *c,
                    const struct dit_cache_knobs *k, const struct dit_cache_params *p,
                    const struct dit_config *config, int tokens_a_frame, struct err *e)
{
    const struct dit_calibration *own = p->calibration;
    if (c->needs_ratio && !(own && own->ratio)) return no_calibration(c, p, e);
    if (c->budgeted && !p->budget)
        return err_set(
            e, ERR_USAGE,
            "step cache %s is steered by an error budget, and there is none; set one, as "
            "--error-budget 40dB",
            c->name);
    if (!c->needs_poly) return 0;
    if (strcmp(k->poly, "auto") != 0) return read_poly(poly, k->poly, e);
    if (own && own->has_poly) {
        memcpy(poly, own->poly[k->of], sizeof own->poly[0]);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(published); i++) {
        const struct published *w = &published[i];
        if (w->width != config->n_heads * config->head_dim ||
            w->in_channels != config->in_channels || (w->frame && tokens_a_frame > w->frame))
            continue;
        memcpy(poly, w->poly[k->of], sizeof w->poly[0]);
        return 0;
    }
    return no_calibration(c, p, e);
}

/* --- before a run ------------------------------------------------------------------------------- */

void step_cache_ends(const struct dit_cache_knobs *k, int n_steps, int *first, int *last)
{
    double a = k->first < 1 ? round(k->first * n_steps) : k->first,
           b = k->last < 1 ? round(k->last * n_steps) : k->last;
    *first = a < 1 ? 1 : a < n_steps ? (int)a : n_steps; /* nothing is kept before the first */
    *last = b < n_steps ? n_steps - (int)b : 0;
}

/* Type of activations of such a run; what cannot be is refused where it is placed. */
static enum dtype act_of(const struct dit_run_params *p)
{
    struct err ignored;
    enum dtype act = DTYPE_F32;
    struct device *d = p->attn ? p->attn->device : NULL;
    if (ops_of(d))
        ops_of(d)->type(d, p->attn ? p->attn->precision : PRECISION_FP32, &act, &ignored);
    return act;
}

#define STILL (1 / 1.4) /* clips move between so much of what is usual and its inverse */

/* Steps that a budget leaves to be computed, of still clips and of lively ones. */
static void foresee(struct dit_cache_forecast *f, const struct dit_run_params *p, int first,
                    int last)
{
    const struct budget *b = p->cache.budget;
    struct budget_run r = {.of = b, .n_units = 1, .group = 1, .end = last};
    struct budget_one one;
    float share[DIT_MOST_STEPS];
    if (!b->table || p->n_steps > DIT_MOST_STEPS) return;
    for (int lively = 0; lively < 2; lively++) {
        int n = first - 1 + p->n_steps - last;
        budget_foresee(share, budget_one(&one), &r, first - 1, lively ? 1 / STILL : STILL);
        for (int step = first - 1; step < last; step++)
            n += share[step] > 0.5F;
        *(lively ? &f->most : &f->least) = n;
    }
}

int dit_cache_forecast(struct dit_cache_forecast *f, const struct dit_config *c,
                       const struct dit_run_params *p, struct err *e)
{
    const struct dit_cache *kind;
    struct dit_cache_knobs k;
    double poly[DIT_POLY], numbers[DIT_CACHE_NUMBERS] = {0};
    *f = (struct dit_cache_forecast){.least = p->n_steps, .most = p->n_steps};
    if (step_cache_parse(&kind, &k, p->cache.words, e) < 0) return -1;
    if (!kind) return 0;
    int frame = (p->grid.height / c->patch_h) * (p->grid.width / c->patch_w), first, last, n = 0;
    int rc = step_cache_poly(poly, kind, &k, &p->cache, c, frame, e);
    step_cache_ends(&k, p->n_steps, &first, &last);
    for (int step = 0; rc == 0 && step < p->n_steps; step++) {
        struct dit_cache_now now = {.knobs = &k,
                                    .calibration = p->cache.calibration,
                                    .step = step,
                                    .n_steps = p->n_steps,
                                    .n_branches = p->n_branches,
                                    .first = first,
                                    .last = last,
                                    .must = step < first || step >= last,
                                    .numbers = numbers};
        n += kind->scheduled ? !kind->decide(&now) : now.must;
    }
    f->name = kind->name;
    f->least = n;
    if (rc == 0 && kind->budgeted) foresee(f, p, first, last);
    if (kind->scheduled) f->most = n;
    f->bytes = step_cache_bytes(kind, c, p, act_of(p));
    option_free(kind->options, &k);
    return rc;
}
