/* The C library: a model, its facts, and what a run will take. One generation: generation.c. */
#include "app/lib/ditgen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/assets.h"
#include "app/lib/cost.h"
#include "app/lib/run.h"
#include "model/model.h"
#include "sched/sched.h"

const char *ditgen_version(void) { return DITGEN_VERSION; }

int give_error(struct ditgen_error *out, const struct err *e)
{
    out->code = e->code ? (int)e->code : DITGEN_BUG;
    memcpy(out->message, e->msg, sizeof out->message);
    return -1;
}

int ditgen_open(struct ditgen **out, const char *dir, struct ditgen_error *error)
{
    struct err e = {0};
    char path[ASSETS_PATH], file[ASSETS_PATH + 64];
    struct ditgen *d = calloc(1, sizeof *d);
    if (!d) {
        err_set(&e, ERR_RESOURCE, "no memory for the model's configs");
        goto fail;
    }
    cpu_detect(&d->cpu);
    if (assets_model(path, dir, &e) < 0) goto fail;
    if (model_info_read(&d->info, path, &e) < 0) goto fail;
    snprintf(file, sizeof file, "%s/scheduler/scheduler_config.json", d->info.dir);
    if (sched_config_read(&d->scheduler, file, &e) < 0) goto fail;
    if (defaults_read(&d->defaults, &d->info, &d->scheduler, &e) < 0) goto fail;
    *out = d;
    return 0;
fail:
    ditgen_close(d);
    *out = NULL;
    return give_error(error, &e);
}

int ditgen_device(const char *device, struct ditgen_error *error)
{
    struct err e = {0};
    return cpu_cap(device, &e) < 0 ? give_error(error, &e) : 0;
}

void ditgen_close(struct ditgen *d)
{
    if (!d) return;
    defaults_fini(&d->defaults);
    run_device_close(d);
    free(d->plan_attention);
    free(d);
}

const char *ditgen_defaults_from(const struct ditgen *d) { return d->defaults.from; }

void ditgen_width_near(const struct ditgen *d, int v, int *below, int *above)
{
    model_width_near(&d->info, v, below, above);
}

void ditgen_height_near(const struct ditgen *d, int v, int *below, int *above)
{
    model_height_near(&d->info, v, below, above);
}

void ditgen_frames_near(const struct ditgen *d, int v, int *below, int *above)
{
    model_frames_near(&d->info, v, below, above);
}

uint64_t ditgen_vae_mark(const struct ditgen *d)
{
    uint64_t h = 14695981039346656037u;
    const size_t facts[] = {d->info.weight_bytes[2], (size_t)d->info.vae.z_dim,
                            (size_t)d->info.vae.decoder_base_dim, (size_t)d->info.vae.n_levels};
    for (size_t i = 0; i < ARRAY_LEN(facts); i++)
        h = (h ^ facts[i]) * 1099511628211u;
    return h;
}

int ditgen_plan(struct ditgen *d, const struct ditgen_settings *s, struct ditgen_plan *p,
                struct ditgen_error *error)
{
    struct err e = {0};
    struct run r;
    struct model *m = NULL;
    if (run_init(&r, d, s, NULL, &e) < 0) return give_error(error, &e);
    int rc = model_open(&m, &d->info, &r.params, &e);
    struct cost_text text = {0};
    if (rc == 0) rc = model_check(m, &e);
    if (rc == 0) rc = cost_text(&text, m, &r, &e);
    model_close(m);
    if (rc == 0) rc = cost_plan(p, d, &r, &text, &e);
    run_fini(&r);
    return rc < 0 ? give_error(error, &e) : 0;
}
