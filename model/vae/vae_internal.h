/* What the files behind vae.h share. */
#ifndef DITGEN_VAE_INTERNAL_H
#define DITGEN_VAE_INTERNAL_H

#include "model/vae/shortcut.h"
#include "model/vae/stage.h"
#include "model/vae/vae.h"

struct vae {
    struct vae_config config;
    enum precision precision;
    int parts;
    const struct vae_kernels *kernels;
    struct arena weights;
    struct net *decoder, *encoder; /* NULL when not opened */
    struct direct_set set; /* whose products the convolutions take */
    void (*watch)(void *ctx, int level,
                  double seconds); /* benchmarks: time spent in a level; or NULL */
    void *watch_ctx;
};

/* Choices that vae_open makes by itself; for tests and timings. */
struct vae_choice {
    const struct vae_kernels *kernels; /* NULL: the best that runs here */
    enum products products;
    int least; /* of direct_set */
};
struct vae_choice vae_choose(enum precision precision);
int vae_open_with(struct vae **out, const char *dir, int parts, enum precision precision,
                  const struct vae_choice *choice, const struct log *log, struct err *e);

/* Everything a decode holds besides weights; the same code sizes and places. */
struct decoding {
    struct stage stages[VAE_MAX_LEVELS];
    struct attention_space attention;
    struct frame_size latent, rgb;
    float *z[MAX_FRAMES], *zq[MAX_FRAMES], *out[MAX_FRAMES];
    float *u[VAE_MAX_LEVELS][MAX_FRAMES]; /* frames of a level doubled in time, not yet in space */
    int seen[VAE_MAX_LEVELS]; /* frames of the clip that have come to a level */
    float *packed; /* rgb [cap, H, W, 3] */
    float scale[VAE_MAX_Z], shift[VAE_MAX_Z];
    struct clip_work run;
};
/* Refuses sizes that cannot be decoded. ERR_USAGE. */
int decoding_check(int frames, int h, int w, struct err *e);
void decoding_carve(struct decoding *d, struct net *net, const struct vae_config *c, int frames,
                    int h, int w, int threads, struct arena *a);

/* The same for an encode. */
struct encoding {
    struct stage stages[VAE_MAX_LEVELS];
    struct attention_space attention;
    struct frame_size rgb, latent;
    float *pixels[MAX_FRAMES], *moments[MAX_FRAMES], *out[MAX_FRAMES];
    float *halved[VAE_MAX_LEVELS][MAX_FRAMES]; /* frames halved in space, not yet in time */
    float *zeros; /* a bias of nothing */
    struct clip_work run;
};
void encoding_carve(struct encoding *d, struct net *net, const struct vae_config *c, int h, int w,
                    int threads, struct arena *a);

#endif
