/* Reading mp4, mov and webm back through libav. Hostile files: one demuxer family, plain files
 * only, bounds of writer.h. */
#include "app/clips/libav.h"

#include "app/clips/clip.h"
#include "app/clips/png.h"

#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct libav_input {
    const char *path;
    AVFormatContext *demux;
    AVCodecContext *decoder;
    struct SwsContext *convert;
    AVFrame *yuv, *rgb;
    AVPacket *packet;
    int stream, room;
};

bool libav_reads(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    return (n >= 12 && (memcmp(head + 4, "ftyp", 4) == 0 || memcmp(head + 4, "moov", 4) == 0 ||
                        memcmp(head + 4, "wide", 4) == 0)) ||
           (n >= 4 && memcmp(head, "\x1a\x45\xdf\xa3", 4) == 0);
}

static int read_failed(const struct libav_input *in, int number, const char *what, struct err *e)
{
    char why[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(number, why, sizeof why);
    return err_set(e, number == AVERROR(ENOMEM) ? ERR_RESOURCE : ERR_INPUT, "%s: %s (%s)", in->path,
                   what, why);
}

static int open_input(struct libav_input *in, struct err *e)
{
    char *url = libav_url(in->path);
    AVDictionary *o = NULL;
    av_dict_set(&o, "protocol_whitelist", "file", 0);
    av_dict_set(&o, "format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm", 0);
    int rc = url ? avformat_open_input(&in->demux, url, NULL, &o) : AVERROR(ENOMEM);
    av_dict_free(&o);
    free(url);
    if (rc < 0) return read_failed(in, rc, "cannot be read as mp4, mov or webm", e);
    if ((rc = avformat_find_stream_info(in->demux, NULL)) < 0)
        return read_failed(in, rc, "no stream in it", e);
    const AVCodec *codec = NULL;
    in->stream = av_find_best_stream(in->demux, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (in->stream < 0 || !codec)
        return err_set(e, ERR_INPUT, "%s: no video that FFmpeg can decode", in->path);
    in->decoder = avcodec_alloc_context3(codec);
    in->yuv = av_frame_alloc();
    in->packet = av_packet_alloc();
    if (!in->decoder || !in->yuv || !in->packet)
        return err_set(e, ERR_RESOURCE, "%s: no memory to decode", in->path);
    rc = avcodec_parameters_to_context(in->decoder, in->demux->streams[in->stream]->codecpar);
    in->decoder->max_pixels = PNG_MAX_PIXELS;
    in->decoder->pkt_timebase = in->demux->streams[in->stream]->time_base;
    if (rc >= 0) rc = avcodec_open2(in->decoder, codec, NULL);
    return rc < 0 ? read_failed(in, rc, "its video cannot be decoded", e) : 0;
}

static int fill_facts(struct libav_input *in, struct clip *c, struct err *e)
{
    const AVStream *st = in->demux->streams[in->stream];
    AVRational fps = st->avg_frame_rate;
    if (fps.num <= 0 || fps.den <= 0) fps = st->r_frame_rate;
    c->width = st->codecpar->width;
    c->height = st->codecpar->height;
    c->fps_num = fps.num > 0 && fps.den > 0 ? fps.num : 0;
    c->fps_den = c->fps_num ? fps.den : 0;
    snprintf(c->codec, sizeof c->codec, "%s", avcodec_get_name(st->codecpar->codec_id));
    const char *name = av_get_pix_fmt_name(st->codecpar->format);
    snprintf(c->pix_fmt, sizeof c->pix_fmt, "%s", name ? name : "unknown");
    const AVDictionaryEntry *comment = av_dict_get(in->demux->metadata, "comment", NULL, 0);
    if (!comment) comment = av_dict_get(st->metadata, "comment", NULL, 0);
    if (comment) {
        if (strlen(comment->value) > CLIP_MAX_SETTINGS)
            return err_set(e, ERR_INPUT, "%s: a comment larger than %zu bytes", in->path,
                           CLIP_MAX_SETTINGS);
        c->settings = strdup(comment->value);
        if (!c->settings)
            return err_set(e, ERR_RESOURCE, "%s: no memory for its settings", in->path);
    }
    return clip_check_size(c->width, c->height, in->path, e);
}

static int open_convert(struct libav_input *in, const struct clip *c, struct err *e)
{
    const AVFrame *f = in->yuv;
    in->rgb = av_frame_alloc();
    if (!in->rgb) return err_set(e, ERR_RESOURCE, "%s: no memory for a frame", in->path);
    in->rgb->format = AV_PIX_FMT_RGB24;
    in->rgb->width = c->width;
    in->rgb->height = c->height;
    in->convert = sws_getContext(
        c->width, c->height, f->format, c->width, c->height, AV_PIX_FMT_RGB24,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT, NULL, NULL, NULL);
    if (!in->convert || av_frame_get_buffer(in->rgb, 0) < 0)
        return err_set(e, ERR_INPUT, "%s: cannot convert %dx%d %s to RGB", in->path, c->width,
                       c->height, c->pix_fmt);
    int matrix = f->colorspace == AVCOL_SPC_BT709 ? SWS_CS_ITU709
                 : f->colorspace == AVCOL_SPC_BT2020_NCL || f->colorspace == AVCOL_SPC_BT2020_CL
                     ? SWS_CS_BT2020
                     : SWS_CS_DEFAULT;
    const int *k = sws_getCoefficients(matrix);
    sws_setColorspaceDetails(in->convert, k, f->color_range == AVCOL_RANGE_JPEG, k, 1, 0, 1 << 16,
                             1 << 16);
    return 0;
}

static int take_frame(struct libav_input *in, struct clip *c, int format, struct err *e)
{
    const AVFrame *f = in->yuv;
    if (f->width != c->width || f->height != c->height || (c->frames && f->format != format))
        return err_set(e, ERR_INPUT, "%s: frame %d is %dx%d, the clip is %dx%d", in->path,
                       c->frames + 1, f->width, f->height, c->width, c->height);
    if (!in->convert && open_convert(in, c, e) < 0) return -1;
    if (clip_reserve(c, c->frames + 1, &in->room, in->path, e) < 0) return -1;
    int rc = sws_scale(in->convert, (const uint8_t *const *)f->data, f->linesize, 0, c->height,
                       in->rgb->data, in->rgb->linesize);
    if (rc < 0) return read_failed(in, rc, "a frame cannot be converted", e);
    uint8_t *to = c->rgb + (size_t)c->frames * clip_frame_bytes(c);
    size_t row = 3 * (size_t)c->width;
    for (int y = 0; y < c->height; y++)
        memcpy(to + (size_t)y * row, in->rgb->data[0] + (ptrdiff_t)y * in->rgb->linesize[0], row);
    c->frames++;
    return 0;
}

/* packet NULL: the end of the file. */
static int decode(struct libav_input *in, struct clip *c, const AVPacket *packet, struct err *e)
{
    int rc = avcodec_send_packet(in->decoder, packet), format = in->decoder->pix_fmt;
    while (rc >= 0) {
        rc = avcodec_receive_frame(in->decoder, in->yuv);
        if (rc == AVERROR(EAGAIN) || rc == AVERROR_EOF) return 0;
        if (rc >= 0) {
            if (!c->frames) format = in->yuv->format;
            if (take_frame(in, c, format, e) < 0) return -1;
        }
    }
    return read_failed(in, rc, "its video is broken", e);
}

static int read_frames(struct libav_input *in, struct clip *c, bool want_frames, struct err *e)
{
    int rc;
    while ((rc = av_read_frame(in->demux, in->packet)) >= 0) {
        int ok = 0;
        if (in->packet->stream_index == in->stream) {
            if (want_frames)
                ok = decode(in, c, in->packet, e);
            else if (++c->frames > CLIP_MAX_FRAMES)
                ok = err_set(e, ERR_INPUT, "%s: more than %d frames", in->path, CLIP_MAX_FRAMES);
        }
        av_packet_unref(in->packet);
        if (ok < 0) return -1;
    }
    if (rc != AVERROR_EOF) return read_failed(in, rc, "the file is broken", e);
    if (want_frames && decode(in, c, NULL, e) < 0) return -1;
    return c->frames ? 0 : err_set(e, ERR_INPUT, "%s: no frame in it", in->path);
}

int libav_read(struct clip *c, const char *path, bool want_frames, struct err *e)
{
    struct libav_input in = {.path = path};
    av_log_set_level(AV_LOG_QUIET);
    int rc = open_input(&in, e);
    if (rc == 0) rc = fill_facts(&in, c, e);
    if (rc == 0) rc = read_frames(&in, c, want_frames, e);
    avcodec_free_context(&in.decoder);
    sws_freeContext(in.convert);
    av_frame_free(&in.yuv);
    av_frame_free(&in.rgb);
    av_packet_free(&in.packet);
    avformat_close_input(&in.demux);
    return rc;
}
