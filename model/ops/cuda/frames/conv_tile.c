/* Which instance of the bf16 convolution takes a shape: arithmetic of the host, tested without a GPU. */
#include "model/ops/cuda/frames/conv_cuda.h"
#include "model/ops/cuda/frames/conv_kernels.h"

#define SIDE 16 /* of conv_sm80.cu, as is the rest */
#define STAGES 2

static size_t shared_bytes(const struct conv_cuda *c, int columns, int depth)
{
    int halo = c->up ? SIDE / 2 + 2 : c->ks == 3 ? (SIDE - 1) * c->stride + 3 : SIDE;
    size_t pixels = ((size_t)(halo * halo * depth * 2) + 511) / 512 * 512;
    size_t stage = pixels + (size_t)(c->ks * c->ks * columns) * (size_t)depth * 2;
    size_t result = (size_t)(SIDE * SIDE) * (size_t)(columns * 2 + 16);
    return STAGES * stage > result ? STAGES * stage : result;
}

static int check(const struct conv_cuda *c, struct err *e)
{
    bool window = (c->ks == 1 || c->ks == 3) && (c->kt == 1 || c->kt == 3);
    bool stride = c->stride == 1 || (c->stride == 2 && c->ks == 3 && !c->up);
    if (!window || !stride || (c->up && c->ks != 3) || c->in < 1 || c->out < 1 || c->h < 1 ||
        c->w < 1 || conv_cuda_h(c) < 1 || conv_cuda_w(c) < 1)
        return err_set(e, ERR_BUG,
                       "no convolution of %dx%dx%d, stride %d, %d to %d channels, %dx%d", c->kt,
                       c->ks, c->ks, c->stride, c->in, c->out, c->w, c->h);
    if (c->frames < 1 || c->frames > CONV_CUDA_FRAMES || c->step < 1 ||
        (c->frames - 1) * c->step + c->kt > CONV_CUDA_FRAMES + 2)
        return err_set(e, ERR_BUG, "%d frames of a convolution, 1 to %d are possible", c->frames,
                       CONV_CUDA_FRAMES);
    return 0;
}

bool conv_takes_sm90(const struct conv_cuda *c)
{
    /* a third of its columns may be idle before mma.sync with fewer is ahead */
    int columns = (c->out + 95) / 96 * 96;
    return c->bf16 && c->ks == 3 && c->stride == 1 && !c->wide && 3 * c->out >= 2 * columns;
}

int conv_cuda_check(const struct conv_cuda *c, struct err *e) { return check(c, e); }

int conv_tile_pick(struct conv_tile *t, const struct conv_cuda *c, size_t shared, struct err *e)
{
    /* best first where they waste alike: wide tiles read the pixels less often */
    static const struct conv_tile tiles[] = {{128, 32, 0}, {96, 32, 0}, {32, 32, 0}, {32, 16, 0}};
    static const struct conv_tile halved[] = {{96, 16, 0}, {32, 16, 0}};
    const struct conv_tile *list = c->stride == 2 ? halved : tiles;
    int n = c->stride == 2 ? (int)ARRAY_LEN(halved) : (int)ARRAY_LEN(tiles), least = 0;
    if (check(c, e) < 0) return -1;
    for (int i = 0; i < n; i++) {
        int columns = list[i].columns, all = (c->out + columns - 1) / columns * columns;
        size_t bytes = shared_bytes(c, columns, list[i].depth);
        if (bytes > shared || (least && all >= least)) continue;
        *t = list[i];
        t->shared = bytes;
        least = all;
    }
    return least ? 0
                 : err_set(e, ERR_DEVICE,
                           "a convolution needs %zu bytes of shared memory, this card has %zu; "
                           "try --device cpu",
                           shared_bytes(c, list[n - 1].columns, list[n - 1].depth), shared);
}
