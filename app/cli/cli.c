/* Flags; see cli.h. */
#include "app/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/profile.h"

const struct option cli_rows[] = {
    OPT_STRING(struct cli, output, "output", NULL,
               "where to: .mp4 .mov .webm .y4m, dir/ or dir/f_%04d.png, - for y4m to a pipe; "
               "without: a new name from prompt and seed"),
    OPT_BOOL(struct cli, yes, "yes", 0, "replace an existing file"),
    OPT_STRING(struct cli, file, "file", NULL, "read the prompt from a file (-: standard input)"),
    OPT_STRING(struct cli, profile, "profile", NULL,
               "settings by name (see: ditgen list profiles)"),
    OPT_STRING(struct cli, config, "config", NULL, "settings from an .ini file"),
    OPT_STRING(struct cli, dump_config, "dump-config", NULL,
               "write the settings used to a file (-: standard output)"),
    OPT_BOOL(struct cli, plan, "plan", 0, "say what it would take, and stop; exit 4: does not fit"),
    OPT_ENUM(struct cli, progress, "progress", 0, "auto|json",
             "auto: a bar or lines; json: one object a line"),
    OPT_BOOL(struct cli, quiet, "quiet", 0, "errors only (and a seed that was drawn)"),
    OPT_INT(struct cli, verbose, "verbose", 0, 0, 4, "say more; -vv more yet"),
    OPT_STRING(struct cli, latents, "save-latents", NULL,
               "keep the denoised latents as a .safetensors file"),
    OPT_BOOL(struct cli, help, "help", 0, "this text"),
    OPT_BOOL(struct cli, version, "version", 0, "version and what it was built with"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};

/* How rows are spelled beside --name, and what stands for their value in --help. */
static const struct spelling {
    const char *row, *dash, *metavar;
} spellings[] = {
    {"prompt", "-p", "TEXT"},
    {"negative", "-n", "TEXT"},
    {"width", "-W", "N"},
    {"height", "-H", "N"},
    {"size", NULL, "WxH"},
    {"seed", "-s", "N"},
    {"solver", NULL, "NAME"},
    {"model", "-m", "DIR"},
    {"threads", "-t", "N"},
    {"precision", NULL, "NAME"},
    {"attention", NULL, "NAME"},
    {"kernel", NULL, "NAME"},
    {"codec", "-c:v", "NAME"},
    {"crf", "-crf", "N"},
    {"preset", "-preset", "NAME"},
    {"pix_fmt", "-pix_fmt", "NAME"},
    {"compat", NULL, "LIST"},
    {"output", "-o", "PATH"},
    {"yes", "-y", ""},
    {"file", "-f", "FILE"},
    {"profile", NULL, "NAME"},
    {"config", NULL, "FILE"},
    {"dump-config", NULL, "FILE"},
    {"progress", NULL, "NAME"},
    {"quiet", "-q", ""},
    {"verbose", "-v", ""},
    {"save-latents", NULL, "FILE"},
    {"help", "-h", ""},
};

const char *cli_short(const char *row)
{
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++)
        if (strcmp(spellings[i].row, row) == 0) return spellings[i].dash;
    return NULL;
}

const char *cli_metavar(const struct option *o)
{
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++)
        if (strcmp(spellings[i].row, o->name) == 0) return spellings[i].metavar;
    switch (o->type) {
    case OPTION_BOOL:
        return "";
    case OPTION_DOUBLE:
        return "X";
    case OPTION_INT:
    case OPTION_U64:
        return "N";
    default:
        return "NAME";
    }
}

const char *cli_nearest(const char *name)
{
    const char *near = option_nearest(cli_rows, name);
    return near ? near : settings_nearest(name);
}

/* The row that "-x" or "-c:v" spells; name with its dash, n bytes. */
static const char *row_of_dash(const char *name, size_t n)
{
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
        const char *d = spellings[i].dash;
        if (d && strlen(d) == n && memcmp(d, name, n) == 0) return spellings[i].row;
    }
    return NULL;
}

static const struct option *find_row(const char *name, bool *own)
{
    const struct attn_method *m;
    const struct option *o = option_find(cli_rows, name);
    *own = o != NULL;
    if (!o) o = settings_row(name);
    if (!o) o = settings_method_option(name, &m);
    return o;
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

static int set_own(struct cli *c, const struct option *o, const char *value, struct err *e)
{
    if (strcmp(o->name, "verbose") == 0 && !value) {
        if (c->verbose < 4) c->verbose++;
        return 0;
    }
    if (o->type == OPTION_STRING && *(char **)(void *)((char *)c + o->offset) &&
        strcmp(o->name, "output") != 0)
        return err_set(e, ERR_USAGE, "%s is given twice", o->name);
    return option_parse(o, c, value ? value : "true", e);
}

static int set_row(struct cli *c, const char *row, const char *value, struct err *e)
{
    bool own;
    const struct option *o = find_row(row, &own);
    int rc;
    if (own)
        rc = set_own(c, o, value, e);
    else if (strcmp(o->name, "prompt") == 0 && settings_from(&c->settings, "prompt") == LAYER_FLAG)
        rc = err_set(e, ERR_USAGE, "prompt is given twice");
    else
        rc = settings_set(&c->settings, LAYER_FLAG, o->name, value ? value : "true", e);
    return rc < 0 ? as_flag(o->name, e) : 0;
}

static bool wants_value(const char *row)
{
    bool own;
    const struct option *o = find_row(row, &own);
    return o->type != OPTION_BOOL && !(own && strcmp(o->name, "verbose") == 0);
}

static int unknown(const char *flag, struct err *e)
{
    const char *name = flag + strspn(flag, "-");
    const char *near = cli_nearest(name);
    if (near) return err_set(e, ERR_USAGE, "unknown flag %s, did you mean --%s?", flag, near);
    return err_set(e, ERR_USAGE, "unknown flag %s; ditgen --help lists all", flag);
}

/* --name, --name=value, --name value; *i moves over a value taken from the next word. */
static int long_flag(struct cli *c, int argc, char **argv, int *i, struct err *e)
{
    char name[64];
    const char *arg = argv[*i] + 2, *equal = strchr(arg, '='), *value = NULL;
    size_t n = equal ? (size_t)(equal - arg) : strlen(arg);
    bool own;
    snprintf(name, sizeof name, "%.*s", (int)n, arg);
    if (n >= sizeof name || !find_row(name, &own)) {
        char flag[80];
        snprintf(flag, sizeof flag, "--%s", name);
        return unknown(flag, e);
    }
    if (equal)
        value = equal + 1;
    else if (wants_value(name)) {
        if (*i + 1 >= argc) return err_set(e, ERR_USAGE, "--%s wants a value", name);
        value = argv[++*i];
    }
    return set_row(c, name, value, e);
}

/* -c:v, -crf ... exactly, then letters: flags without value may stand together, a value may follow
 * the last at once or as the next word. */
static int dash_flag(struct cli *c, int argc, char **argv, int *i, struct err *e)
{
    const char *arg = argv[*i];
    if (strcmp(arg, "-vv") == 0 || strcmp(arg, "-vvv") == 0) {
        c->verbose = (int)strlen(arg) - 1;
        return 0;
    }
    const char *row = row_of_dash(arg, strlen(arg));
    if (row) {
        if (!wants_value(row)) return set_row(c, row, NULL, e);
        if (*i + 1 >= argc) return err_set(e, ERR_USAGE, "%s wants a value", arg);
        return set_row(c, row, argv[++*i], e);
    }
    for (const char *p = arg + 1; *p; p++) {
        const char letter[2] = {'-', *p};
        row = row_of_dash(letter, 2);
        if (!row) return unknown(arg, e);
        if (!wants_value(row)) {
            if (set_row(c, row, NULL, e) < 0) return -1;
            continue;
        }
        if (p[1]) return set_row(c, row, p + 1, e);
        if (*i + 1 >= argc) return err_set(e, ERR_USAGE, "-%c wants a value", *p);
        return set_row(c, row, argv[++*i], e);
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
    if (settings_from(&c->settings, "prompt") == LAYER_FLAG)
        return err_set(e, ERR_USAGE, "two prompts: '%.60s' and one by --prompt", word);
    return settings_set(&c->settings, LAYER_FLAG, "prompt", word, e);
}

int cli_parse(struct cli *c, int argc, char **argv, enum cli_words words, struct err *e)
{
    bool flags = true;
    memset(c, 0, sizeof *c);
    if (option_defaults(cli_rows, c, e) < 0 || settings_init(&c->settings, e) < 0) return -1;
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
    if (c->file && settings_from(&c->settings, "prompt") == LAYER_FLAG)
        return err_set(e, ERR_USAGE,
                       "--file and a prompt on the command line contradict each other");
    if (c->output && c->dump_config && strcmp(c->output, "-") == 0 &&
        strcmp(c->dump_config, "-") == 0)
        return err_set(e, ERR_USAGE, "--output - and --dump-config - both want standard output");
    if (c->profile && profile_load(&c->settings, c->profile, e) < 0) return -1;
    if (c->config && profile_load_file(&c->settings, LAYER_CONFIG, c->config, e) < 0) return -1;
    return 0;
}

void cli_fini(struct cli *c)
{
    option_free(cli_rows, c);
    settings_fini(&c->settings);
    memset(c, 0, sizeof *c);
}
