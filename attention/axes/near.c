/* What is near in the clip, by the middle of blocks: inside a box or an ellipsoid of frames, rows
 * and columns. Looks at no number. Sections 12.7 of attention-sparse.md. */
#include "attention/axes/axes.h"

#include <math.h>

static void middle(float m[3], const struct blocks *b, int i, const struct attn_shape *s)
{
    double sum[3] = {0};
    int n = blocks_count(b, i);
    for (int at = blocks_begin(b, i); at < blocks_begin(b, i + 1); at++) {
        int token = b->order ? b->order[at] : at;
        sum[0] += token / (s->grid_h * s->grid_w);
        sum[1] += token / s->grid_w % s->grid_h;
        sum[2] += token % s->grid_w;
    }
    for (int c = 0; c < 3; c++)
        m[c] = n ? (float)(sum[c] / n) : 0;
}

static void near(const struct axis_head *h, bool ball)
{
    int reach[3] = {0};
    struct err none; /* choose() refused what cannot be read */
    float *q = h->scratch, *k = q + 3 * (size_t)h->q.n;
    tile_parse(h->p->knobs->reach, reach, &none);
    for (int i = 0; i < h->q.n; i++)
        middle(q + 3 * (size_t)i, &h->q, i, h->p->shape);
    for (int i = 0; i < h->k.n; i++)
        middle(k + 3 * (size_t)i, &h->k, i, h->p->shape);
    for (int r = 0; r < h->q.n; r++)
        for (int c = 0; c < h->k.n; c++) {
            double far = 0, most = 0;
            for (int x = 0; x < 3; x++) {
                double d = fabs((double)q[3 * r + x] - (double)k[3 * c + x]) / reach[x];
                far += d * d;
                if (d > most) most = d;
            }
            if (ball ? far < 1 : most <= 1)
                select_add(h->kept + (size_t)r * (size_t)attn_words(h->k.n), c);
        }
    axis_finish(h);
}

static void box(const struct axis_head *h) { near(h, false); }
static void ball(const struct axis_head *h) { near(h, true); }

static void near_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, 6 * (size_t)attn_limits(p).blocks * sizeof(float));
}

AXIS_SELECT(box)
AXIS_SELECT(ball)

const struct axis_select keep_box = {.name = "box",
                                     .summary = "blocks within so many frames, rows and columns",
                                     .fixed = true,
                                     .select = box_all,
                                     .sizes = near_sizes};
const struct axis_select keep_ball = {.name = "ball",
                                      .summary = "blocks inside an ellipsoid round the row's own",
                                      .fixed = true,
                                      .select = ball_all,
                                      .sizes = near_sizes};
