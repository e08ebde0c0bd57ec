/* mp4, mov and webm through FFmpeg's libav: H.264 or VP9 by default, BT.709, faststart, bit-exact.
 *
 * The settings stand in the container's "comment". x264 signs the first picture with its version in
 * a SEI unit: those units are filtered out, so that equal frames give equal bytes whatever library
 * made them. */
#include "app/clips/libav.h"

#include "app/clips/aside.h"

#include <libavcodec/bsf.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>

#include <stdlib.h>
#include <string.h>

struct libav {
    const struct writer_params *p;
    struct aside aside;
    AVFormatContext *mux;
    AVCodecContext *encoder;
    AVBSFContext *filter;
    struct SwsContext *convert;
    AVFrame *rgb, *yuv; /* rgb: a padded copy, because swscale reads past the end of rows */
    AVPacket *packet;
    int64_t next;
};

static int libav_check(const struct writer_params *p, struct err *e)
{
    if (aside_check_file(p->path, p->overwrite, e) < 0) return -1;
    struct libav_choice c;
    AVCodecContext *ctx = NULL;
    if (libav_choose(&c, p, e) < 0 || libav_open_encoder(&ctx, &c, p, e) < 0) return -1;
    avcodec_free_context(&ctx);
    return 0;
}

static void libav_free(struct libav *s)
{
    if (s->mux) libav_file_close(&s->mux->pb);
    avformat_free_context(s->mux);
    avcodec_free_context(&s->encoder);
    av_bsf_free(&s->filter);
    sws_freeContext(s->convert);
    av_frame_free(&s->rgb);
    av_frame_free(&s->yuv);
    av_packet_free(&s->packet);
    aside_discard(&s->aside);
}

static uint64_t written(const struct libav *s)
{
    int64_t n = s->mux && s->mux->pb ? s->mux->pb->bytes_written : 0;
    return n > 0 ? (uint64_t)n : 0;
}

/* libav's return value, or the error that its buffered writes left behind. */
static int checked(const struct libav *s, int rc, struct err *e)
{
    if (rc >= 0 && s->mux && s->mux->pb && s->mux->pb->error < 0) rc = s->mux->pb->error;
    return rc < 0 ? libav_write_failed(s->p->path, rc, written(s), e) : 0;
}

static AVFrame *new_frame(int format, const struct writer_params *p)
{
    AVFrame *f = av_frame_alloc();
    if (!f) return NULL;
    f->format = format;
    f->width = p->width;
    f->height = p->height;
    if (av_frame_get_buffer(f, 0) < 0) av_frame_free(&f);
    return f;
}

static int open_convert(struct libav *s, struct err *e)
{
    const AVCodecContext *c = s->encoder;
    s->rgb = new_frame(AV_PIX_FMT_RGB24, s->p);
    s->yuv = new_frame(c->pix_fmt, s->p);
    s->packet = av_packet_alloc();
    s->convert = sws_getContext(
        c->width, c->height, AV_PIX_FMT_RGB24, c->width, c->height, c->pix_fmt,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_BITEXACT, NULL, NULL, NULL);
    if (!s->rgb || !s->yuv || !s->packet || !s->convert)
        return err_set(e, ERR_RESOURCE, "%s: no memory to convert %dx%d frames", s->p->path,
                       c->width, c->height);
    bool bt601 = c->colorspace == AVCOL_SPC_BT470BG;
    const int *k = sws_getCoefficients(bt601 ? SWS_CS_ITU601 : SWS_CS_ITU709);
    sws_setColorspaceDetails(s->convert, k, 1, k, c->color_range == AVCOL_RANGE_JPEG, 0, 1 << 16,
                             1 << 16);
    s->yuv->color_range = c->color_range;
    s->yuv->colorspace = c->colorspace;
    s->yuv->color_primaries = c->color_primaries;
    s->yuv->color_trc = c->color_trc;
    s->yuv->chroma_location = c->chroma_sample_location;
    return 0;
}

/* SEI units out (H.264 type 6, HEVC 39 and 40); other codecs pass through. */
static int open_filter(struct libav *s)
{
    const char *text = s->encoder->codec_id == AV_CODEC_ID_H264 ? "filter_units=remove_types=6"
                       : s->encoder->codec_id == AV_CODEC_ID_HEVC
                           ? "filter_units=remove_types=39-40"
                           : "null";
    if (text[0] != 'n' && !av_bsf_get_by_name("filter_units")) text = "null";
    int rc = av_bsf_list_parse_str(text, &s->filter);
    if (rc >= 0) rc = avcodec_parameters_from_context(s->filter->par_in, s->encoder);
    if (rc < 0) return rc;
    s->filter->time_base_in = s->encoder->time_base;
    return av_bsf_init(s->filter);
}

/* mov's own comment has a length of 16 bits, and what is longer is cut: such go by key and value. */
static bool long_comment(const struct libav *s)
{
    return s->p->settings && strlen(s->p->settings) > 65000 &&
           strcmp(s->mux->oformat->name, "mov") == 0;
}

static int open_mux(struct libav *s, const struct libav_choice *c)
{
    const AVOutputFormat *format = c->format;
    int rc = avformat_alloc_output_context2(&s->mux, format, NULL, s->p->path);
    if (rc >= 0) rc = libav_file_open(s->mux, s->aside.fd);
    AVStream *st = rc >= 0 ? avformat_new_stream(s->mux, NULL) : NULL;
    if (!st) return rc < 0 ? rc : AVERROR(ENOMEM);
    s->mux->flags |= AVFMT_FLAG_BITEXACT;
    st->time_base = s->filter->time_base_out;
    st->avg_frame_rate = st->r_frame_rate = s->encoder->framerate;
    rc = avcodec_parameters_copy(st->codecpar, s->filter->par_out);
    st->codecpar->codec_tag = libav_tag(c);
    st->sample_aspect_ratio = st->codecpar->sample_aspect_ratio;
    if (rc >= 0 && s->p->settings)
        rc = av_dict_set(&s->mux->metadata, "comment", s->p->settings, 0);
    AVDictionary *options = NULL;
    if (rc >= 0 && format->priv_class &&
        av_opt_find((void *)&format->priv_class, "movflags", NULL, 0, AV_OPT_SEARCH_FAKE_OBJ))
        rc = av_dict_set(&options, "movflags",
                         long_comment(s) ? "+faststart+use_metadata_tags" : "+faststart", 0);
    if (rc >= 0) rc = avformat_write_header(s->mux, &options);
    av_dict_free(&options);
    return rc;
}

static int libav_open(void *state, const struct writer_params *p, struct err *e)
{
    struct libav *s = state;
    s->p = p;
    struct libav_choice c;
    if (libav_choose(&c, p, e) < 0 || libav_open_encoder(&s->encoder, &c, p, e) < 0) goto fail;
    if (open_convert(s, e) < 0) goto fail;
    if (aside_open_file(&s->aside, p->path, "clip", p->overwrite, e) < 0) goto fail;
    int rc = open_filter(s);
    if (rc >= 0) rc = open_mux(s, &c);
    if (checked(s, rc, e) < 0) goto fail;
    return 0;
fail:
    libav_free(s);
    return -1;
}

/* Packets that the filter has ready, into the file. */
static int drain_filter(struct libav *s)
{
    const AVStream *st = s->mux->streams[0];
    int rc;
    while ((rc = av_bsf_receive_packet(s->filter, s->packet)) >= 0) {
        if (!s->packet->duration) s->packet->duration = 1;
        av_packet_rescale_ts(s->packet, s->filter->time_base_out, st->time_base);
        s->packet->stream_index = 0;
        rc = av_write_frame(s->mux, s->packet);
        av_packet_unref(s->packet);
        if (rc < 0) return rc;
    }
    return rc == AVERROR(EAGAIN) || rc == AVERROR_EOF ? 0 : rc;
}

/* One frame in, or NULL at the end; all packets out. Returns libav's error number. */
static int encode(struct libav *s, const AVFrame *frame)
{
    int rc = avcodec_send_frame(s->encoder, frame);
    while (rc >= 0) {
        rc = avcodec_receive_packet(s->encoder, s->packet);
        if (rc == AVERROR(EAGAIN) || rc == AVERROR_EOF) break;
        if (rc >= 0) rc = av_bsf_send_packet(s->filter, s->packet);
        if (rc >= 0) rc = drain_filter(s);
    }
    if (rc == AVERROR(EAGAIN)) return 0;
    if (rc != AVERROR_EOF) return rc;
    rc = av_bsf_send_packet(s->filter, NULL);
    return rc < 0 ? rc : drain_filter(s);
}

static int libav_frame(void *state, const uint8_t *rgb, struct err *e)
{
    struct libav *s = state;
    size_t row = 3 * (size_t)s->p->width;
    for (int y = 0; y < s->p->height; y++)
        memcpy(s->rgb->data[0] + (ptrdiff_t)y * s->rgb->linesize[0], rgb + (size_t)y * row, row);
    int rc = av_frame_make_writable(s->yuv);
    if (rc >= 0)
        rc = sws_scale(s->convert, (const uint8_t *const *)s->rgb->data, s->rgb->linesize, 0,
                       s->p->height, s->yuv->data, s->yuv->linesize);
    s->yuv->pts = s->next++;
    if (rc >= 0) rc = encode(s, s->yuv);
    return checked(s, rc, e);
}

static int libav_close(void *state, struct err *e)
{
    struct libav *s = state;
    int rc = checked(s, encode(s, NULL), e);
    if (rc == 0) rc = checked(s, av_write_trailer(s->mux), e);
    if (rc == 0) {
        avio_flush(s->mux->pb);
        rc = checked(s, 0, e);
    }
    if (rc == 0) rc = aside_commit(&s->aside, e);
    libav_free(s);
    return rc;
}

static void libav_abort(void *state) { libav_free(state); }

const struct writer_kind writer_libav = {
    .name = "libav",
    .summary = "H.264 in mp4 and mov, VP9 in webm, and what -c:v names",
    .suffixes = "mp4 mov webm",
    .state_size = sizeof(struct libav),
    .encodes = true,
    .check = libav_check,
    .open = libav_open,
    .frame = libav_frame,
    .close = libav_close,
    .abort = libav_abort,
    .note = libav_note,
    .reads = libav_reads,
    .read = libav_read,
};
