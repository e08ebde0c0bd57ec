/* Step caches against a scalar transcription of attention-kernels.md 5, on a tiny transformer: which
 * steps are left out and what velocity stands for them. What all of them promise: test_caches.c. */
#include "tests/unit/dit/cache_run.h"

static double d1(const float *a, const float *b, size_t n)
{
    double moved = 0, size = 0;
    for (size_t i = 0; i < n; i++)
        moved += fabs((double)a[i] - (double)b[i]), size += fabs((double)b[i]);
    return moved / size;
}

static double mean_abs(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += fabs((double)a[i] - (b ? (double)b[i] : 0));
    return sum / (double)n;
}

/* What the room of the transformer gives in one step without a cache, as values. */
struct inside {
    float *in[2], *first[2], *out[2]; /* streams in front of block 0, behind it, behind the last */
    float *temb, *time6;
    size_t stream, n_temb;
};

static void forward(struct dit *d, const struct sample *s, int i, struct inside *f)
{
    struct dit_run *r = &d->run;
    struct err e = {0};
    struct dit_call c = {.step = i, .n_branches = 2, .timestep = s->time[i]};
    f->stream = (size_t)r->tokens * (size_t)r->width;
    f->n_temb = (size_t)r->width;
    CHECK_OK(dit_set_time(d, &c, &e));
    CHECK_OK(dit_embed_time(d, &e));
    f->temb = r->temb.at, f->time6 = r->time6.at;
    CHECK_OK(dit_embed_latents(d, s->latents[i], 2, &e));
    for (int layer = 0; layer < d->config.n_layers; layer++) {
        for (int b = 0; b < 2 && layer == 0; b++)
            memcpy(f->in[b], (float *)r->streams.at + (size_t)b * f->stream,
                   f->stream * sizeof(float));
        CHECK_OK(dit_block_run(d, layer, &c, &e));
        for (int b = 0; b < 2 && layer == 0; b++)
            memcpy(f->first[b], (float *)r->streams.at + (size_t)b * f->stream,
                   f->stream * sizeof(float));
    }
    for (int b = 0; b < 2; b++)
        memcpy(f->out[b], (float *)r->streams.at + (size_t)b * f->stream,
               f->stream * sizeof(float));
}

static void head(struct dit *d, const struct inside *f, const float *stream, float *velocity)
{
    struct err e = {0};
    dit_stream(&d->run, 0, 1);
    memcpy(d->run.x.at, stream, f->stream * sizeof(float));
    CHECK_OK(dit_head(d, &velocity, 0, 1, &e));
}

enum which { TEA_MODULATION, TEA_TIME, FIRST, MAG, EASY };

/* d: prepared without a cache. Steps [0, first) and [last, STEPS) are computed. */
static void transcribe(struct dit *d, struct sample *s, enum which which, double threshold,
                       int most, int first, int last)
{
    struct inside f = {0};
    size_t len = (size_t)d->run.tokens * (size_t)d->run.width, n = s->n;
    float *r[2], *u = NULL, *h = malloc(len * sizeof *h), *h_ref = calloc(len, sizeof *h_ref);
    float *x_prev = calloc(n, sizeof *x_prev), *x_computed = calloc(n, sizeof *x_computed),
          *v_prev = calloc(n, sizeof *v_prev), *easy[2];
    double acc = 0, a[2] = {1, 1}, err[2] = {0, 0}, k = -1;
    int in_row = 0, computed = 0;
    for (int b = 0; b < 2; b++) {
        f.in[b] = malloc(len * sizeof(float)), f.first[b] = malloc(len * sizeof(float));
        f.out[b] = malloc(len * sizeof(float)), r[b] = calloc(len, sizeof(float));
        easy[b] = calloc(n, sizeof(float));
    }
    for (int t = 0; t < STEPS; t++) {
        bool skip = false;
        forward(d, s, t, &f);
        if (which == TEA_MODULATION || which == TEA_TIME) {
            size_t m = which == TEA_TIME ? f.n_temb : 6 * f.n_temb;
            const float *now = which == TEA_TIME ? f.temb : f.time6;
            const double *p = calibration.poly[which == TEA_TIME];
            if (u) {
                double x = d1(now, u, m),
                       y = p[0] * x * x * x * x + p[1] * x * x * x + p[2] * x * x + p[3] * x + p[4];
                acc += y > 0 ? y : 0;
            }
            if (!u) u = malloc(m * sizeof *u);
            memcpy(u, now, m * sizeof *u);
            skip = acc < threshold;
        } else if (which == FIRST) {
            for (size_t i = 0; i < len; i++)
                h[i] = f.first[0][i] - f.in[0][i];
            skip = t > 0 && d1(h, h_ref, len) <= threshold;
        } else if (which == MAG) {
            skip = in_row + 1 <= most;
            for (int b = 0; b < 2; b++) {
                a[b] *= (double)ratio[2 * t + b];
                err[b] += fabs(1 - a[b]);
                skip = skip && err[b] <= threshold;
            }
        } else if (k >= 0 && t >= first) {
            acc += k * mean_abs(s->latents[t], x_prev, n) / mean_abs(v_prev, NULL, n);
            skip = acc < threshold;
        }
        if (t < first || t >= last) skip = false;
        s->skipped[t] = skip;
        for (int b = 0; b < 2; b++) {
            float *from = which == FIRST ? f.first[b] : f.in[b];
            for (size_t i = 0; i < len; i++) {
                if (!skip) r[b][i] = f.out[b][i] - from[i];
                from[i] = skip ? from[i] + r[b][i] : f.out[b][i];
            }
            head(d, &f, from, s->velocity[t][b]);
            if (which != EASY) continue;
            for (size_t i = 0; i < n; i++) {
                if (!skip) easy[b][i] = s->velocity[t][b][i] - s->latents[t][i];
                if (skip) s->velocity[t][b][i] = s->latents[t][i] + easy[b][i];
            }
        }
        memcpy(x_prev, s->latents[t], n * sizeof(float));
        in_row = skip ? in_row + 1 : 0;
        if (skip) continue;
        acc = 0;
        memcpy(h_ref, h, len * sizeof *h);
        a[0] = a[1] = 1, err[0] = err[1] = 0;
        if (computed++)
            k = mean_abs(s->velocity[t][0], v_prev, n) / mean_abs(s->latents[t], x_computed, n);
        memcpy(x_computed, s->latents[t], n * sizeof(float));
        memcpy(v_prev, s->velocity[t][0], n * sizeof(float));
    }
    for (int b = 0; b < 2; b++)
        free(f.in[b]), free(f.first[b]), free(f.out[b]), free(r[b]), free(easy[b]);
    free(u), free(h), free(h_ref), free(x_prev), free(x_computed), free(v_prev);
}

static void against(struct dit *d, const char *name, const char *more, enum which which,
                    double threshold, int most, int first, int last, int *mixed)
{
    struct sample want = {0}, got = {0};
    struct err e = {0};
    char words[200], text[2][STEPS + 1] = {"", ""};
    snprintf(words, sizeof words, "%s:threshold=%g,first=%d,last=%d%s", name, threshold, first,
             STEPS - last, more);
    if (which == MAG)
        snprintf(words + strlen(words), sizeof words - strlen(words), ",most=%d", most);
    sample_open(&want, d), sample_open(&got, d);
    CHECK_OK(prepare(d, NULL, &e));
    transcribe(d, &want, which, threshold, most, first, last);
    CHECK_OK(prepare(d, words, &e));
    steps(d, &got, 0, STEPS, true);
    for (int i = 0; i < STEPS; i++)
        text[0][i] = want.skipped[i] ? '-' : 'c', text[1][i] = got.skipped[i] ? '-' : 'c';
    CHECK_MSG(strcmp(text[0], text[1]) == 0, "%s: steps %s, transcribed %s", words, text[1],
              text[0]);
    CHECK_MSG(same(&want, &got, 0), "%s: other velocities", words);
    int n = left_out(&got);
    if (n > 0 && n < last - first) ++*mixed;
    printf("%-60s %s\n", words, text[1]);
    sample_close(&want), sample_close(&got);
}

static void transcriptions(void)
{
    static const struct {
        const char *name, *more;
        enum which which;
        double thresholds[3];
    } cases[] = {
        {"teacache", "", TEA_MODULATION, {2, 5, 20}},
        {"teacache", ",of=time", TEA_TIME, {0.1, 0.3, 0.6}},
        {"firstblock", "", FIRST, {0.5, 0.8, 1.2}},
        {"magcache", "", MAG, {0.03, 0.1, 0.4}},
        {"easycache", "", EASY, {1, 2, 4}},
    };
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    if (!d) return;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int mixed = 0;
        for (int k = 0; k < 3; k++)
            against(d, cases[i].name, cases[i].more, cases[i].which, cases[i].thresholds[k], 2 + k,
                    1 + k, STEPS - k, &mixed);
        CHECK_MSG(mixed > 0, "%s: no threshold left out some steps", cases[i].name);
    }
    dit_close(d);
}

int main(void)
{
    cache_run_begin();
    transcriptions();
    return TEST_RESULT();
}
