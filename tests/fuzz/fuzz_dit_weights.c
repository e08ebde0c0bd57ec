/* Promise: any weights against any config of a transformer give a message, or every tensor bound is
 * of the size that the config says. Input: config.json, a NUL byte, the weights. */
#include "model/dit/dit.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct halves h = halves_of(data, size);
    struct dit *d;
    struct err e = {0};
    folder_begin();
    folder_put("config.json", h.first, h.n_first);
    folder_put("diffusion_pytorch_model.safetensors", h.rest, h.n_rest);
    if (dit_open(&d, folder, PRECISION_FP32, NULL, &e) < 0 && (!e.code || !e.msg[0] || d)) abort();
    dit_close(d);
    return 0;
}
