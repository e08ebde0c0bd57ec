/* Linear layers of the fake: the host's own, which count on this device.
 *
 * Where the caller says where a weight lies (linear_params.at), what lies there is a handle: the host's
 * packed weight by its address, looked up when the layer runs. So a copy of those bytes elsewhere is that
 * weight there, and a layer that runs before its weight came, or after another took its place, is seen:
 * by the mark that is missing, or by other numbers. */
#include "tests/fake/linear.h"

#include "tests/fake/fp8.h"

#include <stdlib.h>
#include <string.h>

#define COUNT 4 /* layers of one call */
#define MARK UINT64_C(0x5745494748543a29)

struct packed { /* one of both */
    struct op_linear *l;
    struct fake_fp8 *fp8;
};

struct
    handle { /* at the beginning of a weight's bytes; the rest of them is filled with its number */
    uint64_t mark;
    struct packed *packed; /* the device's until it is closed: fake_keep() */
};

struct fake_linear { /* a layer and its device, which calls without one need */
    struct device *d;
    struct linear_params p; /* at: of the device, or NULL */
    struct packed *l; /* at NULL: its own; else the last that was put there */
};

static struct fake_linear *own(const struct op_linear *l)
{
    return (struct fake_linear *)(uintptr_t)l;
}

enum precision fake_emulated(enum precision p)
{
    return p == PRECISION_BF16 && !ops_has_bf16() ? PRECISION_BF16_EMULATED : p;
}

static struct linear_params host_params(const struct linear_params *p)
{
    struct linear_params host = *p;
    host.at = NULL;
    host.precision = fake_emulated(p->precision);
    return host;
}

size_t fake_linear_bytes(const struct linear_params *p)
{
    struct linear_params host = host_params(p);
    if (p->precision == PRECISION_FP8) return fake_fp8_bytes(p);
    return (ops_cpu.linear_bytes(&host) + 255) / 256 * 256 + 256;
}

bool fake_linear_as_is(const struct linear_params *p, enum dtype weight)
{
    size_t n = (size_t)p->in * (size_t)p->out * sizeof(float);
    return weight == DTYPE_F32 && n <= fake_linear_bytes(p);
}

struct opening {
    struct packed **l;
    struct linear_params p;
    const struct tensor *weight, *bias;
    struct linear_stage *stage;
};

static void drop(void *packed)
{
    struct packed *p = packed;
    if (!p) return;
    if (p->l) ops_cpu.linear_close(p->l);
    fake_fp8_close(p->fp8);
    free(p);
}

static int do_open(struct device *d, void *args, struct err *e)
{
    struct opening *o = args;
    struct packed *p = calloc(1, sizeof *p);
    if (!p) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    int rc = o->p.precision == PRECISION_FP8
                 ? fake_fp8_open(&p->fp8, &o->p, o->weight, o->bias, e)
                 : ops_cpu.linear_open(&p->l, d, &o->p, o->weight, o->bias, o->stage, e);
    if (rc < 0)
        drop(p);
    else
        *o->l = p;
    return rc;
}

static int do_rebind(struct device *d, void *args, struct err *e)
{
    struct opening *o = args;
    (void)d;
    return ops_cpu.linear_rebind((*o->l)->l, o->weight, o->bias, e);
}

/* A weight of the host's to where the layer wants it. */
static int fill(struct fake_linear *f, const struct tensor *weight, const struct tensor *bias,
                struct linear_stage *stage, struct err *e)
{
    struct opening o = {&f->l, host_params(&f->p), weight, bias, stage};
    if (fake_do(f->d, do_open, &o, sizeof o, e) < 0) return -1;
    if (!f->p.at) return 0;
    struct handle h = {MARK, f->l};
    if (f->p.sent && memcmp(fake_real(f->p.at), weight->data, tensor_len(weight) * 4) != 0)
        fake_stop("a weight is not there, although it was sent");
    f->p.sent = false;
    size_t bytes = fake_linear_bytes(&f->p);
    fake_keep(f->d, f->l, drop);
    fake_used(f->d, f->p.at, bytes);
    memset(fake_real(f->p.at), 0x5a, bytes);
    memcpy(fake_real(f->p.at), &h, sizeof h);
    return 0;
}

int fake_linear_open(struct op_linear **l, struct device *d, const struct linear_params *p,
                     const struct tensor *weight, const struct tensor *bias,
                     struct linear_stage *stage, struct err *e)
{
    *l = NULL;
    if (device_is_recording(d)) return err_set(e, ERR_BUG, "a linear layer opens while recording");
    if (p->at && (uintptr_t)p->at % 256) return err_set(e, ERR_BUG, "a weight is not aligned");
    struct fake_linear *f = calloc(1, sizeof *f);
    if (!f) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    *f = (struct fake_linear){.d = d, .p = *p};
    if (p->borrow) f->p.at = NULL; /* the map's own weight is read when the layer runs */
    if ((!f->p.at || weight) && fill(f, weight, bias, stage, e) < 0) {
        free(f);
        return -1;
    }
    *l = (struct op_linear *)(void *)f;
    return 0;
}

void fake_linear_close(struct op_linear *l)
{
    if (l && !own(l)->p.at) drop(own(l)->l);
    free(l);
}

int fake_linear_rebind(struct op_linear *l, const struct tensor *weight, const struct tensor *bias,
                       struct err *e)
{
    struct fake_linear *f = own(l);
    struct opening o = {.l = &f->l, .weight = weight, .bias = bias};
    if (f->p.at) return fill(f, weight, bias, NULL, e);
    return fake_do(f->d, do_rebind, &o, sizeof o, e);
}

/* A layer of the host for what only its shape decides. */
static int shaped(struct packed **l, const struct fake_linear *f, struct err *e)
{
    *l = f->l;
    if (f->l) return 0;
    return err_set(e, ERR_BUG, "a linear layer is prepared before it had a weight");
}

int fake_linear_prepare(struct op_linear *l, int rows, size_t *scratch, struct err *e)
{
    struct packed *host;
    *scratch = 0;
    if (shaped(&host, own(l), e) < 0) return -1;
    return host->fp8 ? 0 : ops_cpu.linear_prepare(host->l, rows, scratch, e);
}

int fake_ffn_prepare(struct op_linear *up, struct op_linear *down, int rows, size_t *scratch,
                     struct err *e)
{
    struct packed *host[2];
    *scratch = 0;
    if (shaped(&host[0], own(up), e) < 0 || shaped(&host[1], own(down), e) < 0) return -1;
    if (host[0]->fp8) return 0;
    return ops_cpu.ffn_prepare(host[0]->l, host[1]->l, rows, scratch, e);
}

size_t fake_linear_scratch(const struct linear_params *p, int rows)
{
    struct linear_params host = host_params(p);
    return p->precision == PRECISION_FP8 ? 0 : ops_cpu.linear_scratch(&host, rows);
}

size_t fake_ffn_scratch(const struct linear_params *up, const struct linear_params *down, int rows)
{
    struct linear_params host[2] = {host_params(up), host_params(down)};
    if (up->precision == PRECISION_FP8) return 0;
    return ops_cpu.ffn_scratch(&host[0], &host[1], rows);
}

/* --- running --- */

struct args {
    struct fake_linear *l[COUNT];
    struct rows y[COUNT], x;
    int n;
    void *scratch;
};

/* The weight that lies there now. */
static struct packed *there(struct fake_linear *f)
{
    struct handle h;
    if (!f->p.at) return f->l;
    fake_used(f->d, f->p.at, fake_linear_bytes(&f->p));
    memcpy(&h, fake_real(f->p.at), sizeof h);
    if (h.mark != MARK) fake_stop("a linear layer runs where no weight lies");
    return h.packed;
}

static int do_linear(struct device *d, void *args, struct err *e)
{
    struct args *a = args;
    struct packed *l = there(a->l[0]);
    if (!l->fp8) return ops_cpu.linear(l->l, &a->y[0], &a->x, a->scratch, e);
    device_did(d, OP_LINEAR);
    return fake_fp8_run(l->fp8, &a->y[0], &a->x, e);
}

static int do_several(struct device *d, void *args, struct err *e)
{
    struct args *a = args;
    struct op_linear *l[COUNT];
    for (int i = 0; i < a->n; i++) {
        struct packed *p = there(a->l[i]);
        l[i] = p->l;
        if (!p->fp8) continue;
        device_did(d, OP_LINEAR);
        if (fake_fp8_run(p->fp8, &a->y[i], &a->x, e) < 0) return -1;
    }
    if (!l[0]) return 0;
    return ops_cpu.linear_several(l, a->y, a->n, &a->x, a->scratch, e);
}

static int do_ffn(struct device *d, void *args, struct err *e)
{
    struct args *a = args;
    struct packed *up = there(a->l[0]), *down = there(a->l[1]);
    if (!up->fp8) return ops_cpu.ffn(up->l, down->l, &a->y[0], &a->x, a->scratch, e);
    struct rows mid = {.type = DTYPE_F32, .n = a->x.n, .cols = fake_fp8_out(up->fp8)};
    mid.stride = mid.cols;
    mid.at = malloc((size_t)(mid.n * mid.cols) * sizeof(float));
    if (!mid.at) return err_set(e, ERR_RESOURCE, "no memory for a middle");
    device_did(d, OP_FFN);
    int rc = fake_fp8_run(up->fp8, &mid, &a->x, e);
    if (rc == 0) rc = fake_fp8_run(down->fp8, &a->y[0], &mid, e);
    free(mid.at);
    return rc;
}

static struct rows real(const struct rows *r)
{
    struct rows h = *r;
    h.at = fake_real(r->at);
    h.scale = fake_real(r->scale);
    h.where = PLACE_HOST;
    return h;
}

int fake_linear(struct op_linear *l, const struct rows *y, const struct rows *x, void *scratch,
                struct err *e)
{
    struct args a = {
        .l = {own(l)}, .y = {real(y)}, .x = real(x), .scratch = fake_real(scratch), .n = 1};
    return fake_do(own(l)->d, do_linear, &a, sizeof a, e);
}

int fake_linear_several(struct op_linear *const *l, const struct rows *y, int n,
                        const struct rows *x, void *scratch, struct err *e)
{
    struct args a = {.x = real(x), .scratch = fake_real(scratch), .n = n};
    if (n > COUNT) return err_set(e, ERR_BUG, "linear_several: %d layers", n);
    for (int i = 0; i < n; i++) {
        a.l[i] = own(l[i]);
        a.y[i] = real(&y[i]);
    }
    return fake_do(own(l[0])->d, do_several, &a, sizeof a, e);
}

int fake_ffn(struct op_linear *up, struct op_linear *down, const struct rows *y,
             const struct rows *x, void *scratch, struct err *e)
{
    struct args a = {.l = {own(up), own(down)},
                     .y = {real(y)},
                     .x = real(x),
                     .scratch = fake_real(scratch),
                     .n = 2};
    return fake_do(own(up)->d, do_ffn, &a, sizeof a, e);
}
