/* bench attention: what every method saves and loses, beside fewer steps. */
#include "app/cli/bench_attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/bench_growth.h"
#include "app/cli/bench_replay.h"
#include "app/cli/bench_table.h"
#include "app/cli/cli.h"
#include "app/cli/prompts.h"
#include "app/cli/stop.h"

#define SEED 9001 /* of the first prompt of the list that verifies */
#define BEST 8 /* rows that go to the second size */
#define REPLAY_SIZES BENCH_SIZES

static const char USAGE[] =
    "ditgen bench attention [--quick] [--resume] [--log FILE] [--clock wall|cpu] [--json] [flags "
    "of "
    "generate]\n"
    "  --quick       one prompt, one setting a method, 12 steps and 17 frames unless said, one "
    "size\n"
    "  --resume      goes on with what the log has: Ctrl-C loses at most the clip under way\n"
    "  --log FILE    JSON lines, one a clip (default bench-attention.jsonl)\n"
    "  --clock cpu   shares by the CPU time of all threads: on a machine that others use\n"
    "  --list FILE   prompts, one a line, instead of the model's prompts/NAME-verify.txt\n"
    "  --json        one JSON object instead of tables\n"
    "  --table       only what the log has, nothing is made\n"
    "At the size that is set: every method at three settings, step caches, fewer steps, and dense "
    "by\n"
    "another kernel, on two prompts. At 1.5 times its width and height: the eight rows that gain "
    "most\n"
    "over fewer steps, on four prompts. At these and at twice the width and height: attention "
    "alone, on\n"
    "the q, k and v of a few exact steps. dB and SSIM are against exact of equal seeds; the rival "
    "is\n"
    "the fewest exact steps that are not faster.\n";

struct bench {
    bool quick, resume, json, cpu, help, table;
    const char *log, *list;
    struct progress progress;
    struct trials t;
    struct prompts prompts;
    struct bench_rows rows, best;
    int n_prompts[2];
    struct trial_what size[REPLAY_SIZES];
    int n_sizes, replay_steps;
};

/* --- what is made ------------------------------------------------------------------------------- */

static struct trial_what what_of(const struct bench *b, int stage, int prompt, const char *row)
{
    struct trial_what w = b->size[stage];
    w.prompt = b->prompts.line[prompt % b->prompts.n];
    w.seed = SEED + (uint64_t)prompt;
    w.row = row;
    return w;
}

/* Sizes of the second and third stage: the nearest that the model can do. */
static void choose_sizes(struct bench *b)
{
    static const double times[REPLAY_SIZES] = {1, 1.5, 2};
    const struct ditgen_settings *s = b->t.base;
    for (int i = 0; i < REPLAY_SIZES; i++) {
        int side[2] = {settings_int(s, SET_WIDTH), settings_int(s, SET_HEIGHT)}, above;
        for (int k = 0; i && k < 2; k++)
            (k ? ditgen_height_near : ditgen_width_near)(b->t.d, (int)lrint(side[k] * times[i]),
                                                         &side[k], &above);
        b->size[i] = (struct trial_what){.width = side[0], .height = side[1]};
    }
    b->n_prompts[0] = b->quick ? 1 : 2;
    b->n_prompts[1] = b->quick ? 0 : 4;
    b->n_sizes = b->quick ? 2 : REPLAY_SIZES;
    b->replay_steps = b->quick ? 3 : 5;
}

static int predict(struct bench *b, double *seconds, int *clips, struct err *e)
{
    *seconds = 0, *clips = 0;
    for (int p = 0; p < b->n_prompts[0]; p++)
        for (int i = -1; i < b->rows.n; i++) {
            struct trial_what w = what_of(b, 0, p, i < 0 ? "" : b->rows.at[i].text);
            double one;
            if (trials_predict(&b->t, &w, &one, e) < 0) return -1;
            *seconds += one;
            *clips += one > 0 && i >= 0;
        }
    for (int p = 0; p < b->n_prompts[1]; p++) { /* which ones is not known yet: as exact ones */
        struct trial_what w = what_of(b, 1, p, "");
        double one;
        if (trials_predict(&b->t, &w, &one, e) < 0) return -1;
        *seconds += one * (BEST + 3);
        *clips += BEST + 4;
    }
    for (int i = 0; i < b->n_sizes; i++) {
        struct trial_what w = what_of(b, i, 0, "");
        double one;
        if (trials_predict(&b->t, &w, &one, e) < 0) return -1;
        /* each row costs a layer and a branch of each step */
        *seconds += one * b->replay_steps / settings_int(b->t.base, SET_STEPS) *
                    (1 + 0.5 * b->rows.n / b->t.d->info.dit.n_layers);
    }
    return 0;
}

static int stage(struct bench *b, int at, const struct bench_rows *rows, struct err *e)
{
    for (int p = 0; p < b->n_prompts[at]; p++)
        for (int i = 0; i < rows->n; i++) {
            struct trial_what w = what_of(b, at, p, rows->at[i].text);
            struct trial ignored;
            if (trials_get(&b->t, &w, &ignored, e) < 0) return -1;
        }
    return 0;
}

static double gain_of(const struct bench_line *l)
{
    return l->psnr - (l->rival >= TRIAL_EQUAL ? 2 * TRIAL_EQUAL : l->rival);
}

/* The rows that gain most, the best of a group each, and what they are held against. */
static int choose_best(struct bench *b, struct err *e)
{
    struct bench_table first;
    int rc = bench_table_make(&first, &b->t, &b->rows, &b->size[0], b->prompts.line,
                              b->n_prompts[0], SEED, b->cpu, e);
    if (rc < 0) return -1;
    for (int i = 0; rc == 0 && i < b->rows.n; i++) {
        const struct bench_row *r = &b->rows.at[i];
        if (r->kind == ROW_STEPS || r->kind == ROW_KERNEL)
            rc = bench_rows_add(&b->best, r->kind, r->setting, r->group, r->text, e);
    }
    for (int n = 0; rc == 0 && n < BEST; n++) {
        const struct bench_line *most = NULL;
        for (int i = 0; i < first.n; i++) {
            const struct bench_line *l = &first.at[i];
            bool taken = !l->n || l->row->kind == ROW_STEPS || l->row->kind == ROW_KERNEL;
            for (int k = 0; k < b->best.n; k++)
                taken = taken || strcmp(b->best.at[k].group, l->row->group) == 0;
            if (!taken && (!most || gain_of(l) > gain_of(most))) most = l;
        }
        if (!most) break;
        rc = bench_rows_add(&b->best, most->row->kind, most->row->setting, most->row->group,
                            most->row->text, e);
    }
    bench_table_free(&first);
    return rc;
}

static int make_all(struct bench *b, struct err *e)
{
    double seconds;
    int clips;
    char text[40];
    if (predict(b, &seconds, &clips, e) < 0) return -1;
    seconds_text(text, sizeof text, seconds);
    progress_say(
        &b->progress,
        "%d clips and %d replays: about %s; Ctrl-C keeps what is made in %s, --resume goes "
        "on",
        clips, b->n_sizes, text, b->log);
    trials_plan(&b->t, clips, seconds);
    if (stage(b, 0, &b->rows, e) < 0) return -1;
    if (choose_best(b, e) < 0) return -1;
    if (stage(b, 1, &b->best, e) < 0) return -1;
    for (int i = 0; i < b->n_sizes; i++) {
        struct trial_what w = what_of(b, i, 0, "");
        if (bench_replay(&b->t, &b->rows, &w, b->replay_steps, e) < 0) return -1;
    }
    return 0;
}

/* --- what is printed ---------------------------------------------------------------------------- */

static int print_all(const struct bench *b, struct err *e)
{
    const struct bench_rows *rows[2] = {&b->rows, &b->best};
    if (b->json) fputs("{\"tables\": [", stdout);
    for (int i = 0; i < 2; i++) {
        struct bench_table table;
        if (!b->n_prompts[i] || !rows[i]->n) continue;
        if (bench_table_make(&table, &b->t, rows[i], &b->size[i], b->prompts.line, b->n_prompts[i],
                             SEED, b->cpu, e) < 0)
            return -1;
        if (b->json && i) fputs(",\n", stdout);
        (b->json ? bench_table_json : bench_table_print)(stdout, &table);
        bench_table_free(&table);
    }
    if (b->json) putchar(']');
    struct bench_growth g = {.t = &b->t,
                             .rows = &b->rows,
                             .size = b->size,
                             .n_sizes = b->n_sizes,
                             .steps = b->replay_steps};
    if (b->json)
        bench_growth_json(stdout, &g);
    else
        bench_growth_print(stdout, &g);
    if (b->json) puts("}");
    return 0;
}

/* --- the command -------------------------------------------------------------------------------- */

static int take_own_flags(struct bench *b, int *argc, char **argv, struct err *e)
{
    const struct {
        const char *name;
        bool *on;
    } switches[] = {{"--quick", &b->quick}, {"--resume", &b->resume}, {"--json", &b->json},
                    {"--table", &b->table}, {"--help", &b->help},     {"-h", &b->help}};
    int n = 1;
    b->log = "bench-attention.jsonl";
    for (int i = 1; i < *argc; i++) {
        bool taken = false, clock = strcmp(argv[i], "--clock") == 0;
        for (size_t k = 0; k < ARRAY_LEN(switches); k++)
            if (strcmp(argv[i], switches[k].name) == 0) *switches[k].on = taken = true;
        const char **text = strcmp(argv[i], "--log") == 0    ? &b->log
                            : strcmp(argv[i], "--list") == 0 ? &b->list
                                                             : NULL;
        if (taken) continue;
        if (!clock && !text) {
            argv[n++] = argv[i];
            continue;
        }
        if (++i >= *argc) return err_set(e, ERR_USAGE, "%s wants a value", argv[i - 1]);
        if (text)
            *text = argv[i];
        else if (strcmp(argv[i], "cpu") == 0 || strcmp(argv[i], "wall") == 0)
            b->cpu = argv[i][0] == 'c';
        else
            return err_set(e, ERR_USAGE, "--clock is '%.40s', wanted wall or cpu", argv[i]);
    }
    *argc = n;
    b->resume = b->resume || b->table;
    return 0;
}

static int quick_settings(const struct bench *b, struct cli *c, struct err *e)
{
    if (!b->quick) return 0;
    if (!settings_from(c->settings, SET_STEPS) &&
        settings_set(c->settings, LAYER_CALL, "steps", "12", e) < 0)
        return -1;
    if (settings_from(c->settings, SET_FRAMES) || settings_from(c->settings, SET_SECONDS)) return 0;
    return settings_set(c->settings, LAYER_CALL, "frames", "17", e);
}

static int run(struct bench *b, struct cli *c, struct err *e)
{
    struct ditgen *d = NULL;
    struct ditgen_error de;
    char note[256];
    int rc = -1;
    if (stop_watch(e) < 0) return -1;
    if (ditgen_open(&d, settings_text(c->settings, SET_MODEL), &de) < 0)
        return err_set(e, (enum err_code)de.code, "%s", de.message);
    if (quick_settings(b, c, e) < 0 || cli_resolve(c, d, note, e) < 0) goto out;
    progress_init(&b->progress, stderr, c->progress == 1, c->quiet);
    if (prompts_read(&b->prompts, d->info.dir, "verify", b->list, e) < 0) goto out;
    if (trials_open(&b->t, d, c->settings, b->log, b->resume, c->yes, e) < 0) goto out;
    b->t.progress = &b->progress;
    choose_sizes(b);
    stop_arm(true);
    if (bench_rows_make(&b->rows, &b->t, b->prompts.line[0], b->quick, e) < 0) goto out;
    rc = b->table ? choose_best(b, e) : make_all(b, e);
    if (rc < 0 && e->code != ERR_CANCELLED) goto out;
    struct err printed = {0};
    if (print_all(b, &printed) < 0) *e = printed, rc = -1;
    if (rc < 0 && e->code == ERR_CANCELLED)
        err_set(e, ERR_CANCELLED, "cancelled; %.200s keeps what was made, --resume goes on with it",
                b->log);
out:
    bench_rows_free(&b->rows);
    bench_rows_free(&b->best);
    trials_close(&b->t);
    prompts_fini(&b->prompts);
    ditgen_close(d);
    return rc;
}

int bench_attention(int argc, char **argv, struct err *e)
{
    struct bench b = {0};
    struct cli c = {0};
    if (take_own_flags(&b, &argc, argv, e) < 0) return -1;
    if (b.help) {
        fputs(USAGE, stdout);
        return 0;
    }
    int rc = cli_parse(&c, argc, argv, CLI_NO_WORD, e);
    const char *flag = c.output                                   ? "-o"
                       : c.plan                                   ? "--plan"
                       : settings_from(c.settings, SET_PROMPT)    ? "--prompt: --list names prompts"
                       : settings_from(c.settings, SET_ATTENTION) ? "--attention: all are measured"
                       : settings_from(c.settings, SET_STEP_CACHE)
                           ? "--step-cache: all are measured"
                       : settings_switch(c.settings, SET_TURBO) ? "--turbo"
                                                                : NULL;
    if (rc == 0 && flag) rc = err_set(e, ERR_USAGE, "bench attention takes no %s", flag);
    if (rc == 0) rc = run(&b, &c, e);
    cli_fini(&c);
    return rc;
}
