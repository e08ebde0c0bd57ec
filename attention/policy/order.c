/* Static orders, and hot tokens first. */
#include "attention/policy/order.h"

#include "attention/policy/select.h"

#include <string.h>

static int parts(int n, int size) { return (n + size - 1) / size; }

static int end_of(int from, int size, int n) { return from + size < n ? from + size : n; }

int order_tile_count(struct grid g, struct grid tile)
{
    return parts(g.t, tile.t) * parts(g.h, tile.h) * parts(g.w, tile.w);
}

void order_tile(int32_t *order, int32_t *offset, struct grid g, struct grid tile)
{
    int32_t place = 0;
    int n = 0;
    for (int t = 0; t < g.t; t += tile.t)
        for (int h = 0; h < g.h; h += tile.h)
            for (int w = 0; w < g.w; w += tile.w) {
                if (offset) offset[n++] = place;
                for (int f = t; f < end_of(t, tile.t, g.t); f++)
                    for (int y = h; y < end_of(h, tile.h, g.h); y++)
                        for (int x = w; x < end_of(w, tile.w, g.w); x++)
                            order[place++] = (f * g.h + y) * g.w + x;
            }
    if (offset) offset[n] = place;
}

void order_token_major(int32_t *order, struct grid g)
{
    int plane = g.h * g.w;
    for (int p = 0; p < plane; p++)
        for (int f = 0; f < g.t; f++)
            order[p * g.t + f] = f * plane + p;
}

/* The tokens of a cube of 2^level a side, eight smaller ones after another. */
static int32_t cube(int32_t *order, struct grid g, int f, int y, int x, int level)
{
    if (f >= g.t || y >= g.h || x >= g.w) return 0;
    if (level < 0) {
        *order = (f * g.h + y) * g.w + x;
        return 1;
    }
    int32_t n = 0;
    for (int i = 0; i < 8; i++)
        n += cube(order + n, g, f | (i >> 2 & 1) << level, y | (i >> 1 & 1) << level,
                  x | (i & 1) << level, level - 1);
    return n;
}

void order_morton(int32_t *order, struct grid g)
{
    int level = 0;
    while (1 << level < g.t || 1 << level < g.h || 1 << level < g.w)
        level++;
    cube(order, g, 0, 0, 0, level - 1);
}

void order_hot(int32_t *order, const float *weight, const int32_t *base, int hot, int len,
               int *index)
{
    int *taken = index + len;
    memset(taken, 0, (size_t)len * sizeof *taken);
    hot = select_best(index, weight, len, hot);
    for (int i = 0; i < hot; i++) {
        taken[index[i]] = 1;
        order[i] = index[i];
    }
    int at = hot;
    for (int p = 0; p < len; p++) {
        int token = base ? base[p] : p;
        if (!taken[token]) order[at++] = token;
    }
}

void order_inverse(int32_t *place, const int32_t *order, int len)
{
    for (int p = 0; p < len; p++)
        place[order[p]] = p;
}
