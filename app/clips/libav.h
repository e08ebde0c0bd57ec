/* What the libav writer and reader share: choosing an encoder, and libav's errors as sentences. */
#ifndef DITGEN_APP_WRITERS_LIBAV_H
#define DITGEN_APP_WRITERS_LIBAV_H

#include "app/clips/writer.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

struct libav_choice {
    const AVOutputFormat *format;
    const AVCodec *codec;
    enum AVPixelFormat pix_fmt;
};

/* Container from the suffix, encoder and pixel format from the flags or the container's defaults.
 * Refuses what the codec or the frame size cannot do. ERR_USAGE. */
int libav_choose(struct libav_choice *c, const struct writer_params *p, struct err *e);
/* The encoder, opened for these frames, one thread, bit-exact. */
int libav_open_encoder(AVCodecContext **ctx, const struct libav_choice *c,
                       const struct writer_params *p, struct err *e);
/* The sentence for libav's error number while writing path. */
int libav_write_failed(const char *path, int number, uint64_t written, struct err *e);
/* The tag of the codec in this container, where the muxer's own is not what players want; 0: its own. */
unsigned libav_tag(const struct libav_choice *c);
/* Who will not play such a clip: a sentence, or "". */
void libav_note(char *text, size_t size, const struct writer_params *p);
/* mux->pb, and what the muxer reads back at the end, over a descriptor that stays the caller's: the
 * file is never opened again by its name. Returns libav's error number or 0. */
int libav_file_open(AVFormatContext *mux, int fd);
void libav_file_close(AVIOContext **io); /* takes NULL inside */
/* "file:path", so that no name is taken for another protocol; heap, NULL without memory. */
char *libav_url(const char *path);
bool libav_reads(const char *path, const uint8_t *head, size_t n);
int libav_read(struct clip *c, const char *path, bool want_frames, struct err *e);

#endif
