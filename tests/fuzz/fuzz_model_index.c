/* Promise: any bytes as model_index.json of a folder whose other configs are good give a message, or
 * a pipeline that this program runs. */
#include "model/model.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const parts[] = {"text_encoder", "transformer", "vae", "tokenizer"};
    static struct model_info m;
    struct err e = {0};
    if (folder_begin())
        for (int i = 0; i < 4; i++) {
            char from[1200], to[128];
            snprintf(from, sizeof from, "%s/assets/emoji/%s", TEST_SOURCE_DIR, parts[i]);
            snprintf(to, sizeof to, "%s/%s", folder, parts[i]);
            if (symlink(from, to) != 0) abort();
        }
    folder_put("model_index.json", data, size);
    if (model_info_read(&m, folder, &e) < 0) {
        if (!e.code || !e.msg[0]) abort();
    } else if (strcmp(m.class_name, "WanPipeline") != 0 || m.boundary_ratio != 0 ||
               m.dit.text_dim != m.text.d_model || !memchr(m.tokenizer_class, 0, 64)) {
        abort();
    }
    return 0;
}
