/* vae/config.json → struct vae_config, with every bound checked before anything is sized by it. */
#include "model/base/json.h"
#include "model/vae/vae.h"

#include <stdio.h>
#include <string.h>

#define MAX_DIM 4096 /* channels of any layer; Wan 2.2 has 1024 */

static const double mean_21[16] = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,
                                   -0.1517, 1.5508,  0.4134,  -0.0715, 0.5517,  -0.3632,
                                   -0.1922, -0.9497, 0.2503,  -0.2921};
static const double std_21[16] = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                                  3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};

static int read_bools(bool *v, int want, const struct json *o, const char *path, const char *key,
                      struct err *e)
{
    const struct json *a = json_get(o, key);
    if (!a || json_is_null(a)) { /* the reference's default: F T T, for four levels */
        if (want != 3)
            return err_set(e, ERR_INPUT, "%s: %s is missing, wanted %d values", path, key, want);
        v[0] = false, v[1] = v[2] = true;
        return 0;
    }
    if (!json_is_array(a) || json_count(a) != want)
        return err_set(e, ERR_INPUT, "%s: %s must hold %d booleans, one a level but the last", path,
                       key, want);
    for (int i = 0; i < want; i++)
        if (!json_bool(json_at(a, i), &v[i]))
            return err_set(e, ERR_INPUT, "%s: %s[%d] is no boolean", path, key, i);
    return 0;
}

static int read_doubles(double *v, const double *absent, const struct vae_config *c,
                        const struct json *o, const char *path, const char *key, struct err *e)
{
    int n;
    if (json_read_doubles(o, path, key, VAE_MAX_Z, v, &n, e) < 0) return -1;
    if (n < 0 && c->z_dim == 16) {
        memcpy(v, absent, 16 * sizeof *v);
        return 0;
    }
    if (n != c->z_dim)
        return err_set(e, ERR_INPUT, "%s: %s has %d values, z_dim is %d", path, key, n < 0 ? 0 : n,
                       c->z_dim);
    return 0;
}

/* The parameter-free shortcuts of 2.2 need whole groups (wan.md 4.6). */
static int check_residual(const struct vae_config *c, const char *path, struct err *e)
{
    for (int i = 0; i < c->n_levels; i++) {
        bool last = i == c->n_levels - 1;
        int in = c->base_dim * (i ? c->dim_mult[i - 1] : 1), out = c->base_dim * c->dim_mult[i];
        int factor = last ? 1 : 4 * (c->temporal_downsample[i] ? 2 : 1);
        int u_in = c->decoder_base_dim * c->dim_mult[c->n_levels - 1 - (i ? i - 1 : 0)];
        int u_out = c->decoder_base_dim * c->dim_mult[c->n_levels - 1 - i];
        int up = last ? 0 : 4 * (c->temporal_downsample[c->n_levels - 2 - i] ? 2 : 1);
        if ((in * factor) % out != 0 || (up && (u_out * up) % u_in != 0))
            return err_set(e, ERR_INPUT,
                           "%s: channels of level %d do not divide for the shortcuts of "
                           "is_residual",
                           path, i);
    }
    return 0;
}

static int check_sizes(const struct vae_config *c, const char *path, struct err *e)
{
    int temporal = 1, spatial = c->patch_size << (c->n_levels - 1);
    for (int i = 0; i < c->n_levels; i++) {
        int enc = c->base_dim * c->dim_mult[i], dec = c->decoder_base_dim * c->dim_mult[i];
        if (enc > MAX_DIM || dec > MAX_DIM)
            return err_set(e, ERR_INPUT, "%s: level %d has %d channels, at most %d are possible",
                           path, i, enc > dec ? enc : dec, MAX_DIM);
        if (!c->is_residual && i > 0 && dec % 2 != 0)
            return err_set(e, ERR_INPUT,
                           "%s: decoder level %d has %d channels; an upsampler halves them", path,
                           i, dec);
        if (i < c->n_levels - 1 && c->temporal_downsample[i]) temporal *= 2;
    }
    if (temporal > 16)
        return err_set(e, ERR_INPUT, "%s: %d frames a latent frame, at most 16 are possible", path,
                       temporal);
    if (c->scale_temporal != temporal || c->scale_spatial != spatial)
        return err_set(e, ERR_INPUT,
                       "%s: scale factors %d (time) and %d (space), but its levels give %d "
                       "and %d",
                       path, c->scale_temporal, c->scale_spatial, temporal, spatial);
    int rgb = 3 * c->patch_size * c->patch_size;
    if (c->in_channels != rgb || c->out_channels != rgb)
        return err_set(e, ERR_INPUT, "%s: in_channels %d and out_channels %d, wanted %d (RGB%s)",
                       path, c->in_channels, c->out_channels, rgb,
                       c->patch_size > 1 ? " patches" : "");
    return c->is_residual ? check_residual(c, path, e) : 0;
}

static int read_all(struct vae_config *c, const struct json *o, const char *path, struct err *e)
{
    const char *name;
    int n;
    *c = (struct vae_config){0};
    if (!json_is_object(o)) return err_set(e, ERR_INPUT, "%s: holds no JSON object", path);
    if (json_read_string(o, path, "_class_name", "", &name, e) < 0) return -1;
    if (strcmp(name, "AutoencoderKLWan") != 0)
        return err_set(e, ERR_INPUT, "%s: _class_name is \"%.64s\", wanted AutoencoderKLWan", path,
                       name);
    if (json_read_int(o, path, "base_dim", 1, 1024, 96, &c->base_dim, e) < 0 ||
        json_read_int(o, path, "decoder_base_dim", 1, 1024, c->base_dim, &c->decoder_base_dim, e) <
            0 ||
        json_read_int(o, path, "z_dim", 1, VAE_MAX_Z, 16, &c->z_dim, e) < 0 ||
        json_read_int(o, path, "num_res_blocks", 1, VAE_MAX_RES_BLOCKS, 2, &c->num_res_blocks, e) <
            0 ||
        json_read_ints(o, path, "dim_mult", 1, 64, VAE_MAX_LEVELS, c->dim_mult, &n, e) < 0 ||
        json_read_bool(o, path, "is_residual", false, &c->is_residual, e) < 0 ||
        json_read_int(o, path, "in_channels", 1, 64, 3, &c->in_channels, e) < 0 ||
        json_read_int(o, path, "out_channels", 1, 64, 3, &c->out_channels, e) < 0 ||
        json_read_int(o, path, "patch_size", 1, 4, 1, &c->patch_size, e) < 0 ||
        json_read_int(o, path, "scale_factor_temporal", 1, 64, 4, &c->scale_temporal, e) < 0 ||
        json_read_int(o, path, "scale_factor_spatial", 1, 256, 8, &c->scale_spatial, e) < 0)
        return -1;
    if (n < 0) memcpy(c->dim_mult, (int[]){1, 2, 4, 4}, 4 * sizeof(int)), n = 4;
    if (n < 2)
        return err_set(e, ERR_INPUT, "%s: dim_mult has %d levels, wanted 2 to %d", path, n,
                       VAE_MAX_LEVELS);
    c->n_levels = n;
    if (json_count(json_get(o, "attn_scales")) > 0)
        return err_set(e, ERR_INPUT,
                       "%s: attn_scales is not empty; attention outside the mid block is not "
                       "supported",
                       path);
    if (read_bools(c->temporal_downsample, n - 1, o, path, "temperal_downsample", e) <
            0 || /* sic */
        read_doubles(c->latents_mean, mean_21, c, o, path, "latents_mean", e) < 0 ||
        read_doubles(c->latents_std, std_21, c, o, path, "latents_std", e) < 0)
        return -1;
    for (int i = 0; i < c->z_dim; i++)
        if (!(c->latents_std[i] > 1e-6 && c->latents_std[i] < 1e6))
            return err_set(e, ERR_INPUT, "%s: latents_std[%d] is %g, wanted a positive number",
                           path, i, c->latents_std[i]);
    return check_sizes(c, path, e);
}

int vae_config_read(struct vae_config *c, const char *path, struct err *e)
{
    struct json *root;
    if (json_open(&root, path, e) < 0) return -1;
    int rc = read_all(c, root, path, e);
    json_close(root);
    return rc;
}

int vae_config_parse(struct vae_config *c, const char *text, size_t len, const char *path,
                     struct err *e)
{
    struct json *root;
    if (json_parse(&root, text, len, path, e) < 0) return -1;
    int rc = read_all(c, root, path, e);
    json_close(root);
    return rc;
}
