/* Which rows are worth it; see tune.h. */
#include "app/cli/tune.h"

void tune_front(bool *on, const struct bench_table *b, int clips)
{
    for (int i = 0; i < b->n; i++) {
        const struct bench_line *l = &b->at[i];
        on[i] = l->n >= clips && l->n > 0 && l->row->kind != ROW_KERNEL;
        for (int k = 0; k < b->n && on[i]; k++) {
            const struct bench_line *o = &b->at[k];
            if (k == i || o->n < clips || !o->n || o->row->kind == ROW_KERNEL) continue;
            bool as_good = o->share <= l->share && o->psnr >= l->psnr;
            bool better = o->share < l->share || o->psnr > l->psnr;
            on[i] = !(as_good && (better || k < i));
        }
    }
}

bool tune_meets(const struct bench_line *l, const struct tune_target *t)
{
    return (t->db <= 0 || l->psnr >= t->db) && (t->ssim <= 0 || l->ssim >= t->ssim) &&
           (t->share <= 0 || l->share <= t->share);
}

double tune_worth(const struct bench_line *l, const struct tune_target *t, bool on_front)
{
    double front = on_front ? 0.05 : 0, miss = 0;
    if (t->db > l->psnr) miss += (t->db - l->psnr) / 10; /* 10 dB are as far off as all seconds */
    if (t->ssim > l->ssim) miss += 5 * (t->ssim - l->ssim);
    if (t->share > 0 && l->share > t->share) miss += 5 * (l->share - t->share);
    if (miss > 0) return front - miss - l->share;
    return front + (t->share > 0 ? 10 + l->psnr : 2 - l->share);
}

int tune_choose(const struct bench_table *b, const struct tune_target *target, int clips)
{
    int best = -1;
    bool fidelity = target->db > 0 || target->ssim > 0;
    for (int i = 0; i < b->n; i++) {
        const struct bench_line *l = &b->at[i];
        if (!l->n || l->n < clips || l->row->kind == ROW_KERNEL || l->share >= 1) continue;
        if (!tune_meets(l, target)) continue;
        if (best < 0 || (fidelity ? l->share < b->at[best].share : l->psnr > b->at[best].psnr))
            best = i;
    }
    return best;
}
