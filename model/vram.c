/* What a run will hold of a device's memory, phase by phase, and what of the transformer's weights stays
 * there: by the code that carves, before a weight is read. */
#include "model/store.h"

#include "model/ops/ops.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Sums that stay at "too much". */
static size_t plus(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }

struct parts { /* bytes */
    size_t use; /* beside all that is allocated */
    size_t text, text_least; /* matrices that stay, or that come one by one */
    size_t run, host; /* denoising, weights apart; and of the host's memory */
    size_t decode;
    size_t kept_dit, kept_vae; /* there from an earlier run */
};

static int ask_parts(struct parts *a, const struct model_info *m, const struct model_params *p,
                     const struct model_clip *c, int text_rows, struct err *e)
{
    struct dit_run_params r = model_run_params(m, p, c, text_rows);
    const struct model_store *s = p->store;
    *a = (struct parts){.use = device_beside(p->device)};
    a->kept_dit = s && s->dit ? dit_held_bytes(s->dit) : 0;
    a->kept_vae = s && s->vae ? vae_held_bytes(s->vae) : 0;
    a->text_least =
        umt5_bytes_within(&m->text, p->device, precision_beside(p->precision), text_rows, 0);
    if (dit_run_bytes(&a->run, &a->host, &m->dit, p->precision, &r, e) < 0) return -1;
    a->run = plus(a->run, p->beside);
    return vae_decode_bytes(&a->decode, &m->vae, p->device, precision_beside(p->precision),
                            r.grid.frames, r.grid.height, r.grid.width, e);
}

/* Weights of the transformer with the fewest blocks streamed, from so many on, that room takes; if none
 * does, the least there can be. */
static size_t choose(struct model_vram *v, const struct model_info *m, const struct model_params *p,
                     int from, size_t room)
{
    size_t least = SIZE_MAX, packs;
    for (int i = from; i <= v->n_blocks; i++) {
        size_t bytes = dit_kept_bytes(&m->dit, p->device, p->precision, i, &packs);
        if (bytes >= least) continue;
        least = bytes;
        v->streamed = i;
        v->pinned = packs;
        if (bytes <= room) break;
    }
    return least;
}

static size_t minus(size_t a, size_t b) { return a > b ? a - b : 0; }

/* Text first; what an earlier run left goes only where it does not find room beside that. */
static void plan_text(struct model_vram *v, const struct parts *a, const struct model_info *m,
                      const struct model_params *p, int text_rows)
{
    size_t kept = a->kept_dit + a->kept_vae, room = minus(v->limit, a->use);
    v->clear_for_text = a->text_least > minus(room, kept);
    if (v->clear_for_text) kept = 0;
    v->bytes[0] =
        plus(a->use + kept, umt5_bytes_within(&m->text, p->device, precision_beside(p->precision),
                                              text_rows, minus(room, kept)));
}

/* The transformer's weights beside all of the text's, when there is room for both and none is there. */
static void plan_early(struct model_vram *v, const struct parts *a, const struct model_info *m,
                       const struct model_params *p, const struct dit *there, size_t vae,
                       size_t weights)
{
    size_t most = umt5_bytes_within(&m->text, p->device, p->precision, MODEL_TEXT_LEN, SIZE_MAX);
    size_t other = p->store && !there ? a->kept_dit : 0; /* of other settings: goes only then */
    v->early = p->store && !there && !other && !v->streamed && !p->lora && !v->clear_for_text &&
               plus(plus(a->use + vae, weights), most) <= v->limit;
    if (v->early) v->bytes[0] = plus(v->bytes[0], weights);
}

int model_plan_vram(struct model_vram *v, const struct model_info *m, const struct model_params *p,
                    const struct model_clip *c, int text_rows, struct err *e)
{
    struct parts a;
    struct dit_params dp;
    char path[4352];
    size_t packs;
    *v = (struct model_vram){.n_blocks = m->dit.n_layers, .limit = device_ceiling(p->device)};
    if (ask_parts(&a, m, p, c, text_rows, e) < 0) return -1;
    v->host = a.host;
    plan_text(v, &a, m, p, text_rows);
    store_dit_params(&dp, path, sizeof path, m, p);
    dp.streamed = 0;
    struct dit *there = v->clear_for_text ? NULL : store_has_dit(p->store, &dp);
    size_t vae = v->clear_for_text ? 0 : a.kept_vae;
    size_t before = v->clear_for_text ? 0 : a.use + a.kept_dit + a.kept_vae;
    size_t room = minus(v->limit, plus(a.use, a.run));
    size_t all = dit_kept_bytes(&m->dit, p->device, p->precision, 0, &packs);
    v->vae_stays = plus(vae, all) <= room;
    if (!v->vae_stays) vae = 0;
    size_t weights = choose(v, m, p, there ? dit_streamed(there) : 0, minus(room, vae));
    if (there && plus(weights, vae) > room) weights = choose(v, m, p, 0, room);
    plan_early(v, &a, m, p, there, vae, all);
    v->bytes[1] = larger(plus(plus(a.use + vae, weights), a.run), before);
    v->dit_stays = p->store && plus(plus(a.use, weights), a.decode) <= v->limit;
    v->bytes[2] = plus(a.use + (v->dit_stays ? weights : 0), a.decode);
    if (p->store) v->bytes[2] = larger(v->bytes[2], plus(a.use + vae, weights)); /* as it begins */
    struct model_vram least = *v;
    const size_t phases[3] = {plus(a.use, a.text_least),
                              plus(plus(a.use, choose(&least, m, p, 0, 0)), a.run),
                              plus(a.use, a.decode)};
    for (int i = 0; i < 3; i++) {
        if (phases[i] > v->least) v->least_phase = i;
        v->least = larger(v->least, phases[i]);
        if (v->bytes[i] > v->limit) v->over = true;
    }
    return 0;
}
