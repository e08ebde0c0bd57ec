/* A hostile tokenizer.json, and a text after its first NUL byte: a message, or ids that all exist.
 */
#include "model/text/text.h"
#include "model/text/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const struct tokenizer *t, const char *text, int max)
{
    int *ids = malloc((size_t)max * sizeof *ids), n;
    bool cut;
    struct err e = {0};
    if (!ids) return;
    if (tokenizer_encode(t, ids, max, &n, &cut, text, &e) == 0) {
        assert(n >= 0 && n <= max);
        for (int i = 0; i < n; i++)
            assert(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(t));
    } else {
        assert(e.code && e.msg[0]);
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - data) : size;
    struct tokenizer *t = calloc(1, sizeof *t);
    char *text = calloc(1, size - len + 1), *json = calloc(1, len + 1);
    struct err e = {0};
    if (t && text && json) {
        memcpy(json, data, len);
        if (nul) memcpy(text, nul + 1, size - len - 1);
        if (tokenizer_parse(t, json, len, "fuzz", &e) == 0) {
            encode(t, text, 64);
            encode(t, "a </s> b  \xE2\x96\x81 <extra_id_0>\xCC\x81 \xEF\xBC\xA1", 8);
        } else {
            assert(e.code && e.msg[0]);
        }
    }
    tokenizer_close(t);
    free(text);
    free(json);
    return 0;
}
