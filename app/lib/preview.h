/* What a clip looks like before it is decoded: an affine map of each latent cell to a colour, fitted by
 * least squares to the mean colours of the pixels that a decoder made of that cell.
 *
 * Owner: caller, preview_open -> preview_close. Threads: one at a time. Errors: ERR_RESOURCE. */
#ifndef DITGEN_APP_LIB_PREVIEW_H
#define DITGEN_APP_LIB_PREVIEW_H

#include "app/lib/ditgen.h"
#include "model/base/err.h"

#include <stdbool.h>

struct preview {
    int shape[4]; /* of the latents: channels, frames, height, width */
    const struct ditgen_preview_map *map; /* NULL: none */
    float *before; /* [shape] latents of the step before; with a map */
    uint8_t *rgb; /* [frames, height, width, 3] */
    double made, cost; /* when the last was made, and the seconds that one takes */
    bool any; /* one was made */
    /* the fit: normal equations over all cells, and mean colours of the latent frame under way */
    double *ata, *atb; /* [C + 1, C + 1], [C + 1, 3] */
    float *sums; /* [height, width, 3] */
    int summed; /* frames in them */
};

/* map or fit may be absent; channels beyond DITGEN_PREVIEW_CHANNELS: neither is done. */
int preview_open(struct preview *p, const int shape[4], const struct ditgen_preview_map *map,
                 bool fit, struct err *e);
void preview_close(struct preview *p); /* takes zeroes */

/* Is one due? It costs less than 1 % of the time since the last. */
bool preview_due(const struct preview *p, double now);
/* Latents at the end of a step that went from sigma_before to sigma: the colours of where they lead
 * to, x - sigma * dx / dsigma, into p->rgb. */
void preview_make(struct preview *p, const float *latents, float sigma_before, float sigma);
void preview_remember(struct preview *p, const float *latents);

/* Decoded frames in order; temporal: frames a latent frame, the first gives one. */
void preview_fit_frame(struct preview *p, const float *latents, int frame, const uint8_t *rgb,
                       int width, int height, int temporal);
/* False: too few cells or all alike. */
bool preview_fit_end(const struct preview *p, struct ditgen_preview_map *map);

#endif
