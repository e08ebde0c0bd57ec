/* A frame looks at itself and at a few reference frames, which look at all: Efficient-vDiT, arXiv
 * 2502.06155, without its search and distillation; attention-sparse.md 7. Nothing is looked at.
 * Reference frames stand evenly, the first among them (their places are not published). */
#include "attention/axes/axes.h"

#include <math.h>

struct vdit {
    struct attn_knobs knobs;
    int references;
};

static bool is_reference(const struct attn_part *p, int frame)
{
    int k = ((const struct vdit *)p->options)->references, frames = p->shape->grid_t;
    if (k > frames) k = frames;
    for (int g = 0; g < k; g++)
        if (frame == (int)lround(k > 1 ? (double)g * (frames - 1) / (k - 1) : 0)) return true;
    return false;
}

/* First and last frame of a block, and whether a reference frame is in it. */
struct span {
    int from, to, reference;
};

static void span_of(struct span *s, const struct blocks *b, int i, const struct attn_part *p)
{
    int frame = p->shape->grid_h * p->shape->grid_w;
    *s = (struct span){p->shape->grid_t, -1, 0};
    for (int at = blocks_begin(b, i); at < blocks_begin(b, i + 1); at++) {
        int f = (b->order ? b->order[at] : at) / frame;
        if (f < s->from) s->from = f;
        if (f > s->to) s->to = f;
        if (!s->reference && is_reference(p, f)) s->reference = 1;
    }
}

static void frames(const struct axis_head *h)
{
    struct span *q = h->scratch, *k = q + h->q.n;
    for (int i = 0; i < h->q.n; i++)
        span_of(&q[i], &h->q, i, h->p);
    for (int i = 0; i < h->k.n; i++)
        span_of(&k[i], &h->k, i, h->p);
    for (int r = 0; r < h->q.n; r++)
        for (int c = 0; c < h->k.n; c++)
            if (q[r].reference || k[c].reference || (q[r].from <= k[c].to && k[c].from <= q[r].to))
                select_add(h->kept + (size_t)r * (size_t)attn_words(h->k.n), c);
    axis_finish(h);
}

static void frames_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, 2 * (size_t)attn_limits(p).blocks * sizeof(struct span));
}

AXIS_SELECT(frames)

static const struct axis_select keep_frames = {.name = "frames",
                                               .summary = "the row's own frames and references",
                                               .fixed = true,
                                               .select = frames_all,
                                               .sizes = frames_sizes};

const struct attn_method attn_vdit = {
    .name = "vdit",
    .summary = "a frame looks at itself and at reference frames, which look at all",
    .paper = "2502.06155",
    .recipe = {.select = &keep_frames},
    .options = OPTIONS(OPT_INT(struct vdit, references, "references", 2, 1, 64, "reference frames"),
                       KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct vdit),
};
