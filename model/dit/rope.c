/* Rotary position tables in three axes; wan.md 3.7. Angles in double, cosines and sines narrowed.
 */
#include "model/dit/dit_internal.h"

#include <math.h>
#include <string.h>

struct table {
    float *cos_t, *sin_t; /* [L, half] */
    size_t half;
};

/* Pairs [at, at + dim / 2) of a row: position / 10000^(2i / dim). Computed once a position of an
 * axis; every other row with that position copies it from `from`. */
static void axis(const struct table *t, size_t row, size_t from, int at, int dim, int position)
{
    float *co = t->cos_t + row * t->half + at, *si = t->sin_t + row * t->half + at;
    if (row != from) {
        memcpy(co, t->cos_t + from * t->half + at, (size_t)(dim / 2) * sizeof *co);
        memcpy(si, t->sin_t + from * t->half + at, (size_t)(dim / 2) * sizeof *si);
        return;
    }
    for (int i = 0; i < dim / 2; i++) {
        double angle = position / pow(10000.0, 2.0 * i / dim);
        co[i] = (float)cos(angle);
        si[i] = (float)sin(angle);
    }
}

void rope_tables(float *cos_t, float *sin_t, const struct dit_config *c, int grid_t, int grid_h,
                 int grid_w)
{
    /* a head's features are split t, h, w */
    int dim_hw = 2 * (c->head_dim / 6), dim_t = c->head_dim - 2 * dim_hw;
    struct table tab = {cos_t, sin_t, (size_t)c->head_dim / 2};
    size_t row = 0, frame = (size_t)grid_h * (size_t)grid_w;
    for (int t = 0; t < grid_t; t++)
        for (int h = 0; h < grid_h; h++)
            for (int w = 0; w < grid_w; w++, row++) {
                axis(&tab, row, (size_t)t * frame, 0, dim_t, t);
                axis(&tab, row, (size_t)h * (size_t)grid_w, dim_t / 2, dim_hw, h);
                axis(&tab, row, (size_t)w, (dim_t + dim_hw) / 2, dim_hw, w);
            }
}
