/* Rows on a run's own q, k and v; see bench_replay.h. */
#include "app/cli/bench_replay.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/stop.h"
#include "app/cli/trial_log.h"
#include "model/base/clock.h"

struct bed { /* one row, or dense: its own handle of one layer and branch */
    const struct bench_row *row; /* NULL: dense */
    struct attn *attn;
    struct arena arena;
    double seconds, error, size;
    int calls;
};

struct replay {
    struct trials *t;
    struct bed *bed; /* [n], dense first */
    int n, layer, steps;
    struct attn_params params;
    float *o;
    struct err failed;
    bool whole, stopped;
};

static void key_of(char *key, size_t n, const struct trials *t, const char *row, int tokens,
                   int steps)
{
    snprintf(key, n, "%016llx threads %d replay %d tokens %d steps %s", (unsigned long long)t->mark,
             settings_int(t->base, SET_THREADS), tokens, steps, row);
}

bool bench_replay_known(const struct trials *t, const struct bench_row *row, int tokens, int steps,
                        struct trial *out)
{
    char key[512];
    key_of(key, sizeof key, t, row->text, tokens, steps);
    for (int i = t->n_known; i-- > 0;)
        if (strcmp(t->known[i].key, key) == 0) {
            *out = t->known[i].t;
            return true;
        }
    return false;
}

int bench_replay_tokens(const struct trials *t, const struct trial_what *size)
{
    struct model_clip clip = {
        .width = size->width ? size->width : settings_int(t->base, SET_WIDTH),
        .height = size->height ? size->height : settings_int(t->base, SET_HEIGHT),
        .frames = size->frames ? size->frames : settings_int(t->base, SET_FRAMES)};
    struct dit_grid g = model_grid(&t->d->info, &clip);
    return dit_tokens(&t->d->info.dit, &g);
}

/* --- beside the run ----------------------------------------------------------------------------- */

static int open_bed(struct replay *r, struct bed *b, const struct attn_shape *s, struct err *e)
{
    struct attn_shape one = *s;
    struct arena count = {0};
    struct attn *none;
    one.n_layers = one.n_branches = 1;
    r->params.method = b->row ? strchr(b->row->text, '=') + 1 : NULL;
    if (attn_open(&none, &r->params, &one, &count, e) < 0) return -1;
    if (arena_open(&b->arena, count.used, e) < 0) return -1;
    return attn_open(&b->attn, &r->params, &one, &b->arena, e);
}

static int run_bed(struct replay *r, struct bed *b, const struct attn_shape *s,
                   const struct attn_call *c, struct err *e)
{
    size_t n = (size_t)s->grid_t * (size_t)s->grid_h * (size_t)s->grid_w * (size_t)s->n_heads *
               (size_t)s->head_dim;
    struct attn_call mine = *c;
    enum attn_ask answer;
    if (!b->attn && open_bed(r, b, s, e) < 0) return -1;
    mine.at.layer = mine.at.branch = mine.at.n_branches = 0;
    mine.o = r->o;
    double begin = clock_seconds();
    if (attn_ask(b->attn, &mine.at, r->o, &answer, e) < 0) return -1;
    if (answer == ATTN_ASK_COMPUTE) {
        if (attn_run(b->attn, &mine, e) < 0 || attn_keep(b->attn, &mine.at, r->o, e) < 0) return -1;
    }
    if (c->at.step == 0) return 0; /* memory is touched for the first time, and the step is exact */
    b->seconds += clock_seconds() - begin;
    b->calls++;
    for (size_t i = 0; i < n; i++) {
        b->error += fabs((double)r->o[i] - (double)c->o[i]);
        b->size += fabs((double)c->o[i]);
    }
    return 0;
}

static void on_call(void *ctx, const struct attn_shape *s, const struct attn_call *c)
{
    struct replay *r = ctx;
    size_t n = (size_t)s->grid_t * (size_t)s->grid_h * (size_t)s->grid_w * (size_t)s->n_heads *
               (size_t)s->head_dim;
    if (c->at.layer != r->layer || c->at.branch != 0 || r->failed.code) return;
    if (!r->o && !(r->o = malloc(n * sizeof *r->o))) {
        err_set(&r->failed, ERR_RESOURCE, "no memory to replay attention");
        return;
    }
    for (int i = 0; i < r->n && !stop_asked(); i++)
        if (run_bed(r, &r->bed[i], s, c, &r->failed) < 0) return;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct replay *r = ctx;
    if (p->phase == DITGEN_DENOISE && p->block == 0 && p->done)
        progress_say(r->t->progress, "replay, step %d of %d", p->done, p->total);
    r->stopped = stop_asked();
    return r->stopped || r->failed.code;
}

static int on_latents(void *ctx, const float *latents, const int shape[4])
{
    struct replay *r = ctx;
    (void)latents, (void)shape;
    r->whole = true;
    return 1;
}

/* --- a size ------------------------------------------------------------------------------------- */

static int keep(struct replay *r, int tokens, struct err *e)
{
    const struct bed *dense = &r->bed[0];
    for (int i = 1; i < r->n; i++) {
        const struct bed *b = &r->bed[i];
        struct attn_stats s;
        char key[512];
        attn_stats(b->attn, &s);
        struct trial out = {.wall = b->seconds / b->calls,
                            .cpu = dense->seconds / dense->calls,
                            .share = b->seconds / dense->seconds,
                            .cpu_share = b->seconds / dense->seconds,
                            .computed = s.density,
                            .copied = (double)s.copies / (double)s.calls,
                            .error = b->size > 0 ? b->error / b->size : 0,
                            .recall = s.sampled ? s.recall : -1,
                            .planning = s.planning};
        key_of(key, sizeof key, r->t, b->row->text, tokens, r->steps);
        if (trial_log_add(r->t, key, &out, e) < 0) return -1;
    }
    return 0;
}

static int replay_size(struct replay *r, const struct trial_what *size, struct err *e)
{
    struct trials *t = r->t;
    struct trial_what w = *size;
    struct ditgen_settings *s = NULL;
    struct ditgen_error de;
    struct run run;
    struct attn_watch watch = {.ran = on_call, .ctx = r};
    struct ditgen_callbacks calls = {.ctx = r, .progress = on_progress, .latents = on_latents};
    char steps[32];
    snprintf(steps, sizeof steps, "steps=%d", r->steps);
    w.row = steps;
    if (trial_settings(&s, t, &w, e) < 0) return -1;
    int rc = run_init(&run, t->d, s, NULL, e);
    if (rc == 0) {
        r->params = run.params.attn; /* the kernels and threads of the run */
        r->params.log = NULL;
        r->params.watch = NULL;
        r->layer = t->d->info.dit.n_layers / 2;
        run_fini(&run);
        r->params.kernel = settings_text(s, SET_KERNEL);
        t->d->attn_watch = &watch;
        ditgen_generate(t->d, s, &calls, &de);
        t->d->attn_watch = NULL;
        if (!r->whole) rc = err_set(e, (enum err_code)de.code, "%s", de.message);
        if (r->failed.code) *e = r->failed, rc = -1;
    }
    settings_close(s);
    return rc;
}

int bench_replay(struct trials *t, const struct bench_rows *rows, const struct trial_what *size,
                 int steps, struct err *e)
{
    struct replay r = {.t = t, .steps = steps, .n = 1};
    int tokens = bench_replay_tokens(t, size);
    struct trial known;
    r.bed = calloc((size_t)rows->n + 1, sizeof *r.bed);
    if (!r.bed) return err_set(e, ERR_RESOURCE, "no memory to replay attention");
    for (int i = 0; i < rows->n; i++)
        if (rows->at[i].kind == ROW_METHOD &&
            !bench_replay_known(t, &rows->at[i], tokens, steps, &known))
            r.bed[r.n++].row = &rows->at[i];
    int rc = r.n > 1 ? replay_size(&r, size, e) : 0;
    if (rc == 0 && r.n > 1) rc = keep(&r, tokens, e);
    for (int i = 0; i < r.n; i++) {
        attn_close(r.bed[i].attn);
        arena_close(&r.bed[i].arena);
    }
    free(r.o);
    free(r.bed);
    return rc;
}
