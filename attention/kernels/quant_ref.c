#include "attention/kernels/quant_ref.h"

#include "model/base/e4m3.h"

#include <math.h>
#include <string.h>

#define LEAST 1e-7f /* of a group's largest magnitude: no division by zero */

static void *take(char *at, size_t *used, size_t bytes)
{
    void *p = at ? at + *used : NULL;
    *used += (bytes + 255) / 256 * 256;
    return p;
}

size_t quant_codes_carve(struct quant_codes *c, void *at)
{
    size_t n = (size_t)c->n_heads, d = (size_t)c->head_dim, used = 0;
    c->q_blocks = (c->len_q + QUANT_BLOCK - 1) / QUANT_BLOCK;
    c->k_blocks = (c->len_k + QUANT_BLOCK - 1) / QUANT_BLOCK;
    size_t q = n * (size_t)c->q_blocks, k = n * (size_t)c->k_blocks, pools = (size_t)c->how.pools;
    c->q = take(at, &used, q * QUANT_BLOCK * d);
    c->k = take(at, &used, k * QUANT_BLOCK * d);
    c->v = take(at, &used, k * QUANT_BLOCK * d);
    c->q_scale = take(at, &used, q * 64 * sizeof(float));
    c->k_scale = take(at, &used, k * QUANT_K_SCALES * sizeof(float));
    c->v_scale = take(at, &used, n * d * sizeof(float));
    c->k_mean = take(at, &used, n * d * sizeof(float));
    c->lse_shift = take(at, &used, n * (size_t)c->len_q * sizeof(float));
    c->partial = take(at, &used, n * (size_t)quant_chunks(c->len_k) * 2 * d * sizeof(float));
    c->q_mean = c->delta = c->q_pool = c->k_pool = NULL;
    if (c->how.smooth_q) {
        c->q_mean = take(at, &used, q * d * sizeof(float));
        c->delta = take(at, &used, q * (size_t)c->k_blocks * QUANT_BLOCK * sizeof(float));
    }
    if (pools) {
        c->q_pool = take(at, &used, q * pools * d * sizeof(float));
        c->k_pool = take(at, &used, k * pools * d * sizeof(float));
    }
    return used;
}

/* ---- numbers ---- */

float quant_e4m3_value(uint8_t code) { return e4m3_value(code); }

uint8_t quant_e4m3(float x) { return e4m3_code(x); }

void quant_rotate(float *x, int dim)
{
    for (int h = 1; h < dim; h *= 2)
        for (int i = 0; i < dim; i++) {
            if (i & h) continue;
            float a = x[i], b = x[i + h];
            x[i] = a + b;
            x[i + h] = a - b;
        }
    float norm = (float)(1 / sqrt((double)dim));
    for (int i = 0; i < dim; i++)
        x[i] *= norm;
}

static float limit(float most) { return most > LEAST ? most : LEAST; }

/* ---- codes ---- */

static const float *row(const struct quant_rows *x, int head, int token)
{
    return x->at + token * x->token + head * x->head;
}

/* n rows of one block of q or k, less a mean, rotated: [128, D], 0 past them. */
static void block_rows(float *out, const struct quant_codes *c, const struct quant_rows *x,
                       int head, int block, int len, const float *mean)
{
    int d = c->head_dim, t0 = block * QUANT_BLOCK;
    memset(out, 0, sizeof *out * QUANT_BLOCK * (size_t)d);
    for (int t = t0; t < len && t < t0 + QUANT_BLOCK; t++) {
        float *to = out + (size_t)(t - t0) * (size_t)d;
        const float *from = row(x, head, t);
        for (int i = 0; i < d; i++)
            to[i] = mean ? from[i] - mean[i] : from[i];
        if (c->how.rotate) quant_rotate(to, d);
    }
}

static float scale_of(float most, int bits) { return limit(most) / (float)((1 << (bits - 1)) - 1); }

static int8_t code_of(float x, float inverse, int bits)
{
    float most = (float)((1 << (bits - 1)) - 1), y = rintf(x * inverse);
    return (int8_t)(y > most ? most : y < -most ? -most : y);
}

/* group[t]: which scale token t of the block has. */
static void block_codes(int8_t *codes, float *scale, int scales, int (*group)(int t),
                        const float *x, int d, int bits)
{
    for (int g = 0; g < scales; g++)
        scale[g] = 0;
    for (int t = 0; t < QUANT_BLOCK; t++)
        for (int i = 0; i < d; i++)
            if (fabsf(x[t * d + i]) > scale[group(t)]) scale[group(t)] = fabsf(x[t * d + i]);
    for (int g = 0; g < scales; g++)
        scale[g] = scale_of(scale[g], bits);
    for (int t = 0; t < QUANT_BLOCK; t++)
        for (int i = 0; i < d; i++)
            codes[t * d + i] = code_of(x[t * d + i], 1 / scale[group(t)], bits);
}

static int group_q(int t) { return t / 16 * 8 + t % 8; }
static int group_k(int t) { return t % 8 / 2; }

static void values(struct quant_codes *c, const struct quant_rows *v, int head, int block)
{
    int d = c->head_dim, t0 = block * QUANT_BLOCK;
    size_t at = (size_t)head * (size_t)c->k_blocks + (size_t)block;
    uint8_t *codes = c->v + at * QUANT_BLOCK * (size_t)d;
    const float *scale = c->v_scale + (size_t)head * (size_t)d;
    float factor = 1, most = 0;
    memset(codes, 0, QUANT_BLOCK * (size_t)d);
    if (c->how.values == QUANT_S8) {
        for (int t = t0; t < c->len_k && t < t0 + QUANT_BLOCK; t++)
            for (int i = 0; i < d; i++) {
                float x = fabsf(row(v, head, t)[i] * (1 / scale[i]));
                if (x > most) most = x;
            }
        factor = scale_of(most, 8);
    }
    for (int t = t0; t < c->len_k && t < t0 + QUANT_BLOCK; t++)
        for (int i = 0; i < d; i++) {
            float x = row(v, head, t)[i] * (1 / scale[i]);
            codes[i * QUANT_BLOCK + quant_slot(t - t0)] =
                c->how.values == QUANT_S8 ? (uint8_t)code_of(x, 1 / factor, 8) : quant_e4m3(x);
        }
    c->k_scale[at * QUANT_K_SCALES + 4] = factor;
}

/* Means of `pools` parts of every block over the tokens that are there. */
static void pool(float *out, const struct quant_rows *x, int head, int blocks, int len, int dim,
                 int pools)
{
    int part = QUANT_BLOCK / pools;
    for (int p = 0; p < blocks * pools; p++)
        for (int i = 0; i < dim; i++) {
            double sum = 0;
            int n = 0;
            for (int t = p * part; t < (p + 1) * part && t < len; t++, n++)
                sum += (double)row(x, head, t)[i];
            out[((size_t)head * (size_t)blocks * (size_t)pools + (size_t)p) * (size_t)dim +
                (size_t)i] = n ? (float)(sum / n) : 0;
        }
}

static void delta_of(struct quant_codes *c, const struct quant_rows *k, int head, int block)
{
    int d = c->head_dim;
    size_t at = (size_t)head * (size_t)c->q_blocks + (size_t)block,
           tokens = (size_t)c->k_blocks * QUANT_BLOCK;
    const float *mean = c->k_mean + (size_t)head * (size_t)d, *q = c->q_mean + at * (size_t)d;
    memset(c->delta + at * tokens, 0, tokens * sizeof(float));
    for (int t = 0; t < c->len_k; t++) {
        float s = 0;
        for (int i = 0; i < d; i++)
            s += q[i] * (row(k, head, t)[i] - mean[i]);
        c->delta[at * tokens + (size_t)t] = s;
    }
}

void quant_ref_codes(struct quant_codes *c, const struct quant_rows *q, const struct quant_rows *k,
                     const struct quant_rows *v)
{
    static const int most_dim = 256;
    float x[QUANT_BLOCK * 256];
    size_t d = (size_t)c->head_dim;
    if (c->head_dim > most_dim) return; /* launchers and kernels take 64 and 128 */
    for (int h = 0; h < c->n_heads; h++) {
        const float *mean = c->k_mean + (size_t)h * d;
        for (int b = 0; b < c->q_blocks; b++) {
            size_t at = (size_t)h * (size_t)c->q_blocks + (size_t)b;
            block_rows(x, c, q, h, b, c->len_q, c->how.smooth_q ? c->q_mean + at * d : NULL);
            block_codes(c->q + at * QUANT_BLOCK * d, c->q_scale + at * 64, 64, group_q, x,
                        c->head_dim, c->how.bits);
            if (c->how.smooth_q) delta_of(c, k, h, b);
        }
        for (int b = 0; b < c->k_blocks; b++) {
            size_t at = (size_t)h * (size_t)c->k_blocks + (size_t)b;
            float *scale = c->k_scale + at * QUANT_K_SCALES;
            block_rows(x, c, k, h, b, c->len_k, c->how.smooth_k ? mean : NULL);
            memset(scale, 0, QUANT_K_SCALES * sizeof *scale);
            block_codes(c->k + at * QUANT_BLOCK * d, scale, 4, group_k, x, c->head_dim,
                        c->how.bits);
            values(c, v, h, b);
        }
        for (int t = 0; t < c->len_q; t++) {
            double s = 0;
            for (size_t i = 0; i < d; i++)
                s += (double)row(q, h, t)[i] * (double)mean[i];
            c->lse_shift[(size_t)h * (size_t)c->len_q + (size_t)t] =
                (float)(s / sqrt((double)c->head_dim));
        }
        if (c->how.pools) {
            pool(c->q_pool, q, h, c->q_blocks, c->len_q, c->head_dim, c->how.pools);
            pool(c->k_pool, k, h, c->k_blocks, c->len_k, c->head_dim, c->how.pools);
        }
    }
}

void quant_ref(struct quant_codes *c, const struct quant_rows *q, const struct quant_rows *k,
               const struct quant_rows *v)
{
    float top = c->how.values == QUANT_S8 ? 1 : E4M3_MOST;
    for (int h = 0; h < c->n_heads; h++) {
        for (int i = 0; i < c->head_dim; i++) {
            double sum = 0;
            float most = 0;
            for (int t = 0; t < c->len_k; t++) {
                sum += (double)row(k, h, t)[i];
                if (fabsf(row(v, h, t)[i]) > most) most = fabsf(row(v, h, t)[i]);
            }
            c->k_mean[h * c->head_dim + i] = c->how.smooth_k ? (float)(sum / c->len_k) : 0;
            c->v_scale[h * c->head_dim + i] = limit(most) / top;
        }
        if (c->how.smooth_q) pool(c->q_mean, q, h, c->q_blocks, c->len_q, c->head_dim, 1);
    }
    quant_ref_codes(c, q, k, v);
}

/* ---- attention ---- */

struct row_state { /* of one query, in powers of two */
    float most, sum;
    float o[256];
};

/* Scores of one tile, times log2 e / sqrt(D), -inf past the last key. Returns the largest. */
static float tile_scores(float *s, const struct quant_codes *c, int head, int query, int tile)
{
    int d = c->head_dim;
    size_t tokens = (size_t)c->k_blocks * QUANT_BLOCK, queries = (size_t)c->q_blocks * QUANT_BLOCK;
    const int8_t *q = c->q + ((size_t)head * queries + (size_t)query) * (size_t)d;
    const int8_t *k = c->k + ((size_t)head * tokens + (size_t)tile * QUANT_BLOCK) * (size_t)d;
    const float *sk =
        c->k_scale + ((size_t)head * (size_t)c->k_blocks + (size_t)tile) * QUANT_K_SCALES;
    float beta = (float)(1.4426950408889634 / sqrt((double)d)), most = -INFINITY;
    float sq = c->q_scale[(size_t)head * queries / 2 + (size_t)group_q(query)] * beta;
    const float *delta =
        c->how.smooth_q
            ? c->delta +
                  ((size_t)head * (size_t)c->q_blocks + (size_t)(query / QUANT_BLOCK)) * tokens +
                  (size_t)tile * QUANT_BLOCK
            : NULL;
    for (int t = 0; t < QUANT_BLOCK; t++) {
        int32_t dot = 0;
        for (int i = 0; i < d; i++)
            dot += (int32_t)q[i] * k[t * d + i];
        s[t] = (float)dot * (sq * sk[group_k(t)]);
        if (delta) s[t] = (float)dot * (sq * sk[group_k(t)]) + beta * delta[t];
        if (tile * QUANT_BLOCK + t >= c->len_k) s[t] = -INFINITY;
        if (s[t] > most) most = s[t];
    }
    return most;
}

static void tile_e4m3(struct row_state *r, const float *s, float most, const uint8_t *v, int d,
                      const float *value)
{
    float p[QUANT_BLOCK], sum = 0, top = most > r->most ? most : r->most;
    float shrink = exp2f(r->most - top), base = top - log2f(E4M3_MOST);
    for (int t = 0; t < QUANT_BLOCK; t++) {
        float e = exp2f(s[t] - base);
        sum += e;
        p[quant_slot(t)] = value[quant_e4m3(e)];
    }
    r->sum = r->sum * shrink + sum;
    r->most = top;
    for (int i = 0; i < d; i++) {
        double x = 0;
        for (int t = 0; t < QUANT_BLOCK; t++)
            x += (double)p[t] * (double)value[v[i * QUANT_BLOCK + t]];
        r->o[i] = r->o[i] * shrink + (float)x;
    }
}

/* Weights relative to the tile's own maximum, in 255ths (attention-kernels 1.10). */
static void tile_u8(struct row_state *r, const float *s, float most, const uint8_t *v, float factor,
                    int d)
{
    int p[QUANT_BLOCK], sum = 0;
    float top = most > r->most ? most : r->most, shrink = exp2f(r->most - top),
          weight = exp2f(most - top) / 255;
    for (int t = 0; t < QUANT_BLOCK; t++) {
        int e = (int)rintf(exp2f(s[t] - (most - log2f(255))));
        sum += e;
        p[quant_slot(t)] = e;
    }
    r->sum = r->sum * shrink + weight * (float)sum;
    r->most = top;
    for (int i = 0; i < d; i++) {
        int x = 0;
        for (int t = 0; t < QUANT_BLOCK; t++)
            x += p[t] * (int8_t)v[i * QUANT_BLOCK + t];
        r->o[i] = r->o[i] * shrink + weight * factor * (float)x;
    }
}

void quant_attend(float *o, float *lse, float *rise, const struct quant_codes *c, int head,
                  int query, const uint32_t *tiles, int n)
{
    struct row_state r = {.most = -INFINITY};
    float s[QUANT_BLOCK], value[256]; /* value: of the e4m3 codes */
    int d = c->head_dim;
    for (int i = 0; i < 256; i++)
        value[i] = quant_e4m3_value((uint8_t)i);
    for (int i = 0; i < n; i++) {
        int tile = (int)tiles[i];
        size_t at = (size_t)head * (size_t)c->k_blocks + (size_t)tile;
        const uint8_t *v = c->v + at * QUANT_BLOCK * (size_t)d;
        float most = tile_scores(s, c, head, query, tile);
        if (rise) rise[i] = i ? most - r.most : INFINITY;
        if (c->how.values == QUANT_S8)
            tile_u8(&r, s, most, v, c->k_scale[at * QUANT_K_SCALES + 4], d);
        else
            tile_e4m3(&r, s, most, v, d, value);
    }
    for (int i = 0; i < d; i++)
        o[i] = r.sum > 0 ? r.o[i] * c->v_scale[head * d + i] / r.sum : 0;
    float offset = c->how.values == QUANT_S8 ? 0 : log2f(E4M3_MOST);
    if (lse)
        *lse = r.sum > 0 ? (float)((double)(r.most + log2f(r.sum) - offset) * 0.6931471805599453) +
                               c->lse_shift[(size_t)head * (size_t)c->len_q + (size_t)query]
                         : -INFINITY;
}
