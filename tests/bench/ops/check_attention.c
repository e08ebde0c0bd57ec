/* fp32 attention, and attention to few keys as cross-attention has them, against sums in double. The
 * dense and sparse kernels of matrix units have their own program, bench_kernels. */
#include "tests/bench/ops/check_ops.h"

#include "attention/kernels/cuda/simt_cuda.h"

struct attend_case {
    struct attn_cuda w;
    enum dtype type;
    enum by { SM80, SIMT, TF32 } by;
};

static int run_attend(void *ctx, struct err *e)
{
    struct attend_case *c = ctx;
    GPU(cudaMemset(c->w.scratch, 0xff, attn_cuda_scratch()));
    if (c->by == TF32) return attn_tf32(&c->w, e);
    return c->by == SIMT ? attn_simt(&c->w, c->type, e) : attn_sm80(&c->w, e);
}

/* kept: [heads or 1][rows, cols] tiles, or NULL. Weights of matrix units are bf16. */
static void judge(double *want, double *bound, double *lse, const struct attn_cuda *w,
                  const float *q, const float *k, const float *v, const float *bias,
                  const uint8_t *kept, int n_plans, int block_q, int block_k, bool units, bool bf16)
{
    int D = w->head_dim, cols = kept ? (w->len_k - 1) / block_k + 1 : 0,
        rows = kept ? (w->len_q - 1) / block_q + 1 : 0;
    double *p = host_new((size_t)w->len_k * 8);
    for (int h = 0; h < w->n_heads; h++)
        for (int i = 0; i < w->len_q; i++) {
            double most = -(double)INFINITY, sum = 0;
            for (int j = 0; j < w->len_k; j++) {
                double s = 0;
                for (int d = 0; d < D; d++)
                    s += (double)q[h * w->q.head + i * w->q.token + d] *
                         (double)k[h * w->k.head + j * w->k.token + d];
                p[j] = s / sqrt((double)D) + (bias ? (double)bias[j] : 0);
                if (kept &&
                    !kept[((n_plans > 1 ? h : 0) * rows + i / block_q) * cols + j / block_k])
                    p[j] = -(double)INFINITY;
                if (p[j] > most) most = p[j];
            }
            for (int j = 0; j < w->len_k; j++) {
                p[j] = isinf(most) ? 0 : exp(p[j] - most);
                sum += p[j];
            }
            lse[(size_t)h * (size_t)w->len_q + (size_t)i] =
                sum > 0 ? most + log(sum) : -(double)INFINITY;
            for (int d = 0; d < D; d++) {
                double o = 0, mag = 0;
                for (int j = 0; j < w->len_k; j++) {
                    double t = p[j] * (double)v[h * w->v.head + j * w->v.token + d];
                    o += t, mag += fabs(t);
                }
                o = sum > 0 ? o / sum : 0, mag = sum > 0 ? mag / sum : 0;
                size_t at = (size_t)(h * w->o.head + i * w->o.token + d);
                /* scores off by (D + 8) units of about |s| <= 16, so weights by as much; then the
                 * sums. Units: weights to bf16, 22-bit sums. */
                double rel =
                    units ? U_BF16 + (D / 16 + 8) * 0x1p-22 * 16 + (w->len_k / 16.0 + 8) * 0x1p-22
                          : ((double)D / 4 + 8) * U_F32 * 16 + ((double)w->len_k / 8 + 16) * U_F32;
                want[at] = o;
                bound[at] = rel * mag + (bf16 ? 1.01 * U_BF16 * fabs(o) : 0) + 1e-30;
            }
        }
    free(p);
}

static void one_attend(struct test_rng *r, int len_q, int len_k, int heads, int D, enum dtype type,
                       enum by by, bool biased, bool by_head, int block_q, int block_k)
{
    size_t nq = (size_t)len_q * (size_t)heads * (size_t)D,
           nk = (size_t)len_k * (size_t)heads * (size_t)D;
    struct numbers q = numbers_new(type, nq), k = numbers_new(type, nk), v = numbers_new(type, nk),
                   o = numbers_new(type, nq);
    struct numbers bias = numbers_new(DTYPE_F32, (size_t)len_k),
                   lse = numbers_new(DTYPE_F32, (size_t)heads * (size_t)len_q);
    numbers_normal(&q, r, 0, 1), numbers_normal(&k, r, 0, 1), numbers_normal(&v, r, 0, 1);
    for (int i = 0; i < len_k; i++)
        bias.host[i] = i % 7 == 3 && len_k > 7 ? -INFINITY : (float)rng_normal(r);
    numbers_up(&bias);
    void *scratch = gpu_new(attn_cuda_scratch());
    struct attend_case c = {.type = type, .by = by};
    struct attn_cuda *w = &c.w;
    struct err e = {0};
    int64_t token = by_head ? D : (int64_t)heads * D;
    w->q = (struct attn_tensor){q.device, token, by_head ? (int64_t)len_q * D : D};
    w->k = (struct attn_tensor){k.device, token, by_head ? (int64_t)len_k * D : D};
    w->v = (struct attn_tensor){v.device, token, by_head ? (int64_t)len_k * D : D};
    w->o = (struct attn_tensor){o.device, token, by_head ? (int64_t)len_q * D : D};
    w->len_q = len_q, w->len_k = len_k, w->n_heads = heads, w->head_dim = D;
    w->key_bias = biased ? bias.device : NULL;
    w->lse = lse.device;
    w->scratch = scratch;
    /* a plan of random tiles, one row of which may keep nothing */
    uint8_t *kept = NULL;
    uint32_t *plane = NULL, *up[3] = {0};
    struct attn_lists lists;
    int n_plans = 1;
    if (block_q) {
        struct attn_plan plan;
        struct attn_lists_size size;
        uint32_t *words[4];
        if (attn_plan_dense(&plan, len_q, len_k, heads, &e) < 0 ||
            attn_blocks_equal(&plan.q, len_q, block_q, &e) < 0 ||
            attn_blocks_equal(&plan.k, len_k, block_k, &e) < 0)
            abort();
        plan.all = false, plan.per_head = true, plan.may_be_empty = true;
        n_plans = heads;
        plane = host_new(attn_plane_size(&plan) * 4);
        kept = host_new((size_t)(heads * plan.q.n * plan.k.n));
        for (int i = 0; i < heads * plan.q.n; i++)
            for (int t = 0; i != 1 && t < plan.k.n; t++)
                if (rng_u64(r) & 1) {
                    kept[i * plan.k.n + t] = 1;
                    plane[i * attn_words(plan.k.n) + t / 32] |= 1u << (t % 32);
                }
        plan.kept = plane;
        if (attn_lists_size(&size, &plan, &e) < 0) abort();
        size_t sizes[] = {size.row_ptr, size.steps, size.order, size.mean};
        for (int i = 0; i < 4; i++)
            words[i] = host_new(sizes[i] * 4);
        if (attn_lists_fill(&lists, words[0], words[1], words[2], size.mean ? words[3] : NULL,
                            &plan, &e) < 0)
            abort();
        for (int i = 0; i < 3; i++)
            up[i] = gpu_copy(words[i], sizes[i] * 4);
        lists.row_ptr = up[0], lists.steps = up[1], lists.order = up[2];
        w->lists = &lists;
        for (int i = 0; i < 4; i++)
            free(words[i]);
    }
    double *want = host_new(nq * 8), *bound = host_new(nq * 8), *log_sum = host_new(lse.n * 8),
           *log_bound = host_new(lse.n * 8);
    judge(want, bound, log_sum, w, q.host, k.host, v.host, biased ? bias.host : NULL, kept, n_plans,
          block_q, block_k, by == SM80, type == DTYPE_BF16);
    for (size_t i = 0; i < lse.n; i++)
        log_bound[i] = by != SM80
                           ? ((double)D / 4 + 8) * U_F32 * 16 + (len_k / 8.0 + 16) * U_F32
                           : (D / 16 + 8) * 0x1p-22 * 16 + (len_k / 16.0 + 8) * 0x1p-22 + 0x1p-20;
    verdict_case("%d queries, %d keys, %d x %d %s%s%s, tiles %d x %d", len_q, len_k, heads, D,
                 dtype_name(type), biased ? " biased" : "", by_head ? ", head by head" : "",
                 block_q, block_k);
    numbers_dirty(&o);
    verdict_check(&o, run_attend, &c, want, bound);
    verdict_check(&lse, run_attend, &c, log_sum, log_bound);
    free(want), free(bound), free(log_sum), free(log_bound), free(kept), free(plane);
    for (int i = 0; i < 3; i++)
        if (up[i]) gpu_free(up[i]);
    gpu_free(scratch);
    numbers_free(&q), numbers_free(&k), numbers_free(&v), numbers_free(&o), numbers_free(&bias),
        numbers_free(&lse);
}

void check_attention(struct test_rng *r, bool small)
{
    static const int shapes[][4] = {/* queries, keys, heads, channels */
                                    {1, 1, 1, 64},      {65, 33, 3, 16},   {130, 77, 2, 128},
                                    {64, 32, 5, 64},    {200, 301, 2, 12}, {300, 9, 5, 64},
                                    {127, 512, 2, 128}, {31, 130, 1, 5}};
    const int n = small ? 4 : (int)ARRAY_LEN(shapes);
    verdict_begin("attention fp32 (flash_simt), dense");
    for (int i = 0; i < n; i++)
        for (int kind = 0; kind < 4; kind++)
            one_attend(r, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3],
                       kind & 1 ? DTYPE_BF16 : DTYPE_F32, SIMT, kind & 2, kind == 1, 0, 0);
    verdict_begin("attention fp32 (flash_simt), plans");
    for (int i = 0; i < (small ? 2 : 4); i++)
        one_attend(r, 129 + 70 * i, 200 + 90 * i, 1 + i, i & 1 ? 64 : 128,
                   i & 2 ? DTYPE_BF16 : DTYPE_F32, SIMT, i & 1, false, i & 1 ? 64 : 128,
                   i & 2 ? 64 : 128);
    verdict_begin("attention fp32 (flash_tf32), dense and plans");
    for (int i = 0; i < n; i++)
        for (int kind = 0; kind < 4 && shapes[i][3] % 4 == 0; kind++)
            one_attend(r, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], DTYPE_F32, TF32,
                       kind & 2, kind & 1, 0, 0);
    for (int i = 0; i < (small ? 2 : 4); i++)
        one_attend(r, 129 + 70 * i, 200 + 90 * i, 1 + i, i & 1 ? 64 : 128, DTYPE_F32, TF32, i & 1,
                   false, i & 1 ? 64 : 128, i & 2 ? 64 : 128);
    static const int cross[][4] = {
        {300, 9, 5, 64}, {129, 33, 12, 128}, {257, 77, 5, 64}, {64, 512, 2, 128}, {5, 1, 1, 64}};
    verdict_begin("cross-attention (flash_sm80), bias");
    for (int i = 0; i < (small ? 2 : (int)ARRAY_LEN(cross)) * 2; i++)
        one_attend(r, cross[i / 2][0], cross[i / 2][1], cross[i / 2][2], cross[i / 2][3],
                   DTYPE_BF16, SM80, i & 1, i & 1, 0, 0);
}
