/* cuDNN's unified attention node (9.13.1 and later), built descriptor by descriptor. */
#include "attention/kernels/cuda/cudnn.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_VERSION 91301 /* of the unified node */

enum { Q, K, V, O, STATS, SCALE, TENSORS };

struct library { /* what is used of it; pointers from dlsym */
    void *handle;
    __typeof__(&cudnnCreate) create;
    __typeof__(&cudnnDestroy) destroy;
    __typeof__(&cudnnSetStream) set_stream;
    __typeof__(&cudnnGetVersion) version;
    __typeof__(&cudnnGetLastErrorString) last_error;
    __typeof__(&cudnnBackendCreateDescriptor) make;
    __typeof__(&cudnnBackendDestroyDescriptor) drop;
    __typeof__(&cudnnBackendSetAttribute) set;
    __typeof__(&cudnnBackendGetAttribute) get;
    __typeof__(&cudnnBackendFinalize) finalize;
    __typeof__(&cudnnBackendExecute) execute;
};

struct attn_cudnn {
    struct library lib;
    cudnnHandle_t handle; /* NULL when built for a described device */
    cudnnBackendDescriptor_t device, tensors[TENSORS], node, graph, heuristic, config, plan, pack;
    size_t workspace;
    bool lse;
    float scale;
};

static int load(struct library *l, struct err *e)
{
    static const char *const names[] = {"cudnnCreate",
                                        "cudnnDestroy",
                                        "cudnnSetStream",
                                        "cudnnGetVersion",
                                        "cudnnGetLastErrorString",
                                        "cudnnBackendCreateDescriptor",
                                        "cudnnBackendDestroyDescriptor",
                                        "cudnnBackendSetAttribute",
                                        "cudnnBackendGetAttribute",
                                        "cudnnBackendFinalize",
                                        "cudnnBackendExecute"};
    void *slots[] = {&l->create,     &l->destroy,  &l->set_stream, &l->version,
                     &l->last_error, &l->make,     &l->drop,       &l->set,
                     &l->get,        &l->finalize, &l->execute};
    /* stays once loaded: it holds threads and device state of its own */
    l->handle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!l->handle)
        return err_set(e, ERR_DEVICE,
                       "cuDNN is not here (%s); install cuDNN 9 or choose another --kernel",
                       dlerror());
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        void *at = dlsym(l->handle, names[i]);
        if (!at)
            return err_set(e, ERR_DEVICE, "libcudnn.so.9 has no %s; wanted version 9.13.1 or newer",
                           names[i]);
        memcpy(slots[i], &at, sizeof at);
    }
    if (l->version() < FIRST_VERSION)
        return err_set(e, ERR_DEVICE, "cuDNN %zu is too old, wanted 9.13.1 (%d) or newer",
                       l->version(), FIRST_VERSION);
    return 0;
}

static int failed(struct attn_cudnn *c, const char *what, cudnnStatus_t s, struct err *e)
{
    char why[256] = "";
    c->lib.last_error(why, sizeof why);
    return err_set(e, ERR_DEVICE, "cuDNN attention, %s: status %d, %s", what, (int)s, why);
}

static int make(struct attn_cudnn *c, cudnnBackendDescriptor_t *d,
                cudnnBackendDescriptorType_t type, struct err *e)
{
    cudnnStatus_t s = c->lib.make(type, d);
    return s == CUDNN_STATUS_SUCCESS ? 0 : failed(c, "a descriptor", s, e);
}

static int set(struct attn_cudnn *c, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
               cudnnBackendAttributeType_t type, int64_t count, const void *value, struct err *e)
{
    char what[64];
    cudnnStatus_t s = c->lib.set(d, name, type, count, value);
    if (s == CUDNN_STATUS_SUCCESS) return 0;
    snprintf(what, sizeof what, "attribute %d", (int)name);
    return failed(c, what, s, e);
}

static int finish(struct attn_cudnn *c, cudnnBackendDescriptor_t d, const char *what, struct err *e)
{
    cudnnStatus_t s = c->lib.finalize(d);
    return s == CUDNN_STATUS_SUCCESS ? 0 : failed(c, what, s, e);
}

/* dims [1, heads, tokens, channels] */
static int tensor(struct attn_cudnn *c, int which, cudnnDataType_t type, const int64_t dims[4],
                  const int64_t strides[4], bool by_value, struct err *e)
{
    cudnnBackendDescriptor_t *d = &c->tensors[which];
    int64_t id = which + 1, alignment = type == CUDNN_DATA_BFLOAT16 ? 16 : 4;
    if (make(c, d, CUDNN_BACKEND_TENSOR_DESCRIPTOR, e) < 0 ||
        set(c, *d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id, e) < 0 ||
        set(c, *d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, e) < 0 ||
        set(c, *d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims, e) < 0 ||
        set(c, *d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides, e) < 0 ||
        set(c, *d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment, e) < 0 ||
        (by_value &&
         set(c, *d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value, e) < 0))
        return -1;
    return finish(c, *d, "a tensor", e);
}

static int matrix(struct attn_cudnn *c, int which, const struct attn_tensor *t, int len,
                  const struct attn_cuda *w, struct err *e)
{
    const int64_t dims[4] = {1, w->n_heads, len, w->head_dim};
    const int64_t strides[4] = {t->token * len > t->head * w->n_heads ? t->token * len
                                                                      : t->head * w->n_heads,
                                t->head, t->token, 1};
    return tensor(c, which, CUDNN_DATA_BFLOAT16, dims, strides, false, e);
}

static int graph(struct attn_cudnn *c, const struct attn_cuda *w, struct err *e)
{
    static const cudnnBackendAttributeName_t names[TENSORS] = {
        CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC,     CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC,
        CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC,     CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC,
        CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC};
    const int64_t one[4] = {1, 1, 1, 1}, stats[4] = {1, w->n_heads, w->len_q, 1},
                  stats_strides[4] = {(int64_t)w->n_heads * w->len_q, w->len_q, 1, 1};
    if (matrix(c, Q, &w->q, w->len_q, w, e) < 0 || matrix(c, K, &w->k, w->len_k, w, e) < 0 ||
        matrix(c, V, &w->v, w->len_k, w, e) < 0 || matrix(c, O, &w->o, w->len_q, w, e) < 0 ||
        tensor(c, SCALE, CUDNN_DATA_FLOAT, one, one, true, e) < 0 ||
        (c->lse && tensor(c, STATS, CUDNN_DATA_FLOAT, stats, stats_strides, false, e) < 0) ||
        make(c, &c->node, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, e) < 0)
        return -1;
    for (int i = 0; i < TENSORS; i++)
        if (c->tensors[i] &&
            set(c, c->node, names[i], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->tensors[i], e) < 0)
            return -1;
    if (finish(c, c->node, "the attention node", e) < 0 ||
        make(c, &c->graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, e) < 0 ||
        set(c, c->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->node,
            e) < 0 ||
        (c->handle && set(c, c->graph, (cudnnBackendAttributeName_t)800 /* handle: deprecated in 9,
                                                                          wanted by 9.13 */
                          ,
                          CUDNN_TYPE_HANDLE, 1, &c->handle, e) < 0))
        return -1;
    return finish(c, c->graph, "the graph", e);
}

/* The first configuration of the heuristic that makes a plan. */
static int plan(struct attn_cudnn *c, struct err *e)
{
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    enum { MOST = 8 };
    cudnnBackendDescriptor_t configs[MOST] = {0};
    int64_t n = 0, bytes = 0;
    int result = -1;
    if (make(c, &c->heuristic, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, e) < 0 ||
        set(c, c->heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR,
            1, &c->graph, e) < 0 ||
        set(c, c->heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, e) < 0 ||
        (c->device && set(c, c->heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                          CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->device, e) < 0) ||
        finish(c, c->heuristic, "the heuristic", e) < 0)
        return -1;
    for (int i = 0; i < MOST; i++)
        if (make(c, &configs[i], CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, e) < 0) goto done;
    cudnnStatus_t s = c->lib.get(c->heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST, &n, configs);
    if (s != CUDNN_STATUS_SUCCESS || n < 1) {
        failed(c, "no engine proposed", s, e);
        goto done;
    }
    for (int i = 0; i < n && i < MOST; i++) {
        if (make(c, &c->plan, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, e) < 0) goto done;
        if (set(c, c->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                1, &configs[i], e) == 0 &&
            (!c->handle || set(c, c->plan, (cudnnBackendAttributeName_t)400 /* handle */,
                               CUDNN_TYPE_HANDLE, 1, &c->handle, e) == 0) &&
            (!c->device || set(c, c->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->device, e) == 0) &&
            finish(c, c->plan, "no engine took the plan", e) == 0) {
            result = 0;
            break;
        }
        c->lib.drop(c->plan);
        c->plan = NULL;
    }
    if (result == 0 && c->lib.get(c->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                  CUDNN_TYPE_INT64, 1, &n, &bytes) == CUDNN_STATUS_SUCCESS)
        c->workspace = (size_t)bytes;
done:
    for (int i = 0; i < MOST; i++)
        if (configs[i]) c->lib.drop(configs[i]);
    return result;
}

static int describe(struct attn_cudnn *c, const char *json, struct err *e)
{
    if (make(c, &c->device, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, e) < 0 ||
        set(c, c->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
            (int64_t)strlen(json) + 1, json, e) < 0)
        return -1;
    return finish(c, c->device, "the description of a device", e);
}

int attn_cudnn_open(struct attn_cudnn **out, const struct attn_cuda *w, const char *device,
                    struct err *e)
{
    struct attn_tile t;
    *out = NULL;
    if (attn_tile_pick(&t, ATTN_CUDNN, w, e) < 0) return -1;
    struct attn_cudnn *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_RESOURCE, "no memory for cuDNN attention (%zu bytes)", sizeof *c);
    c->lse = w->lse != NULL;
    c->scale = (float)(1 / sqrt((double)w->head_dim));
    if (load(&c->lib, e) < 0) goto fail;
    if (device) {
        if (describe(c, device, e) < 0) goto fail;
    } else {
        cudnnStatus_t s = c->lib.create(&c->handle);
        if (s != CUDNN_STATUS_SUCCESS) {
            failed(c, "no handle", s, e);
            goto fail;
        }
    }
    if (graph(c, w, e) < 0 || plan(c, e) < 0) goto fail;
    if (make(c, &c->pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, e) < 0) goto fail;
    *out = c;
    return 0;
fail:
    attn_cudnn_close(c);
    return -1;
}

void attn_cudnn_close(struct attn_cudnn *c)
{
    if (!c) return;
    cudnnBackendDescriptor_t all[] = {c->pack,  c->plan, c->config, c->heuristic,
                                      c->graph, c->node, c->device};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i]) c->lib.drop(all[i]);
    for (int i = 0; i < TENSORS; i++)
        if (c->tensors[i]) c->lib.drop(c->tensors[i]);
    if (c->handle) c->lib.destroy(c->handle);
    if (c->lib.handle) dlclose(c->lib.handle);
    free(c);
}

size_t attn_cudnn_workspace(const struct attn_cudnn *c) { return c->workspace; }
int attn_cudnn_version(const struct attn_cudnn *c) { return (int)c->lib.version(); }

int attn_cudnn_run(struct attn_cudnn *c, const struct attn_cuda *w, void *workspace, struct err *e)
{
    int64_t ids[TENSORS];
    void *at[TENSORS], *all[TENSORS] = {w->q.at, w->k.at, w->v.at, w->o.at, w->lse, &c->scale};
    int n = 0;
    if (!c->handle) return err_set(e, ERR_BUG, "a cuDNN plan for a described device cannot run");
    if (c->lse != (w->lse != NULL))
        return err_set(e, ERR_BUG, "this cuDNN plan was opened %s lse",
                       c->lse ? "with" : "without");
    for (int i = 0; i < TENSORS; i++) {
        if (!c->tensors[i]) continue;
        ids[n] = i + 1;
        at[n++] = all[i];
    }
    /* a pack cannot be filled twice */
    c->lib.drop(c->pack);
    c->pack = NULL;
    if (make(c, &c->pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, e) < 0 ||
        set(c, c->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids, e) < 0 ||
        set(c, c->pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, at, e) < 0 ||
        set(c, c->pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace, e) <
            0 ||
        finish(c, c->pack, "the pointers", e) < 0)
        return -1;
    cudnnStatus_t s = c->lib.set_stream(c->handle, w->stream);
    if (s == CUDNN_STATUS_SUCCESS) s = c->lib.execute(c->handle, c->plan, c->pack);
    return s == CUDNN_STATUS_SUCCESS ? 0 : failed(c, "the run", s, e);
}
