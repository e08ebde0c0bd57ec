/* Memory that runs out at the Nth allocation, for every N while files are read: the call fails with
 * ERR_RESOURCE (exit code 4) and not as if the file were broken, or succeeds; nothing leaks. Linked
 * so that malloc and its kin of our own objects come here (tests/CMakeLists.txt). */
#include "model/base/file_map.h"
#include "model/base/json.h"
#include "model/base/regex.h"
#include "model/text/text.h"
#include "model/weights/weights.h"
#include "tests/check.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);

static long calls, fails_at = -1; /* counted from 0; -1: never */

static int fails(void) { return calls++ == fails_at; }

void *__wrap_malloc(size_t n) { return fails() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : __real_realloc(p, n); }
char *__wrap_strdup(const char *s) { return fails() ? NULL : __real_strdup(s); }
void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return fails() ? NULL : __real_aligned_alloc(align, n);
}

#define DATA TEST_SOURCE_DIR "/tests/golden/data/"
#define EMOJI TEST_SOURCE_DIR "/assets/emoji/"

static int json(struct err *e)
{
    struct json *j;
    int r = json_open(&j, DATA "vae_wan21.json", e);
    if (r == 0) json_close(j);
    return r;
}

static int text(struct err *e)
{
    char *s;
    int r = text_read(&s, NULL, DATA "text_clean.json", 1 << 20, e);
    if (r == 0) free(s);
    return r;
}

static int open_and_encode(const char *dir, struct err *e)
{
    struct tokenizer *t;
    int ids[64], n;
    bool cut;
    int r = tokenizer_open(&t, dir, NULL, e);
    if (r < 0) return r;
    r = tokenizer_encode(t, ids, 64, &n, &cut, "a red  fish </s> \xEF\xBC\xA1", e);
    tokenizer_close(t);
    return r;
}

static int tokenizer(struct err *e) { return open_and_encode(DATA "text_tok_odd", e); }
static int spiece(struct err *e) { return open_and_encode(DATA "text_spiece", e); }

static int clean(struct err *e)
{
    char *s;
    int r = prompt_clean(&s, "\xE2\x80\x9CTwo\xE2\x80\x9D &amp;amp; e\xCC\x81  fish\n<b>", true, e);
    if (r == 0) free(s);
    return r;
}

static int encoder_config(struct err *e)
{
    struct umt5_config c;
    return umt5_config_read(&c, EMOJI "text_encoder/config.json", e);
}

static int weights(struct err *e)
{
    struct weights *w;
    int r = weights_open(&w, EMOJI "vae", "diffusion_pytorch_model", e);
    if (r == 0) weights_close(w);
    return r;
}

static int pattern(struct err *e)
{
    struct regex *x;
    int r = regex_open(&x, "(blocks\\.\\d{1,3}|x)\\.to_[qkv]+", e);
    if (r == 0) regex_close(x);
    return r;
}

static void each(const char *what, int (*call)(struct err *))
{
    struct err e = {0};
    calls = 0;
    fails_at = -1;
    CHECK_MSG(call(&e) == 0, "%s: %s", what, e.msg);
    long all = calls;
    CHECK(all > 0);
    for (long n = 0; n < all; n += n < 300 ? 1 : 53) {
        e = (struct err){0};
        calls = 0;
        fails_at = n;
        int r = call(&e);
        fails_at = -1;
        CHECK_MSG(r == 0 || (e.code == ERR_RESOURCE && e.msg[0]),
                  "%s, allocation %ld of %ld: code %d, \"%s\"", what, n, all, (int)e.code, e.msg);
    }
    printf("%s: %ld allocations\n", what, all);
}

int main(void)
{
    each("json", json);
    each("text", text);
    each("prompt", clean);
    each("tokenizer.json", tokenizer);
    each("spiece.model", spiece);
    each("text_encoder/config.json", encoder_config);
    each("weights", weights);
    each("pattern", pattern);
    return TEST_RESULT();
}
