/* Which encoder, with which options; everything wrong with them is found here, before any work. */
#include "app/clips/libav.h"

#include "app/clips/aside.h"
#include "model/base/cpu.h"

#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct container {
    const char *suffix, *muxer;
    const char *encoders[3]; /* first that this FFmpeg has */
};
static const struct container containers[] = {
    {"mp4", "mp4", {"libx264", "libopenh264", "mpeg4"}},
    {"mov", "mov", {"libx264", "libopenh264", "mpeg4"}},
    {"webm", "webm", {"libvpx-vp9", "libvpx", "libaom-av1"}},
};

struct encoder_rules { /* what the option tables of libav leave open */
    const char *name;
    int crf_max, crf; /* 0: takes no crf */
    const char *preset; /* default, or NULL */
    const char *presets; /* all of them, or NULL: tried when opened */
    const char *settings; /* key=value, separated by blanks */
    int64_t most_bits; /* a second; 0: crf alone rules. VP8's crf is a floor under a rate */
};
#define X264_PRESETS "ultrafast superfast veryfast faster fast medium slow slower veryslow placebo"
/* crf: visually near lossless for small clips. deadline and cpu-used: quality a little under the
 * best at several times the speed, with one thread. */
static const struct encoder_rules rules[] = {
    {"libx264", 51, 18, "medium", X264_PRESETS, "", 0},
    {"libx264rgb", 51, 18, "medium", X264_PRESETS, "", 0},
    {"libx265", 51, 20, "medium", X264_PRESETS,
     "x265-params=log-level=none:info=0:pools=none:frame-threads=1", 0},
    {"libvpx-vp9", 63, 20, NULL, NULL, "deadline=good cpu-used=3", 0},
    {"libvpx", 63, 10, NULL, NULL, "deadline=good cpu-used=2", 50000000},
    {"libaom-av1", 63, 20, NULL, NULL, "cpu-used=6", 0},
};

static const struct encoder_rules *rules_of(const AVCodec *codec)
{
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (strcmp(rules[i].name, codec->name) == 0) return &rules[i];
    return NULL;
}

int libav_write_failed(const char *path, int number, uint64_t written, struct err *e)
{
    if (number > -4096) return aside_failed(path, -number, written, e); /* an errno, negated */
    char why[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(number, why, sizeof why);
    return err_set(e, ERR_RESOURCE, "%s: cannot write the clip (%s)", path, why);
}

char *libav_url(const char *path)
{
    size_t n = strlen(path) + 6;
    char *url = malloc(n);
    if (url) snprintf(url, n, "file:%s", path);
    return url;
}

/* Codecs that this program writes and reads back, each with the containers that hold it; others are
 * refused (rawvideo in mov, for one, is read as something else). test_libav tries all. */
static const struct {
    enum AVCodecID id;
    const char *suffixes;
} held[] = {
    {AV_CODEC_ID_H264, "mp4 mov"},  {AV_CODEC_ID_HEVC, "mp4 mov"},
    {AV_CODEC_ID_VP8, "webm"},      {AV_CODEC_ID_VP9, "mp4 webm"},
    {AV_CODEC_ID_AV1, "mp4 webm"},  {AV_CODEC_ID_MPEG4, "mp4 mov"},
    {AV_CODEC_ID_MJPEG, "mp4 mov"}, {AV_CODEC_ID_MPEG2VIDEO, "mp4 mov"},
    {AV_CODEC_ID_PNG, "mp4 mov"},   {AV_CODEC_ID_PRORES, "mov"},
    {AV_CODEC_ID_QTRLE, "mov"},
};

/* Is word one of the blank-separated words of list? */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    if (strchr(word, ' ')) return false;
    for (const char *w = strstr(list, word); n && w; w = strstr(w + 1, word))
        if ((w == list || w[-1] == ' ') && (w[n] == ' ' || w[n] == 0)) return true;
    return false;
}

static const struct container *container_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < ARRAY_LEN(containers); i++)
        if (strcasecmp(dot + 1, containers[i].suffix) == 0) return &containers[i];
    return NULL;
}

static const AVCodec *default_encoder(const struct container *c)
{
    for (size_t i = 0; i < ARRAY_LEN(c->encoders); i++) {
        const AVCodec *codec = avcodec_find_encoder_by_name(c->encoders[i]);
        if (codec) return codec;
    }
    return NULL;
}

/* Encoders that cannot be used here: libsvtav1 prints to the terminal and never returns when it is
 * given up before the last frame (1.4.1), as checking and Ctrl-C do. */
static bool usable(const AVCodec *codec)
{
    return codec && codec->type == AVMEDIA_TYPE_VIDEO && strcmp(codec->name, "libsvtav1") != 0 &&
           !(codec->capabilities & AV_CODEC_CAP_HARDWARE);
}

/* -c:v names an encoder (libx264) or a codec (h264: the first usable encoder of it). */
static const AVCodec *named_encoder(const char *name)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(name);
    if (codec) return usable(codec) ? codec : NULL;
    const AVCodecDescriptor *d = avcodec_descriptor_get_by_name(name);
    void *at = NULL;
    while (d && (codec = av_codec_iterate(&at)) != NULL)
        if (codec->id == d->id && av_codec_is_encoder(codec) && usable(codec)) return codec;
    return NULL;
}

static int choose_codec(struct libav_choice *c, const struct container *t,
                        const struct writer_params *p, struct err *e)
{
    if (!p->codec) {
        c->codec = default_encoder(t);
        if (!c->codec)
            return err_set(
                e, ERR_USAGE,
                "%s: this FFmpeg has none of the encoders %s, %s, %s; name another (-c:v)", p->path,
                t->encoders[0], t->encoders[1], t->encoders[2]);
        return 0;
    }
    c->codec = named_encoder(p->codec);
    if (!c->codec) {
        const AVCodec *usual = default_encoder(t);
        return err_set(e, ERR_USAGE,
                       "-c:v %s: this FFmpeg has no such software video encoder; %s is the default "
                       "for .%s",
                       p->codec, usual ? usual->name : "none", t->suffix);
    }
    const char *suffixes = "";
    for (size_t i = 0; i < ARRAY_LEN(held); i++)
        if (held[i].id == c->codec->id) suffixes = held[i].suffixes;
    if (!*suffixes)
        return err_set(e, ERR_USAGE,
                       "-c:v %s: %s is not among the codecs that ditgen can read back; try %s, or "
                       ".y4m and frames/ for what is not compressed",
                       p->codec, avcodec_get_name(c->codec->id), t->encoders[0]);
    if (!has_word(suffixes, t->suffix) ||
        avformat_query_codec(c->format, c->codec->id, FF_COMPLIANCE_NORMAL) != 1)
        return err_set(e, ERR_USAGE, "-c:v %s: a .%s file cannot hold %s; try %s", p->codec,
                       t->suffix, avcodec_get_name(c->codec->id), t->encoders[0]);
    return 0;
}

static bool codec_takes(const AVCodec *codec, enum AVPixelFormat f)
{
    if (!codec->pix_fmts) return true;
    for (const enum AVPixelFormat *p = codec->pix_fmts; *p != AV_PIX_FMT_NONE; p++)
        if (*p == f) return true;
    return false;
}

/* Three colours, and none halved from top to bottom alone, which mp4 cannot say of VP9. */
static bool has_colour(enum AVPixelFormat f)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f);
    return d && d->nb_components >= 3 &&
           !(d->flags & (AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BAYER)) &&
           !(d->log2_chroma_h && !d->log2_chroma_w);
}

/* The formats of a codec that we can make, as "yuv420p yuv444p". */
static void list_formats(const AVCodec *codec, char *text, size_t size)
{
    size_t len = 0;
    text[0] = 0;
    for (const enum AVPixelFormat *p = codec->pix_fmts; p && *p != AV_PIX_FMT_NONE && len < size;
         p++)
        if (sws_isSupportedOutput(*p) && has_colour(*p))
            len += (size_t)snprintf(text + len, size - len, "%s%s", len ? " " : "",
                                    av_get_pix_fmt_name(*p));
}

static int choose_format(struct libav_choice *c, const struct writer_params *p, struct err *e)
{
    char valid[200];
    list_formats(c->codec, valid, sizeof valid);
    /* JPEG has full range by definition, which libav spells yuvj */
    c->pix_fmt = c->codec->id == AV_CODEC_ID_MJPEG ? AV_PIX_FMT_YUVJ420P : AV_PIX_FMT_YUV420P;
    if (p->pix_fmt)
        c->pix_fmt = av_get_pix_fmt(p->pix_fmt);
    else if (!codec_takes(c->codec, c->pix_fmt))
        c->pix_fmt = c->codec->pix_fmts[0];
    if (c->pix_fmt == AV_PIX_FMT_NONE)
        return err_set(e, ERR_USAGE, "-pix_fmt %s: no such pixel format; %s takes %s", p->pix_fmt,
                       c->codec->name, valid);
    const char *name = av_get_pix_fmt_name(c->pix_fmt);
    if (!codec_takes(c->codec, c->pix_fmt) || !sws_isSupportedOutput(c->pix_fmt) ||
        !has_colour(c->pix_fmt))
        return err_set(e, ERR_USAGE, "-pix_fmt %s: %s does not take it; it takes %s", name,
                       c->codec->name, valid);
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(c->pix_fmt);
    int mx = 1 << d->log2_chroma_w, my = 1 << d->log2_chroma_h;
    if (p->width % mx || p->height % my) {
        const char *whole =
            codec_takes(c->codec, AV_PIX_FMT_YUV444P) ? "; -pix_fmt yuv444p takes any size" : "";
        return err_set(e, ERR_USAGE,
                       "%s: %dx%d cannot be %s, which halves the colour; wanted a width that is a "
                       "multiple of %d and a height of %d%s",
                       p->path, p->width, p->height, name, mx, my, whole);
    }
    return 0;
}

static int check_options(const AVCodecContext *ctx, const struct writer_params *p, struct err *e)
{
    const struct encoder_rules *r = rules_of(ctx->codec);
    const char *name = ctx->codec->name;
    void *own = ctx->codec->priv_class ? ctx->priv_data : NULL;
    bool has_crf = own && av_opt_find(own, "crf", NULL, 0, 0);
    if (p->crf >= 0 && !has_crf)
        return err_set(e, ERR_USAGE, "-crf %d: %s has no such option", p->crf, name);
    if (r && p->crf > r->crf_max)
        return err_set(e, ERR_USAGE, "-crf %d: %s takes 0 (best) to %d", p->crf, name, r->crf_max);
    if (!p->preset) return 0;
    if (!own || !av_opt_find(own, "preset", NULL, 0, 0))
        return err_set(e, ERR_USAGE, "-preset %s: %s has no presets", p->preset, name);
    if (r && r->presets && !has_word(r->presets, p->preset))
        return err_set(e, ERR_USAGE, "-preset %s: %s takes %s", p->preset, name, r->presets);
    return 0;
}

int libav_choose(struct libav_choice *c, const struct writer_params *p, struct err *e)
{
    const struct container *t = container_of(p->path);
    memset(c, 0, sizeof *c);
    av_log_set_level(AV_LOG_QUIET); /* errors come as struct err; libav's own lines are talk */
    c->format = t ? av_guess_format(t->muxer, NULL, NULL) : NULL;
    if (!c->format)
        return err_set(e, ERR_USAGE, "%s: this FFmpeg cannot write that container; try .y4m",
                       p->path);
    if (choose_codec(c, t, p, e) < 0) return -1;
    return choose_format(c, p, e);
}

static void set_colour(AVCodecContext *ctx)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(ctx->pix_fmt);
    bool rgb = d->flags & AV_PIX_FMT_FLAG_RGB;
    ctx->color_primaries = AVCOL_PRI_BT709;
    ctx->color_trc = AVCOL_TRC_BT709;
    /* VP8 and JPEG have one matrix by definition; decoders ignore what the container says */
    bool bt601 = ctx->codec_id == AV_CODEC_ID_VP8 || ctx->codec_id == AV_CODEC_ID_MJPEG;
    ctx->colorspace = rgb ? AVCOL_SPC_RGB : bt601 ? AVCOL_SPC_BT470BG : AVCOL_SPC_BT709;
    ctx->color_range =
        rgb || strncmp(d->name, "yuvj", 4) == 0 ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
    if (d->log2_chroma_h) ctx->chroma_sample_location = AVCHROMA_LOC_LEFT;
}

/* The encoder's private options. Returns libav's error number of the first that is refused, or 0.
 */
static int set_options(AVCodecContext *ctx, const struct writer_params *p)
{
    const struct encoder_rules *r = rules_of(ctx->codec);
    int rc = 0;
    if (!r) { /* no crf: a fine constant quantiser, for mpeg4, mjpeg and their kin */
        ctx->flags |= AV_CODEC_FLAG_QSCALE;
        ctx->global_quality = 2 * FF_QP2LAMBDA;
        if (p->crf >= 0) rc = av_opt_set_int(ctx->priv_data, "crf", p->crf, 0);
        if (rc >= 0 && p->preset) rc = av_opt_set(ctx->priv_data, "preset", p->preset, 0);
        return rc;
    }
    ctx->bit_rate = r->most_bits;
    rc = av_opt_set_double(ctx->priv_data, "crf", p->crf >= 0 ? p->crf : r->crf, 0);
    const char *preset = p->preset ? p->preset : r->preset;
    if (rc >= 0 && preset) rc = av_opt_set(ctx->priv_data, "preset", preset, 0);
    if (rc >= 0 && r->settings[0])
        rc = av_set_options_string(ctx->priv_data, r->settings, "=", " ");
#ifdef __x86_64__
    /* x264's macroblock tree of AVX-512 (164) reads past the rows it wrote, and decides by what it
     * finds there: two files of one clip, 41 dB apart. The code a level below does not. A processor
     * that is capped below that takes the plain one; what it could do uncapped is not asked. */
    if (rc >= 0 && strncmp(r->name, "libx264", 7) == 0 && (cpu_level() >= CPU_AVX2 || cpu_capped()))
        rc = av_opt_set(ctx->priv_data, "x264-params",
                        cpu_level() >= CPU_AVX2 ? "asm=AVX2" : "asm=0", 0);
#endif
    return rc;
}

int libav_open_encoder(AVCodecContext **out, const struct libav_choice *c,
                       const struct writer_params *p, struct err *e)
{
    AVCodecContext *ctx = avcodec_alloc_context3(c->codec);
    if (!ctx) return err_set(e, ERR_RESOURCE, "%s: no memory for the encoder", p->path);
    if (check_options(ctx, p, e) < 0) goto fail;
    ctx->width = p->width;
    ctx->height = p->height;
    ctx->pix_fmt = c->pix_fmt;
    ctx->sample_aspect_ratio = (AVRational){1, 1};
    ctx->framerate = (AVRational){p->fps_num, p->fps_den};
    ctx->time_base = (AVRational){p->fps_den, p->fps_num};
    ctx->thread_count = 1; /* encoders make other bytes with other thread counts */
    ctx->flags |= AV_CODEC_FLAG_BITEXACT;
    if (c->format->flags & AVFMT_GLOBALHEADER) ctx->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    set_colour(ctx);
    int rc = set_options(ctx, p);
    if (rc >= 0) rc = avcodec_open2(ctx, c->codec, NULL);
    if (rc < 0) {
        char why[AV_ERROR_MAX_STRING_SIZE] = "";
        av_strerror(rc, why, sizeof why);
        err_set(e, ERR_USAGE, "%s: %s refuses %dx%d %s%s%s%s (%s)", p->path, c->codec->name,
                p->width, p->height, av_get_pix_fmt_name(c->pix_fmt), p->preset ? ", -preset " : "",
                p->preset ? p->preset : "", p->crf >= 0 ? " with this -crf" : "", why);
        goto fail;
    }
    *out = ctx;
    return 0;
fail:
    avcodec_free_context(&ctx);
    return -1;
}
