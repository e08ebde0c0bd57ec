/* Promise: any weights against any config of an autoencoder give a message, or bind, both halves.
 * Input: config.json, a NUL byte, the weights. */
#include "model/vae/vae.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct halves h = halves_of(data, size);
    struct vae *v;
    struct err e = {0};
    folder_begin();
    folder_put("config.json", h.first, h.n_first);
    folder_put("diffusion_pytorch_model.safetensors", h.rest, h.n_rest);
    if (vae_open(&v, NULL, folder, VAE_DECODER | VAE_ENCODER, PRECISION_FP32, NULL, &e) < 0 &&
        (!e.code || !e.msg[0] || v))
        abort();
    vae_close(v);
    return 0;
}
