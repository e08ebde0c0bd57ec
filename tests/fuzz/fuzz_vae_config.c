/* Promise: any bytes as vae/config.json give a message, or a config whose every size is in range
 * and whose decoder can be laid out: its bytes are counted without overflow. */
#include "model/vae/vae.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vae_config c;
    struct err e = {0};
    if (vae_config_parse(&c, (const char *)data, size, "config.json", &e) < 0) {
        if (e.code != ERR_INPUT || !e.msg[0]) abort();
        return 0;
    }
    if (c.n_levels < 2 || c.n_levels > VAE_MAX_LEVELS || c.z_dim < 1 || c.z_dim > VAE_MAX_Z ||
        c.base_dim < 1 || c.decoder_base_dim < 1 || c.num_res_blocks < 1)
        abort();
    size_t one, more;
    if (vae_decode_bytes(&one, &c, NULL, PRECISION_FP32, 1, 4, 4, &e) < 0 ||
        vae_decode_bytes(&more, &c, NULL, PRECISION_FP32, 5, 8, 8, &e) < 0)
        abort();
    if (one == 0 || more < one || more > (size_t)1 << 44) abort();
    return 0;
}
