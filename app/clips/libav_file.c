/* libav's reads and writes over a descriptor of ours; see libav.h. */
#include "app/clips/libav.h"

#include <errno.h>
#include <libavutil/mem.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER 65536

struct libav_file {
    int fd;
    int64_t at; /* of its own: two may share a descriptor */
};

static int take(void *ctx, uint8_t *data, int n)
{
    struct libav_file *f = ctx;
    ssize_t got;
    do
        got = pread(f->fd, data, (size_t)n, f->at);
    while (got < 0 && errno == EINTR);
    if (got < 0) return AVERROR(errno);
    f->at += got;
    return got > 0 ? (int)got : AVERROR_EOF;
}

#if LIBAVFORMAT_VERSION_MAJOR >= 61
static int put(void *ctx, const uint8_t *data, int n)
#else
static int put(void *ctx, uint8_t *data, int n)
#endif
{
    struct libav_file *f = ctx;
    for (int left = n; left > 0;) {
        ssize_t done = pwrite(f->fd, data, (size_t)left, f->at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return AVERROR(done < 0 ? errno : ENOSPC);
        data += done;
        left -= (int)done;
        f->at += done;
    }
    return n;
}

static int64_t go(void *ctx, int64_t to, int whence)
{
    struct libav_file *f = ctx;
    struct stat st;
    if (fstat(f->fd, &st) < 0) return AVERROR(errno);
    whence &= ~AVSEEK_FORCE;
    if (whence == AVSEEK_SIZE) return st.st_size;
    if (whence == SEEK_CUR) to += f->at;
    if (whence == SEEK_END) to += st.st_size;
    if (to < 0) return AVERROR(EINVAL);
    return f->at = to;
}

static int open_io(AVIOContext **io, int fd, bool writes)
{
    struct libav_file *f = av_mallocz(sizeof *f);
    uint8_t *buffer = av_malloc(BUFFER);
    if (f) f->fd = fd;
    if (f && buffer) *io = avio_alloc_context(buffer, BUFFER, writes, f, take, put, go);
    if (f && buffer && *io) return 0;
    av_free(buffer);
    av_free(f);
    return AVERROR(ENOMEM);
}

/* The muxer wants to read what it wrote: moving the index to the front does. */
static int open_again(AVFormatContext *mux, AVIOContext **io, const char *url, int flags,
                      AVDictionary **options)
{
    (void)url, (void)options;
    const struct libav_file *f = mux->pb->opaque;
    return flags & AVIO_FLAG_WRITE ? AVERROR(EACCES) : open_io(io, f->fd, false);
}

static int close_again(AVFormatContext *mux, AVIOContext *io)
{
    (void)mux;
    libav_file_close(&io);
    return 0;
}

int libav_file_open(AVFormatContext *mux, int fd)
{
    mux->io_open = open_again;
    mux->io_close2 = close_again;
    return open_io(&mux->pb, fd, true);
}

void libav_file_close(AVIOContext **io)
{
    if (!*io) return;
    av_free((*io)->opaque);
    av_freep(&(*io)->buffer);
    avio_context_free(io);
}
