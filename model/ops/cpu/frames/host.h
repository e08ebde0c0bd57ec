/* Between the files of the host's frame operations. */
#ifndef DITGEN_OPS_CPU_FRAMES_HOST_H
#define DITGEN_OPS_CPU_FRAMES_HOST_H

#include "model/ops/frames.h"

/* attend.c: these three of the table. */
void host_attend_carve(const struct frames_on *on, struct frame_attention_room *room,
                       const struct frame_size *s, int channels, struct arena *a);
size_t host_attend_scratch(const struct frames_on *on, const struct frame_size *s, int channels);
void host_attend(struct frames_on *on, const struct frame_attention *a,
                 const struct frame_attention_room *room, void *scratch);

#endif
