/* Which table of inner loops runs here, and the filter transform they share. */
#include "model/ops/cpu/frames/kernels/kernels.h"

#include <string.h>

static const struct vae_kernels *const rows[] = {
#ifdef DITGEN_VAE_X86
    &vae_kernels_avx512, /* best first */
    &vae_kernels_avx2,
#endif
    &vae_kernels_ref,
};

const struct vae_kernels *vae_kernels_pick(const struct cpu *cpu, const char *only)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (only && strcmp(rows[i]->name, only) != 0) continue;
        if (cpu->level >= rows[i]->needs) return rows[i];
    }
    return NULL;
}

/* Row of a point p: [1, p, p^2] / prod over the other points q of (p - q); infinity: [0, 0, 1]. */
static int filter_rows(double g[WINO_IN][3], bool up)
{
    static const double plain[5] = {0, 0.625, -0.625, 1.5, -1.5}, doubled[5] = {0, 1, -1, 2, -2};
    const double *points = up ? doubled : plain;
    int n = 0;
    for (int i = 0; i < 5; i++) {
        if (up && i == 2) continue; /* -1: its input is always 0 */
        double d = 1;
        for (int j = 0; j < 5; j++)
            if (j != i) d *= points[i] - points[j];
        for (int k = 0; k < 3; k++)
            g[n][k] = (k == 0 ? 1 : k == 1 ? points[i] : points[i] * points[i]) / d;
        n++;
    }
    g[n][0] = g[n][1] = 0;
    g[n][2] = 1;
    return n + 1;
}

void wino_filter(double *u, const double *taps, bool up)
{
    double g[WINO_IN][3], t[WINO_IN][3];
    int n = filter_rows(g, up);
    for (int i = 0; i < n; i++)
        for (int x = 0; x < 3; x++)
            t[i][x] = g[i][0] * taps[x] + g[i][1] * taps[3 + x] + g[i][2] * taps[6 + x];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            u[i * n + j] = t[i][0] * g[j][0] + t[i][1] * g[j][1] + t[i][2] * g[j][2];
}
