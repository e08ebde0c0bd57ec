/* argv → settings and what to do with them.
 *
 * --name VALUE, --name=VALUE, -x VALUE, -xVALUE, clusters of letters (-yq). Names with one dash
 * that are longer than a letter (-c:v, -crf, -preset, -pix_fmt, -vv) match exactly and before
 * clusters. "--" ends flags. Owner: cli_parse fills, cli_fini frees, also after failure. Errors:
 * ERR_USAGE. */
#ifndef DITGEN_APP_CLI_H
#define DITGEN_APP_CLI_H

#include "app/lib/settings.h"

struct cli {
    struct settings settings;
    /* what to do: not part of the settings, not accepted in files */
    char *file; /* -f */
    char *output; /* -o */
    char *profile, *config, *dump_config;
    char *latents; /* where to keep the denoised latents */
    bool yes, plan, quiet, help, version;
    int verbose;
    int progress; /* 0: bar or lines; 1: json */
    /* words without a flag */
    char *words[2];
    int n_words;
};

enum cli_words { CLI_NO_WORD, CLI_PROMPT, CLI_CLIP };

/* argv[0] is skipped. words says what a word without a flag is; at most one is taken. Profiles and
 * --config are read as well, below the flags. */
int cli_parse(struct cli *c, int argc, char **argv, enum cli_words words, struct err *e);
void cli_fini(struct cli *c);

/* For --help: rows that are flags but not settings, and how a row is spelled. */
extern const struct option cli_rows[];
const char *cli_short(const char *row); /* "-W" or NULL */
const char *cli_metavar(const struct option *o); /* "TEXT" or "" */
/* The nearest flag to an unknown one ("--stesp" → "--steps"); NULL: none. */
const char *cli_nearest(const char *name);

#endif
