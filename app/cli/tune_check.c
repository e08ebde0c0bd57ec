/* --check: a profile's settings as one row beside fewer steps, on the prompts that verify, at one size or
 * several; mean, worst and every clip. */
#include "app/cli/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the profile says that tune looks at, as a row. */
static int row_of(char *row, size_t n, const struct ditgen_settings *given, const char *name,
                  struct err *e)
{
    static const int ids[] = {SET_ATTENTION, SET_ERROR_BUDGET, SET_STEP_CACHE,
                              SET_STEPS,     SET_SOLVER,       SET_PRECISION};
    size_t len = 0;
    row[0] = 0;
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        if (settings_from(given, (enum setting_id)ids[i]) != LAYER_CONFIG) continue;
        char *value = settings_print(given, ids[i], e);
        if (value)
            len += (size_t)snprintf(row + len, len < n ? n - len : 0, "%s%s=%s", len ? ";" : "",
                                    setting_at(ids[i])->option.name, value);
        free(value);
        if (len >= n)
            return err_set(e, ERR_USAGE, "%.200s says more than tune takes (%zu bytes)", name, n);
    }
    if (len) return 0;
    return err_set(e, ERR_USAGE, "%.200s says nothing that tune looks at", name);
}

int tune_check_rows(struct bench_rows *rows, struct tune *t, const struct ditgen_settings *given,
                    struct err *e)
{
    char row[sizeof rows->at->text];
    if (row_of(row, sizeof row, given, t->check, e) < 0) return -1;
    if (bench_rows_add(rows, ROW_METHOD, 0, "profile", row, e) < 0) return -1;
    for (int i = 5; i > 1; i--) {
        snprintf(row, sizeof row, "steps=%d", settings_int(t->t.base, SET_STEPS) * i / 6);
        if (bench_rows_add(rows, ROW_STEPS, 0, "steps", row, e) < 0) return -1;
    }
    return 0;
}

/* --- every clip --------------------------------------------------------------------------------- */

static double share_of(const struct tune *t, const struct trial *r)
{
    return t->cpu ? r->cpu_share : r->share;
}

/* Of this clip: dB of the fewest exact steps that take at least as long; TRIAL_EQUAL: all of them. */
static double rival_of(const struct tune *t, const struct bench_rows *rows, struct trial_what w,
                       double share)
{
    double best = 2, psnr = TRIAL_EQUAL;
    for (int k = 0; k < rows->n; k++) {
        struct trial r;
        w.row = rows->at[k].text;
        if (rows->at[k].kind != ROW_STEPS || !trials_known(&t->t, &w, &r)) continue;
        if (share_of(t, &r) < share || share_of(t, &r) >= best) continue;
        best = share_of(t, &r), psnr = r.psnr;
    }
    return psnr;
}

int tune_check_clips(struct tune_clip *clip, const struct tune *t, const struct bench_rows *rows)
{
    int n = 0;
    for (int i = 0; i < t->n_verify; i++) {
        struct trial_what w = {.prompt = t->verify.line[i % t->verify.n],
                               .seed = TUNE_SEED_VERIFY + (uint64_t)i,
                               .row = rows->at[0].text};
        struct trial r;
        if (!trials_known(&t->t, &w, &r)) continue;
        clip[n++] = (struct tune_clip){.prompt = w.prompt,
                                       .seed = w.seed,
                                       .share = share_of(t, &r),
                                       .psnr = r.psnr,
                                       .ssim = r.ssim,
                                       .estimate = r.estimate,
                                       .rival = rival_of(t, rows, w, share_of(t, &r))};
    }
    return n;
}

static const char *db(char buf[16], double v)
{
    snprintf(buf, 16, v >= TRIAL_EQUAL ? "equal" : "%.1f", v);
    return buf;
}

/* What an error budget promised, and what became of it. */
static void put_budget(FILE *to, double budget, const struct tune_clip *clip, int n)
{
    int held = 0, estimated = 0;
    double worst = TRIAL_EQUAL, off = 0, square = 0;
    for (int i = 0; i < n; i++) {
        held += clip[i].psnr >= budget;
        worst = fmin(worst, clip[i].psnr);
        if (!(clip[i].estimate > 0) || clip[i].psnr >= TRIAL_EQUAL) continue;
        double by = clip[i].psnr - clip[i].estimate;
        off += by, square += by * by, estimated++;
    }
    fprintf(to, "error budget %g dB: held by %d of %d clips, worst %.1f dB", budget, held, n,
            worst);
    if (estimated)
        fprintf(to,
                "; clips are %+.1f dB from their estimates in the mean, %.1f dB root mean square",
                off / estimated, sqrt(square / estimated));
    fputs("\n\n", to);
}

/* dB gained over fewer steps; nothing is where exact itself is not slower. */
static const char *gain(char buf[16], double psnr, double rival)
{
    snprintf(buf, 16, rival >= TRIAL_EQUAL ? "loses" : "%+.1f", psnr - rival);
    return buf;
}

void tune_check_print(FILE *to, const struct tune_clip *clip, int n, double budget)
{
    double share = 0, psnr = 0, rival = 0, worst = TRIAL_EQUAL, rival_worst = TRIAL_EQUAL;
    char a[16], b[16], c[16], d[16];
    bool all = true; /* have a rival */
    fputs("| clip | share | dB | estimate | SSIM | fewer steps dB | gain "
          "|\n|---|---|---|---|---|---|---|\n",
          to);
    for (int i = 0; i < n; i++) {
        const struct tune_clip *k = &clip[i];
        snprintf(c, sizeof c, k->estimate > 0 ? "%.1f" : "", k->estimate);
        fprintf(to, "| \"%s\", seed %llu | %.2f | %s | %s | %.3f | %s | %s |\n", k->prompt,
                (unsigned long long)k->seed, k->share, db(a, k->psnr), c, k->ssim, db(b, k->rival),
                gain(d, k->psnr, k->rival));
        share += k->share / n, psnr += k->psnr / n, rival += k->rival / n;
        worst = fmin(worst, k->psnr), rival_worst = fmin(rival_worst, k->rival);
        all = all && k->rival < TRIAL_EQUAL;
    }
    if (!all) rival = TRIAL_EQUAL;
    fprintf(to, "| mean | %.2f | %.1f | | | %s | %s |\n| worst | | %.1f | | | %s | %s |\n\n", share,
            psnr, db(a, rival), gain(b, psnr, rival), worst, db(c, rival_worst),
            gain(d, worst, rival_worst));
    if (budget > 0) put_budget(to, budget, clip, n);
}

void tune_check_json(FILE *to, const struct tune_clip *clip, int n, double budget)
{
    fprintf(to, "\"error_budget\": %g, \"clips\": [", budget);
    for (int i = 0; i < n; i++) {
        fprintf(to, "%s\n  {\"prompt\": ", i ? "," : "");
        json_put_string(to, clip[i].prompt);
        fprintf(to,
                ", \"seed\": %llu, \"share\": %.6g, \"psnr\": %.6g, \"estimate\": %.6g, \"ssim\": "
                "%.6g, \"fewer_steps_psnr\": %.6g}",
                (unsigned long long)clip[i].seed, clip[i].share, clip[i].psnr, clip[i].estimate,
                clip[i].ssim, clip[i].rival);
    }
    fputs("]", to);
}
