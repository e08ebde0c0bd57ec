/* Promise: a transformer config is refused with a sentence, or every size in it is sane enough to
 * be counted: tokens, weights and a run's bytes without overflow. */
#include "model/dit/dit.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64] = "/tmp/ditgen-fuzz-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0) return 0;
    FILE *f = fdopen(fd, "wb");
    if (!f) abort();
    fwrite(data, 1, size, f);
    fclose(f);
    struct dit_config c;
    struct err e = {0};
    if (dit_config_read(&c, path, &e) < 0) {
        assert(e.code == ERR_INPUT && e.msg[0]);
    } else {
        struct dit_grid g = {2, 4 * c.patch_h, 3 * c.patch_w};
        assert(c.n_heads * c.head_dim >= 2 && c.n_layers >= 1 && dit_tokens(&c, &g) == 24);
        assert((c.image_dim > 0) == (c.added_kv_proj_dim > 0));
    }
    unlink(path);
    return 0;
}
