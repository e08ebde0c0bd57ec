/* What a run keeps so that another can go on: FOLDER/.ditgen/NAME.state beside the output
 * FOLDER/NAME, a safetensors file with the latents, the solver's memory and the settings.
 *
 * Written aside, after every so many seconds of denoising and before decoding starts; removed when
 * the clip is there. A state that cannot be written costs the state and not the run.
 * Owner: state_read -> state_fini. Errors: ERR_INPUT, ERR_RESOURCE, ERR_USAGE. */
#ifndef DITGEN_APP_CLI_STATE_H
#define DITGEN_APP_CLI_STATE_H

#include "app/clips/latents.h"
#include "app/lib/ditgen.h"

#include <stdbool.h>

#define STATE_FOLDER ".ditgen"
#define STATE_PATH 4352

/* The state's path of an output; false: an output without one (standard output, a name too long). */
bool state_path(char path[STATE_PATH], const char *output);

struct state { /* read back */
    struct latents file;
    struct ditgen_state at; /* for ditgen_callbacks.resume; borrows from file */
    const char *stored, *used; /* settings: as a clip carries them; all. Borrow from file */
    const char *output; /* absolute */
    const char *latents; /* --save-latents, or NULL */
    const char *model_dir; /* absolute; "": the model built in */
    bool overwrite;
};
int state_read(struct state *s, const char *path, struct err *e);
void state_fini(struct state *s); /* takes zeroes */

struct state_keep { /* what is written beside the latents; borrowed */
    const char *path; /* of state_path() */
    const char *name; /* of the output, as it was given: for messages */
    const char *stored, *used, *output, *latents, *model_dir;
    bool overwrite;
};
/* Makes the folder when it is not there. */
int state_write(const struct state_keep *k, const struct ditgen_state *s, struct err *e);
/* With its folder, when that is empty then. */
void state_remove(const char *path);

/* Do two texts of settings say the same? any_seed: but for the seed. */
bool state_same_settings(const char *a, const char *b, bool any_seed);
/* The i-th state beside the outputs of a folder ("": here), by name, into path; false: there are not so many. */
bool state_at(char path[STATE_PATH], const char *folder, int i);

#endif
