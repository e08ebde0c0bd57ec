/* A promise: any bytes give a message, or every tensor lies inside the file. */
#include "model/weights/weights.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[] = "/tmp/ditgen-fuzz-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    close(fd);
    struct weights *w;
    struct err e = {0};
    if (weights_open_file(&w, path, &e) == 0) {
        volatile unsigned sum = 0;
        for (int i = 0; i < weights_count(w); i++) {
            const char *name;
            const struct tensor *t = weights_at(w, i, &name);
            size_t n = tensor_len(t) * dtype_size(t->dtype);
            if (n > size || !name) abort();
            for (size_t k = 0; k < n; k++)
                sum += ((const unsigned char *)t->data)[k];
        }
        weights_close(w);
    } else if (!e.msg[0]) {
        abort();
    }
    unlink(path);
    return 0;
}
