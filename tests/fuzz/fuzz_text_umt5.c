/* Promise: any weights against any config of a text encoder give a message, or bind, and then a
 * small one encodes to numbers or to a message. Input: config.json, a NUL byte, the weights. */
#include "model/text/text.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct halves h = halves_of(data, size);
    struct umt5 *u;
    struct err e = {0};
    folder_begin();
    folder_put("config.json", h.first, h.n_first);
    folder_put("model.safetensors", h.rest, h.n_rest);
    if (umt5_open(&u, NULL, folder, PRECISION_FP32, NULL, &e) < 0) {
        if (!e.code || !e.msg[0] || u) abort();
        return 0;
    }
    struct umt5_config c;
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (umt5_config_read(&c, path, &e) < 0) abort();
    static const int ids[3] = {0, 1, 2};
    float *embeds = malloc(3 * (size_t)c.d_model * sizeof *embeds);
    if (embeds && c.d_ff < 1024 && umt5_encode(u, embeds, ids, 3, NULL, NULL, &e) < 0 && !e.msg[0])
        abort();
    free(embeds);
    umt5_close(u);
    return 0;
}
