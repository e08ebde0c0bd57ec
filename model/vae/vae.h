/* Frames ↔ latents: AutoencoderKLWan. wan.md section 4.
 *
 * Both directions stream: a few latent frames a call, with the two input frames that every causal
 * convolution looks back on kept between calls, so memory does not grow with the clip; equal to the
 * chunked reference. Latents here are normalised (what the DiT sees); the mean and std of the
 * config are applied inside. Owner: open → close. Threads: one clip at a time. Errors: ERR_INPUT,
 * ERR_RESOURCE. */
#ifndef DITGEN_VAE_VAE_H
#define DITGEN_VAE_VAE_H

#include "model/base/arena.h"
#include "model/base/device.h"
#include "model/base/dtype.h"
#include "model/base/log.h"

#include <stdbool.h>

#define VAE_MAX_Z 64
#define VAE_MAX_LEVELS 6
#define VAE_MAX_RES_BLOCKS 8

struct vae_config {
    int base_dim, decoder_base_dim, z_dim, n_levels, dim_mult[VAE_MAX_LEVELS], num_res_blocks;
    bool temporal_downsample[VAE_MAX_LEVELS]; /* [n_levels - 1] */
    bool is_residual; /* the 2.2 VAE */
    int in_channels, out_channels, patch_size; /* patch_size 1: none */
    int scale_temporal, scale_spatial;
    double latents_mean[VAE_MAX_Z], latents_std[VAE_MAX_Z];
};
/* Reads vae/config.json; refuses wrong classes and hostile sizes. */
int vae_config_read(struct vae_config *c, const char *path, struct err *e);
/* The same from text; path is for messages. */
int vae_config_parse(struct vae_config *c, const char *text, size_t len, const char *path,
                     struct err *e);

struct vae;
enum { VAE_DECODER = 1, VAE_ENCODER = 2 };
/* dir/config.json + dir/diffusion_pytorch_model.safetensors; parts of VAE_* are packed. device: where
 * it computes, which outlives it; NULL: the host. */
int vae_open(struct vae **v, struct device *device, const char *dir, int parts,
             enum precision precision, const struct log *log, struct err *e);
void vae_close(struct vae *v);
/* Of packed weights, in the memory where it computes. */
size_t vae_held_bytes(const struct vae *v);
/* Refuses what vae_open would, by config and headers: no weight is read. */
int vae_check(const char *dir, int parts, struct err *e);
const struct vae_config *vae_config_of(const struct vae *v);

/* Receives decoded frames in order: rgb [n, H, W, 3] fp32 in [-1, 1], valid during the call.
 * Nonzero stops the decode with ERR_CANCELLED (or the code set in *e by the sink, if any). */
typedef int (*vae_sink)(void *ctx, const float *rgb, int n, int height, int width, struct err *e);

/* latents [z_dim, frames, h, w] fp32, normalised. frames latent frames give 1 + 4 (frames-1)
 * frames. Memory is taken once, at the start, and given back at the end. */
int vae_decode(struct vae *v, const float *latents, int frames, int h, int w, vae_sink sink,
               void *ctx, struct err *e);
/* The same to bytes, as pictures are stored: to nearest (half to even) or truncated. On a GPU they leave
 * it while the next ones are made, and the sink works meanwhile. */
typedef int (*vae_byte_sink)(void *ctx, const uint8_t *rgb, int n, int height, int width,
                             struct err *e);
int vae_decode_pictures(struct vae *v, const float *latents, int frames, int h, int w,
                        bool truncate, vae_byte_sink sink, void *ctx, struct err *e);
/* rgb [n, H, W, 3] fp32 in [-1, 1], n = 1 + 4k → latents [z_dim, 1+k, H/8, W/8] normalised mean of
 * the posterior. Other sizes are refused (ERR_USAGE). */
int vae_encode(struct vae *v, float *latents, const float *rgb, int n, int height, int width,
               struct err *e);
/* Bytes held in the device's memory (NULL: the host's) while decoding to bytes at this size: packed
 * weights, states, buffers; on the host with the threads set now. Reads no weights. Refuses what
 * vae_decode refuses (ERR_USAGE). */
int vae_decode_bytes(size_t *bytes, const struct vae_config *c, struct device *device,
                     enum precision precision, int frames, int h, int w, struct err *e);
/* The same of an encode (height, width: of the pictures). */
int vae_encode_bytes(size_t *bytes, const struct vae_config *c, struct device *device,
                     enum precision precision, int frames, int height, int width, struct err *e);

#endif
