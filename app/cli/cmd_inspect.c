/* inspect: what a model folder is, or what a checkpoint holds, without loading it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/assets.h"
#include "app/cli/cmd.h"
#include "app/lib/settings.h"
#include "app/cli/input.h"
#include "app/cli/progress.h"
#include "model/base/file_map.h"
#include "model/base/safetensors.h"
#include "model/model.h"
#include "sched/sched.h"

static void put_bytes(const char *name, size_t bytes)
{
    char text[40];
    bytes_text(text, sizeof text, (double)bytes);
    printf("  %-16s %s\n", name, bytes ? text : "none found");
}

static void put_model(const struct model_info *m)
{
    const struct dit_config *d = &m->dit;
    const struct umt5_config *t = &m->text;
    const struct vae_config *v = &m->vae;
    printf("%s: %s\n", m->dir, m->class_name);
    printf("transformer\n");
    printf("  %-16s %d heads of %d = %d wide, %d layers, ffn %d\n", "shape", d->n_heads,
           d->head_dim, d->n_heads * d->head_dim, d->n_layers, d->ffn_dim);
    printf("  %-16s %d in, %d out, patch %dx%dx%d\n", "latent channels", d->in_channels,
           d->out_channels, d->patch_t, d->patch_h, d->patch_w);
    if (d->image_dim) printf("  %-16s %d\n", "image features", d->image_dim);
    put_bytes("weights", m->weight_bytes[1]);
    printf("text encoder\n");
    printf("  %-16s %d wide, %d layers, %d heads of %d, ffn %d\n", "shape", t->d_model, t->n_layers,
           t->n_heads, t->d_kv, t->d_ff);
    printf("  %-16s %d\n", "vocabulary", t->vocab_size);
    put_bytes("weights", m->weight_bytes[0]);
    printf("vae\n");
    printf("  %-16s decoder base %d, %d levels, %d channels, %dx%dx%d pixels a latent\n", "shape",
           v->decoder_base_dim, v->n_levels, v->z_dim, v->scale_temporal, v->scale_spatial,
           v->scale_spatial);
    put_bytes("weights", m->weight_bytes[2]);
    if (m->has_turbo) printf("few-step weights (--turbo)\n");
}

static int put_defaults(struct ditgen *d, struct err *e)
{
    struct ditgen_settings *none = NULL, *s = NULL;
    if (settings_open(&none, e) < 0) return -1;
    int rc = settings_resolve(&s, none, d, NULL, e);
    if (rc == 0) {
        printf("defaults (%s)\n  %-16s %dx%d, %d frames at %g fps, %d steps, guidance scale %g\n",
               ditgen_defaults_from(d), "clip", settings_int(s, SET_WIDTH),
               settings_int(s, SET_HEIGHT), settings_int(s, SET_FRAMES), settings_real(s, SET_FPS),
               settings_int(s, SET_STEPS), settings_real(s, SET_GUIDANCE_SCALE));
        const char *negative = settings_text(s, SET_NEGATIVE);
        if (*negative) printf("  %-16s %s\n", "negative prompt", negative);
    }
    settings_close(none);
    settings_close(s);
    return rc;
}

static int check_as(const struct model_info *info, const struct model_params *p, struct err *e)
{
    struct model *m = NULL;
    int rc = model_open(&m, info, p, e);
    if (rc == 0) rc = model_check(m, e);
    model_close(m);
    return rc;
}

/* Every tensor's name and shape; the few-step transformer or adapter too, where there is one. */
static int check_parts(const struct model_info *info, struct err *e)
{
    char lora[ASSETS_PATH + 64];
    struct model_params p = {.precision = PRECISION_FP32, .threads = 1, .lora_strength = 1};
    if (check_as(info, &p, e) < 0) return -1;
    if (!info->has_turbo) return 0;
    snprintf(lora, sizeof lora, "%s/transformer_turbo/pytorch_lora_weights.safetensors", info->dir);
    p.turbo = info->turbo_whole;
    p.lora = info->turbo_whole ? NULL : lora;
    return check_as(info, &p, e);
}

static int inspect_folder(const char *dir, struct err *e)
{
    struct model_info m;
    struct sched_config s;
    struct ditgen *d = NULL;
    struct ditgen_error de;
    char path[ASSETS_PATH + 64];
    if (model_info_read(&m, dir, e) < 0) return -1;
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", m.dir);
    if (sched_config_read(&s, path, e) < 0) return -1;
    if (check_parts(&m, e) < 0) return -1;
    if (ditgen_open(&d, dir, &de) < 0) return err_set(e, (enum err_code)de.code, "%s", de.message);
    put_model(&m);
    printf("scheduler\n  %-16s %s, solver %s, flow shift %g\n", "class", s.class_name, s.solver,
           s.flow_shift);
    int rc = put_defaults(d, e);
    ditgen_close(d);
    return rc;
}

/* --- one safetensors file
 * ---------------------------------------------------------------------------- */

static int put_tensor(const struct json *t, const char *path, double *elements, struct err *e)
{
    const char *name = json_key(t), *dtype = json_string(json_get(t, "dtype"));
    const struct json *shape = json_get(t, "shape");
    double n = 1;
    if (!dtype || !json_is_array(shape))
        return err_set(e, ERR_INPUT, "%s: tensor '%.100s' has no dtype or shape", path, name);
    printf("%-60s %-5s [", name, dtype);
    for (const struct json *d = json_first(shape); d; d = json_next(d)) {
        double v;
        if (!json_number(d, &v) || v < 0)
            return err_set(e, ERR_INPUT, "%s: tensor '%.100s' has a bad shape", path, name);
        printf("%s%.0f", d == json_first(shape) ? "" : ", ", v);
        n *= v;
    }
    puts("]");
    *elements += n;
    return 0;
}

static int inspect_file(const char *path, struct err *e)
{
    struct file_map m;
    struct safetensors s = {0};
    double elements = 0;
    int count = 0;
    if (file_map_open(&m, path, e) < 0) return -1;
    int rc = safetensors_open(&s, m.data, m.size, path, e);
    for (const struct json *t = json_first(s.root); rc == 0 && t; t = json_next(t)) {
        if (strcmp(json_key(t), "__metadata__") == 0) continue;
        rc = put_tensor(t, path, &elements, e);
        count++;
    }
    if (rc == 0) printf("%d tensors, %.3f M elements\n", count, elements * 1e-6);
    safetensors_close(&s);
    file_map_close(&m);
    return rc;
}

int cmd_inspect(int argc, char **argv, struct err *e)
{
    char path[ASSETS_PATH];
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        puts("ditgen inspect [DIR|FILE]: a model folder (without: the model built in), or the "
             "tensors of a\n"
             ".safetensors file");
        return 0;
    }
    if (argc > 2)
        return err_set(e, ERR_USAGE, "inspect takes one folder or file, '%.60s' is the second",
                       argv[2]);
    if (argc == 2 && argv[1][0] == '-')
        return err_set(e, ERR_USAGE, "unknown flag %.60s of inspect", argv[1]);
    if (assets_model(path, argc == 2 ? argv[1] : NULL, e) < 0) return -1;
    if (path_is_dir(path)) return inspect_folder(path, e);
    struct input in;
    if (input_open(&in, path, e) < 0) return -1;
    int rc = inspect_file(in.path, e);
    if (rc < 0) input_blame(&in, e);
    input_close(&in);
    return rc;
}
