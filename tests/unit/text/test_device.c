/* The text encoder on a device that nobody else can compute for: the host's numbers to the bit, matrices
 * that stay there or are streamed, the memory that was predicted, allocations that fail. */
#include "model/text/text.h"

#include "model/base/device_table.h"
#include "model/ops/ops.h"
#include "tests/check.h"
#include "tests/fake/fake.h"

enum { TOKENS = 23 };

static void encode(struct device *d, enum precision p, float *out, const int *ids)
{
    char dir[1024];
    struct umt5 *u;
    struct err e = {0};
    snprintf(dir, sizeof dir, "%s/assets/emoji/text_encoder", TEST_SOURCE_DIR);
    CHECK_OK(umt5_open(&u, d, dir, p, NULL, &e));
    if (!u) return;
    fake_guard(d != NULL);
    CHECK_OK(umt5_encode(u, out, ids, TOKENS, NULL, NULL, &e));
    CHECK_OK(umt5_encode(u, out, ids, TOKENS, NULL, NULL, &e)); /* what went up is found there */
    fake_guard(false);
    umt5_close(u);
}

/* Products of several layers may round otherwise than those of one, as they do on a GPU: whoever makes them
 * where matrices stay, and cannot where they are streamed, has two results. */
static int no_several(struct op_linear *const *l, const struct rows *y, int n, const struct rows *x,
                      void *scratch, struct err *e)
{
    (void)l, (void)y, (void)x, (void)scratch;
    return err_set(e, ERR_BUG, "%d layers at once, which streamed matrices cannot be", n);
}

static void same_as_host(struct device *d, enum precision p, const struct umt5_config *c)
{
    const struct ops *real = d->ops;
    struct ops ops = *real;
    ops.linear_several = no_several;
    d->ops = &ops;
    size_t n = TOKENS * (size_t)c->d_model;
    float *host = malloc(n * 4), *away = malloc(n * 4);
    int ids[TOKENS];
    long counts[DEVICE_OPS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 97 + 5) % c->vocab_size;
    encode(NULL, p, host, ids);
    for (int streamed = 0; streamed < 2; streamed++) {
        size_t held = umt5_bytes(c, d, p, TOKENS);
        /* all but a byte of what a full prompt beside all matrices wants */
        if (streamed) device_limit(d, umt5_bytes(c, d, p, 512) - 1);
        size_t predicted = umt5_bytes(c, d, p, TOKENS);
        CHECK(streamed ? predicted < held : predicted == held);
        memset(away, 0xff, n * 4);
        device_peak_reset(d);
        device_counts_reset(d);
        encode(d, p, away, ids);
        CHECK(memcmp(host, away, n * 4) == 0);
        device_counts(d, counts);
        CHECK(counts[OP_TEXT] == 2 * (c->n_layers * 5 + 1));
        CHECK_MSG(device_peak(d) == predicted, "%zu, predicted %zu", device_peak(d), predicted);
        device_limit(d, 0);
    }
    d->ops = real;
    free(host);
    free(away);
}

static void out_of_memory(struct device *d)
{
    char dir[1024];
    struct umt5 *u;
    struct err e = {0};
    float *out = malloc(TOKENS * 4096 * sizeof *out);
    int ids[TOKENS] = {1, 2, 3};
    snprintf(dir, sizeof dir, "%s/assets/emoji/text_encoder", TEST_SOURCE_DIR);
    CHECK_OK(umt5_open(&u, d, dir, PRECISION_FP32, NULL, &e));
    d->fail_alloc = 1;
    CHECK(umt5_encode(u, out, ids, TOKENS, NULL, NULL, &e) < 0 && e.code == ERR_RESOURCE);
    d->fail_alloc = 0;
    CHECK(device_held(d) == 0);
    CHECK_OK(umt5_encode(u, out, ids, TOKENS, NULL, NULL, &e)); /* once there is room again */
    umt5_close(u);
    free(out);
}

/* Layers that opened before one did not are closed, and open again at the next call. */
static struct counting {
    const struct ops *real;
    int opened, closed, fail; /* the open that fails, from 1 on */
} counting;

static int counting_open(struct op_linear **l, struct device *d, const struct linear_params *p,
                         const struct tensor *weight, const struct tensor *bias,
                         struct linear_stage *stage, struct err *e)
{
    if (counting.opened + 1 == counting.fail) {
        counting.fail = 0;
        return err_set(e, ERR_RESOURCE, "no room for a layer");
    }
    if (counting.real->linear_open(l, d, p, weight, bias, stage, e) < 0) return -1;
    counting.opened++;
    return 0;
}

static void counting_close(struct op_linear *l)
{
    counting.closed += l != NULL;
    counting.real->linear_close(l);
}

static void broken_off(struct device *d)
{
    char dir[1024];
    struct umt5 *u;
    struct err e = {0};
    struct ops ops = *d->ops;
    float *out = malloc(TOKENS * 4096 * sizeof *out);
    int ids[TOKENS] = {1, 2, 3};
    counting = (struct counting){.real = d->ops, .fail = 5};
    ops.linear_open = counting_open;
    ops.linear_close = counting_close;
    d->ops = &ops;
    snprintf(dir, sizeof dir, "%s/assets/emoji/text_encoder", TEST_SOURCE_DIR);
    CHECK_OK(umt5_open(&u, d, dir, PRECISION_FP32, NULL, &e));
    CHECK(umt5_encode(u, out, ids, TOKENS, NULL, NULL, &e) < 0 && e.code == ERR_RESOURCE);
    CHECK(counting.opened == 4 && counting.closed == 4);
    e = (struct err){0};
    CHECK_OK(umt5_encode(u, out, ids, TOKENS, NULL, NULL, &e));
    umt5_close(u);
    CHECK(counting.opened > 4 && counting.closed == counting.opened);
    d->ops = counting.real;
    free(out);
}

int main(void)
{
    struct device *d;
    struct umt5_config c;
    struct err e = {0};
    char path[1024];
    snprintf(path, sizeof path, "%s/assets/emoji/text_encoder/config.json", TEST_SOURCE_DIR);
    CHECK_OK(umt5_config_read(&c, path, &e));
    CHECK_OK(fake_open(&d, false, &e));
    same_as_host(d, PRECISION_FP32, &c);
    same_as_host(d, PRECISION_BF16_EMULATED, &c);
    out_of_memory(d);
    broken_off(d);
    CHECK(device_held(d) == 0);
    device_close(d);
    return TEST_RESULT();
}
