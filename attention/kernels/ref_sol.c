/* The judge's own choice of tiles under plan.sol_tau; see ref.c. */
#include "attention/kernels/ref.h"

#include <stdlib.h>

/* sol_tau: a tile is computed where its mean key scores above mu + tau * sqrt(var + 1e-6) on average
 * over the row's queries, beside the diagonal, or forced; variance by channel (attention-sparse.md
 * 12.1, `diag`). */
void sol_fates(enum attn_fate *fate, const struct attn_job *j, int head, int plan, int row)
{
    const struct attn_plan *p = j->plan;
    int q0 = attn_block_at(&p->q, plan, row), q1 = attn_block_at(&p->q, plan, row + 1), n = p->k.n;
    double mean[ATTN_MAX_HEAD_DIM] = {0}, beta = LOG2E * (1 / sqrt((double)j->q.dim)), mu = 0,
           var = 0;
    for (int i = q0; i < q1; i++)
        for (int c = 0; c < j->q.dim; c++)
            mean[c] += element(&j->q, attn_token(&p->q_order, plan, i), head, c) / (q1 - q0);
    for (int c = 0; c < j->q.dim; c++) {
        double sum = 0, squares = 0;
        for (int t = 0; t < n; t++) {
            double x = element(&j->k_mean, t, head, c);
            sum += x / n;
            squares += x * x / n;
        }
        mu += beta * mean[c] * sum;
        var += beta * beta * mean[c] * mean[c] * (squares - sum * sum);
    }
    for (int t = 0; t < n; t++) {
        double z = 0;
        for (int c = 0; c < j->q.dim; c++)
            z += beta * mean[c] * element(&j->k_mean, t, head, c);
        bool computed =
            z > mu + (double)p->sol_tau * sqrt(var + 1e-6) || abs(t - row) <= 1 ||
            attn_bit(p->forced, (size_t)plan * (size_t)p->q.n + (size_t)row, attn_words(n), t);
        fate[t] = computed ? ATTN_COMPUTED : ATTN_BY_MEAN;
    }
}
