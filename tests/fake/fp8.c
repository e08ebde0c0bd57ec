/* fp8 layers by the judge; see fp8.h. */
#include "tests/fake/fp8.h"

#include "model/base/dtype.h"
#include "model/ops/fp8.h"

#include <math.h>
#include <stdlib.h>

struct fake_fp8 {
    struct linear_params p;
    uint8_t *q; /* [out, in] */
    float *scale, *weight, *bias; /* [out], [out, in], [out] or NULL */
};

static struct {
    bool on;
    double sum;
    long n;
} watch;

void fake_fp8_close(struct fake_fp8 *l)
{
    if (!l) return;
    free(l->q), free(l->scale), free(l->weight), free(l->bias), free(l);
}

size_t fake_fp8_bytes(const struct linear_params *p)
{
    return ((size_t)p->out * ((size_t)p->in + 2 * sizeof(float)) + 255) / 256 * 256;
}

int fake_fp8_open(struct fake_fp8 **out, const struct linear_params *p, const struct tensor *weight,
                  const struct tensor *bias, struct err *e)
{
    size_t n = (size_t)p->in * (size_t)p->out;
    struct fake_fp8 *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) return err_set(e, ERR_RESOURCE, "no memory for a layer");
    l->p = *p;
    l->q = malloc(n);
    l->scale = malloc((size_t)p->out * sizeof(float));
    l->weight = malloc(n * sizeof(float));
    if (bias) l->bias = malloc((size_t)p->out * sizeof(float));
    if (!l->q || !l->scale || !l->weight || (bias && !l->bias)) {
        fake_fp8_close(l);
        return err_set(e, ERR_RESOURCE, "no memory for a layer");
    }
    dtype_to_f32(l->weight, weight->data, weight->dtype, n);
    if (bias) dtype_to_f32(l->bias, bias->data, bias->dtype, (size_t)p->out);
    for (int i = 0; bias && i < p->out; i++)
        l->bias[i] = bf16_round(l->bias[i]);
    ref_codes(l->q, l->scale, l->weight, p->out, p->in);
    *out = l;
    return 0;
}

int fake_fp8_out(const struct fake_fp8 *l) { return l->p.out; }

void fake_fp8_codes(const struct rows *q, const float *x)
{
    ref_codes(q->at, q->scale, x, (int)q->n, (int)q->cols);
}

void fake_fp8_watch(bool on)
{
    if (on) watch.sum = 0, watch.n = 0;
    watch.on = on;
}

void fake_fp8_watched(double *error, long *calls)
{
    *calls = watch.n;
    *error = watch.n ? watch.sum / (double)watch.n : 0;
}

static void look(const struct fake_fp8 *l, const float *y, const float *x, int rows)
{
    size_t n = (size_t)rows * (size_t)l->p.out;
    float *want = malloc(n * sizeof *want);
    double wrong = 0, all = 0;
    if (!want) return;
    ref_linear(want, x, l->weight, l->bias, rows, l->p.in, l->p.out, l->p.act);
    for (size_t i = 0; i < n; i++) {
        wrong += pow((double)y[i] - (double)want[i], 2);
        all += pow((double)want[i], 2);
    }
    free(want);
    if (!(all > 0)) return;
    watch.sum += sqrt(wrong / all);
    watch.n++;
}

int fake_fp8_run(const struct fake_fp8 *l, const struct rows *y, const struct rows *x,
                 struct err *e)
{
    int rows = (int)x->n;
    struct rows codes = *x;
    void *room = NULL;
    if (x->cols != l->p.in || y->cols != l->p.out || y->n != x->n || x->stride != x->cols)
        return err_set(e, ERR_BUG, "fp8 layer %d -> %d: [%lld, %lld] from [%lld, %lld]", l->p.in,
                       l->p.out, (long long)y->n, (long long)y->cols, (long long)x->n,
                       (long long)x->cols);
    if (x->type != DTYPE_F8_E4M3) {
        size_t scales = (size_t)rows * sizeof(float);
        if (!(room = malloc(scales + (size_t)rows * (size_t)x->cols)))
            return err_set(e, ERR_RESOURCE, "no memory for codes");
        codes.type = DTYPE_F8_E4M3;
        codes.scale = room;
        codes.at = (char *)room + scales;
        fake_fp8_codes(&codes, x->at);
    }
    ref_linear_codes(y->at, codes.at, codes.scale, l->q, l->scale, l->bias, rows, l->p.in, l->p.out,
                     l->p.act);
    for (int64_t i = 0; i < y->n * y->cols; i++)
        ((float *)y->at)[i] = bf16_round(((float *)y->at)[i]);
    if (watch.on && x->type != DTYPE_F8_E4M3) look(l, y->at, x->at, rows);
    free(room);
    return 0;
}
