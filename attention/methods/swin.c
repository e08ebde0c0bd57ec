/* Windows of frames, rows and columns that see themselves alone, others in every second layer, so that
 * what one layer keeps apart meets in the next: Swin, arXiv 2103.14030, in three dimensions;
 * attention-sparse.md 12.7.
 *
 * shape=shifted: every second layer's windows begin half a window earlier, those at the edges are
 * smaller (nothing is rolled round); varied: they are twice as long and half as high and wide
 * (Swin-Free, arXiv 2306.13776). A window is a block of its own length. Models trained on all pairs lose
 * much without training: the cheapest pattern there is, to compare with. No planning. */
#include "attention/axes/axes.h"

#include <math.h>

enum { SHIFTED, VARIED };

struct swin {
    struct attn_knobs knobs;
    int shape;
};

struct windows { /* of one layer, on three axes */
    int extent[3], size[3], shift[3], n[3];
};

static struct windows windows_of(const struct attn_part *p, int layer)
{
    const struct swin *o = p->options;
    struct windows w = {.extent = {p->shape->grid_t, p->shape->grid_h, p->shape->grid_w}};
    struct err none; /* choose() refused what cannot be read */
    tile_parse(o->knobs.reach, w.size, &none);
    for (int i = 0; i < 3; i++) {
        if (o->shape == VARIED && layer % 2) w.size[i] = i ? (w.size[i] + 1) / 2 : 2 * w.size[i];
        if (w.size[i] > w.extent[i]) w.size[i] = w.extent[i];
        if (o->shape == SHIFTED && layer % 2) w.shift[i] = w.size[i] / 2;
        w.n[i] = (w.extent[i] - 1 + w.shift[i]) / w.size[i] + 1;
    }
    return w;
}

static int count(const struct windows *w) { return w->n[0] * w->n[1] * w->n[2]; }

static int most(const struct attn_part *p)
{
    struct windows even = windows_of(p, 0), odd = windows_of(p, 1);
    return count(&even) > count(&odd) ? count(&even) : count(&odd);
}

/* Places from .. to - 1 of window i on one axis. */
static void span(int *from, int *to, const struct windows *w, int axis, int i)
{
    *from = i * w->size[axis] - w->shift[axis];
    *to = *from + w->size[axis];
    if (*from < 0) *from = 0;
    if (*to > w->extent[axis]) *to = w->extent[axis];
}

static int make(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at, struct err *e)
{
    struct windows w = windows_of(p, t->plan_layer);
    int n = count(&w), at = 0;
    (void)k_token, (void)k_at, (void)e;
    for (int i = 0; i < n; i++) {
        int from[3], to[3];
        span(&from[0], &to[0], &w, 0, i / (w.n[1] * w.n[2]));
        span(&from[1], &to[1], &w, 1, i / w.n[2] % w.n[1]);
        span(&from[2], &to[2], &w, 2, i % w.n[2]);
        q_at[i] = at;
        for (int f = from[0]; f < to[0]; f++)
            for (int y = from[1]; y < to[1]; y++)
                for (int x = from[2]; x < to[2]; x++)
                    q_token[at++] = (f * w.extent[1] + y) * w.extent[2] + x;
    }
    q_at[n] = at;
    plan->q.n = plan->k.n = n;
    return 0;
}

static const struct axis_order order_by_window = {.name = "windows",
                                                  .summary = "windows, one after another",
                                                  .blocks = most,
                                                  .make = make,
                                                  .looks = attn_looks_nowhere};

static void own(const struct axis_head *h)
{
    for (int r = 0; r < h->q.n; r++)
        select_add(h->kept + (size_t)r * (size_t)attn_words(h->k.n), r);
}

AXIS_SELECT(own)

/* Least and largest of even and odd layers. */
static void own_density(const struct attn_part *p, double *lo, double *hi)
{
    *lo = 1, *hi = 0;
    for (int layer = 0; layer < 2; layer++) {
        struct windows w = windows_of(p, layer);
        double share = 1;
        for (int axis = 0; axis < 3; axis++) {
            double pairs = 0;
            for (int i = 0; i < w.n[axis]; i++) {
                int from, to;
                span(&from, &to, &w, axis, i);
                pairs += (double)(to - from) * (to - from);
            }
            share *= pairs / ((double)w.extent[axis] * w.extent[axis]);
        }
        *lo = fmin(*lo, share);
        *hi = fmax(*hi, share);
    }
}

static const struct axis_select keep_own = {.name = "own",
                                            .summary = "a window sees itself",
                                            .select = own_all,
                                            .density = own_density,
                                            .looks = attn_looks_nowhere};

static int swin_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    if (axis_choose(p, r, e) < 0) return -1;
    if (most(p) <= ATTN_MAX_BLOCKS) return 0;
    return err_set(e, ERR_USAGE, "reach %s makes %d windows, at most %d", p->knobs->reach, most(p),
                   ATTN_MAX_BLOCKS);
}

const struct attn_method attn_swin = {
    .name = "swin",
    .summary = "windows that see themselves, shifted or of another size in every second layer",
    .paper = "2103.14030",
    .recipe = {.order = &order_by_window, .select = &keep_own},
    .options = OPTIONS(
        OPT_STRING(struct attn_knobs, reach, "reach", "4x8x8", "a window: frames x rows x columns"),
        OPT_ENUM(struct swin, shape, "shape", 0, "shifted|varied",
                 "every second layer's windows: half a window off, or longer and narrower"),
        KNOB_FIRST(0.2), KNOB_LAST(0)),
    .options_size = sizeof(struct swin),
    .choose = swin_choose,
};
