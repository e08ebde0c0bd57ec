/* HTML entities in text: as browsers read them (Python's html.unescape) and as ftfy does. */
#ifndef DITGEN_TEXT_ENTITIES_H
#define DITGEN_TEXT_ENTITIES_H

#include "model/text/buffer.h"

/* HTML 5 rules: named references by longest prefix also without ";", numeric ones with the
 * standard's replacements. In place. */
int html_unescape(struct runes *r, struct err *e);
/* ftfy's careful form: only what ends in ";", and capitals such as &EACUTE; too. In place. */
int ftfy_unescape(struct runes *r, struct err *e);

#endif
