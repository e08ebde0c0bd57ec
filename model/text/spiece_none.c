/* Built without sentencepiece: see spiece.h. */
#include "model/text/spiece.h"

#include <stddef.h>

int spiece_open(void **sp, const char *path, struct err *e)
{
    *sp = NULL;
    return err_set(e, ERR_INPUT,
                   "%s stands alone and this build has no sentencepiece to read it; put the "
                   "model's tokenizer.json beside it, or build with libsentencepiece-dev",
                   path);
}

void spiece_close(void *sp) { (void)sp; }

int spiece_size(const void *sp)
{
    (void)sp;
    return 0;
}

const char *spiece_piece(const void *sp, int id)
{
    (void)sp, (void)id;
    return NULL;
}

int spiece_encode(const void *sp, int *ids, int max, int *n, bool *truncated, const char *text,
                  struct err *e)
{
    (void)sp, (void)ids, (void)max, (void)n, (void)truncated, (void)text;
    return err_set(e, ERR_BUG, "no sentencepiece in this build");
}
