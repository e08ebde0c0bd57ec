/* Settings from .ini text: --profile NAME (assets/profiles/NAME.ini), --config FILE, and what clips
 * carry. Keys stand before any section or under [ditgen], in any case. Unknown sections and keys,
 * bad values and lines that are no ini are refused with file and line. Errors: ERR_USAGE (no such
 * profile), ERR_INPUT, ERR_RESOURCE. */
#ifndef DITGEN_APP_PROFILE_H
#define DITGEN_APP_PROFILE_H

#include "app/lib/settings.h"

/* A profile by name; one that does not exist is refused with the names there are. */
int profile_load(struct ditgen_settings *s, const char *name, struct err *e);
/* A file or a pipe, read once. */
int profile_load_file(struct ditgen_settings *s, enum layer layer, const char *path, struct err *e);
/* The text that clips carry (settings_dump); name is for messages. */
int profile_from_clip(struct ditgen_settings *s, enum layer layer, const char *text,
                      const char *name, struct err *e);

#endif
