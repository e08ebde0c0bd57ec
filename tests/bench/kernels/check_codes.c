/* Codes, scales and means of quant_qkv() against attention/kernels/quant_ref.c. */
#include "tests/bench/kernels/bench_sage.h"

#include "model/base/dtype.h"

void codes_make(struct codes_pair *c, const struct quant_codes *sizes)
{
    *c = (struct codes_pair){.gpu = *sizes, .host = *sizes};
    c->bytes = quant_codes_carve(&c->gpu, NULL);
    c->gpu_at = gpu_new(c->bytes);
    GPU(cudaMemset(c->gpu_at, 0xab, c->bytes));
    if (posix_memalign((void **)&c->host_at, 256, c->bytes) != 0) exit(4);
    quant_codes_carve(&c->gpu, c->gpu_at);
    quant_codes_carve(&c->host, c->host_at);
}

void codes_read(struct codes_pair *c) { gpu_read(c->host_at, c->gpu_at, c->bytes); }

void codes_free(struct codes_pair *c)
{
    GPU(cudaFree(c->gpu_at));
    free(c->host_at);
}

static float *widened(const uint16_t *x, size_t n)
{
    float *y = host_new(n * 4);
    for (size_t i = 0; i < n; i++)
        y[i] = bf16_to_f32(x[i]);
    return y;
}

static double most_off(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most)) most = d;
    }
    return most;
}

static void same(const char *what, const void *a, const void *b, size_t bytes,
                 const struct problem *p)
{
    size_t n = 0, first = 0;
    for (size_t i = 0; i < bytes; i++)
        if (((const char *)a)[i] != ((const char *)b)[i] && !n++) first = i;
    CHECK_MSG(!n,
              "quant_qkv: %zu of %zu bytes of %s are not the reference's, the first at %zu (%d, "
              "wanted %d): %s",
              n, bytes, what, first, ((const signed char *)a)[first],
              ((const signed char *)b)[first], p->what);
}

void check_codes(struct codes_pair *c, const struct problem *p)
{
    struct quant_codes *got = &c->host, want = *got, exact = *got;
    size_t bytes = c->bytes, n = (size_t)got->n_heads, d = (size_t)got->head_dim;
    char *at[2];
    float *x[3] = {widened(p->q, p->q_count), widened(p->k, p->k_count), widened(p->v, p->k_count)};
    const struct attn_tensor *t[3] = {&p->host.q, &p->host.k, &p->host.v};
    struct quant_rows rows[3];
    for (int i = 0; i < 3; i++)
        rows[i] = (struct quant_rows){x[i], t[i]->token, t[i]->head};
    for (int i = 0; i < 2; i++)
        at[i] = host_new(bytes);
    quant_codes_carve(&want, at[0]);
    quant_codes_carve(&exact, at[1]);
    quant_ref(&exact, &rows[0], &rows[1], &rows[2]);
    memcpy(want.k_mean, got->k_mean, n * d * 4);
    memcpy(want.v_scale, got->v_scale, n * d * 4);
    size_t q_means = n * (size_t)got->q_blocks * d;
    if (got->how.smooth_q) memcpy(want.q_mean, got->q_mean, q_means * 4);
    quant_ref_codes(&want, &rows[0], &rows[1], &rows[2]);
    size_t q = n * (size_t)got->q_blocks * QUANT_BLOCK, k = n * (size_t)got->k_blocks * QUANT_BLOCK;
    same("v_scale", got->v_scale, exact.v_scale, n * d * 4, p);
    same("q", got->q, want.q, q * d, p);
    same("k", got->k, want.k, k * d, p);
    same("v", got->v, want.v, k * d, p);
    same("q_scale", got->q_scale, want.q_scale, q / 2 * 4, p);
    same("k_scale", got->k_scale, want.k_scale, k / QUANT_BLOCK * QUANT_K_SCALES * 4, p);
    double score, value, mean = most_off(got->k_mean, exact.k_mean, n * d);
    extremes(p, &score, &value);
    /* sums of up to thousands of fp32 terms; values up to some tens */
    CHECK_MSG(mean <= 1e-4 * (1 + score), "quant_qkv: k_mean off by %.3g: %s", mean, p->what);
    double shift = most_off(got->lse_shift, want.lse_shift, n * (size_t)got->len_q);
    CHECK_MSG(shift <= 1e-5 * (1 + score), "quant_qkv: lse_shift off by %.3g: %s", shift, p->what);
    if (got->how.smooth_q) {
        double m = most_off(got->q_mean, exact.q_mean, q_means);
        double delta = most_off(got->delta, want.delta,
                                n * (size_t)got->q_blocks * (size_t)got->k_blocks * QUANT_BLOCK);
        CHECK_MSG(m <= 1e-4 * (1 + score), "quant_qkv: q_mean off by %.3g: %s", m, p->what);
        CHECK_MSG(delta <= 1e-4 * (1 + score) * sqrt((double)d), "quant_qkv: delta off by %.3g: %s",
                  delta, p->what);
    }
    if (got->how.pools) {
        size_t per = (size_t)got->how.pools * d;
        double a = most_off(got->q_pool, exact.q_pool, n * (size_t)got->q_blocks * per);
        double b = most_off(got->k_pool, exact.k_pool, n * (size_t)got->k_blocks * per);
        CHECK_MSG(a <= 1e-4 * (1 + score) && b <= 1e-4 * (1 + score),
                  "quant_qkv: means off by %.3g, %.3g: %s", a, b, p->what);
    }
    for (int i = 0; i < 3; i++)
        free(x[i]);
    free(at[0]);
    free(at[1]);
    tally_up();
}
