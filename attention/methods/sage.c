/* Products over codes of 8 or 4 bits instead of the run's own: SageAttention, arXiv 2410.02367,
 * 2411.10958 (int4, q smoothing, FP8 values), 2505.11594 (int8 and FP4 forms); attention-kernels.md 1.
 *
 * q and k: a scale a row, keys less their mean over the clip. Values: int8 with a scale a channel, under
 * weights in 255ths of a chunk's largest (1.10 there); or what FP8 leaves of them, which no CPU
 * multiplies faster: for its accuracy alone, as int4 is. `auto` is int8 where the processor gains by
 * it, else the run's own. Says nothing about what is kept: composes with everything that does.
 *
 * On a GPU a scale is shared by the rows that one lane of the tensor core holds (quant_ref.h): two
 * queries, 32 keys. `auto` values are FP8's there, which it multiplies as fast and more accurately, and
 * codes of q and k come with values of 8 bits or not at all. */
#include "attention/method.h"

#include <stdlib.h>
#include <string.h>

struct sage {
    struct attn_knobs knobs;
    char *qk, *pv;
    bool smooth_k, smooth_q, rotate;
};

struct word {
    const char *name;
    enum attn_prec prec;
    unsigned need;
};
static const struct word qk_words[] = {{"auto", ATTN_PREC_INT8, ATTN_NEED_QK_INT8},
                                       {"run", ATTN_PREC_RUN, 0},
                                       {"int8", ATTN_PREC_INT8, ATTN_NEED_QK_INT8},
                                       {"int4", ATTN_PREC_INT4, ATTN_NEED_QK_INT4},
                                       {0}},
                         pv_words[] = {{"auto", ATTN_PREC_INT8, ATTN_NEED_PV_INT8},
                                       {"run", ATTN_PREC_RUN, 0},
                                       {"int8", ATTN_PREC_INT8, ATTN_NEED_PV_INT8},
                                       {"fp8", ATTN_PREC_FP8, ATTN_NEED_PV_FP8},
                                       {0}};

/* "WORD", then "/LAYER=WORD" or "/FIRST-LAST=WORD" any number of times; the last that names a layer
 * counts. NULL: the text at *bad is none of these. */
static const struct word *word_of(const char *text, const struct word *words, int layer,
                                  const char **bad)
{
    const struct word *found = NULL;
    for (const char *at = text; at;) {
        const char *next = strchr(at, '/');
        size_t n = next ? (size_t)(next - at) : strlen(at);
        const char *name = at;
        long from = 0, to = layer;
        *bad = at;
        if (at != text) {
            char *end;
            if (*at < '0' || *at > '9') return NULL;
            from = to = strtol(at, &end, 10);
            if (*end == '-' && end[1] >= '0' && end[1] <= '9') to = strtol(end + 1, &end, 10);
            if (*end != '=' || to < from) return NULL;
            name = end + 1;
            n -= (size_t)(name - at);
        }
        const struct word *w = words;
        while (w->name && !(strlen(w->name) == n && memcmp(w->name, name, n) == 0))
            w++;
        if (!w->name) return NULL;
        if (layer >= from && layer <= to) found = w;
        at = next ? next + 1 : NULL;
    }
    return found;
}

/* Of pv; `auto` is what the place multiplies fastest. */
static const struct word *values_of(const struct attn_part *p, int layer)
{
    static const struct word there = {"auto", ATTN_PREC_FP8, ATTN_NEED_PV_FP8};
    const struct sage *o = p->options;
    const char *bad;
    const struct word *w = word_of(o->pv, pv_words, layer, &bad);
    return w == pv_words && attn_on_device(p) ? &there : w;
}

static int check_words(const char *option, const char *text, const struct word *words,
                       struct err *e)
{
    const char *bad;
    if (word_of(text, words, 0, &bad)) return 0;
    return err_set(e, ERR_USAGE,
                   "%s=%.60s: '%.40s' is not auto, run, int8 or %s, nor LAYERS=one of them, as "
                   "int8/0-1=run",
                   option, text, bad, words == qk_words ? "int4" : "fp8");
}

static int sage_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    const struct sage *o = p->options;
    int d = p->shape->head_dim;
    (void)r;
    if (check_words("qk", o->qk, qk_words, e) < 0 || check_words("pv", o->pv, pv_words, e) < 0)
        return -1;
    if (o->rotate && (d & (d - 1)))
        return err_set(e, ERR_USAGE,
                       "rotate turns heads of 2, 4, 8 ... channels, this model's have %d", d);
    for (int layer = 0; layer < p->shape->n_layers; layer++) {
        const char *bad;
        const struct word *qk = word_of(o->qk, qk_words, layer, &bad),
                          *pv = word_of(o->pv, pv_words, layer, &bad);
        if (qk->prec == ATTN_PREC_RUN && pv->need && strcmp(pv->name, "auto") != 0)
            return err_set(e, ERR_USAGE,
                           "layer %d: pv=%s wants codes of q and k as well, and qk is the run's; "
                           "name both",
                           layer, pv->name);
    }
    return 0;
}

static struct attn_needed sage_needs(const struct attn_part *p)
{
    const struct sage *o = p->options;
    struct attn_needed n = {0};
    for (int layer = 0; layer < p->shape->n_layers; layer++) {
        const char *bad;
        const struct word *words[] = {word_of(o->qk, qk_words, layer, &bad), values_of(p, layer)};
        bool gladly[] = {strcmp(words[0]->name, "auto") == 0, strcmp(words[1]->name, "auto") == 0};
        if (words[1]->need && !gladly[1]) gladly[0] = false; /* values that must be want q and k */
        if (attn_on_device(p) && words[0]->need) { /* there both or none */
            if (!gladly[0]) gladly[1] = false;
            if (!words[1]->need) n.must |= ATTN_NEED_PREC;
        }
        for (int i = 0; i < 2 && words[0]->need; i++)
            *(gladly[i] ? &n.gladly : &n.must) |= words[i]->need;
        if (words[0]->need && o->smooth_q) /* goes with the codes of q */
            *(gladly[0] ? &n.gladly : &n.must) |= ATTN_NEED_SMOOTH_Q;
    }
    return n;
}

static int by_options(const struct attn_part *p, const struct attn_turn *t, struct attn_launch *l,
                      struct err *e)
{
    const struct sage *o = p->options;
    const char *bad;
    const struct word *qk = word_of(o->qk, qk_words, t->at.layer, &bad),
                      *pv = values_of(p, t->at.layer);
    unsigned granted = attn_granted(p);
    (void)e;
    if (qk->need & ~granted) return 0; /* auto, and it would not pay */
    l->plan.qk = qk->prec;
    if (qk->need && !(pv->need & ~granted)) l->plan.pv = pv->prec;
    l->plan.codes =
        (struct attn_codes){.smooth_k = o->smooth_k, .smooth_q = o->smooth_q, .rotate = o->rotate};
    return 0;
}

static const struct axis_precision products_by_options = {
    .name = "sage",
    .summary = "codes of 8 or 4 bits: qk, pv",
    .needs = sage_needs,
    .choose = by_options,
};

const struct attn_method attn_sage = {
    .name = "sage",
    .summary = "products over codes of 8 bits, where processor or GPU gain by them",
    .paper = "2411.10958",
    .recipe = {.precision = &products_by_options},
    .options = OPTIONS(
        OPT_STRING(struct sage, qk, "qk", "auto",
                   "q times k: auto, run, int8 or int4; layers apart as int8/0-1=run/29=int4"),
        OPT_STRING(
            struct sage, pv, "pv", "auto",
            "weights times v: auto, run, int8 or fp8 (a CPU emulates it); layers apart as for qk"),
        OPT_BOOL(struct sage, smooth_k, "smooth_k", true, "keys less their mean: exact, and finer"),
        OPT_BOOL(
            struct sage, smooth_q, "smooth_q", false,
            "q less its mean over 128 tokens, whose scores are added: for int4, on a processor"),
        OPT_BOOL(struct sage, rotate, "rotate", false,
                 "a Hadamard turn of q and k, where a few channels dwarf the others"),
        OPT_DOUBLE(struct attn_knobs, first, "first", 0, 0, 1000,
                   "exact steps at the start: a share below 1, a count from 1 on"),
        OPT_DOUBLE(struct attn_knobs, last, "last", 0, 0, 1000, "exact steps at the end"),
        OPT_INT(struct attn_knobs, layers, "layers", 0, 0, 1000, "exact layers at the start")),
    .options_size = sizeof(struct sage),
    .choose = sage_choose,
};
