/* Heads that add least are left out, whatever else is done: heads of all layers are ranked by what
 * would be lost of them in the exact steps. Head skipping as in Sparse-vDiT (arXiv 2506.03065;
 * attention-sparse.md 6: 6 % of the heads of one model cost nothing to be seen, of another 8 dB).
 *
 * What is lost of a head: its part of the squares of the layer's o, about what stands for it (its mean
 * over the tokens of the last exact step, fill=mean, or nothing, fill=zero). The first step, exact or
 * not, is computed whole and looked at; from the second that is not exact on the choice stands. */
#include "attention/axes/axes.h"

#include <stdlib.h>
#include <string.h>

struct skip {
    struct attn_knobs knobs;
    double share;
    char *heads;
    int fill;
};

struct shared { /* lost [layers, N], seen [layers], out [layers, N] follow */
    int64_t first; /* step that was seen first, + 1 */
    int64_t chosen;
};

struct state { /* of a layer and branch */
    int64_t known;
    float mean[]; /* [N, D] */
};

static const struct skip *of(const struct attn_part *p) { return p->options; }
static int all_of(const struct attn_part *p) { return p->shape->n_layers * p->shape->n_heads; }

static double *lost_of(const struct attn_part *p)
{
    return (double *)((struct shared *)attn_shared(p) + 1);
}
static int64_t *seen_of(const struct attn_part *p) { return (int64_t *)(lost_of(p) + all_of(p)); }
static uint8_t *out_of(const struct attn_part *p)
{
    return (uint8_t *)(seen_of(p) + p->shape->n_layers);
}

static void skip_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t all = (size_t)all_of(p);
    s->shared = sizeof(struct shared) + all * (sizeof(double) + 1) +
                (size_t)p->shape->n_layers * sizeof(int64_t);
    s->state = sizeof(struct state) +
               (size_t)p->shape->n_heads * (size_t)p->shape->head_dim * sizeof(float);
    s->scratch = skip_lists(p);
}

/* "3.1/3.4": layer.head. out may be NULL. */
static int read_heads(const struct attn_part *p, const char *text, uint8_t *out, struct err *e)
{
    for (const char *at = text; at;) {
        char word[24], *dot;
        int layer, head;
        size_t n = strcspn(at, "/");
        if (n >= sizeof word) break;
        memcpy(word, at, n);
        word[n] = 0;
        if (!(dot = strchr(word, '.'))) break;
        *dot = 0;
        if (parse_int(word, 0, p->shape->n_layers - 1, &layer) < 0 ||
            parse_int(dot + 1, 0, p->shape->n_heads - 1, &head) < 0)
            break;
        if (out) out[layer * p->shape->n_heads + head] = 1;
        if (!at[n]) return 0;
        at += n + 1;
    }
    return err_set(
        e, ERR_USAGE,
        "heads is '%.60s', wanted layer.head as 3.1/3.4, layers up to %d, heads up to %d", text,
        p->shape->n_layers - 1, p->shape->n_heads - 1);
}

static int skip_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    (void)r;
    return of(p)->heads ? read_heads(p, of(p)->heads, NULL, e) : 0;
}

/* Of the layers that were seen and are not always exact, the share of heads of which least is lost;
 * equals by number. */
static void rank(const struct attn_part *p)
{
    int heads = p->shape->n_heads, first = attn_exact_layers(p) * heads, all = all_of(p),
        of_all = 0;
    const double *lost = lost_of(p);
    const int64_t *seen = seen_of(p);
    for (int i = first; i < all; i++)
        of_all += seen[i / heads] > 0;
    int most = (int)(of(p)->share * of_all + 1e-9);
    for (int i = first; i < all; i++) {
        int less = 0;
        double mine = lost[i] / (double)seen[i / heads];
        for (int j = first; j < all; j++) {
            double other = lost[j] / (double)seen[j / heads];
            less += seen[j / heads] && (other < mine || (!(other > mine) && j < i));
        }
        out_of(p)[i] = seen[i / heads] && less < most;
    }
}

static int skip_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                     struct err *e)
{
    struct shared *s = attn_shared(p);
    struct state *mine = attn_state(p, t->at.layer, t->at.branch);
    if (!s->chosen && s->first && t->at.step >= s->first) {
        if (!of(p)->heads)
            rank(p);
        else if (read_heads(p, of(p)->heads, out_of(p), e) < 0)
            return -1;
        s->chosen = 1;
    }
    if (!s->chosen || !mine->known) return 0; /* looked at first */
    return skip_heads(c, p, out_of(p) + t->at.layer * p->shape->n_heads,
                      of(p)->fill == 0 ? mine->mean : NULL, attn_scratch(p), e);
}

/* Squares of o about what would stand for it, as a share of the layer's. */
static void look(const struct attn_part *p, const struct attn_turn *t, const float *mean)
{
    double part[256], all = 0;
    int heads = p->shape->n_heads;
    for (int h = 0; h < heads; h++) {
        part[h] = 0;
        for (int i = 0; i < p->tokens; i++) {
            const float *o = heads_at(&t->o, i, h);
            for (int c = 0; c < t->o.dim; c++) {
                double x = (double)o[c];
                double d = of(p)->fill == 0 ? x - (double)mean[h * t->o.dim + c] : x;
                part[h] += d * d;
                all += x * x;
            }
        }
    }
    for (int h = 0; all > 0 && h < heads; h++)
        lost_of(p)[t->at.layer * heads + h] += part[h] / all;
    seen_of(p)[t->at.layer]++;
}

static int skip_observe(const struct attn_part *p, const struct attn_turn *t,
                        const struct attn_seen *seen, struct err *e)
{
    struct shared *s = attn_shared(p);
    struct state *mine = attn_state(p, t->at.layer, t->at.branch);
    (void)seen, (void)e;
    if (s->chosen && mine->known && !t->exact) return 0; /* heads are missing */
    skip_mean(mine->mean, p, t);
    mine->known = 1;
    if (s->chosen) return 0;
    look(p, t, mine->mean);
    if (!s->first) s->first = t->at.step + 1;
    return 0;
}

static unsigned skip_looks(const struct attn_part *p, const struct attn_turn *t)
{
    if (!t) return ATTN_LOOK_O;
    const struct shared *s = attn_shared(p);
    const struct state *mine = attn_state(p, t->at.layer, t->at.branch);
    return s->chosen && mine->known && !t->exact ? 0 : ATTN_LOOK_O;
}

/* One line, as the option takes it. */
static int skip_save(const struct attn_part *p, FILE *to, struct err *e)
{
    const struct shared *s = attn_shared(p);
    const char *mark = "";
    (void)e;
    for (int i = 0; s->chosen && i < all_of(p); i++) {
        if (!out_of(p)[i]) continue;
        fprintf(to, "%s%d.%d", mark, i / p->shape->n_heads, i % p->shape->n_heads);
        mark = "/";
    }
    fprintf(to, "%s\n", !s->chosen ? "unknown" : *mark ? "" : "none");
    return 0;
}

static int skip_load(const struct attn_part *p, const char *text, size_t n, struct err *e)
{
    struct shared *s = attn_shared(p);
    size_t len = n;
    if (len && text[len - 1] == '\n') len--;
    if (len == 7 && memcmp(text, "unknown", 7) == 0) return 0;
    char *copy = strndup(text, len);
    if (!copy) return err_set(e, ERR_RESOURCE, "no memory for a list of heads");
    memset(out_of(p), 0, (size_t)all_of(p));
    int rc = strcmp(copy, "none") == 0 ? 0 : read_heads(p, copy, out_of(p), e);
    free(copy);
    if (rc < 0) {
        e->code = ERR_INPUT;
        memset(out_of(p), 0, (size_t)all_of(p));
        return -1;
    }
    s->chosen = 1;
    return 0;
}

const struct attn_method attn_skip = {
    .name = "skip",
    .summary = "heads that add least are left out",
    .paper = "2506.03065",
    .options = OPTIONS(
        OPT_DOUBLE(struct skip, share, "share", 0.03, 0, 1, "share of all heads that is left out"),
        OPT_STRING(struct skip, heads, "heads", NULL,
                   "these instead, as layer.head/layer.head from 0 on"),
        OPT_ENUM(struct skip, fill, "fill", 0, "mean|zero",
                 "what stands for them: their mean over tokens of the last exact step, or nothing"),
        KNOB_FIRST(0.2), KNOB_LAST(0)),
    .options_size = sizeof(struct skip),
    .needs = ATTN_NEED_HEADS | ATTN_NEED_ZERO | ATTN_NEED_COPY,
    .choose = skip_choose,
    .sizes = skip_sizes,
    .plan = skip_plan,
    .plan_looks = attn_looks_nowhere,
    .steady = true,
    .splits = true,
    .observe = skip_observe,
    .observe_looks = skip_looks,
    .save = skip_save,
    .load = skip_load,
};
