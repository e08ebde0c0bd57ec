/* Settings from .ini files through iniparser: --profile NAME (assets/profiles/NAME.ini) and
 * --config FILE. Keys stand before any section or under [ditgen]. Unknown sections and keys, bad
 * values and lines that are no ini are refused with file and line or section.
 *
 * Without iniparser (minimal build) both are refused in one line; what ditgen stores in clips and
 * the ditgen.ini beside a model are read by ini.h in every build. Errors: ERR_USAGE, ERR_INPUT. */
#ifndef DITGEN_APP_PROFILE_H
#define DITGEN_APP_PROFILE_H

#include "app/lib/settings.h"

bool profile_supported(void);
/* A profile by name; one that does not exist is refused with the names there are. */
int profile_load(struct ditgen_settings *s, const char *name, struct err *e);
int profile_load_file(struct ditgen_settings *s, enum layer layer, const char *path, struct err *e);

/* The text that clips carry (settings_text), by the small reader: works in every build. */
int profile_from_clip(struct ditgen_settings *s, enum layer layer, const char *text,
                      const char *name, struct err *e);

#endif
