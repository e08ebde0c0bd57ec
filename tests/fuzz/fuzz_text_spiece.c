/* Promise: any bytes as spiece.model, read as T5 and as another class, give a message, or ids that
 * all exist. */
#include "model/text/text.h"
#include "model/text/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "a </s> b  \xE2\x96\x81 <extra_id_0>\xCC\x81 \xEF\xBC\xA1 <0x41>!";
    for (int t5 = 0; t5 < 2; t5++) {
        struct tokenizer *t = calloc(1, sizeof *t);
        struct err e = {0};
        int ids[24], n;
        bool cut;
        if (!t) return 0;
        if (spiece_parse(t, data, size, NULL, NULL, t5 ? "T5Tokenizer" : NULL, &e) < 0) {
            must(e.code && e.msg[0]);
        } else if (tokenizer_encode(t, ids, 24, &n, &cut, text, &e) == 0) {
            must(n >= 1 && n <= 24);
            for (int i = 0; i < n; i++)
                must(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(t) && tokenizer_piece(t, ids[i]));
        } else {
            must(e.code && e.msg[0]);
        }
        tokenizer_close(t);
    }
    return 0;
}
