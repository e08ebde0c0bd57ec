/* What `ditgen calibrate` measured of a model, for step caches: how its velocity answers a change of
 * the embeddings of time, and how what its blocks add grows from step to step.
 *
 * An .ini file, in the model's folder (step-caches.ini) or, for models that come with ditgen, beside
 * the profiles (profiles/step-caches/NAME.ini). It names the weights that it is of, by a mark of
 * their bytes, and is passed over for others. Owner: calibration_of or calibration_parse →
 * calibration_fini. Errors: ERR_INPUT with file and line, ERR_RESOURCE. */
#ifndef DITGEN_APP_LIB_CALIBRATION_H
#define DITGEN_APP_LIB_CALIBRATION_H

#include "model/model.h"

#define CALIBRATION_PATH 4700 /* a folder, and names below it */

struct calibration {
    bool known;
    char why_not[400]; /* else: half a sentence */
    char path[CALIBRATION_PATH]; /* of the file, or of where it should be */
    uint64_t mark;
    struct dit_calibration of; /* ratio points to memory of its own */
    float *ratio;
};

/* Looks for the model's; one that is not there or of other weights is no error. few_step: of the
 * few-step transformer there is none. */
int calibration_of(struct calibration *c, const struct model_info *m, bool few_step, struct err *e);
void calibration_fini(struct calibration *c);

int calibration_parse(struct calibration *c, const char *text, size_t len, const char *name,
                      struct err *e);
/* As calibration_parse() reads it; how: a line for people. Heap; NULL: no memory. */
char *calibration_text(const struct calibration *c, const char *how);

/* A mark of the bytes of the transformer's weights: of all files' sizes and of samples. */
int calibration_mark(uint64_t *mark, const struct model_info *m, struct err *e);
/* Where the model's is looked for, and written by default. */
void calibration_path(char path[CALIBRATION_PATH], const struct model_info *m);

#endif
