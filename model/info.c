/* What a pipeline folder says about itself, before any weight is read. */
#include "model/model.h"

#include "model/base/file_map.h"
#include "model/base/json.h"
#include "model/ops/linear.h"
#include "model/weights/weights.h"
#include "model/text/unicode.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "transformer": ["diffusers", "WanTransformer3DModel"] must name this class; false when null. */
static int component(const struct json *root, const char *path, const char *key,
                     const char *class_name, bool *present, struct err *e)
{
    const struct json *c = json_get(root, key);
    const char *name = json_string(json_at(c, 1));
    *present = name != NULL;
    if (c && !json_is_null(c) && (!json_is_array(c) || json_count(c) != 2))
        return err_set(e, ERR_INPUT, "%s: %s is no pair of library and class", path, key);
    if (name && class_name && strcmp(name, class_name) != 0)
        return err_set(e, ERR_INPUT, "%s: %s is a %.60s, wanted %s", path, key, name, class_name);
    return 0;
}

static int read_index(struct model_info *m, const struct json *root, const char *path,
                      struct err *e)
{
    const char *name;
    bool transformer, second, text, vae;
    if (json_read_string(root, path, "_class_name", NULL, &name, e) < 0) return -1;
    if (!name || strcmp(name, "WanPipeline") != 0)
        return err_set(e, ERR_INPUT, "%s: is a %.60s, wanted a WanPipeline (Wan text-to-video)",
                       path, name ? name : "folder without _class_name");
    snprintf(m->class_name, sizeof m->class_name, "%s", name);
    if (json_read_double(root, path, "boundary_ratio", 0, 1, 0, &m->boundary_ratio, e) < 0 ||
        json_read_bool(root, path, "expand_timesteps", false, &m->expand_timesteps, e) < 0 ||
        component(root, path, "transformer", "WanTransformer3DModel", &transformer, e) < 0 ||
        component(root, path, "transformer_2", "WanTransformer3DModel", &second, e) < 0 ||
        component(root, path, "text_encoder", "UMT5EncoderModel", &text, e) < 0 ||
        component(root, path, "vae", "AutoencoderKLWan", &vae, e) < 0)
        return -1;
    if (!transformer || !text || !vae)
        return err_set(e, ERR_INPUT, "%s: lacks %s", path,
                       !transformer ? "transformer"
                       : !text      ? "text_encoder"
                                    : "vae");
    const char *tokenizer = json_string(json_at(json_get(root, "tokenizer"), 1));
    snprintf(m->tokenizer_class, sizeof m->tokenizer_class, "%s", tokenizer ? tokenizer : "");
    if (second)
        return err_set(e, ERR_INPUT,
                       "%s: has two transformers (Wan2.2 A14B); this program runs "
                       "pipelines with one",
                       path);
    if (m->boundary_ratio > 0)
        return err_set(e, ERR_INPUT,
                       "%s: boundary_ratio is %g but transformer_2 is null; a Wan2.1 "
                       "folder converted by an old script: set boundary_ratio to null",
                       path, m->boundary_ratio);
    return 0;
}

static bool is_pipeline(const char *dir, const char *name)
{
    char path[4864];
    snprintf(path, sizeof path, "%s/%s/model_index.json", dir, name);
    return name[0] != '.' && access(path, F_OK) == 0;
}

/* A folder of the hub's cache keeps revisions as snapshots/NAME, and in refs/main the name of the
 * one that was asked for last. to: that folder, or dir itself when it is no such cache. */
static int find_snapshot(char *to, size_t size, const char *dir, struct err *e)
{
    char all[4352], first[256] = "", other[256] = "", main[256] = "";
    int found = 0;
    snprintf(to, size, "%s", dir);
    if (is_pipeline(dir, "/")) return 0;
    snprintf(all, sizeof all, "%s/snapshots", dir);
    DIR *d = opendir(all);
    if (!d) return 0;
    snprintf(all, sizeof all, "%s/refs/main", dir);
    char *text = NULL;
    struct err none;
    if (text_read(&text, NULL, all, sizeof main - 1, &none) == 0)
        snprintf(main, sizeof main, "%.*s", (int)strcspn(text, "\r\n"), text);
    free(text);
    snprintf(all, sizeof all, "%s/snapshots", dir);
    bool taken = false; /* refs/main's own */
    for (struct dirent *f; (f = readdir(d)) != NULL && !taken;) {
        if (!is_pipeline(all, f->d_name)) continue;
        taken = strcmp(f->d_name, main) == 0;
        snprintf(found++ && !taken ? other : first, sizeof first, "%s", f->d_name);
    }
    closedir(d);
    if (found > 1 && !taken)
        return err_set(e, ERR_INPUT,
                       "%s: holds several revisions (%.60s, %.60s, ..), and refs/main names none "
                       "of them; give one as %s/REVISION",
                       dir, first, other, all);
    if (found && (size_t)snprintf(to, size, "%s/%s", all, first) >= size)
        return err_set(e, ERR_USAGE, "the model's path is too long");
    return 0;
}

static bool same_shape(const struct dit_config *a, const struct dit_config *b)
{
    return a->n_heads == b->n_heads && a->head_dim == b->head_dim &&
           a->in_channels == b->in_channels && a->out_channels == b->out_channels &&
           a->text_dim == b->text_dim && a->freq_dim == b->freq_dim && a->ffn_dim == b->ffn_dim &&
           a->n_layers == b->n_layers && a->patch_t == b->patch_t && a->patch_h == b->patch_h &&
           a->patch_w == b->patch_w && a->image_dim == b->image_dim &&
           a->rope_max_seq_len == b->rope_max_seq_len;
}

/* A whole few-step transformer: a run plans with the sizes of the other one, so both are equal. */
static int read_turbo(struct model_info *m, struct err *e)
{
    char path[4352];
    struct dit_config c;
    snprintf(path, sizeof path, "%s/transformer_turbo/config.json", m->dir);
    if (access(path, F_OK) != 0) return 0;
    if (dit_config_read(&c, path, e) < 0) return -1;
    if (!same_shape(&c, &m->dit))
        return err_set(e, ERR_INPUT,
                       "%s: describes a transformer of another shape than transformer/config.json",
                       path);
    m->has_turbo = m->turbo_whole = true;
    return 0;
}

int model_info_read(struct model_info *m, const char *dir, struct err *e)
{
    char path[4352];
    struct json *root;
    struct stat st;
    memset(m, 0, sizeof *m);
    if (strlen(dir) + 300 >= sizeof m->dir)
        return err_set(e, ERR_USAGE, "the model's path is too long");
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_INPUT,
                       "%s: no such folder; wanted a Wan pipeline in diffusers layout", dir);
    if (find_snapshot(m->dir, sizeof m->dir, dir, e) < 0) return -1;
    dir = m->dir;
    snprintf(path, sizeof path, "%s/model_index.json", dir);
    if (access(path, F_OK) != 0)
        return err_set(e, ERR_INPUT,
                       "%s: has no model_index.json; wanted a Wan pipeline in diffusers "
                       "layout",
                       dir);
    if (json_open(&root, path, e) < 0) return -1;
    int r = read_index(m, root, path, e);
    json_close(root);
    if (r < 0) return -1;
    snprintf(path, sizeof path, "%s/transformer/config.json", dir);
    if (dit_config_read(&m->dit, path, e) < 0) return -1;
    snprintf(path, sizeof path, "%s/text_encoder/config.json", dir);
    if (umt5_config_read(&m->text, path, e) < 0) return -1;
    snprintf(path, sizeof path, "%s/vae/config.json", dir);
    if (vae_config_read(&m->vae, path, e) < 0) return -1;
    if (m->dit.text_dim != m->text.d_model)
        return err_set(e, ERR_INPUT,
                       "%s: the transformer wants text of %d features, the text encoder "
                       "gives %d",
                       dir, m->dit.text_dim, m->text.d_model);
    if (m->dit.in_channels != m->vae.z_dim || m->dit.out_channels != m->vae.z_dim)
        return err_set(e, ERR_INPUT,
                       "%s: the transformer takes %d channels and gives %d, the vae has "
                       "%d; image-to-video transformers are not run by text-to-video",
                       dir, m->dit.in_channels, m->dit.out_channels, m->vae.z_dim);
    static const struct {
        const char *part, *stem;
    } parts[] = {{"text_encoder", "model"},
                 {"transformer", "diffusion_pytorch_model"},
                 {"vae", "diffusion_pytorch_model"}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, parts[i].part);
        m->weight_bytes[i] = weights_on_disk(path, parts[i].stem);
    }
    snprintf(path, sizeof path, "%s/transformer_turbo/pytorch_lora_weights.safetensors", dir);
    m->has_turbo = access(path, F_OK) == 0;
    return m->has_turbo ? 0 : read_turbo(m, e);
}

/* Of unit, 2 unit, .., most unit, each plus add: the nearest at or below and at or above v. */
static void near(int v, int unit, int add, int most, int *below, int *above)
{
    int down = (v - add) / unit, up = down + ((v - add) % unit != 0);
    *below = (down < 1 ? 1 : down > most ? most : down) * unit + add;
    *above = (up < 1 ? 1 : up > most ? most : up) * unit + add;
}

/* Pixels that a side's patch covers, in steps that the reference takes too: it refuses what is no
 * multiple of 16. */
static int side_unit(const struct model_info *m, int patch)
{
    int unit = m->vae.scale_spatial * patch, step = unit;
    while (step % 16)
        step += unit;
    return step;
}

static void side_near(const struct model_info *m, int v, int patch, int *below, int *above)
{
    int unit = side_unit(m, patch);
    int most = m->dit.rope_max_seq_len * m->vae.scale_spatial * patch / unit;
    near(v, unit, 0, most > 0 ? most : 1, below, above);
}

void model_width_near(const struct model_info *m, int v, int *below, int *above)
{
    side_near(m, v, m->dit.patch_w, below, above);
}

void model_height_near(const struct model_info *m, int v, int *below, int *above)
{
    side_near(m, v, m->dit.patch_h, below, above);
}

void model_frames_near(const struct model_info *m, int v, int *below, int *above)
{
    int unit = m->vae.scale_temporal * m->dit.patch_t;
    near(v, unit, 1 - m->vae.scale_temporal, m->dit.rope_max_seq_len, below, above);
}

const char *model_backend(void) { return ops_backend(); }

const char *model_backend_on(const struct device *d)
{
    return device_kind(d) == DEVICE_CUDA   ? "cuBLASLt"
           : device_place(d) == PLACE_HOST ? ops_backend()
                                           : device_name(d);
}

bool model_is_slow(void) { return ops_are_slow(); }

size_t model_text_fault(const char *text) { return utf8_fault(text, strlen(text)); }

bool model_has_bf16(void) { return ops_has_bf16(); }
