/* Defaults of a model; see defaults.h. */
#include "app/lib/defaults.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/assets.h"
#include "app/lib/ini.h"
#include "model/base/file_map.h"

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

/* The rows that the few-step transformer may change. */
static bool in_turbo(int id)
{
    return id == SET_STEPS || id == SET_GUIDANCE_SCALE || id == SET_FLOW_SHIFT || id == SET_SOLVER;
}

static int unknown_key(const char *key, bool turbo, struct err *e)
{
    const char *near = NULL;
    int distance = OPTION_FAR;
    for (int i = 0; i < setting_count(); i++) {
        int d = option_distance(setting_at(i)->option.name, key);
        if (!(setting_at(i)->use & MODEL) || (turbo && !in_turbo(i)) || d >= distance) continue;
        near = setting_at(i)->option.name, distance = d;
    }
    return err_set(e, ERR_INPUT, "unknown key '%.100s'%s%s%s", key, near ? ", did you mean '" : "",
                   near ? near : "", near ? "'?" : "");
}

static int take_key(void *ctx, const char *section, const char *key, const char *value,
                    struct err *e)
{
    struct defaults *d = ctx;
    bool turbo = strcmp(section, "turbo") == 0;
    if (!turbo && *section && strcmp(section, "defaults") != 0)
        return err_set(e, ERR_INPUT, "unknown section [%s], wanted [defaults] or [turbo]", section);
    if (turbo) d->has_turbo = true;
    if (!key) return 0;
    int id = setting_find(key);
    if (id < 0 || !(setting_at(id)->use & MODEL) || (turbo && !in_turbo(id)))
        return unknown_key(key, turbo, e);
    if (settings_set(turbo ? d->turbo : d->always, LAYER_MODEL, key, value, e) == 0) return 0;
    if (e->code == ERR_USAGE) e->code = ERR_INPUT;
    return -1;
}

static int open_both(struct defaults *d, struct err *e)
{
    if (!d->always && settings_open(&d->always, e) < 0) return -1;
    return !d->turbo && settings_open(&d->turbo, e) < 0 ? -1 : 0;
}

int defaults_parse(struct defaults *d, const char *text, size_t len, const char *name,
                   struct err *e)
{
    if (open_both(d, e) < 0) return -1;
    return ini_parse(text, len, name, take_key, d, e);
}

void defaults_fini(struct defaults *d)
{
    settings_close(d->always);
    settings_close(d->turbo);
    memset(d, 0, sizeof *d);
}

int defaults_check_turbo(const struct defaults *d, const struct model_info *info, struct err *e)
{
    if (!info->has_turbo)
        return err_set(e, ERR_USAGE, "--turbo: %s has no few-step weights (transformer_turbo)",
                       info->dir);
    if (settings_from(d->turbo, SET_STEPS) && settings_from(d->turbo, SET_GUIDANCE_SCALE)) return 0;
    return err_set(e, ERR_USAGE,
                   "--turbo: %s/ditgen.ini has no [turbo] section with steps and guidance_scale",
                   info->dir);
}

static int put_number(struct defaults *d, enum setting_id id, double v, struct err *e)
{
    char text[40];
    snprintf(text, sizeof text, "%.17g", v);
    return settings_set(d->always, LAYER_MODEL, setting_at((int)id)->option.name, text, e);
}

static int from_row(struct defaults *d, const struct model_info *info, struct err *e)
{
    const struct row *r = nearest_row(&info->dit);
    bool same =
        info->dit.n_heads * info->dit.head_dim == r->hidden && info->dit.n_layers == r->n_layers;
    int width, height, frames, above;
    snprintf(d->from, sizeof d->from, same ? "%s" : "%s (nearest in shape)", r->name);
    model_width_near(info, r->width, &width, &above);
    model_height_near(info, r->height, &height, &above);
    model_frames_near(info, r->frames, &frames, &above);
    if (put_number(d, SET_WIDTH, width, e) < 0) return -1;
    if (put_number(d, SET_HEIGHT, height, e) < 0) return -1;
    if (put_number(d, SET_FRAMES, frames, e) < 0) return -1;
    if (put_number(d, SET_FPS, r->fps, e) < 0) return -1;
    if (put_number(d, SET_STEPS, r->steps, e) < 0) return -1;
    return put_number(d, SET_GUIDANCE_SCALE, r->guidance_scale, e);
}

/* The scheduler's own, which a file may replace. */
static int from_scheduler(struct defaults *d, const struct sched_config *s, struct err *e)
{
    if (put_number(d, SET_FLOW_SHIFT, s->flow_shift, e) < 0) {
        if (e->code == ERR_USAGE) e->code = ERR_INPUT;
        return err_wrap(e, "scheduler_config.json");
    }
    return settings_set(d->always, LAYER_MODEL, "solver", s->solver, e);
}

/* A size in ditgen.ini that the model cannot do would only fail later, far from its line. */
static int check_sizes(const struct defaults *d, const struct model_info *info, const char *path,
                       struct err *e)
{
    static const struct {
        enum setting_id id;
        void (*near)(const struct model_info *m, int v, int *below, int *above);
    } sizes[] = {{SET_WIDTH, model_width_near},
                 {SET_HEIGHT, model_height_near},
                 {SET_FRAMES, model_frames_near}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        int below, above, v = settings_int(d->always, sizes[i].id);
        sizes[i].near(info, v, &below, &above);
        if (below != v)
            return err_set(e, ERR_INPUT, "%s: %s is %d, this model can do %d or %d", path,
                           setting_at((int)sizes[i].id)->option.name, v, below, above);
    }
    return 0;
}

int defaults_read(struct defaults *d, const struct model_info *info,
                  const struct sched_config *scheduler, struct err *e)
{
    char path[ASSETS_PATH + 16];
    char *text = NULL;
    size_t len = 0;
    memset(d, 0, sizeof *d);
    if (open_both(d, e) < 0) goto fail;
    if (from_row(d, info, e) < 0) goto fail; /* also what a file leaves out */
    if (from_scheduler(d, scheduler, e) < 0) goto fail;
    if (settings_set(d->always, LAYER_MODEL, "negative", "", e) < 0) goto fail;
    snprintf(path, sizeof path, "%s/ditgen.ini", info->dir);
    if (path_exists(path)) {
        if (text_read(&text, &len, path, 65536, e) < 0) goto fail;
        if (defaults_parse(d, text, len, path, e) < 0) goto fail;
        if (check_sizes(d, info, path, e) < 0) goto fail;
        strcpy(d->from, "ditgen.ini");
    }
    free(text);
    return 0;
fail:
    free(text);
    defaults_fini(d);
    return -1;
}
