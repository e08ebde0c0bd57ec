/* Growth with tokens; see bench_growth.h. */
#include "app/cli/bench_growth.h"

#include <math.h>
#include <string.h>

double bench_at_recall(const double *recall, const double *seconds, int n, double wanted)
{
    int below = -1, above = -1;
    for (int i = 0; i < n; i++) {
        if (recall[i] <= wanted && (below < 0 || recall[i] > recall[below])) below = i;
        if (recall[i] >= wanted && (above < 0 || recall[i] < recall[above])) above = i;
    }
    if (below < 0 || above < 0) return (double)NAN;
    if (recall[above] == recall[below]) return seconds[below];
    double part = (wanted - recall[below]) / (recall[above] - recall[below]);
    return exp(log(seconds[below]) + part * (log(seconds[above]) - log(seconds[below])));
}

double bench_power(const int *tokens, const double *seconds, int n)
{
    double x = 0, y = 0, xx = 0, xy = 0, count = 0;
    for (int i = 0; i < n; i++) {
        double a = log((double)tokens[i]), b = log(seconds[i]);
        if (!isfinite(b)) continue;
        x += a, y += b, xx += a * a, xy += a * b, count++;
    }
    double spread = count * xx - x * x;
    return count > 1 && spread > 0 ? (count * xy - x * y) / spread : (double)NAN;
}

struct seen { /* a row at all sizes that are known */
    int n, tokens[BENCH_SIZES];
    struct trial r[BENCH_SIZES];
};

static struct seen seen_of(const struct bench_growth *g, const struct bench_row *row)
{
    struct seen s = {0};
    for (int k = 0; k < g->n_sizes && row->kind == ROW_METHOD; k++) {
        s.tokens[s.n] = bench_replay_tokens(g->t, &g->size[k]);
        s.n += bench_replay_known(g->t, row, s.tokens[s.n], g->steps, &s.r[s.n]);
    }
    return s;
}

static double power_of(const struct seen *s)
{
    double seconds[BENCH_SIZES];
    for (int k = 0; k < s->n; k++)
        seconds[k] = s->r[k].wall;
    return bench_power(s->tokens, seconds, s->n);
}

/* Of the group whose first row is `first`: seconds at the recall, by size. */
static int at_recall(const struct bench_growth *g, int first, int *tokens, double *seconds,
                     double *dense)
{
    int n = 0;
    for (int k = 0; k < g->n_sizes; k++) {
        double recall[16], wall[16];
        int found = 0;
        for (int i = first; i < g->rows->n && found < (int)ARRAY_LEN(recall); i++) {
            struct trial r;
            if (strcmp(g->rows->at[i].group, g->rows->at[first].group) != 0) continue;
            tokens[n] = bench_replay_tokens(g->t, &g->size[k]);
            if (!bench_replay_known(g->t, &g->rows->at[i], tokens[n], g->steps, &r)) continue;
            if (r.recall < 0 || r.wall <= 0) continue;
            recall[found] = r.recall, wall[found] = r.wall;
            dense[n] = r.cpu; /* bench_replay.h: a dense call beside it */
            found++;
        }
        seconds[n] = bench_at_recall(recall, wall, found, BENCH_RECALL);
        n += isfinite(seconds[n]) != 0;
    }
    return n;
}

static void print_at_recall(FILE *to, const struct bench_growth *g)
{
    bool head = false;
    for (int i = 0; i < g->rows->n; i++) {
        int tokens[BENCH_SIZES + 1], n;
        double seconds[BENCH_SIZES + 1], dense[BENCH_SIZES + 1];
        const struct bench_row *row = &g->rows->at[i];
        bool again = row->kind != ROW_METHOD;
        for (int k = 0; k < i; k++)
            again = again || strcmp(g->rows->at[k].group, row->group) == 0;
        if (again || (n = at_recall(g, i, tokens, seconds, dense)) < 2) continue;
        if (!head)
            fprintf(to,
                    "at a recall of %g, between settings: share of dense's seconds\n"
                    "| method | by tokens | grows as tokens to the |\n|---|---|---|\n",
                    BENCH_RECALL);
        head = true;
        fprintf(to, "| `%s` | ", row->group);
        for (int k = 0; k < n; k++)
            fprintf(to, "%s%d: %.2f", k ? ", " : "", tokens[k], seconds[k] / dense[k]);
        fprintf(to, " | %.2f |\n", bench_power(tokens, seconds, n));
    }
    if (head) fputc('\n', to);
}

void bench_growth_print(FILE *to, const struct bench_growth *g)
{
    bool head = false;
    for (int i = 0; i < g->rows->n; i++) {
        struct seen s = seen_of(g, &g->rows->at[i]);
        if (!s.n) continue;
        if (!head)
            fprintf(to,
                    "attention alone, %d exact steps of the model, the middle layer: share of "
                    "dense's seconds / relative L1 / recall, by tokens\n"
                    "| row | by tokens | seconds grow as tokens to the |\n|---|---|---|\n",
                    g->steps);
        head = true;
        fprintf(to, "| `%s` | ", g->rows->at[i].text);
        for (int k = 0; k < s.n; k++)
            fprintf(to, "%s%d: %.2f / %.3f / %.2f", k ? ", " : "", s.tokens[k], s.r[k].share,
                    s.r[k].error, s.r[k].recall);
        if (s.n > 1)
            fprintf(to, " | %.2f |\n", power_of(&s));
        else
            fputs(" | |\n", to);
    }
    if (head) fputc('\n', to);
    print_at_recall(to, g);
}

void bench_growth_json(FILE *to, const struct bench_growth *g)
{
    fputs(", \"replays\": [", to);
    for (int i = 0, any = 0; i < g->rows->n; i++) {
        struct seen s = seen_of(g, &g->rows->at[i]);
        if (!s.n) continue;
        fputs(any++ ? ",\n  {\"row\": " : "\n  {\"row\": ", to);
        json_put_string(to, g->rows->at[i].text);
        if (s.n > 1 && isfinite(power_of(&s))) fprintf(to, ", \"power\": %.6g", power_of(&s));
        fputs(", \"sizes\": [", to);
        for (int k = 0; k < s.n; k++)
            fprintf(to,
                    "%s{\"tokens\": %d, \"share\": %.6g, \"error\": %.6g, \"recall\": %.6g, "
                    "\"computed\": %.6g, \"planning\": %.6g}",
                    k ? ", " : "", s.tokens[k], s.r[k].share, s.r[k].error, s.r[k].recall,
                    s.r[k].computed, s.r[k].planning);
        fputs("]}", to);
    }
    fputc(']', to);
}
