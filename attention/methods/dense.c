/* Every query looks at every key: what the model was trained with. */
#include "attention/method.h"

const struct attn_method attn_dense = {
    .name = "dense",
    .summary = "every query looks at every key",
    .exact = true,
};
