/* Any bytes as a prompt: a cleaned text that is UTF-8 with no outer or doubled spaces, or a
 * message. */
#include "model/text/text.h"
#include "model/text/unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *out;
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    for (int fix = 0; fix < 2; fix++) {
        struct err e = {0};
        if (prompt_clean(&out, text, fix, &e) < 0) {
            assert(!out && e.code && e.msg[0]);
            continue;
        }
        size_t n = strlen(out);
        assert(utf8_valid(out, n));
        assert(n == 0 || (out[0] != ' ' && out[n - 1] != ' ' && !strstr(out, "  ")));
        free(out);
    }
    free(text);
    return 0;
}
