/* Stacks: what --attention says, parsed and put together.
 *
 *     NAME[:option[=value],...][+NAME...]     tile+resid:every=5,density=.08+sage
 *
 * Each part is a method with its own options; their names are the method's own affair. The recipe
 * of a stack has, on each axis, the member of the one part that claims it; a claim by two is
 * refused with both names, and so is a member that misses what it stands on. Private to the room.
 * Owner: attn_stack_parse → attn_stack_free. Errors: ERR_USAGE. */
#ifndef DITGEN_ATTENTION_RECIPE_H
#define DITGEN_ATTENTION_RECIPE_H

#include "attention/method.h"

#define ATTN_MAX_PARTS 6 /* one an axis at most */

enum attn_axis {
    ATTN_AXIS_ASK,
    ATTN_AXIS_ORDER,
    ATTN_AXIS_SCORE,
    ATTN_AXIS_SELECT,
    ATTN_AXIS_REUSE,
    ATTN_AXIS_COMPENSATE,
    ATTN_AXIS_PRECISION,
    ATTN_AXES
};

struct attn_stack {
    int n;
    struct attn_part part[ATTN_MAX_PARTS];
    struct attn_recipe own[ATTN_MAX_PARTS]; /* of each part, after choose */
    struct attn_recipe recipe; /* of the stack */
    int by[ATTN_AXES]; /* the part that an axis' member is of; -1: nobody */
    bool exact;
};

/* text NULL or "": the first method with its defaults. */
int attn_stack_parse(struct attn_stack *s, const char *text, struct err *e);
/* Chooses members for this shape: after parse, before anything else. */
int attn_stack_resolve(struct attn_stack *s, const struct attn_shape *shape, struct err *e);
void attn_stack_free(struct attn_stack *s);
/* Every option written out. Returns bytes needed, as snprintf. */
int attn_stack_print(const struct attn_stack *s, char *buf, size_t n);
/* The part whose member stands on an axis; NULL: nobody's. */
const struct attn_part *attn_stack_by(const struct attn_stack *s, enum attn_axis axis);

#endif
