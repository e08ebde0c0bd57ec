/* What a model makes when nobody says otherwise: size, frames, steps, guidance.
 *
 * From ditgen.ini beside model_index.json ([defaults], and [turbo] for the few-step transformer),
 * else from the published model nearest in shape (wan.md 0.2). Errors: ERR_INPUT with file and
 * line. */
#ifndef DITGEN_APP_DEFAULTS_H
#define DITGEN_APP_DEFAULTS_H

#include "model/model.h"

#include <stdbool.h>

struct defaults {
    char from[96]; /* "ditgen.ini" or the row's name */
    int width, height, frames;
    double fps;
    int steps;
    double guidance_scale, flow_shift; /* flow_shift 0: the scheduler's */
    char *negative_prompt; /* owned, never NULL after reading */
    char *solver; /* owned; NULL: the scheduler's */
    struct turbo_defaults {
        bool present; /* the file has a [turbo] section */
        int steps;
        double guidance_scale, flow_shift; /* flow_shift 0: as without turbo */
        char *solver; /* owned; NULL: as without turbo */
    } turbo;
};

int defaults_read(struct defaults *d, const struct model_info *info, struct err *e);
/* The same from text, for tests: every key checked, nothing compared with the model. */
int defaults_parse(struct defaults *d, const char *text, size_t len, const char *name,
                   struct err *e);
void defaults_fini(struct defaults *d);

#endif
