/* Linear layers of a GPU: weights that went up once, products by plans that layers of one shape share.
 *
 * A layer of few fp32 rows (the time embedding's) reads its weight once without cuBLASLt. The middle of
 * a feed-forward pair lies in scratch, so many rows at a time as MIDDLE holds. */
#include "model/ops/cuda/layers.h"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/cuda/shape_cuda.h"

#include <stdlib.h>
#include <string.h>

/* Of a feed-forward's middle: 32,768 rows of 1.3B's. In parts of 16,384 cuBLASLt's own choice for the up product is at
 * .9 of its rate at 32,760 (668 of 736 TFLOP/s), and parts of 13,184 fill .94 of the last wave of the down product. */
#define MIDDLE ((size_t)576 << 20)
/* cuBLASLt refuses room that is not a multiple of 256 bytes; scratch may be of any piece */
#define ROOM (CUDA_BLAS_ROOM + 256)
#define FEW 4 /* rows that the products of few rows take better than cuBLASLt */

static struct cuda_layer *own(const struct op_linear *l)
{
    return (struct cuda_layer *)(uintptr_t)l;
}

static enum dtype type_of(const struct linear_params *p)
{
    return p->precision == PRECISION_FP32  ? DTYPE_F32
           : p->precision == PRECISION_FP8 ? DTYPE_F8_E4M3
                                           : DTYPE_BF16;
}

/* Of a feed-forward's middle. */
static enum dtype middle_of(const struct linear_params *p)
{
    return p->precision == PRECISION_FP32 ? DTYPE_F32 : DTYPE_BF16;
}

static size_t weight_bytes(const struct linear_params *p)
{
    return CUDA_ALIGN((size_t)p->in * (size_t)p->out * dtype_size(type_of(p)));
}

bool cuda_linear_as_is(const struct linear_params *p, enum dtype weight)
{
    return weight == type_of(p);
}

size_t cuda_linear_bytes(const struct linear_params *p)
{
    return weight_bytes(p) + CUDA_ALIGN((size_t)p->out * 4) + CUDA_ALIGN((size_t)p->out * 2) +
           cuda_fp8_bytes(p);
}

/* --- weights up --- */

/* n numbers of the host at `to` of the device in type `to_type`, by the way of `between` (of the
 * device, n numbers of any type) when they have to be converted. */
static int up(struct device *d, void *to, enum dtype to_type, const struct tensor *from, size_t n,
              void *between, struct err *e)
{
    if (from->dtype == to_type) return device_upload(d, to, from->data, n * dtype_size(to_type), e);
    struct cuda_map m = {
        .x = between, .y = to, .from = from->dtype, .to = to_type, .n = n, .times = 1};
    if (device_upload(d, between, from->data, n * dtype_size(from->dtype), e) < 0) return -1;
    return cuda_map(&m, device_stream(d), e);
}

static int check_tensor(const struct tensor *t, size_t n, const char *what, struct err *e)
{
    bool taken = t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16 || t->dtype == DTYPE_F16 ||
                 t->dtype == DTYPE_F64;
    if (!taken)
        return err_set(e, ERR_INPUT, "%s of a linear layer is %s, wanted F32, BF16, F16 or F64",
                       what, dtype_name(t->dtype));
    if (tensor_len(t) != n)
        return err_set(e, ERR_BUG, "%s of a linear layer has %zu numbers, wanted %zu", what,
                       tensor_len(t), n);
    return 0;
}

static int fill(struct cuda_layer *l, const struct tensor *weight, const struct tensor *bias,
                struct err *e)
{
    size_t n = (size_t)l->p.in * (size_t)l->p.out, out = (size_t)l->p.out, room = 0;
    void *between = NULL;
    int rc = -1;
    if (check_tensor(weight, n, "weight", e) < 0) return -1;
    if (bias && check_tensor(bias, out, "bias", e) < 0) return -1;
    bool codes = l->type == DTYPE_F8_E4M3;
    if (codes)
        room = cuda_fp8_between(l, weight);
    else if (weight->dtype != l->type)
        room = n * dtype_size(weight->dtype);
    if (bias && out * 8 > room) room = out * 8;
    if (room && device_alloc(l->d, &between, room, e) < 0) return -1;
    if (codes) {
        if (cuda_fp8_fill(l, weight, between, e) < 0) goto done;
    } else if (!l->p.sent && up(l->d, l->weight, l->type, weight, n, between, e) < 0) {
        goto done;
    }
    l->p.sent = false; /* of the first weight alone */
    if (bias) {
        struct cuda_map m = {.from = DTYPE_F32, .n = out, .times = 1, .x = l->bias};
        if (up(l->d, l->bias, DTYPE_F32, bias, out, between, e) < 0) goto done;
        m.y = l->bias_bf16, m.to = DTYPE_BF16;
        if (l->type != DTYPE_F32 && cuda_map(&m, device_stream(l->d), e) < 0) goto done;
        m.y = l->bias, m.to = DTYPE_F32, m.round = true; /* the reference holds it in bf16 */
        if (l->type != DTYPE_F32 && cuda_map(&m, device_stream(l->d), e) < 0) goto done;
    }
    l->biased = bias != NULL;
    rc = 0;
done:
    device_free(l->d, between);
    return rc;
}

int cuda_linear_open(struct op_linear **out, struct device *d, const struct linear_params *p,
                     const struct tensor *weight, const struct tensor *bias,
                     struct linear_stage *stage, struct err *e)
{
    struct cuda_table *t;
    (void)stage; /* the card converts */
    *out = NULL;
    if (p->precision == PRECISION_BF16_EMULATED)
        return err_set(e, ERR_DEVICE, "a GPU does not emulate bf16; use --precision bf16 or fp32");
    if (p->precision == PRECISION_FP8 && cuda_fp8_takes(p->in, p->out, p->act, e) < 0) return -1;
    if (cuda_table_of(&t, d, e) < 0) return -1; /* a card without the library is known early */
    struct cuda_layer *l = calloc(1, sizeof *l);
    if (!l) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    *l = (struct cuda_layer){.d = d, .p = *p, .type = type_of(p)};
    l->weight = p->at;
    if (!p->at && device_alloc(d, &l->weight, cuda_linear_bytes(p), e) < 0) goto fail;
    l->bias = (float *)(void *)((char *)l->weight + weight_bytes(p));
    l->bias_bf16 = (char *)l->bias + CUDA_ALIGN((size_t)p->out * 4);
    if (l->type == DTYPE_F8_E4M3) {
        l->scale = (void *)((char *)l->bias_bf16 + CUDA_ALIGN((size_t)p->out * 2));
        l->some = (char *)l->scale + CUDA_ALIGN((size_t)p->out * 4);
    }
    if (weight && fill(l, weight, bias, e) < 0) goto fail;
    *out = (struct op_linear *)(void *)l;
    return 0;
fail:
    cuda_linear_close((struct op_linear *)(void *)l);
    return -1;
}

void cuda_linear_close(struct op_linear *l)
{
    if (!l) return;
    if (!own(l)->p.at) device_free(own(l)->d, own(l)->weight);
    free(own(l));
}

/* In the order of work: earlier products have read the old weight by then. */
int cuda_linear_rebind(struct op_linear *l, const struct tensor *weight, const struct tensor *bias,
                       struct err *e)
{
    return fill(own(l), weight, bias, e);
}

/* --- products --- */

static char *room_of(void *scratch)
{
    return (char *)(((uintptr_t)scratch + 255) & ~(uintptr_t)255);
}

static bool few(const struct cuda_layer *l, int rows, enum dtype x, enum dtype y)
{
    return rows <= FEW && l->type != DTYPE_F8_E4M3 && l->p.in % 8 == 0 && x == DTYPE_F32 &&
           y == DTYPE_F32;
}

static struct cuda_product product(const struct cuda_layer *l, int rows, enum dtype y_type)
{
    return (struct cuda_product){.rows = rows,
                                 .in = l->p.in,
                                 .out = l->p.out,
                                 .type = l->type,
                                 .y_type = y_type,
                                 .act = l->p.act,
                                 .bias = l->biased};
}

/* Plans are of shapes; what rows are like is told by the call, and is as here unless a view has gaps. */
int cuda_linear_prepare(struct op_linear *op, int rows, size_t *scratch, struct err *e)
{
    struct cuda_layer *l = own(op);
    struct cuda_table *t;
    struct cuda_matmul *m;
    struct cuda_product p = product(l, rows, l->type);
    *scratch = cuda_linear_scratch(&l->p, rows);
    if (rows < 1) return err_set(e, ERR_BUG, "a linear layer prepared for %d rows", rows);
    if (l->type == DTYPE_F8_E4M3) return cuda_fp8_prepare(l, rows, true, e);
    if (few(l, rows, l->type, l->type)) return 0;
    if (cuda_table_of(&t, l->d, e) < 0) return -1;
    return cuda_table_plan(&m, t, &p, e);
}

size_t cuda_linear_scratch(const struct linear_params *p, int rows)
{
    return ROOM + (p->precision == PRECISION_FP8 ? cuda_codes_bytes(rows, p->in) : 0);
}

static int check_call(const struct cuda_layer *l, const struct rows *y, const struct rows *x,
                      void *scratch, struct err *e)
{
    bool wide = l->type == DTYPE_F32;
    bool types = (x->type == l->type || (!wide && x->type == DTYPE_F32) ||
                  (l->type == DTYPE_F8_E4M3 && x->type == DTYPE_BF16)) &&
                 (y->type == DTYPE_F32 || (y->type == DTYPE_BF16 && !wide));
    if (!x->at || !y->at || !scratch || y->n != x->n || x->cols != l->p.in || y->cols != l->p.out ||
        x->n < 1 || x->n > INT32_MAX / 4 || !types || x->where != PLACE_DEVICE ||
        y->where != PLACE_DEVICE)
        return err_set(
            e, ERR_BUG, "linear: [%lld, %lld] %s from [%lld, %lld] %s by a layer %d -> %d of %s",
            (long long)y->n, (long long)y->cols, dtype_name(y->type), (long long)x->n,
            (long long)x->cols, dtype_name(x->type), l->p.in, l->p.out, dtype_name(l->type));
    return 0;
}

/* A bf16 layer's result in fp32, narrowed as the reference stores it. */
static int narrow(const struct cuda_layer *l, const struct rows *y, struct err *e)
{
    struct cuda_map m = {.x = y->at,
                         .y = y->at,
                         .from = y->type,
                         .to = y->type,
                         .n = (size_t)(y->n * y->cols),
                         .times = 1,
                         .round = true};
    if (l->type == DTYPE_F32 || y->type != DTYPE_F32 || !l->p.round_out) return 0;
    if (y->stride != y->cols)
        return err_set(e, ERR_BUG, "linear: rows with gaps that are to be rounded");
    return cuda_map(&m, device_stream(l->d), e);
}

static int run_few(const struct cuda_layer *l, const struct rows *y, const struct rows *x,
                   struct err *e)
{
    bool round = l->type == DTYPE_BF16;
    struct cuda_few p = {.rows = (int)x->n,
                         .in = l->p.in,
                         .out = l->p.out,
                         .x = x->at,
                         .y = y->at,
                         .weight = l->weight,
                         .bias = l->biased ? l->bias : NULL,
                         .weight_type = l->type,
                         .act = l->p.act,
                         .round_in = round,
                         .round_out = round && l->p.round_out};
    return cuda_few(&p, device_stream(l->d), e);
}

static const void *bias_of(const struct cuda_layer *l, enum dtype y_type)
{
    return !l->biased ? NULL : y_type == DTYPE_BF16 ? l->bias_bf16 : (const void *)l->bias;
}

/* Codes of x first, unless it is codes. */
static int run_fp8(struct cuda_layer *l, const struct rows *y, const struct rows *x, void *room,
                   struct err *e)
{
    struct rows coded;
    if (cuda_fp8_codes(&coded, l->d, x, ACT_NONE, room_of(room) + CUDA_BLAS_ROOM, e) < 0 ||
        cuda_fp8_product(l, y, &coded, true, room_of(room), e) < 0)
        return -1;
    if (l->p.act == ACT_NONE && cuda_fp8_look(l, y, x, ACT_NONE, e) < 0) return -1;
    return narrow(l, y, e);
}

static int run(struct cuda_layer *l, const struct rows *y, const struct rows *x, void *room,
               struct err *e)
{
    struct cuda_table *t;
    struct cuda_matmul *m;
    if (l->type == DTYPE_F8_E4M3) return run_fp8(l, y, x, room, e);
    if (few(l, (int)x->n, x->type, y->type) && x->stride == x->cols && y->stride == y->cols)
        return run_few(l, y, x, e);
    if (x->type != l->type)
        return err_set(e, ERR_BUG, "linear: %lld rows of %s for a layer of %s", (long long)x->n,
                       dtype_name(x->type), dtype_name(l->type));
    struct cuda_product p = product(l, (int)x->n, y->type);
    p.x_row = x->stride == x->cols ? 0 : x->stride;
    p.y_row = y->stride == y->cols ? 0 : y->stride;
    if (cuda_table_of(&t, l->d, e) < 0 || cuda_table_plan(&m, t, &p, e) < 0) return -1;
    if (cuda_matmul_run(m, y->at, x->at, l->weight, bias_of(l, y->type), NULL, NULL, room_of(room),
                        device_stream(l->d), e) < 0)
        return -1;
    return narrow(l, y, e);
}

int cuda_linear(struct op_linear *op, const struct rows *y, const struct rows *x, void *scratch,
                struct err *e)
{
    struct cuda_layer *l = own(op);
    if (check_call(l, y, x, scratch, e) < 0) return -1;
    device_did(l->d, OP_LINEAR);
    return run(l, y, x, scratch, e);
}

/* Elements between two addresses, when they are that far apart in whole elements. */
static bool apart(int64_t *n, const void *a, const void *b, size_t element)
{
    intptr_t bytes = (intptr_t)b - (intptr_t)a;
    *n = bytes / (intptr_t)element;
    return bytes > 0 && bytes % (intptr_t)element == 0 && bytes % 16 == 0;
}

/* One product of all, when weights, biases and results lie evenly: q, k and v of a small model do not
 * fill a card one by one. */
static bool evenly(struct cuda_product *p, struct op_linear *const *ops, const struct rows *y,
                   int n)
{
    const struct cuda_layer *first = own(ops[0]);
    size_t element = dtype_size(first->type), y_element = dtype_size(y[0].type);
    if (n < 2 || first->p.act != ACT_NONE || first->type == DTYPE_F8_E4M3) return false;
    *p = product(first, (int)y[0].n, y[0].type);
    p->batch = n;
    if (!apart(&p->w_batch, first->weight, own(ops[1])->weight, element) ||
        !apart(&p->y_batch, y[0].at, y[1].at, y_element) || p->y_batch < y[0].n * y[0].stride)
        return false;
    p->bias_batch = p->w_batch * (int64_t)element / (int64_t)y_element;
    for (int i = 0; i < n; i++) {
        const struct cuda_layer *l = own(ops[i]);
        int64_t w, v;
        if (l->type != first->type || l->p.act != ACT_NONE || l->biased != first->biased ||
            l->p.in != first->p.in || l->p.out != first->p.out || y[i].type != y[0].type ||
            y[i].stride != y[0].stride || y[i].stride != y[i].cols)
            return false;
        if (i && (!apart(&w, own(ops[i - 1])->weight, l->weight, element) || w != p->w_batch ||
                  !apart(&v, y[i - 1].at, y[i].at, y_element) || v != p->y_batch))
            return false;
    }
    return y[0].type == first->type;
}

/* x becomes codes once. */
static int several_fp8(struct op_linear *const *ops, const struct rows *y, int n,
                       const struct rows *x, void *scratch, struct err *e)
{
    struct rows coded;
    char *room = room_of(scratch);
    if (cuda_fp8_codes(&coded, own(ops[0])->d, x, ACT_NONE, room + CUDA_BLAS_ROOM, e) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        struct cuda_layer *l = own(ops[i]);
        if (cuda_fp8_product(l, &y[i], &coded, true, room, e) < 0 || narrow(l, &y[i], e) < 0)
            return -1;
        if (l->p.act == ACT_NONE && cuda_fp8_look(l, &y[i], x, ACT_NONE, e) < 0) return -1;
    }
    return 0;
}

int cuda_linear_several(struct op_linear *const *ops, const struct rows *y, int n,
                        const struct rows *x, void *scratch, struct err *e)
{
    struct cuda_table *t;
    struct cuda_matmul *m;
    struct cuda_product p;
    for (int i = 0; i < n; i++) {
        if (check_call(own(ops[i]), &y[i], x, scratch, e) < 0) return -1;
        device_did(own(ops[i])->d, OP_LINEAR);
    }
    if (n > 0 && x->type == own(ops[0])->type && evenly(&p, ops, y, n)) {
        const struct cuda_layer *l = own(ops[0]);
        p.x_row = x->stride == x->cols ? 0 : x->stride;
        if (cuda_table_of(&t, l->d, e) < 0 || cuda_table_plan(&m, t, &p, e) < 0) return -1;
        return cuda_matmul_run(m, y[0].at, x->at, l->weight, bias_of(l, y[0].type), NULL, NULL,
                               room_of(scratch), device_stream(l->d), e);
    }
    bool fp8 = n > 0;
    for (int i = 0; i < n; i++)
        fp8 = fp8 && own(ops[i])->type == DTYPE_F8_E4M3;
    if (fp8) return several_fp8(ops, y, n, x, scratch, e);
    for (int i = 0; i < n; i++)
        if (run(own(ops[i]), &y[i], x, scratch, e) < 0) return -1;
    return 0;
}

/* --- feed-forward --- */

/* Rows at a time: equal shares, in whole tiles. */
static int rows_at_once(const struct linear_params *up_params, int rows)
{
    size_t row = (size_t)up_params->out * dtype_size(middle_of(up_params));
    size_t most = MIDDLE / row > 128 ? MIDDLE / row : 128;
    size_t parts = ((size_t)rows + most - 1) / most;
    size_t each = (((size_t)rows + parts - 1) / parts + 127) / 128 * 128;
    return each < (size_t)rows ? (int)each : rows;
}

/* cuBLASLt's room, the middle; of fp8 its codes, and those of x. */
size_t cuda_ffn_scratch(const struct linear_params *up_params, const struct linear_params *down,
                        int rows)
{
    int each = rows_at_once(up_params, rows);
    (void)down;
    size_t bytes =
        ROOM + CUDA_ALIGN((size_t)each * (size_t)up_params->out * dtype_size(middle_of(up_params)));
    if (up_params->precision != PRECISION_FP8) return bytes;
    return bytes + cuda_codes_bytes(each, up_params->out) + cuda_codes_bytes(each, up_params->in);
}

int cuda_ffn_prepare(struct op_linear *up_op, struct op_linear *down, int rows, size_t *scratch,
                     struct err *e)
{
    size_t ignored;
    int each = rows_at_once(&own(up_op)->p, rows), last = rows % each ? rows % each : each;
    *scratch = cuda_ffn_scratch(&own(up_op)->p, &own(down)->p, rows);
    bool fp8 = own(up_op)->type == DTYPE_F8_E4M3; /* GELU is the codes' */
    for (int i = 0; i < 2; i++) {
        int n = i ? last : each;
        int rc = fp8 ? cuda_fp8_prepare(own(up_op), n, false, e)
                     : cuda_linear_prepare(up_op, n, &ignored, e);
        if (rc < 0 || cuda_linear_prepare(down, n, &ignored, e) < 0) return -1;
    }
    return 0;
}

/* The middle goes through memory once as sums of bf16 and once as codes; GELU belongs to the codes. */
static int ffn_fp8(struct cuda_layer *a, struct cuda_layer *b, const struct rows *y,
                   const struct rows *mid, const struct rows *x, char *room, struct err *e)
{
    struct rows from, between;
    char *codes = (char *)mid->at + CUDA_ALIGN((size_t)x->n * (size_t)a->p.out * 2);
    char *x_codes = codes + cuda_codes_bytes(x->n, a->p.out);
    if (cuda_fp8_codes(&from, a->d, x, ACT_NONE, x_codes, e) < 0 ||
        cuda_fp8_product(a, mid, &from, false, room, e) < 0 ||
        cuda_fp8_look(a, mid, x, ACT_NONE, e) < 0 ||
        cuda_fp8_codes(&between, a->d, mid, a->p.act, codes, e) < 0 ||
        cuda_fp8_product(b, y, &between, true, room, e) < 0)
        return -1;
    if (b->p.act == ACT_NONE && cuda_fp8_look(b, y, mid, a->p.act, e) < 0) return -1;
    return narrow(b, y, e);
}

int cuda_ffn(struct op_linear *up_op, struct op_linear *down, const struct rows *y,
             const struct rows *x, void *scratch, struct err *e)
{
    struct cuda_layer *a = own(up_op), *b = own(down);
    if (!scratch || x->n < 1 || x->n > INT32_MAX / 4 || a->p.out != b->p.in || a->type != b->type)
        return err_set(e, ERR_BUG, "ffn: %lld rows by layers %d -> %d -> %d", (long long)x->n,
                       a->p.in, a->p.out, b->p.out);
    int each = rows_at_once(&a->p, (int)x->n);
    struct rows middle =
        rows_of(a->d, room_of(scratch) + CUDA_BLAS_ROOM, middle_of(&a->p), each, a->p.out);
    device_did(a->d, OP_FFN);
    for (int64_t at = 0; at < x->n; at += each) {
        int64_t n = x->n - at < each ? x->n - at : each;
        struct rows from = rows_part(x, at, n), to = rows_part(y, at, n),
                    mid = rows_part(&middle, 0, n);
        if (check_call(a, &mid, &from, scratch, e) < 0 || check_call(b, &to, &mid, scratch, e) < 0)
            return -1;
        if (a->type == DTYPE_F8_E4M3) {
            if (ffn_fp8(a, b, &to, &mid, &from, room_of(scratch), e) < 0) return -1;
            continue;
        }
        if (run(a, &mid, &from, scratch, e) < 0 || run(b, &to, &mid, scratch, e) < 0) return -1;
    }
    return 0;
}
