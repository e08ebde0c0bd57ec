/* Promise: any bytes as model.safetensors.index.json beside two good shards give a message, or
 * exactly the tensors of the shards that it names. */
#include "model/weights/weights.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void shard(const char *name, const char *header, size_t n)
{
    unsigned char bytes[512] = {0};
    size_t len = strlen(header);
    bytes[0] = (unsigned char)len;
    memcpy(bytes + 8, header, len);
    folder_put(name, bytes, 8 + len + n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weights *w;
    struct err e = {0};
    if (folder_begin()) {
        shard("a.safetensors", "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
              8);
        shard("b.safetensors",
              "{\"y\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
              "\"z\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[12,14]}}",
              14);
    }
    folder_put("model.safetensors.index.json", data, size);
    size_t on_disk = weights_on_disk(folder, "model");
    if (weights_open(&w, folder, "model", &e) < 0) {
        if (!e.code || !e.msg[0] || w) abort();
        return 0;
    }
    int n = weights_count(w), x = weights_find(w, "x") != NULL, y = weights_find(w, "y") != NULL;
    if (n != x + 2 * y || (n > 0 && !on_disk)) abort();
    weights_close(w);
    return 0;
}
