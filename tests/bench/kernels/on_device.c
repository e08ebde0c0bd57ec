#include "tests/bench/kernels/on_device.h"

#include "model/base/dtype.h"

void *own(struct on_device *d, void *p) { return d->owned[d->n_owned++] = p; }

void upload(struct on_device *d, const struct problem *p)
{
    const struct problem_want *w = &p->want;
    *d = (struct on_device){.call = p->host};
    struct attn_cuda *c = &d->call;
    c->q.at = own(d, gpu_copy(p->q, p->q_count * 2));
    c->k.at = own(d, gpu_copy(p->k, p->k_count * 2));
    c->v.at = own(d, gpu_copy(p->v, p->k_count * 2));
    d->o_bytes = p->q_count * 2;
    d->o = own(d, gpu_new(d->o_bytes + 2 * GUARD));
    c->o.at = d->o + GUARD;
    c->scratch = own(d, gpu_new(attn_cuda_scratch()));
    if (w->bias) c->key_bias = own(d, gpu_copy(p->key_bias, (size_t)w->len_k * 4));
    d->lse_count = (size_t)w->n_heads * (size_t)w->len_q;
    if (w->lse) c->lse = own(d, gpu_new(d->lse_count * 4));
    if (!w->sparse) return;
    d->lists = p->lists;
    d->lists.row_ptr = own(d, gpu_copy(p->row_ptr, p->size.row_ptr * 4));
    d->lists.steps = own(d, gpu_copy(p->steps, p->size.steps * 4));
    d->lists.order = own(d, gpu_copy(p->order, p->size.order * 4));
    if (w->mean) {
        d->lists.mean = own(d, gpu_copy(p->mean_out, p->size.mean * 4));
        c->k_mean.at = own(d, gpu_copy(p->k_mean, p->mean_count * 2));
        c->v_mean.at = own(d, gpu_copy(p->v_mean, p->mean_count * 2));
    }
    c->lists = &d->lists;
    d->alive_count = problem_rows(p) * (size_t)p->lists.words;
    if (w->alive) c->alive = own(d, gpu_new(d->alive_count * 4));
}

void release(struct on_device *d)
{
    while (d->n_owned)
        GPU(cudaFree(d->owned[--d->n_owned]));
}

struct output run(const struct kernel_under_test *k, struct on_device *d, const char *what)
{
    struct err e = {0};
    struct output out = {.o = host_new(d->o_bytes + 2 * GUARD)};
    GPU(cudaMemset(d->o, 0xff, d->o_bytes + 2 * GUARD)); /* NaN */
    if (d->call.lse) GPU(cudaMemset(d->call.lse, 0xff, d->lse_count * 4));
    if (d->call.alive) GPU(cudaMemset(d->call.alive, 0xff, d->alive_count * 4));
    int r = k->run(&d->call, k->variant, &e);
    CHECK_MSG(r == 0, "%s: %s: %s", k->name, e.msg, what);
    GPU(cudaDeviceSynchronize());
    gpu_read(out.o, d->o, d->o_bytes + 2 * GUARD);
    if (d->call.lse) {
        out.lse = host_new(d->lse_count * 4);
        gpu_read(out.lse, d->call.lse, d->lse_count * 4);
    }
    if (d->call.alive) {
        out.alive = host_new(d->alive_count * 4);
        gpu_read(out.alive, d->call.alive, d->alive_count * 4);
    }
    tally_up();
    return out;
}

void output_free(struct output *o)
{
    free(o->o);
    free(o->lse);
    free(o->alive);
}

void extremes(const struct problem *p, double *score, double *value)
{
    const struct problem_want *w = &p->want;
    const struct attn_tensor *t[3] = {&p->host.q, &p->host.k, &p->host.v};
    double norm[3] = {0};
    *value = 0;
    for (int x = 0; x < 3; x++)
        for (int h = 0; h < w->n_heads; h++)
            for (int i = 0; i < (x ? w->len_k : w->len_q); i++) {
                double all = 0;
                for (int c = 0; c < w->head_dim; c++) {
                    double y = (double)bf16_to_f32(
                        ((uint16_t *)t[x]->at)[i * t[x]->token + h * t[x]->head + c]);
                    if (isnan(y)) continue;
                    all += y * y;
                    if (x == 2 && fabs(y) > *value) *value = fabs(y);
                }
                if (all > norm[x]) norm[x] = all;
            }
    *score = sqrt(norm[0] * norm[1] / w->head_dim);
    for (size_t i = 0; w->mean && i < p->mean_count; i++) {
        double y = fabs((double)bf16_to_f32(p->v_mean[i]));
        if (y > *value) *value = y;
    }
}

void compare(const char *name, const struct problem *p, const struct output *got, const float *want,
             const float *want_lse)
{
    const struct problem_want *w = &p->want;
    const struct attn_tensor *t = &p->host.o;
    size_t n = p->q_count;
    const uint16_t *o = (const void *)(got->o + GUARD);
    bool *written = host_new(n);
    double score, value, off = 0, all = 0, most = 0, lse_most = 0;
    extremes(p, &score, &value);
    for (int h = 0; h < w->n_heads; h++)
        for (int i = 0; i < w->len_q; i++) {
            for (int c = 0; c < w->head_dim; c++) {
                int64_t at = i * t->token + h * t->head + c;
                double g = (double)bf16_to_f32(o[at]),
                       x = (double)
                           want[((size_t)i * (size_t)w->n_heads + (size_t)h) * (size_t)w->head_dim +
                                (size_t)c];
                written[at] = true;
                off += fabs(g - x);
                all += fabs(x);
                if (!(fabs(g - x) <= most)) most = fabs(g - x);
            }
            if (!got->lse) continue;
            double g = (double)got->lse[(size_t)h * (size_t)w->len_q + (size_t)i],
                   x = (double)want_lse[(size_t)h * (size_t)w->len_q + (size_t)i];
            double d = g == x ? 0 : fabs(g - x);
            if (!(d <= lse_most)) lse_most = d;
        }
    /* P and o are rounded to bf16, half a step of 2^-8 each; a score is off by its sum's rounding,
     * and a weight by as much relatively */
    double weight = score * 0x1p-21, bound = value * (0x1p-8 + 2 * weight) + 1e-30;
    double l1 = w->logits == NORMAL ? .0035 : .0035 + 2 * weight;
    if (w->logits >= STRUCTURED) l1 = .0025; /* attention-kernels 9.4, bf16 */
    CHECK_MSG(most <= bound, "%s: off by %.3g, at most %.3g wanted: %s", name, most, bound,
              p->what);
    CHECK_MSG(off <= l1 * all, "%s: relative L1 %.3g, at most %.3g wanted: %s", name, off / all, l1,
              p->what);
    CHECK_MSG(lse_most <= 2e-5 + 2 * weight, "%s: lse off by %.3g: %s", name, lse_most, p->what);
    int touched = 0;
    for (int i = 0; i < GUARD; i++)
        touched += (got->o[i] != 0xff) + (got->o[GUARD + 2 * n + (size_t)i] != 0xff);
    for (size_t i = 0; i < n; i++)
        touched += !written[i] && o[i] != 0xffff;
    CHECK_MSG(!touched, "%s wrote %d values outside o: %s", name, touched, p->what);
    free(written);
    tally_up();
}
