/* bench_ops check [SEED]   every operation of model/ops/cuda against the host's judges
 * bench_ops small [SEED]   the same over fewer and smaller shapes, for compute-sanitizer
 * bench_ops time           rows, products and a block's sequence, medians
 *
 * One short table last. Exit: 0 all well, 1 a check failed, 5 the GPU. */
#include "tests/bench/ops/check_ops.h"

#include <stdarg.h>

#define GUARD 256
#define GUARD_BYTE 0xa5

/* --- numbers --- */

struct numbers numbers_new(enum dtype type, size_t n)
{
    struct numbers x = {.type = type, .n = n};
    size_t bytes = n * dtype_size(type);
    x.host = host_new(n * sizeof(float));
    x.base = gpu_new(bytes + 2 * GUARD);
    GPU(cudaMemset(x.base, GUARD_BYTE, bytes + 2 * GUARD));
    x.device = x.base + GUARD;
    return x;
}

void numbers_free(struct numbers *x)
{
    free(x->host);
    if (x->base) gpu_free(x->base);
    *x = (struct numbers){0};
}

void numbers_normal(struct numbers *x, struct test_rng *r, double mean, double deviation)
{
    for (size_t i = 0; i < x->n; i++)
        x->host[i] = (float)(mean + deviation * (double)rng_normal(r));
    numbers_up(x);
}

void numbers_up(const struct numbers *x)
{
    if (x->type == DTYPE_F32) {
        GPU(cudaMemcpy(x->device, x->host, x->n * 4, cudaMemcpyHostToDevice));
        return;
    }
    uint16_t *narrow = host_new(x->n * 2);
    for (size_t i = 0; i < x->n; i++) {
        narrow[i] = f32_to_bf16(x->host[i]);
        x->host[i] = bf16_to_f32(narrow[i]);
    }
    GPU(cudaMemcpy(x->device, narrow, x->n * 2, cudaMemcpyHostToDevice));
    free(narrow);
}

float *numbers_down(const struct numbers *x)
{
    float *out = host_new(x->n * sizeof *out);
    void *raw = host_new(x->n * dtype_size(x->type));
    gpu_read(raw, x->device, x->n * dtype_size(x->type));
    if (x->type == DTYPE_U8) {
        for (size_t i = 0; i < x->n; i++)
            out[i] = ((const uint8_t *)raw)[i];
    } else {
        dtype_to_f32(out, raw, x->type, x->n);
    }
    free(raw);
    return out;
}

void numbers_dirty(const struct numbers *x)
{
    GPU(cudaMemset(x->device, 0xff, x->n * dtype_size(x->type)));
}

static bool guards_whole(const struct numbers *x)
{
    unsigned char seen[2 * GUARD];
    gpu_read(seen, x->base, GUARD);
    gpu_read(seen + GUARD, x->base + GUARD + x->n * dtype_size(x->type), GUARD);
    for (size_t i = 0; i < sizeof seen; i++)
        if (seen[i] != GUARD_BYTE) return false;
    return true;
}

/* --- verdicts --- */

#define MOST 64
static struct verdict verdicts[MOST];
static int n_verdicts;
static char now[200];

void verdict_begin(const char *what)
{
    if (n_verdicts == MOST) abort();
    verdicts[n_verdicts++] = (struct verdict){.what = what};
}

void verdict_case(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(now, sizeof now, fmt, ap);
    va_end(ap);
    verdicts[n_verdicts - 1].cases++;
}

static void failed(const char *fmt, ...)
{
    struct verdict *v = &verdicts[n_verdicts - 1];
    va_list ap;
    if (v->failed++ >= 8) return; /* the table counts them */
    fprintf(stderr, "%s, %s: ", v->what, now);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void verdict_note(double share, double error)
{
    struct verdict *v = &verdicts[n_verdicts - 1];
    if (share > v->worst) v->worst = share;
    if (error > v->largest) v->largest = error;
}

void verdict_that(bool ok, const char *what)
{
    if (!ok) failed("%s", what);
}

static void compare(const struct numbers *y, const float *got, const double *want,
                    const double *bound)
{
    struct verdict *v = &verdicts[n_verdicts - 1];
    double most = 0, share = 0, error = 0;
    size_t worst = 0;
    for (size_t i = 0; i < y->n; i++) {
        double d = fabs((double)got[i] - want[i]), b = bound ? bound[i] : 0;
        if (isnan(want[i]) && isnan(got[i])) continue;
        if ((double)got[i] == want[i]) d = 0; /* infinities, too */
        double s = d == 0 ? 0 : b > 0 ? d / b : (double)INFINITY;
        if (isnan(d)) s = (double)INFINITY;
        if (isfinite(want[i]) && fabs(want[i]) > most) most = fabs(want[i]);
        if (d > error) error = d;
        if (s > share) share = s, worst = i;
    }
    if (share > v->worst) v->worst = share;
    if (most > 0 && error / most > v->largest) v->largest = error / most;
    if (share > 1)
        failed("number %zu of %zu is %.9g, wanted %.9g within %.3g", worst, y->n,
               (double)got[worst], want[worst], bound ? bound[worst] : 0.0);
}

void verdict_check(struct numbers *y, int (*run)(void *ctx, struct err *e), void *ctx,
                   const double *want, const double *bound)
{
    struct err e = {0};
    size_t bytes = y->n * dtype_size(y->type);
    unsigned char *first = host_new(bytes), *second = host_new(bytes);
    for (int i = 0; i < 2; i++) {
        if (run(ctx, &e) < 0) {
            failed("%s", e.msg);
            goto done;
        }
        GPU(cudaDeviceSynchronize());
        gpu_read(i ? second : first, y->device, bytes);
    }
    if (memcmp(first, second, bytes) != 0) failed("two runs gave different bytes");
    if (!guards_whole(y)) failed("wrote outside the result");
    float *got = numbers_down(y);
    compare(y, got, want, bound);
    free(got);
done:
    free(first);
    free(second);
}

void verdict_table(void)
{
    printf("%-44s %6s %7s %16s %12s\n", "operation", "cases", "failed", "share of bound", "error");
    for (int i = 0; i < n_verdicts; i++) {
        const struct verdict *v = &verdicts[i];
        printf("%-44s %6d %7d %16.3g %12.3g  %s\n", v->what, v->cases, v->failed, v->worst,
               v->largest,
               v->failed  ? "FAILED"
               : v->cases ? "met"
                          : "NOT RUN");
    }
}

int verdict_failures(void)
{
    int n = 0;
    for (int i = 0; i < n_verdicts; i++)
        n += verdicts[i].failed + (verdicts[i].cases == 0);
    return n;
}

int main(int argc, char **argv)
{
    struct test_rng r = {argc > 2 ? strtoull(argv[2], NULL, 10) : 1};
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "check") != 0 && strcmp(verb, "small") != 0 && strcmp(verb, "time") != 0) {
        fprintf(stderr, "usage: bench_ops check|small [SEED], bench_ops time\n");
        return 2;
    }
    struct cudaDeviceProp p;
    GPU(cudaGetDeviceProperties(&p, 0));
    printf("%s, compute capability %d.%d\n", p.name, p.major, p.minor);
    if (strcmp(verb, "time") == 0) return time_ops();
    bool small = strcmp(verb, "small") == 0;
    check_rows(&r, small);
    check_numbers(&r, small);
    check_linear(&r, small);
    check_fp8(&r, small);
    check_parts(&r, small);
    check_attention(&r, small);
    check_distance(&r, small);
    check_table(&r, small);
    verdict_table();
    int n = verdict_failures();
    int cases = 0;
    for (int i = 0; i < n_verdicts; i++)
        cases += verdicts[i].cases;
    printf("operations: %d cases of %d kinds, %d checks failed\n", cases, n_verdicts, n);
    return n != 0;
}
