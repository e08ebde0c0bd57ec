/* Promise: any tokenizer_config.json, and after a NUL byte any added_tokens.json, beside a good
 * spiece.model give a message, or ids that all exist. */
#include "model/text/text.h"
#include "model/text/tokenizer.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
    if (!holds) abort();
}

static char *model;
static size_t model_len;

static void load(void)
{
    FILE *f = fopen(TEST_SOURCE_DIR "/tests/golden/data/text_spiece/spiece.model", "rb");
    model = malloc(1 << 20);
    if (!f || !model) abort();
    model_len = fread(model, 1, 1 << 20, f);
    fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct halves h = halves_of(data, size);
    struct json *config, *added;
    struct err e = {0};
    if (!model) load();
    if (json_parse(&config, (const char *)h.first, h.n_first, "config", &e) < 0)
        must(e.code && e.msg[0]);
    if (json_parse(&added, (const char *)h.rest, h.n_rest, "added", &e) < 0)
        must(e.code && e.msg[0]);
    struct tokenizer *t = calloc(1, sizeof *t);
    int ids[24], n;
    bool cut;
    if (t && spiece_parse(t, model, model_len, config, added, NULL, &e) < 0) {
        must(e.code && e.msg[0]);
    } else if (t && tokenizer_encode(t, ids, 24, &n, &cut, "a <extra_id_0> new b </s>", &e) == 0) {
        for (int i = 0; i < n; i++)
            must(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(t));
    }
    tokenizer_close(t);
    json_close(config);
    json_close(added);
    return 0;
}
