/* Linear products by cuBLASLt. The library thinks in columns: what is [rows, n] here is its n x rows
 * matrix, so that yᵀ = W · xᵀ with W transposed, and a bias along its rows. */
#include "model/ops/cuda/blas.h"

#include "model/base/cuda/launch.h"
#include "model/ops/cuda/rows_cuda.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

struct cuda_blas {
    cublasLtHandle_t handle;
    __typeof__(&cublasLtCreate) create;
    __typeof__(&cublasLtDestroy) destroy;
    __typeof__(&cublasLtGetVersion) version;
    __typeof__(&cublasLtMatmul) matmul;
    __typeof__(&cublasLtMatmulDescCreate) desc;
    __typeof__(&cublasLtMatmulDescDestroy) desc_drop;
    __typeof__(&cublasLtMatmulDescSetAttribute) desc_set;
    __typeof__(&cublasLtMatrixLayoutCreate) layout;
    __typeof__(&cublasLtMatrixLayoutDestroy) layout_drop;
    __typeof__(&cublasLtMatrixLayoutSetAttribute) layout_set;
    __typeof__(&cublasLtMatmulPreferenceCreate) wish;
    __typeof__(&cublasLtMatmulPreferenceDestroy) wish_drop;
    __typeof__(&cublasLtMatmulPreferenceSetAttribute) wish_set;
    __typeof__(&cublasLtMatmulAlgoGetHeuristic) heuristic;
};

struct cuda_matmul {
    struct cuda_blas *b;
    struct cuda_product p;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
    size_t room; /* bytes of it that the kernel wants */
    bool act_after; /* by a launch of its own */
    bool scales_after; /* likewise, with bias and act */
};

static int failed(const struct cuda_product *p, const char *what, cublasStatus_t s, struct err *e)
{
    enum err_code code = s == CUBLAS_STATUS_ALLOC_FAILED ? ERR_RESOURCE : ERR_DEVICE;
    if (!p) return err_set(e, code, "cuBLASLt, %s: status %d", what, (int)s);
    return err_set(e, code, "cuBLASLt, %s, %s [%d, %d] -> %d: status %d", what, dtype_name(p->type),
                   p->rows, p->in, p->out, (int)s);
}

static int load(struct cuda_blas *b, struct err *e)
{
    static const char *const files[] = {
        "libcublasLt.so.13", "libcublasLt.so.12",
        "/usr/local/cuda/lib64/libcublasLt.so.13", /* an installation the loader was not told of */
        "/usr/local/cuda/targets/x86_64-linux/lib/libcublasLt.so.13", NULL};
    const struct {
        const char *name;
        void *at;
    } symbols[] = {
        {"cublasLtCreate", &b->create},
        {"cublasLtDestroy", &b->destroy},
        {"cublasLtGetVersion", &b->version},
        {"cublasLtMatmul", &b->matmul},
        {"cublasLtMatmulDescCreate", &b->desc},
        {"cublasLtMatmulDescDestroy", &b->desc_drop},
        {"cublasLtMatmulDescSetAttribute", &b->desc_set},
        {"cublasLtMatrixLayoutCreate", &b->layout},
        {"cublasLtMatrixLayoutDestroy", &b->layout_drop},
        {"cublasLtMatrixLayoutSetAttribute", &b->layout_set},
        {"cublasLtMatmulPreferenceCreate", &b->wish},
        {"cublasLtMatmulPreferenceDestroy", &b->wish_drop},
        {"cublasLtMatmulPreferenceSetAttribute", &b->wish_set},
        {"cublasLtMatmulAlgoGetHeuristic", &b->heuristic},
    };
    void *l = cuda_library(files, "cuBLASLt", "install CUDA's cuBLAS, or use --device cpu", e);
    if (!l) return -1;
    for (size_t i = 0; i < ARRAY_LEN(symbols); i++) {
        void *at = dlsym(l, symbols[i].name);
        if (!at)
            return err_set(e, ERR_DEVICE, "cuBLASLt has no %s; wanted version 12 or 13",
                           symbols[i].name);
        memcpy(symbols[i].at, &at, sizeof at);
    }
    return 0;
}

int cuda_blas_open(struct cuda_blas **out, struct err *e)
{
    *out = NULL;
    struct cuda_blas *b = calloc(1, sizeof *b);
    if (!b) return err_set(e, ERR_RESOURCE, "no memory for cuBLASLt (%zu bytes)", sizeof *b);
    if (load(b, e) < 0) goto fail;
    cublasStatus_t s = b->create(&b->handle);
    if (s != CUBLAS_STATUS_SUCCESS) {
        failed(NULL, "no handle", s, e);
        goto fail;
    }
    *out = b;
    return 0;
fail:
    cuda_blas_close(b);
    return -1;
}

void cuda_blas_close(struct cuda_blas *b)
{
    if (!b) return;
    if (b->handle) b->destroy(b->handle);
    free(b);
}

int cuda_blas_version(const struct cuda_blas *b) { return (int)b->version(); }

/* --- plans --- */

static cudaDataType_t data_type(enum dtype t)
{
    return t == DTYPE_BF16 ? CUDA_R_16BF : t == DTYPE_F32 ? CUDA_R_32F : CUDA_R_8F_E4M3;
}

static int product_check(const struct cuda_product *p, struct err *e)
{
    if (p->rows < 1 || p->in < 1 || p->out < 1)
        return err_set(e, ERR_USAGE, "a linear layer of [%d, %d] -> %d, wanted at least 1", p->rows,
                       p->in, p->out);
    if ((p->type != DTYPE_BF16 && p->type != DTYPE_F32 && p->type != DTYPE_F8_E4M3) ||
        (p->y_type != DTYPE_BF16 && p->y_type != DTYPE_F32) ||
        (p->type == DTYPE_F32 && p->y_type != DTYPE_F32))
        return err_set(e, ERR_USAGE, "a linear layer of %s into %s, wanted BF16, F32 or F8_E4M3",
                       dtype_name(p->type), dtype_name(p->y_type));
    if ((p->type == DTYPE_F8_E4M3) != (p->scales != CUDA_NO_SCALES))
        return err_set(e, ERR_BUG, "a linear layer of %s %s scales", dtype_name(p->type),
                       p->scales ? "with" : "without");
    if (p->type == DTYPE_F8_E4M3 && (p->in % 16 || p->out % 16))
        return err_set(e, ERR_USAGE,
                       "fp8 products take features in multiples of 16, this layer is %d -> %d",
                       p->in, p->out);
    if (p->scales == CUDA_ROW_SCALES_AFTER && (p->add || p->batch > 1))
        return err_set(e, ERR_BUG, "scales behind a product that adds, or behind several");
    if (p->add && (p->act != ACT_NONE || p->batch > 1))
        return err_set(e, ERR_BUG, "a linear layer that adds has no activation and no batch");
    return 0;
}

static int set(struct cuda_matmul *m, cublasLtMatmulDescAttributes_t name, const void *value,
               size_t bytes, struct err *e)
{
    cublasStatus_t s = m->b->desc_set(m->desc, name, value, bytes);
    return s == CUBLAS_STATUS_SUCCESS ? 0 : failed(&m->p, "an attribute", s, e);
}
#define SET(name, value) set(m, CUBLASLT_MATMUL_DESC_##name, &(value), sizeof(value), e)

/* features x rows, as the library sees a matrix of ours */
static int layout(struct cuda_matmul *m, cublasLtMatrixLayout_t *l, enum dtype type, int features,
                  int rows, int64_t row, int64_t apart, struct err *e)
{
    int32_t batch = m->p.batch > 1 ? m->p.batch : 1;
    cublasStatus_t s = m->b->layout(l, data_type(type), (uint64_t)features, (uint64_t)rows, row);
    if (s == CUBLAS_STATUS_SUCCESS && batch > 1) {
        s = m->b->layout_set(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
        if (s == CUBLAS_STATUS_SUCCESS)
            s = m->b->layout_set(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &apart,
                                 sizeof apart);
    }
    return s == CUBLAS_STATUS_SUCCESS ? 0 : failed(&m->p, "a matrix", s, e);
}

static int describe(struct cuda_matmul *m, struct err *e)
{
    const struct cuda_product *p = &m->p;
    cublasComputeType_t compute =
        p->type == DTYPE_F32 && p->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t t = CUBLAS_OP_T;
    bool gelu = p->act == ACT_GELU_TANH && !m->act_after, bias = p->bias && !m->scales_after;
    cublasLtEpilogue_t epilogue =
        bias   ? (gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS)
        : gelu ? CUBLASLT_EPILOGUE_GELU
               : CUBLASLT_EPILOGUE_DEFAULT;
    cublasStatus_t s = m->b->desc(&m->desc, compute, CUDA_R_32F);
    if (s != CUBLAS_STATUS_SUCCESS) return failed(p, "a product", s, e);
    if (SET(TRANSA, t) < 0 || SET(EPILOGUE, epilogue) < 0) return -1;
    if (bias) {
        int32_t type = (int32_t)data_type(p->y_type);
        if (SET(BIAS_DATA_TYPE, type) < 0) return -1;
        if (p->batch > 1 && SET(BIAS_BATCH_STRIDE, p->bias_batch) < 0) return -1;
    }
    if (p->scales != CUDA_NO_SCALES) {
        int8_t fast = p->fast;
        bool rows = p->scales == CUDA_ROW_SCALES && !m->scales_after;
        int32_t mode = rows ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                            : CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
        /* vectors of scales are not believed in without an address; each run sets its own */
        const void *some = m->scales_after ? NULL : (const void *)(uintptr_t)256; /* NULL: 1 */
        if (SET(FAST_ACCUM, fast) < 0 || SET(A_SCALE_MODE, mode) < 0 ||
            SET(B_SCALE_MODE, mode) < 0 || SET(A_SCALE_POINTER, some) < 0 ||
            SET(B_SCALE_POINTER, some) < 0)
            return -1;
    }
    return 0;
}

/* The library's first choice for this shape: no race, so that the same shape has the same kernel in
 * every run. Partial sums are added in fp32, in a fixed order. */
static int choose(struct cuda_matmul *m, cublasStatus_t *s, struct err *e)
{
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t found;
    size_t room = CUDA_BLAS_ROOM;
    uint32_t aligned = 16, sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int n = 0;
    static const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    *s = m->b->wish(&wish);
    if (*s != CUBLAS_STATUS_SUCCESS) return failed(&m->p, "a preference", *s, e);
    *s = m->b->wish_set(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    if (*s == CUBLAS_STATUS_SUCCESS)
        *s = m->b->wish_set(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums);
    for (size_t i = 0; i < ARRAY_LEN(sides) && *s == CUBLAS_STATUS_SUCCESS; i++)
        *s = m->b->wish_set(wish, sides[i], &aligned, sizeof aligned);
    if (*s == CUBLAS_STATUS_SUCCESS)
        *s = m->b->heuristic(m->b->handle, m->desc, m->w, m->x, m->y, m->y, wish, 1, &found, &n);
    m->b->wish_drop(wish);
    if (*s != CUBLAS_STATUS_SUCCESS || n < 1) {
        if (*s == CUBLAS_STATUS_SUCCESS) *s = CUBLAS_STATUS_NOT_SUPPORTED;
        return failed(&m->p, "no kernel for this product", *s, e);
    }
    m->algo = found.algo;
    m->room = found.workspaceSize;
    return 0;
}

int cuda_matmul_open(struct cuda_matmul **out, struct cuda_blas *b, const struct cuda_product *p,
                     struct err *e)
{
    *out = NULL;
    if (product_check(p, e) < 0) return -1;
    struct cuda_matmul *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_RESOURCE, "no memory for a product (%zu bytes)", sizeof *m);
    m->b = b;
    m->p = *p;
    if (!m->p.x_row) m->p.x_row = p->in;
    if (!m->p.y_row) m->p.y_row = p->out;
    m->scales_after = p->scales == CUDA_ROW_SCALES_AFTER;
    m->act_after = m->scales_after || (p->act != ACT_NONE && p->act != ACT_GELU_TANH);
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    if (layout(m, &m->w, p->type, p->in, p->out, p->in, p->w_batch, e) < 0 ||
        layout(m, &m->x, p->type, p->in, p->rows, m->p.x_row, 0, e) < 0 ||
        layout(m, &m->y, p->y_type, p->out, p->rows, m->p.y_row, p->y_batch, e) < 0 ||
        describe(m, e) < 0)
        goto fail;
    int rc = choose(m, &s, e);
    bool none = s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE;
    if (rc < 0 && none && p->scales == CUDA_ROW_SCALES && !p->add && p->batch <= 1) {
        m->scales_after = m->act_after = true; /* vectors of scales are Hopper's */
        b->desc_drop(m->desc);
        m->desc = NULL;
        if (describe(m, e) < 0) goto fail;
        rc = choose(m, &s, e);
    }
    if (rc < 0) {
        if (s != CUBLAS_STATUS_NOT_SUPPORTED || p->act == ACT_NONE || m->act_after) goto fail;
        m->act_after = true;
        b->desc_drop(m->desc);
        m->desc = NULL;
        if (describe(m, e) < 0 || choose(m, &s, e) < 0) goto fail;
    }
    if (m->act_after && !m->scales_after && (m->p.y_row != p->out || p->batch > 1)) {
        err_set(e, ERR_USAGE, "a linear layer with this activation writes rows without gaps");
        goto fail;
    }
    *out = m;
    return 0;
fail:
    cuda_matmul_close(m);
    return -1;
}

void cuda_matmul_close(struct cuda_matmul *m)
{
    if (!m) return;
    if (m->desc) m->b->desc_drop(m->desc);
    if (m->w) m->b->layout_drop(m->w);
    if (m->x) m->b->layout_drop(m->x);
    if (m->y) m->b->layout_drop(m->y);
    free(m);
}

int cuda_matmul_launches(const struct cuda_matmul *m)
{
    return m->act_after || m->scales_after ? 2 : 1;
}

int cuda_matmul_run(struct cuda_matmul *m, void *y, const void *x, const void *w, const void *bias,
                    const float *x_scale, const float *w_scale, void *room, void *stream,
                    struct err *e)
{
    const float one = 1, zero = 0;
    const struct cuda_product *p = &m->p;
    if (p->bias && !m->scales_after && SET(BIAS_POINTER, bias) < 0) return -1;
    if (p->scales != CUDA_NO_SCALES && !m->scales_after &&
        (SET(A_SCALE_POINTER, w_scale) < 0 || SET(B_SCALE_POINTER, x_scale) < 0))
        return -1;
    cublasStatus_t s =
        m->b->matmul(m->b->handle, m->desc, &one, w, m->w, x, m->x, p->add ? &one : &zero, y, m->y,
                     y, m->y, &m->algo, m->room ? room : NULL, m->room, stream);
    if (s != CUBLAS_STATUS_SUCCESS) return failed(p, "the run", s, e);
    if (m->scales_after)
        return cuda_scale_product(y, p->y_type, p->y_row, x_scale, w_scale, p->bias ? bias : NULL,
                                  p->rows, p->out, p->act, stream, e);
    if (!m->act_after) return 0;
    struct cuda_map act = {.x = y,
                           .y = y,
                           .from = p->y_type,
                           .to = p->y_type,
                           .n = (size_t)p->rows * (size_t)p->out,
                           .act = p->act,
                           .times = 1};
    return cuda_map(&act, stream, e);
}
