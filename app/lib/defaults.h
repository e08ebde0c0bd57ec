/* What a model makes when nobody says otherwise: size, frames, steps, guidance.
 *
 * From ditgen.ini beside model_index.json ([defaults], and [turbo] for the few-step transformer;
 * keys are the rows of settings.def that a model may give, numbers may go by size), else from the
 * published model nearest in shape (wan.md 0.2). Owner: defaults_read or defaults_parse →
 * defaults_fini, also after failure of the latter. Errors: ERR_INPUT with file and line. */
#ifndef DITGEN_APP_DEFAULTS_H
#define DITGEN_APP_DEFAULTS_H

#include "app/lib/settings.h"
#include "model/model.h"
#include "sched/sched.h"

#include <stdbool.h>

struct defaults {
    char from[96]; /* "ditgen.ini" or the row's name */
    /* values of rows that a model may give (setting.h: MODEL), in LAYER_MODEL */
    struct ditgen_settings *always, *turbo; /* turbo: those that the few-step transformer changes */
    bool has_turbo; /* the file has a [turbo] section */
};

/* scheduler: what stands where the file says no flow_shift or solver. */
int defaults_read(struct defaults *d, const struct model_info *info,
                  const struct sched_config *scheduler, struct err *e);
/* Text of a ditgen.ini into *d, zeroed or filled: every key checked, nothing compared with the model. */
int defaults_parse(struct defaults *d, const char *text, size_t len, const char *name,
                   struct err *e);
/* ERR_USAGE when the model has no few-step transformer, or nothing says its steps and guidance. */
int defaults_check_turbo(const struct defaults *d, const struct model_info *info, struct err *e);
void defaults_fini(struct defaults *d);

#endif
