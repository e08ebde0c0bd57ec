/* Promise: any bytes as text_encoder/config.json give a message, or sizes whose bytes are counted
 * without overflow. */
#include "model/text/text.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct umt5_config c;
    struct err e = {0};
    char path[128];
    folder_begin();
    folder_put("config.json", data, size);
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (umt5_config_read(&c, path, &e) < 0) {
        if (e.code != ERR_INPUT || !e.msg[0]) abort();
        return 0;
    }
    if (c.vocab_size < 1 || c.d_model < 1 || c.d_ff < 1 || c.d_kv < 1 || c.n_heads < 1 ||
        c.n_layers < 1 || c.buckets < 4 || !(c.eps > 0))
        abort();
    size_t one = umt5_bytes(&c, NULL, PRECISION_FP32, 1),
           all = umt5_bytes(&c, NULL, PRECISION_FP32, 512);
    if (!one || all < one || all > (size_t)1 << 50) abort();
    return 0;
}
