/* Where a run can be broken off and gone on from; see job.h. */
#include "app/lib/job.h"

#include "model/base/clock.h"
#include "model/base/device.h"

#include <stdlib.h>
#include <string.h>

/* Weights that were replaced under the same name are other weights. */
static uint64_t model_mark(const struct model_info *m)
{
    uint64_t h = 14695981039346656037u;
    const size_t facts[] = {m->weight_bytes[0], m->weight_bytes[1], m->weight_bytes[2],
                            (size_t)m->dit.n_layers, (size_t)m->dit.ffn_dim};
    for (size_t i = 0; i < ARRAY_LEN(facts); i++)
        h = (h ^ facts[i]) * 1099511628211u;
    return h ? h : 1;
}

int job_bring_back(struct job *j, bool history)
{
    const struct run *r = &j->run;
    size_t bytes = j->n * sizeof(float);
    if (!j->device) return 0;
    if (device_download(j->device, j->latents, j->latents_there, bytes, &j->failed) < 0) return -1;
    for (int i = 0; history && i < r->solver->history; i++)
        if (device_download(j->device,
                            denoise_history(r->solver, j->n, r->clip.guided, j->scratch, i),
                            denoise_history(r->solver, j->n, r->clip.guided, j->scratch_there, i),
                            bytes, &j->failed) < 0)
            return -1;
    return 0;
}

/* A device goes on while the host looks at nothing: its state is fetched every few seconds only. */
#define STATE_SECONDS 2

/* What the transformer remembers of earlier steps: arrays of its step cache, then, as one more, the bytes
 * of its attention, a multiple of 64, in place but where a device has some of them (at NULL). */
struct remembered {
    int n;
    float *at[DITGEN_KEPT];
    size_t len[DITGEN_KEPT];
    struct dit_cache_kept cache;
    size_t attention; /* bytes */
};

static void remembered(struct remembered *k, struct job *j)
{
    struct attn_kept a;
    *k = (struct remembered){0};
    model_cache_kept(j->model, &k->cache);
    for (; k->n < k->cache.n_blocks; k->n++)
        k->at[k->n] = k->cache.blocks[k->n].at, k->len[k->n] = k->cache.blocks[k->n].n;
    model_attn_kept(j->model, &a);
    k->attention = a.bytes;
    if (!a.bytes) return;
    k->at[k->n] = a.at;
    k->len[k->n++] = a.bytes / sizeof(float);
}

#define STATE_MOST ((size_t)1 << 30) /* of attention, in a state: seconds of writing, each time */

static int fetch_attention(struct job *j, struct remembered *kept)
{
    if (!kept->attention || kept->at[kept->n - 1]) return 0;
    if (!j->attention) j->attention = malloc(kept->attention);
    if (!j->attention)
        return err_set(&j->failed, ERR_RESOURCE,
                       "no memory for what attention remembers (%zu bytes of a state)",
                       kept->attention);
    kept->at[kept->n - 1] = j->attention;
    return model_attn_kept_read(j->model, j->attention, &j->failed);
}

int job_give_state(struct job *j, int step, int steps)
{
    const struct run *r = &j->run;
    struct remembered kept;
    if (!j->calls->state) return 0;
    if (j->device && step < steps && clock_seconds() - j->gave < STATE_SECONDS) return 0;
    remembered(&kept, j);
    if (step < steps && kept.attention > STATE_MOST) return 0;
    if (job_bring_back(j, true) < 0) return -1;
    if (step < steps &&
        (model_cache_fetch(j->model, &j->failed) < 0 || fetch_attention(j, &kept) < 0))
        return -1;
    j->gave = clock_seconds();
    struct ditgen_state s = {.step = step,
                             .steps = steps,
                             .latents = j->latents,
                             .n_history = r->solver->history,
                             .model = model_mark(j->info)};
    memcpy(s.shape, j->shape, sizeof s.shape);
    if (step < steps) {
        s.n_kept = kept.n, s.n_numbers = kept.cache.n_numbers;
        for (int i = 0; i < kept.n; i++)
            s.kept[i] = kept.at[i], s.kept_len[i] = kept.len[i];
        if (s.n_numbers)
            memcpy(s.numbers, kept.cache.numbers, (size_t)s.n_numbers * sizeof *s.numbers);
    }
    for (int i = 0; i < s.n_history; i++)
        s.history[i] = denoise_history(r->solver, j->n, r->clip.guided, j->scratch, i);
    return j->calls->state(j->calls->ctx, &s);
}

int job_take_state(struct job *j, const struct ditgen_state *s, struct err *e)
{
    const struct run *r = &j->run;
    if (memcmp(s->shape, j->shape, sizeof s->shape) != 0)
        return err_set(e, ERR_INPUT,
                       "latents of %dx%dx%dx%d cannot go on; these settings make %dx%dx%dx%d",
                       s->shape[0], s->shape[1], s->shape[2], s->shape[3], j->shape[0], j->shape[1],
                       j->shape[2], j->shape[3]);
    if (s->model && s->model != model_mark(j->info))
        return err_set(e, ERR_INPUT, "the state is of other weights than those of this model");
    bool denoised = s->step == s->steps;
    if (!denoised && (s->step < 1 || s->step > s->steps || s->steps != r->clip.num_steps ||
                      s->n_history != r->solver->history))
        return err_set(
            e, ERR_INPUT,
            "the state is of step %d of %d with %d tensors, wanted one of %d steps and %d", s->step,
            s->steps, s->n_history, r->clip.num_steps, r->solver->history);
    memcpy(j->latents, s->latents, j->n * sizeof(float));
    for (int i = 0; !denoised && i < s->n_history; i++)
        memcpy(denoise_history(r->solver, j->n, r->clip.guided, j->scratch, i), s->history[i],
               j->n * sizeof(float));
    j->first_step = denoised ? r->clip.num_steps : s->step;
    return 0;
}

int job_take_kept(struct job *j, const struct ditgen_state *s, struct err *e)
{
    struct remembered kept;
    remembered(&kept, j);
    bool same = s->n_kept == kept.n && s->n_numbers == kept.cache.n_numbers;
    for (int i = 0; same && i < kept.n; i++)
        same = s->kept_len[i] == kept.len[i];
    if (!same)
        return err_set(
            e, ERR_INPUT,
            "the state has %d arrays and %d numbers of a step cache or attention, wanted %d and "
            "%d of the lengths that these settings make",
            s->n_kept, s->n_numbers, kept.n, kept.cache.n_numbers);
    for (int i = 0; i < kept.n; i++) {
        if (kept.at[i])
            memcpy(kept.at[i], s->kept[i], kept.len[i] * sizeof(float));
        else if (model_attn_kept_write(j->model, s->kept[i], e) < 0)
            return -1;
    }
    if (s->n_numbers)
        memcpy(kept.cache.numbers, s->numbers, (size_t)s->n_numbers * sizeof *s->numbers);
    if (model_cache_resume(j->model, j->first_step, e) < 0) return -1;
    return model_attn_kept_check(j->model, e);
}
