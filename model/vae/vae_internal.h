/* What the files behind vae.h share. */
#ifndef DITGEN_VAE_INTERNAL_H
#define DITGEN_VAE_INTERNAL_H

#include "model/vae/stage.h"
#include "model/vae/vae.h"

struct vae {
    struct vae_config config;
    enum precision precision;
    struct frames_on on; /* where everything is computed */
    struct arena weights;
    struct net *decoder, *encoder; /* NULL when not opened */
    void (*watch)(void *ctx, int level,
                  double seconds); /* benchmarks: time spent in a level; or NULL */
    void *watch_ctx;
};

/* Choices that vae_open makes by itself for the host; for tests and timings. */
struct vae_choice {
    const struct vae_kernels *kernels; /* NULL: the best that runs here */
    enum products products;
    int least; /* of direct_set */
};
struct vae_choice vae_choose(enum precision precision);
int vae_open_with(struct vae **out, struct device *device, const char *dir, int parts,
                  enum precision precision, const struct vae_choice *choice, const struct log *log,
                  struct err *e);
/* To be frames_open()ed. */
struct frames_on frames_chosen(const struct vae_choice *choice);

/* A piece of pictures on its way out. */
#define LEAVE_SLOTS 2
struct leave {
    float *rgb; /* of the device */
    uint8_t *bytes;
    /* where memory is away: what the sink reads, and when it may */
    struct device_mark *mark;
    void *pinned;
    int *bad; /* pinned, behind the pictures */
    int n; /* frames that wait for the sink; 0: none */
};

/* Everything a decode holds besides weights; the same code sizes and places. */
struct decoding {
    struct stage stages[VAE_MAX_LEVELS];
    struct attention_space attention;
    struct frame_size latent, rgb;
    int patch, cap_out; /* of the pictures; how many a piece has */
    void *z[MAX_FRAMES], *zq[MAX_FRAMES], *out[MAX_FRAMES];
    void *u[VAE_MAX_LEVELS][MAX_FRAMES]; /* frames of a level doubled in time, not yet in space */
    int seen[VAE_MAX_LEVELS]; /* frames of the clip that have come to a level */
    bool as_bytes; /* pictures leave as bytes */
    struct leave leave[LEAVE_SLOTS];
    int *bad; /* of the device: some number was none */
    float *latents; /* of the device; NULL: those of the caller */
    float scale[VAE_MAX_Z], shift[VAE_MAX_Z];
    struct clip_work run;
};
/* Refuses sizes that cannot be decoded. ERR_USAGE. */
int decoding_check(int frames, int h, int w, struct err *e);
/* d->run.on and d->as_bytes are set. */
void decoding_carve(struct decoding *d, struct net *net, const struct vae_config *c, int frames,
                    int h, int w, struct arena *a);
/* Numbers (or bytes) in the pictures of one piece. */
size_t decoding_piece(const struct decoding *d);

/* The same for an encode. */
struct encoding {
    struct stage stages[VAE_MAX_LEVELS];
    struct attention_space attention;
    struct frame_size rgb, latent;
    void *pixels[MAX_FRAMES], *moments[MAX_FRAMES], *out[MAX_FRAMES];
    void *halved[VAE_MAX_LEVELS][MAX_FRAMES]; /* frames halved in space, not yet in time */
    float *picture, *latents; /* of the device, where memory is away: one picture, all latents */
    float mean[VAE_MAX_Z], inverse[VAE_MAX_Z];
    struct clip_work run;
};
/* d->run.on is set. frames: of the latents. */
void encoding_carve(struct encoding *d, struct net *net, const struct vae_config *c, int frames,
                    int h, int w, struct arena *a);

#endif
