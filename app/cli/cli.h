/* argv → settings and what to do with them.
 *
 * --name VALUE, --name=VALUE, -x VALUE, -xVALUE, clusters of letters (-yq). Names with one dash
 * that are longer than a letter (-c:v, -crf, -preset, -pix_fmt, -vv) match exactly and before
 * clusters. "--" ends flags. Owner: cli_parse fills, cli_fini frees, also after failure. Errors:
 * ERR_USAGE. */
#ifndef DITGEN_APP_CLI_H
#define DITGEN_APP_CLI_H

#include "app/cli/ran.h"
#include "app/lib/settings.h"

struct cli {
    struct ditgen_settings *settings;
    /* what to do: not part of the settings, not accepted in files */
    char *file; /* -f */
    char *output; /* -o */
    char *profile, *config, *dump_config;
    char *latents; /* where to keep the denoised latents */
    bool yes, plan, quiet, help, version;
    bool seed_drawn; /* nobody gave one */
    bool device_picked; /* a GPU, since nobody named a device: device.h */
    char *preview; /* FILE.png or "term" */
    struct ran ran; /* what a clip says of the run that made it: rerun tells what differs */
    double state_every; /* seconds between states; 0: none are kept */
    char warning[320]; /* of what was read, to be said once; "": none */
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

/* Fills in what nobody said: d's defaults, the name of the model built in, a drawn seed. note[256]:
 * what was rounded, "" if nothing. */
int cli_resolve(struct cli *c, const struct ditgen *d, char *note, struct err *e);

/* Flags that are no settings; rows as in setting.h, offsets in struct cli; ends in one without a
 * name. */
extern const struct setting cli_rows[];

#endif
