/* Tables of rows; see bench_table.h. */
#include "app/cli/bench_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sums {
    double computed, copied, reused, recall, error, planning, share, psnr, ssim;
    int sampled;
};

static void add(struct bench_line *l, struct sums *s, const struct trial *r, bool cpu)
{
    s->computed += r->computed, s->copied += r->copied, s->reused += r->reused;
    s->planning += r->planning, s->share += cpu ? r->cpu_share : r->share;
    s->psnr += r->psnr, s->ssim += r->ssim;
    if (r->recall >= 0) s->recall += r->recall, s->error += r->error, s->sampled++;
    l->worst = l->n++ ? fmin(l->worst, r->psnr) : r->psnr;
}

static void finish(struct bench_line *l, const struct sums *s)
{
    double n = l->n;
    if (!l->n) return;
    l->computed = s->computed / n, l->copied = s->copied / n, l->reused = s->reused / n;
    l->planning = s->planning / n, l->share = s->share / n;
    l->psnr = s->psnr / n, l->ssim = s->ssim / n;
    l->recall = s->sampled ? s->recall / s->sampled : -1;
    l->error = s->sampled ? s->error / s->sampled : -1;
}

double bench_rival(const struct bench_table *b, double share)
{
    double best = 2, psnr = TRIAL_EQUAL;
    for (int i = 0; i < b->n; i++) {
        const struct bench_line *l = &b->at[i];
        if (l->row->kind != ROW_STEPS || !l->n || l->share < share || l->share >= best) continue;
        best = l->share, psnr = l->psnr;
    }
    return psnr;
}

static int tokens_of(const struct trials *t, const struct bench_table *b)
{
    struct model_clip clip = {.width = b->width, .height = b->height, .frames = b->frames};
    struct dit_grid g = model_grid(&t->d->info, &clip);
    return dit_tokens(&t->d->info.dit, &g);
}

int bench_table_make(struct bench_table *b, const struct trials *t, const struct bench_rows *rows,
                     const struct trial_what *size, char *const *prompt, int prompts, uint64_t seed,
                     bool cpu, struct err *e)
{
    int exact = 0;
    struct trial r;
    *b = (struct bench_table){
        .width = size->width ? size->width : settings_int(t->base, SET_WIDTH),
        .height = size->height ? size->height : settings_int(t->base, SET_HEIGHT),
        .frames = size->frames ? size->frames : settings_int(t->base, SET_FRAMES),
        .steps = settings_int(t->base, SET_STEPS),
        .prompts = prompts,
        .cpu = cpu};
    b->tokens = tokens_of(t, b);
    b->at = calloc((size_t)rows->n + 1, sizeof *b->at);
    if (!b->at) return err_set(e, ERR_RESOURCE, "no memory for a table");
    for (int i = 0; i < prompts; i++) {
        struct trial_what w = *size;
        w.prompt = prompt[i], w.seed = seed + (uint64_t)i, w.row = "";
        if (!trials_known(t, &w, &r)) continue;
        b->exact += cpu ? r.cpu : r.wall;
        exact++;
    }
    if (exact) b->exact /= exact;
    for (int k = 0; k < rows->n; k++) {
        struct bench_line *l = &b->at[b->n++];
        struct sums s = {0};
        l->row = &rows->at[k];
        for (int i = 0; i < prompts; i++) {
            struct trial_what w = *size;
            w.prompt = prompt[i], w.seed = seed + (uint64_t)i, w.row = l->row->text;
            if (trials_known(t, &w, &r)) add(l, &s, &r, cpu);
        }
        finish(l, &s);
    }
    for (int k = 0; k < b->n; k++)
        b->at[k].rival = bench_rival(b, b->at[k].share);
    return 0;
}

void bench_table_free(struct bench_table *b)
{
    free(b->at);
    memset(b, 0, sizeof *b);
}

/* --- printing ----------------------------------------------------------------------------------- */

static const char *db(char buf[16], double v)
{
    snprintf(buf, 16, v >= TRIAL_EQUAL ? "equal" : "%.1f", v);
    return buf;
}

static void print_line(FILE *to, const struct bench_line *l)
{
    char recall[16] = "", error[16] = "", a[16], b[16], c[16], gain[16] = "";
    bool rivals = l->row->kind == ROW_METHOD || l->row->kind == ROW_CACHE;
    if (l->recall >= 0) snprintf(recall, sizeof recall, "%.2f", l->recall);
    if (l->error >= 0) snprintf(error, sizeof error, "%.3f", l->error);
    if (rivals && l->psnr >= TRIAL_EQUAL)
        snprintf(gain, sizeof gain, "%s", l->rival < TRIAL_EQUAL ? "all" : "0");
    else if (rivals && l->rival < TRIAL_EQUAL)
        snprintf(gain, sizeof gain, "%+.1f", l->psnr - l->rival);
    else if (rivals)
        snprintf(gain, sizeof gain, "loses");
    fprintf(to, "| `%s` | %d | %.2f | %s | %s | %.1f | %.2f | %s | %s | %.3f | %s | %s |\n",
            l->row->text, l->n, l->computed * (1 - l->reused), recall, error, 100 * l->planning,
            l->share, db(a, l->psnr), db(b, l->worst), l->ssim, rivals ? db(c, l->rival) : "",
            gain);
}

void bench_table_print(FILE *to, const struct bench_table *b)
{
    fprintf(
        to,
        "%dx%d, %d frames (%d tokens), %d steps, %d prompt%s: exact takes %.1f s (%s) to denoise\n"
        "| row | clips | computed | recall | error | planning %% | share | dB | worst | SSIM | "
        "fewer steps dB | gain |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        b->width, b->height, b->frames, b->tokens, b->steps, b->prompts, b->prompts > 1 ? "s" : "",
        b->exact, b->cpu ? "CPU time" : "by the clock");
    for (int i = 0; i < b->n; i++)
        if (b->at[i].n) print_line(to, &b->at[i]);
    fputc('\n', to);
}

void bench_table_json(FILE *to, const struct bench_table *b)
{
    static const char *const kinds[] = {"method", "step cache", "fewer steps", "another kernel"};
    bool any = false;
    fprintf(to,
            "{\"width\": %d, \"height\": %d, \"frames\": %d, \"tokens\": %d, \"steps\": %d, "
            "\"prompts\": %d, \"clock\": \"%s\", \"exact_seconds\": %.6g, \"rows\": [",
            b->width, b->height, b->frames, b->tokens, b->steps, b->prompts,
            b->cpu ? "cpu" : "wall", b->exact);
    for (int i = 0; i < b->n; i++) {
        const struct bench_line *l = &b->at[i];
        if (!l->n) continue;
        fprintf(to, "%s\n  {\"kind\": \"%s\", \"row\": ", any ? "," : "", kinds[l->row->kind]);
        json_put_string(to, l->row->text);
        fprintf(to,
                ", \"clips\": %d, \"computed\": %.6g, \"copied\": %.6g, \"reused_steps\": %.6g, "
                "\"recall\": %.6g, \"error\": %.6g, \"planning\": %.6g, \"share\": %.6g, "
                "\"psnr\": %.6g, \"worst\": %.6g, \"ssim\": %.6g, \"fewer_steps_psnr\": %.6g}",
                l->n, l->computed, l->copied, l->reused, l->recall, l->error, l->planning, l->share,
                l->psnr, l->worst, l->ssim, l->rival);
        any = true;
    }
    fputs("]}", to);
}
