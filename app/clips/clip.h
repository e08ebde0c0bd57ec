/* What the readers share: bounds, and room for frames. Implementers of writers only. */
#ifndef DITGEN_APP_WRITERS_CLIP_H
#define DITGEN_APP_WRITERS_CLIP_H

#include "app/clips/writer.h"

/* Refuses sizes and counts beyond the limits of writer.h; path is for the message. */
int clip_check_size(int64_t width, int64_t height, const char *path, struct err *e);
/* Makes c->rgb hold `frames` frames of c->width x c->height, keeping those it has; grows at need.
 * *room is the number of frames there is memory for. */
int clip_reserve(struct clip *c, int frames, int *room, const char *path, struct err *e);
static inline size_t clip_frame_bytes(const struct clip *c)
{
    return 3 * (size_t)c->width * (size_t)c->height;
}

#endif
