/* Flags; see cli.h. */
#include "app/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "app/cli/profile.h"
#include "app/lib/assets.h"
#include "model/base/cpu.h"

#define FLAG(flag, kind, field, ...)                                                               \
    {                                                                                              \
        .option.name = flag, .option.type = kind, .option.offset = offsetof(struct cli, field),    \
        __VA_ARGS__                                                                                \
    }
#define HELP(text) .option.help = text
const struct setting cli_rows[] = {
    FLAG("output", OPTION_STRING, output, .dash = "-o", .word = "PATH",
         HELP("where to: .mp4 .mov .webm .y4m, dir/ or dir/f_%04d.png, - for y4m to a pipe; "
              "without: a new name from prompt and seed")),
    FLAG("yes", OPTION_BOOL, yes, .dash = "-y", HELP("replace an existing file")),
    FLAG("file", OPTION_STRING, file, .dash = "-f", .word = "FILE",
         HELP("read the prompt from a file (-: standard input)")),
    FLAG("profile", OPTION_STRING, profile, HELP("settings by name (see: ditgen list profiles)")),
    FLAG("config", OPTION_STRING, config, .word = "FILE", HELP("settings from an .ini file")),
    FLAG("dump-config", OPTION_STRING, dump_config, .word = "FILE",
         HELP("write the settings used to a file (-: standard output)")),
    FLAG("plan", OPTION_BOOL, plan, HELP("say what it would take, and stop; exit 4: does not fit")),
    FLAG("progress", OPTION_ENUM, progress, .option.choices = "auto|json",
         HELP("auto: a bar or lines; json: one object a line")),
    FLAG("quiet", OPTION_BOOL, quiet, .dash = "-q",
         HELP("errors only (and a seed that was drawn)")),
    FLAG("verbose", OPTION_INT, verbose, .dash = "-v", .option.hi = 4,
         HELP("say more: a line a step; -vv a line a layer")),
    FLAG("save-latents", OPTION_STRING, latents, .word = "FILE",
         HELP("keep the denoised latents as a .safetensors file")),
    FLAG("preview", OPTION_STRING, preview, .word = "FILE",
         HELP("show the clip so far while it is made, as FILE.png; term: on terminals with "
              "pictures")),
    FLAG("state-every", OPTION_DOUBLE, state_every, .word = "S", .option.hi = 86400,
         HELP("seconds between states that 'ditgen resume' goes on from (60); 0: none are kept")),
    FLAG("help", OPTION_BOOL, help, .dash = "-h", HELP("this text")),
    FLAG("version", OPTION_BOOL, version, HELP("version and what it was built with")),
    {.option.name = NULL},
};

/* --- names -------------------------------------------------------------------------------------- */

/* What a flag names: a row of its own, a row of the settings, or an option of a method. */
struct flag {
    const struct setting *own, *row;
    struct setting_method method;
};

static bool find_flag(struct flag *f, const char *name)
{
    *f = (struct flag){0};
    for (const struct setting *s = cli_rows; s->option.name; s++)
        if (setting_named(s, name)) f->own = s;
    if (f->own) return true;
    int id = setting_find(name);
    if (id >= 0) f->row = setting_at(id);
    return id >= 0 || setting_find_method(name, &f->method);
}

/* The flag that "-x" or "-c:v" spells; with its dash, n bytes. */
static bool find_dash(struct flag *f, const char *dash, size_t n)
{
    *f = (struct flag){0};
    for (const struct setting *s = cli_rows; s->option.name; s++)
        if (s->dash && strlen(s->dash) == n && memcmp(s->dash, dash, n) == 0) f->own = s;
    for (int i = 0; !f->own && i < setting_count(); i++) {
        const struct setting *s = setting_at(i);
        if (s->dash && strlen(s->dash) == n && memcmp(s->dash, dash, n) == 0) f->row = s;
    }
    return f->own || f->row;
}

static const struct option *option_of(const struct flag *f)
{
    return f->own ? &f->own->option : f->row ? &f->row->option : f->method.option;
}

/* --name of the flag, without the dashes; buf[128]. */
static const char *name_of(const struct flag *f, char *buf)
{
    if (f->own || f->row) return option_of(f)->name;
    setting_method_name(&f->method, buf, 128);
    return buf;
}

static int unknown(const char *flag, size_t n, struct err *e)
{
    char name[64], buf[128];
    size_t dashes = strspn(flag, "-");
    const char *best = NULL;
    int distance = OPTION_FAR;
    snprintf(name, sizeof name, "%.*s", (int)(n - (dashes < n ? dashes : n)), flag + dashes);
    for (const struct setting *s = cli_rows; s->option.name; s++) {
        int d = option_distance(s->option.name, name);
        if (d < distance) distance = d, best = s->option.name;
    }
    if (!best) best = setting_nearest(name, buf, sizeof buf);
    int shown = (int)(n < 100 ? n : 100);
    if (best)
        return err_set(e, ERR_USAGE, "unknown flag %.*s, did you mean --%s?", shown, flag, best);
    return err_set(e, ERR_USAGE, "unknown flag %.*s; ditgen --help lists all", shown, flag);
}

/* Messages of rows begin with the row's name: as a flag it has dashes. */
static int as_flag(const char *row, struct err *e)
{
    size_t n = strlen(row);
    if (strncmp(e->msg, row, n) == 0 && (e->msg[n] == ' ' || e->msg[n] == ':')) {
        char copy[sizeof e->msg];
        memcpy(copy, e->msg, sizeof copy);
        snprintf(e->msg, sizeof e->msg, "--%.*s", (int)sizeof copy - 3, copy);
        return -1;
    }
    return err_wrap(e, "--%s", row);
}

/* --- values ------------------------------------------------------------------------------------- */

static int set_own(struct cli *c, const struct option *o, const char *value, struct err *e)
{
    if (o->offset == offsetof(struct cli, verbose) && !value) {
        if (c->verbose < 4) c->verbose++;
        return 0;
    }
    if (o->type == OPTION_STRING && *(char **)(void *)((char *)c + o->offset) &&
        o->offset != offsetof(struct cli, output))
        return err_set(e, ERR_USAGE, "%s is given twice", o->name);
    return option_parse(o, c, value ? value : "true", e);
}

static int set_flag(struct cli *c, const struct flag *f, const char *value, struct err *e)
{
    char buf[128];
    const char *name = name_of(f, buf);
    int rc;
    if (f->own)
        rc = set_own(c, &f->own->option, value, e);
    else if (f->row == setting_at(SET_PROMPT) &&
             settings_from(c->settings, SET_PROMPT) == LAYER_FLAG)
        rc = err_set(e, ERR_USAGE, "prompt is given twice");
    else
        rc = settings_set(c->settings, LAYER_FLAG, name, value ? value : "true", e);
    return rc < 0 ? as_flag(name, e) : 0;
}

static bool wants_value(const struct flag *f)
{
    return option_of(f)->type != OPTION_BOOL &&
           !(f->own && option_of(f)->offset == offsetof(struct cli, verbose));
}

/* --name, --name=value, --name value; *i moves over a value taken from the next word. */
static int long_flag(struct cli *c, int argc, char **argv, int *i, struct err *e)
{
    const char *arg = argv[*i] + 2, *equal = strchr(arg, '='), *value = NULL;
    size_t n = equal ? (size_t)(equal - arg) : strlen(arg);
    struct flag f;
    char *name = strndup(arg, n);
    if (!name) return err_set(e, ERR_RESOURCE, "no memory for the flags");
    bool known = find_flag(&f, name);
    free(name);
    if (!known) return unknown(argv[*i], n + 2, e);
    if (equal)
        value = equal + 1;
    else if (wants_value(&f)) {
        if (*i + 1 >= argc) return err_set(e, ERR_USAGE, "--%s wants a value", arg);
        value = argv[++*i];
    }
    return set_flag(c, &f, value, e);
}

/* -c:v, -crf ... exactly, then letters: flags without value may stand together, a value may follow
 * the last at once or as the next word. */
static int dash_flag(struct cli *c, int argc, char **argv, int *i, struct err *e)
{
    const char *arg = argv[*i];
    struct flag f;
    if (strcmp(arg, "-vv") == 0 || strcmp(arg, "-vvv") == 0) {
        c->verbose = (int)strlen(arg) - 1;
        return 0;
    }
    if (find_dash(&f, arg, strlen(arg))) {
        if (!wants_value(&f)) return set_flag(c, &f, NULL, e);
        if (*i + 1 >= argc) return err_set(e, ERR_USAGE, "%s wants a value", arg);
        return set_flag(c, &f, argv[++*i], e);
    }
    for (const char *p = arg + 1; *p; p++) {
        const char letter[2] = {'-', *p};
        if (!find_dash(&f, letter, 2)) return unknown(arg, strlen(arg), e);
        if (!wants_value(&f)) {
            if (set_flag(c, &f, NULL, e) < 0) return -1;
            continue;
        }
        if (p[1]) return set_flag(c, &f, p + 1, e);
        if (*i + 1 >= argc) return err_set(e, ERR_USAGE, "-%c wants a value", *p);
        return set_flag(c, &f, argv[++*i], e);
    }
    return 0;
}

static int take_word(struct cli *c, char *word, enum cli_words words, struct err *e)
{
    if (words == CLI_NO_WORD) return err_set(e, ERR_USAGE, "unexpected '%.100s'", word);
    if (c->n_words == 1)
        return err_set(e, ERR_USAGE,
                       words == CLI_PROMPT
                           ? "two prompts, '%.60s' and '%.60s': put quotes round the prompt"
                           : "two clips, '%.60s' and '%.60s': one at a time",
                       c->words[0], word);
    c->words[c->n_words++] = word;
    if (words != CLI_PROMPT) return 0;
    if (settings_from(c->settings, SET_PROMPT) == LAYER_FLAG)
        return err_set(e, ERR_USAGE, "two prompts: '%.60s' and one by --prompt", word);
    return settings_set(c->settings, LAYER_FLAG, "prompt", word, e);
}

/* For the process, before anything asks what the processor can. */
static int take_device(const struct ditgen_settings *s, struct err *e)
{
    const char *device = settings_text(s, SET_DEVICE);
    if (!device || strncmp(device, "cpu", 3) != 0 || cpu_cap(device, e) == 0) return 0;
    return err_wrap(e, "--device");
}

int cli_parse(struct cli *c, int argc, char **argv, enum cli_words words, struct err *e)
{
    bool flags = true;
    memset(c, 0, sizeof *c);
    c->state_every = 60; /* a step of a large model; a small one does many */
    if (settings_open(&c->settings, e) < 0) return -1;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        int rc;
        if (flags && strcmp(a, "--") == 0) {
            flags = false;
            continue;
        }
        if (flags && a[0] == '-' && a[1] == '-')
            rc = long_flag(c, argc, argv, &i, e);
        else if (flags && a[0] == '-' && a[1])
            rc = dash_flag(c, argc, argv, &i, e);
        else
            rc = take_word(c, a, words, e);
        if (rc < 0) return -1;
    }
    if (c->help || c->version) return 0;
    if (c->quiet && c->verbose)
        return err_set(e, ERR_USAGE, "--quiet and --verbose contradict each other");
    if (c->file && settings_from(c->settings, SET_PROMPT) == LAYER_FLAG)
        return err_set(e, ERR_USAGE,
                       "--file and a prompt on the command line contradict each other");
    if (c->output && c->dump_config && strcmp(c->output, "-") == 0 &&
        strcmp(c->dump_config, "-") == 0)
        return err_set(e, ERR_USAGE, "--output - and --dump-config - both want standard output");
    if (c->profile && profile_load(c->settings, c->profile, e) < 0) return -1;
    if (c->config && profile_load_file(c->settings, LAYER_CONFIG, c->config, e) < 0) return -1;
    return take_device(c->settings, e);
}

void cli_fini(struct cli *c)
{
    for (const struct setting *s = cli_rows; s->option.name; s++)
        if (s->option.type == OPTION_STRING) free(*(char **)(void *)((char *)c + s->option.offset));
    settings_close(c->settings);
    memset(c, 0, sizeof *c);
}

/* 32 bits: all that the noise takes of a seed, and short to read. */
static int draw_seed(struct cli *c, struct err *e)
{
    uint32_t seed;
    char text[24];
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) seed = (uint32_t)time(NULL);
    snprintf(text, sizeof text, "%lu", (unsigned long)seed);
    c->seed_drawn = true;
    return settings_set(c->settings, LAYER_FLAG, "seed", text, e);
}

int cli_resolve(struct cli *c, const struct ditgen *d, char *note, struct err *e)
{
    struct ditgen_settings *all;
    if (!settings_from(c->settings, SET_SEED) && draw_seed(c, e) < 0) return -1;
    if (!settings_from(c->settings, SET_MODEL) &&
        settings_set(c->settings, LAYER_FLAG, "model", ASSETS_MODEL, e) < 0)
        return -1;
    if (settings_resolve(&all, c->settings, d, note, e) < 0) return -1;
    settings_close(c->settings);
    c->settings = all;
    return 0;
}
