/* Promise: any bytes as an adapter give a message, or merge into weights of these sizes. The same
 * bytes are also read as the metadata of one. */
#include "model/dit/lora.h"
#include "model/dit/lora_meta.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
    if (!holds) abort();
}

static void as_file(const uint8_t *data, size_t size)
{
    static const char *const modules[] = {"blocks.0.attn1.to_q", "proj_out", "m"};
    float w[12] = {0}, b[3] = {0};
    struct lora *l;
    struct err e = {0};
    char path[128];
    folder_put("a.safetensors", data, size);
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    if (lora_open(&l, path, 0.5, &e) < 0) {
        must(e.code && e.msg[0] && !l);
        return;
    }
    for (int i = 0; i < 3; i++) {
        struct tensor weight = {w, DTYPE_F32, 2, {3, 4}}, bias = {b, DTYPE_F32, 1, {3}};
        if (lora_merge(l, modules[i], &weight, &bias, &e) < 0) {
            must(e.code && e.msg[0]);
            continue;
        }
        volatile float last = ((const float *)weight.data)[11] + ((const float *)bias.data)[2];
        (void)last;
    }
    if (lora_all_used(l, &e) < 0) must(e.code && e.msg[0]);
    lora_close(l);
}

static void as_metadata(const uint8_t *data, size_t size)
{
    struct lora_meta *m;
    struct err e = {0};
    char *text = malloc(size + 1);
    if (!text) return;
    memcpy(text, data, size);
    text[size] = 0;
    double scale = 0;
    if (lora_meta_open(&m, text, "fuzz", &e) < 0)
        must(e.code && e.msg[0] && !m);
    else if (lora_meta_scale(m, "blocks.11.attn2.to_out.0", 4, &scale, &e) < 0)
        must(e.code && e.msg[0]);
    else
        must(scale == scale);
    lora_meta_close(m);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    folder_begin();
    as_file(data, size);
    as_metadata(data, size);
    return 0;
}
