/* What players make of a codec in a container: the right tag, and who will not play it. */
#include "app/clips/libav.h"

#include <libavutil/pixdesc.h>

#include <stdio.h>
#include <string.h>

unsigned libav_tag(const struct libav_choice *c)
{
    /* Apple's players want hvc1 (parameter sets in the header, as here); the muxer says hev1 */
    return c->codec->id == AV_CODEC_ID_HEVC ? MKTAG('h', 'v', 'c', '1') : 0;
}

/* Bits a component, and chroma as fine as luma somewhere. */
static int depth(enum AVPixelFormat f) { return av_pix_fmt_desc_get(f)->comp[0].depth; }
static bool is_420(enum AVPixelFormat f)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f);
    return d->log2_chroma_w == 1 && d->log2_chroma_h == 1 && !(d->flags & AV_PIX_FMT_FLAG_RGB);
}

static const char *who(const struct libav_choice *c, const struct writer_params *p)
{
    bool full = !is_420(c->pix_fmt), deep = depth(c->pix_fmt) > 8;
    switch (c->codec->id) {
    case AV_CODEC_ID_H264:
        if (p->crf == 0 && !deep)
            return "H.264 without loss (-crf 0; profile High 4:4:4 Predictive) is not played by "
                   "Safari, QuickTime, phones and television sets; -crf 1 is";
        if (full)
            return "H.264 with this pixel format is not played by Safari, QuickTime, phones and "
                   "television sets; -pix_fmt yuv420p is";
        if (deep)
            return "H.264 of 10 bits is not played by Safari, QuickTime, Firefox and phones; "
                   "-pix_fmt "
                   "yuv420p is";
        return NULL;
    case AV_CODEC_ID_HEVC:
        return full ? "H.265 with this pixel format is not played by browsers, phones and "
                      "television "
                      "sets"
                    : "H.265 is played by Apple's programs and by browsers on machines that decode "
                      "it "
                      "in hardware; H.264 (the default) is played by all";
    case AV_CODEC_ID_VP9:
    case AV_CODEC_ID_AV1:
        return full || deep
                   ? "this pixel format is not played by Safari, phones and television sets; "
                     "-pix_fmt yuv420p is"
               : c->codec->id == AV_CODEC_ID_AV1
                   ? "AV1 is not played by Apple's machines from before "
                     "2023, and slowly by other old ones"
                   : NULL;
    case AV_CODEC_ID_VP8:
        return NULL;
    case AV_CODEC_ID_MPEG4:
    case AV_CODEC_ID_MPEG2VIDEO:
        return "no browser plays it, nor does QuickTime on recent systems; H.264 (the default) is "
               "played by all";
    default:
        return "it is for editing programs: no browser plays it";
    }
}

void libav_note(char *text, size_t size, const struct writer_params *p)
{
    struct libav_choice c;
    struct err ignored;
    text[0] = 0;
    if (libav_choose(&c, p, &ignored) < 0) return;
    const char *note = who(&c, p);
    if (note) snprintf(text, size, "%s (%s): %s", p->path, avcodec_get_name(c.codec->id), note);
}
