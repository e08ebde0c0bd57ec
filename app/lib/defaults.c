/* Defaults of a model; see defaults.h. */
#include "app/lib/defaults.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/assets.h"
#include "app/lib/ini.h"
#include "model/base/file_map.h"
#include "model/base/option.h"
#include "sched/sched.h"

static const struct option defaults_options[] = {
    OPT_INT(struct defaults, width, "width", 0, 1, 16384, "pixels"),
    OPT_INT(struct defaults, height, "height", 0, 1, 16384, "pixels"),
    OPT_INT(struct defaults, frames, "frames", 0, 1, 100000, "frames"),
    OPT_DOUBLE(struct defaults, fps, "fps", 0, 0.01, 1000, "frames per second"),
    OPT_INT(struct defaults, steps, "steps", 0, 1, MAX_STEPS, "times the model is asked"),
    OPT_DOUBLE(struct defaults, guidance_scale, "guidance_scale", 0, 0, 1000, "guidance"),
    OPT_DOUBLE(struct defaults, flow_shift, "flow_shift", 0, 0.001, 1000, "shift of noise levels"),
    OPT_STRING(struct defaults, negative_prompt, "negative_prompt", NULL, "negative prompt"),
    OPT_STRING(struct defaults, solver, "solver", NULL, "solver"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};

static const struct option turbo_options[] = {
    OPT_INT(struct turbo_defaults, steps, "steps", 0, 1, MAX_STEPS, "times the model is asked"),
    OPT_DOUBLE(struct turbo_defaults, guidance_scale, "guidance_scale", 0, 0, 1000, "guidance"),
    OPT_DOUBLE(struct turbo_defaults, flow_shift, "flow_shift", 0, 0.001, 1000, "shift"),
    OPT_STRING(struct turbo_defaults, solver, "solver", NULL, "solver"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};

/* wan.md 0.2; hidden and n_layers tell the rows apart, in_channels what kind of input they take */
static const struct row {
    const char *name;
    int hidden, n_layers, in_channels;
    int width, height, frames, fps, steps;
    double guidance_scale;
} rows[] = {
    {"Wan2.1 T2V-1.3B", 1536, 30, 16, 832, 480, 81, 16, 50, 5.0},
    {"Wan2.1 T2V-14B", 5120, 40, 16, 832, 480, 81, 16, 50, 5.0},
    {"Wan2.1 I2V-14B", 5120, 40, 36, 832, 480, 81, 16, 40, 5.0},
    {"Wan2.2 TI2V-5B", 3072, 30, 48, 1280, 704, 121, 24, 50, 5.0},
};

static const struct row *nearest_row(const struct dit_config *c)
{
    const struct row *best = NULL;
    double best_d = INFINITY;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        /* parameters go with hidden² · layers; another input is another kind of model */
        double d = fabs(2 * log((double)c->n_heads * c->head_dim / rows[i].hidden) +
                        log((double)c->n_layers / rows[i].n_layers));
        if (c->in_channels != rows[i].in_channels) d += 100;
        if (d < best_d) best_d = d, best = &rows[i];
    }
    return best;
}

static int take_key(void *ctx, const char *section, const char *key, const char *value,
                    struct err *e)
{
    struct defaults *d = ctx;
    bool turbo = strcmp(section, "turbo") == 0;
    if (!turbo && *section && strcmp(section, "defaults") != 0)
        return err_set(e, ERR_INPUT, "unknown section [%s], wanted [defaults] or [turbo]", section);
    const struct option *table = turbo ? turbo_options : defaults_options;
    void *at = turbo ? (void *)&d->turbo : (void *)d;
    if (turbo) d->turbo.present = true;
    const struct option *o = option_find(table, key);
    if (!o) {
        const char *near = option_nearest(table, key);
        return err_set(e, ERR_INPUT, "unknown key '%s'%s%s%s", key, near ? ", did you mean '" : "",
                       near ? near : "", near ? "'?" : "");
    }
    if (strcmp(o->name, "solver") == 0 && !solver_find(value))
        return err_set(e, ERR_INPUT, "there is no solver '%s'", value);
    if (option_parse(o, at, value, e) < 0) {
        e->code = ERR_INPUT;
        return -1;
    }
    return 0;
}

int defaults_parse(struct defaults *d, const char *text, size_t len, const char *name,
                   struct err *e)
{
    return ini_parse(text, len, name, take_key, d, e);
}

void defaults_fini(struct defaults *d)
{
    free(d->negative_prompt);
    free(d->solver);
    free(d->turbo.solver);
    memset(d, 0, sizeof *d);
}

static void from_row(struct defaults *d, const struct model_info *info)
{
    const struct row *r = nearest_row(&info->dit);
    bool same =
        info->dit.n_heads * info->dit.head_dim == r->hidden && info->dit.n_layers == r->n_layers;
    int above;
    snprintf(d->from, sizeof d->from, same ? "%s" : "%s (nearest in shape)", r->name);
    model_size_near(info, r->width, &d->width, &above);
    if (d->width < 1) d->width = above;
    model_size_near(info, r->height, &d->height, &above);
    if (d->height < 1) d->height = above;
    model_frames_near(info, r->frames, &d->frames, &above);
    d->fps = r->fps;
    d->steps = r->steps;
    d->guidance_scale = r->guidance_scale;
}

/* A size in ditgen.ini that the model cannot do would only fail later, far from its line. */
static int check_sizes(const struct defaults *d, const struct model_info *info, const char *path,
                       struct err *e)
{
    const struct {
        const char *key;
        int v;
        void (*near)(const struct model_info *m, int v, int *below, int *above);
    } sizes[] = {{"width", d->width, model_size_near},
                 {"height", d->height, model_size_near},
                 {"frames", d->frames, model_frames_near}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        int below, above;
        sizes[i].near(info, sizes[i].v, &below, &above);
        if (below != sizes[i].v)
            return err_set(e, ERR_INPUT, "%s: %s is %d, this model can do %d or %d", path,
                           sizes[i].key, sizes[i].v, below, above);
    }
    return 0;
}

int defaults_read(struct defaults *d, const struct model_info *info, struct err *e)
{
    char path[ASSETS_PATH + 16];
    char *text = NULL;
    size_t len = 0;
    memset(d, 0, sizeof *d);
    from_row(d, info); /* also what a file leaves out */
    snprintf(path, sizeof path, "%s/ditgen.ini", info->dir);
    if (path_exists(path)) {
        if (file_read(&text, &len, path, 65536, e) < 0) goto fail;
        if (defaults_parse(d, text, len, path, e) < 0) goto fail;
        if (check_sizes(d, info, path, e) < 0) goto fail;
        strcpy(d->from, "ditgen.ini");
    }
    if (!d->negative_prompt && !(d->negative_prompt = strdup(""))) {
        err_set(e, ERR_RESOURCE, "no memory for the defaults");
        goto fail;
    }
    free(text);
    return 0;
fail:
    free(text);
    defaults_fini(d);
    return -1;
}
