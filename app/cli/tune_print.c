/* What tune found, for people and programs; see tune.h. */
#include "app/cli/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/ini.h"

/* --- profile ------------------------------------------------------------------------------------ */

static void put_target(FILE *to, const struct tune_target *t)
{
    if (t->db > 0) fprintf(to, " at least %g dB", t->db);
    if (t->ssim > 0) fprintf(to, " SSIM of at least %g", t->ssim);
    if (t->share > 0) fprintf(to, " at most %.2f of exact's seconds", t->share);
}

static void put_figures(FILE *to, const char *when, const struct bench_table *b,
                        const struct bench_line *l)
{
    char rival[48] = "exact itself is not slower";
    if (l->rival < TRIAL_EQUAL)
        snprintf(rival, sizeof rival, "as many seconds of fewer steps: %.1f dB", l->rival);
    fprintf(
        to, "# %s: %.2f of exact's seconds to denoise (%s), %.1f dB, worst %.1f, SSIM %.3f; %s\n",
        when, l->share, b->cpu ? "CPU time" : "by the clock", l->psnr, l->worst, l->ssim, rival);
}

static void put_prompts(FILE *to, const char *what, const struct prompts *p, int n, int seed)
{
    fprintf(to, "# %s, seeds from %d on:\n", what, seed);
    for (int i = 0; i < n; i++)
        fprintf(to, "#   %s\n", p->line[i]);
}

void tune_figures(FILE *to, const struct tune_found *f, const struct ditgen_settings *base)
{
    const struct bench_table *b = f->verify ? f->verify : f->search;
    fprintf(to, "# %s\n# model %s, %dx%d, %d frames, %d tokens, %s %d steps; wanted:", f->command,
            f->model, b->width, b->height, b->frames, b->tokens, settings_text(base, SET_SOLVER),
            b->steps);
    put_target(to, f->target);
    fputc('\n', to);
    for (int i = 0; i < f->search->n; i++)
        if (strcmp(f->search->at[i].row->text, f->line->row->text) == 0)
            put_figures(to, "searched", f->search, &f->search->at[i]);
    if (f->verify) put_figures(to, "verified", f->verify, f->line);
    put_prompts(to, "searched with", f->lists[0], f->n_lists[0], TUNE_SEED_SEARCH);
    if (f->verify) put_prompts(to, "verified with", f->lists[1], f->n_lists[1], TUNE_SEED_VERIFY);
}

int tune_profile(FILE *to, const struct tune_found *f, const struct ditgen_settings *base)
{
    const struct bench_table *b = f->verify ? f->verify : f->search;
    char quoted[512];
    fprintf(to, "# %s%.2f of exact's seconds and %.1f dB at %dx%d, %d frames%s\n",
            f->verify ? "" : "not verified: ", f->line->share, f->line->psnr, b->width, b->height,
            b->frames, f->verify ? "" : " (broken off)");
    tune_figures(to, f, base);
    fputs("[ditgen]\n", to);
    char *row = strdup(f->line->row->text);
    for (char *at = row; at && *at;) {
        char *end = strchr(at, ';'), *value = strchr(at, '=');
        if (end) *end = 0;
        *value++ = 0;
        ini_quote(quoted, sizeof quoted, value);
        fprintf(to, "%s = %s\n", at, quoted);
        at = end ? end + 1 : NULL;
    }
    bool failed = !row;
    free(row);
    return failed ? -1 : 0;
}

/* --- table and JSON ----------------------------------------------------------------------------- */

static int by_share(const void *a, const void *b)
{
    const struct bench_line *x = *(struct bench_line *const *)a,
                            *y = *(struct bench_line *const *)b;
    return (x->share > y->share) - (x->share < y->share);
}

void tune_table(FILE *to, const struct bench_table *b, const bool *front)
{
    struct bench_line **sorted = calloc((size_t)b->n + 1, sizeof *sorted);
    int n = 0;
    for (int i = 0; sorted && i < b->n; i++)
        if (front[i] || (b->at[i].row->kind == ROW_STEPS && b->at[i].n)) sorted[n++] = &b->at[i];
    if (n) qsort(sorted, (size_t)n, sizeof(struct bench_line *), by_share);
    fprintf(
        to,
        "%dx%d, %d frames (%d tokens), %d steps, %d prompt%s: exact takes %.1f s (%s)\n"
        "| share | dB | worst | SSIM | on the frontier | settings |\n|---|---|---|---|---|---|\n",
        b->width, b->height, b->frames, b->tokens, b->steps, b->prompts, b->prompts > 1 ? "s" : "",
        b->exact, b->cpu ? "CPU time" : "by the clock");
    for (int i = 0; i < n; i++)
        fprintf(to, "| %.2f | %.1f | %.1f | %.3f | %s | `%s` |\n", sorted[i]->share,
                sorted[i]->psnr, sorted[i]->worst, sorted[i]->ssim,
                front[sorted[i] - b->at] ? "yes" : "no", sorted[i]->row->text);
    fputc('\n', to);
    free(sorted);
}

void tune_json(FILE *to, const struct tune_found *f, const bool *front)
{
    const struct bench_table *b = f->verify ? f->verify : f->search;
    fprintf(to, "{\"verified\": %s, \"chosen\": ", f->verify ? "true" : "false");
    if (f->line)
        json_put_string(to, f->line->row->text);
    else
        fputs("null", to);
    fputs(", \"frontier\": [", to);
    for (int i = 0, any = 0; i < b->n; i++) {
        if (!front[i]) continue;
        fputs(any++ ? ", " : "", to);
        json_put_string(to, b->at[i].row->text);
    }
    fputs("], \"table\": ", to);
    bench_table_json(to, b);
    if (f->verify) {
        fputs(", \"search\": ", to);
        bench_table_json(to, f->search);
    }
    fputs("}\n", to);
}

/* --- picture ------------------------------------------------------------------------------------ */

#define WIDE 900.0
#define HIGH 560.0
#define LEFT 60.0
#define BELOW 50.0

struct plot {
    double least, most; /* dB */
};

static double x_of(double share)
{
    return LEFT + fmin(fmax(share, 0), 1.2) / 1.2 * (WIDE - LEFT - 20);
}

static double y_of(const struct plot *p, double db)
{
    double v = fmin(fmax(db, p->least), p->most);
    return 20 + (p->most - v) / (p->most - p->least) * (HIGH - BELOW - 20);
}

static void put_text(FILE *to, const char *text)
{
    for (; *text; text++)
        if (*text == '<' || *text == '&')
            fputs(*text == '<' ? "&lt;" : "&amp;", to);
        else
            fputc(*text, to);
}

static void put_line(FILE *to, const struct plot *p, struct bench_line **at, int n,
                     const char *colour, const char *dash)
{
    if (n < 2) return;
    fprintf(to, "<polyline fill=\"none\" stroke=\"%s\" stroke-dasharray=\"%s\" points=\"", colour,
            dash);
    for (int i = 0; i < n; i++)
        fprintf(to, "%.1f,%.1f ", x_of(at[i]->share), y_of(p, at[i]->psnr));
    fputs("\"/>\n", to);
}

static void put_axes(FILE *to, const struct plot *p, const char *title)
{
    fprintf(to,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
            "fill=\"white\"/>\n<text x=\"%.0f\" y=\"14\">",
            WIDE, HIGH, LEFT);
    put_text(to, title);
    fputs("</text>\n", to);
    for (int i = 0; i <= 6; i++)
        fprintf(to,
                "<line x1=\"%.1f\" y1=\"20\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/><text "
                "x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.1f</text>\n",
                x_of(0.2 * i), x_of(0.2 * i), HIGH - BELOW, x_of(0.2 * i), HIGH - BELOW + 16,
                0.2 * i);
    for (double db = ceil(p->least / 5) * 5; db <= p->most; db += 5)
        fprintf(to,
                "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/><text "
                "x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>\n",
                LEFT, y_of(p, db), WIDE - 20, y_of(p, db), LEFT - 6, y_of(p, db) + 4, db);
    fprintf(to,
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">seconds beside exact's</text>\n"
            "<text transform=\"translate(16 %.1f) rotate(-90)\" text-anchor=\"middle\">dB against "
            "exact</text>\n",
            WIDE / 2, HIGH - 12, HIGH / 2);
}

void tune_svg(FILE *to, const struct bench_table *b, const bool *front, const char *title)
{
    static const char *const colours[] = {"#1f77b4", "#2ca02c", "#d62728", "#7f7f7f"};
    struct bench_line **line = calloc((size_t)b->n + 1, sizeof *line),
                      **steps = calloc((size_t)b->n + 1, sizeof *steps);
    struct plot p = {.least = 100, .most = 0};
    int n = 0, m = 0;
    for (int i = 0; line && steps && i < b->n; i++) {
        struct bench_line *l = &b->at[i];
        if (!l->n) continue;
        if (l->psnr < p.least) p.least = l->psnr;
        if (l->psnr < TRIAL_EQUAL && l->psnr > p.most) p.most = l->psnr;
        if (front[i]) line[n++] = l;
        if (l->row->kind == ROW_STEPS && strcmp(l->row->group, "steps") == 0) steps[m++] = l;
    }
    p.least = floor(p.least - 1), p.most = ceil(p.most + 2);
    if (p.most <= p.least) p.least = 0, p.most = 60;
    if (n) qsort(line, (size_t)n, sizeof(struct bench_line *), by_share);
    if (m) qsort(steps, (size_t)m, sizeof(struct bench_line *), by_share);
    put_axes(to, &p, title);
    put_line(to, &p, steps, m, colours[ROW_STEPS], "4 3");
    put_line(to, &p, line, n, "#333", "");
    for (int i = 0; i < b->n; i++) {
        const struct bench_line *l = &b->at[i];
        if (!l->n) continue;
        fprintf(to, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\"><title>", x_of(l->share),
                y_of(&p, l->psnr), front[i] ? 5 : 3, colours[l->row->kind]);
        put_text(to, l->row->text);
        fprintf(to, ": %.2f, %.1f dB</title></circle>\n", l->share, l->psnr);
        if (!front[i]) continue;
        fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"10\">", x_of(l->share) + 7,
                y_of(&p, l->psnr) + 12);
        put_text(to, l->row->text);
        fputs("</text>\n", to);
    }
    fprintf(to,
            "<text x=\"%.0f\" y=\"%.0f\" font-size=\"10\">blue: methods of attention; green: step "
            "caches; red, dashed: fewer steps; grey: dense by another kernel; black: the "
            "frontier</text>\n</svg>\n",
            LEFT, HIGH - 26);
    free(line);
    free(steps);
}
