/* Matrix products in plain C, for builds without oneDNN: right and slow. Panels of 16 outputs, so
 * that a compiler can keep the sums in registers. */
#include "model/ops/cpu/gemm.h"

#include <stdlib.h>

#define PANEL 16
#define ROWS 4 /* rows a task of the inner kernel holds */
#define TURNED 256 /* terms of a weight that is not packed are turned at a time */

struct gemm {
    int out, in;
    float *packed; /* [ceil(out/16), in, 16] */
    const float *plain, *bias;
};

int gemm_open(struct gemm **out, const struct gemm_kind *kind, const void *weight,
              const float *bias, struct err *e)
{
    int n = kind->out, k = kind->in;
    *out = NULL;
    if (kind->type != GEMM_F32) return err_set(e, ERR_DEVICE, "this build multiplies fp32 only");
    struct gemm *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    *g = (struct gemm){.out = n, .in = k, .bias = bias};
    if (kind->borrow) {
        g->plain = weight;
        *out = g;
        return 0;
    }
    size_t panels = (size_t)(n + PANEL - 1) / PANEL;
    g->packed = calloc(panels * (size_t)k * PANEL, sizeof *g->packed);
    if (!g->packed) {
        free(g);
        return err_set(e, ERR_RESOURCE, "no memory to pack a weight [%d, %d]", n, k);
    }
    const float *w = weight;
    for (int o = 0; o < n; o++)
        for (int i = 0; i < k; i++)
            g->packed[((size_t)(o / PANEL) * (size_t)k + (size_t)i) * PANEL + (size_t)(o % PANEL)] =
                w[(size_t)o * (size_t)k + (size_t)i];
    *out = g;
    return 0;
}

void gemm_close(struct gemm *g)
{
    if (!g) return;
    free(g->packed);
    free(g);
}

void gemm_rebind(struct gemm *g, const void *weight, const float *bias)
{
    g->plain = weight;
    g->bias = bias;
}

size_t gemm_scratch(const struct gemm_kind *k, int rows) { return (void)k, (void)rows, 0u; }

int gemm_prepare(struct gemm *g, int rows, size_t *scratch, struct err *e)
{
    (void)g, (void)rows, (void)e;
    *scratch = 0;
    return 0;
}

/* Columns from.. of a panel's 16 rows of a weight that lies as the file has it -> [n, 16], as packed. */
static void turn(const struct gemm *g, float *w, int first, int width, size_t from, size_t n)
{
    for (int c = 0; c < PANEL; c++)
        for (size_t i = 0; i < n; i++)
            w[i * PANEL + (size_t)c] =
                c < width ? g->plain[(size_t)(first + c) * (size_t)g->in + from + i] : 0;
}

/* Packed or not, every sum goes through its terms in order: the same bytes either way. */
static void panel(const struct gemm *g, int at, float *y, const float *x0, int rows)
{
    int first = at * PANEL, width = g->out - first < PANEL ? g->out - first : PANEL;
    size_t in = (size_t)g->in, out = (size_t)g->out, block = g->packed ? in : TURNED;
    float bias[PANEL] = {0}, turned[TURNED * PANEL];
    for (int c = 0; c < width && g->bias; c++)
        bias[c] = g->bias[first + c];
    for (size_t from = 0; from < in; from += block) {
        size_t terms = in - from < block ? in - from : block;
        const float *w = turned;
        if (g->packed)
            w = g->packed + (size_t)at * in * PANEL;
        else
            turn(g, turned, first, width, from, terms);
        for (int r = 0; r < rows; r += ROWS) {
            int n = rows - r < ROWS ? rows - r : ROWS;
            float sum[ROWS][PANEL] = {{0}};
            for (int a = 0; a < n; a++) {
                const float *x = x0 + (size_t)(r + a) * in + from;
                float *to = y + (size_t)(r + a) * out + (size_t)first;
                for (int c = 0; c < width && from; c++)
                    sum[a][c] = to[c];
                for (size_t i = 0; i < terms; i++)
                    for (int c = 0; c < PANEL; c++)
                        sum[a][c] += x[i] * w[i * PANEL + (size_t)c];
                bool last = from + terms == in;
                for (int c = 0; c < width; c++)
                    to[c] = last ? sum[a][c] + bias[c] : sum[a][c];
            }
        }
    }
}

int gemm_run(const struct gemm *g, float *y, const void *x, int rows, void *scratch, int worker)
{
    (void)scratch, (void)worker;
    for (int i = 0; i * PANEL < g->out; i++)
        panel(g, i, y, x, rows);
    return 0;
}

int gemm_fail(int code, struct err *e)
{
    return err_set(e, ERR_BUG, "a matrix product failed (code %d)", code);
}

const char *gemm_backend(void) { return "plain C (slow: built without oneDNN)"; }

bool gemm_is_slow(void) { return true; }

bool gemm_has_bf16(void) { return false; }
