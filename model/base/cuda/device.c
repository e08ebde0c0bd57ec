/* An NVIDIA GPU as a device: one stream, memory of the runtime, steps as CUDA graphs.
 *
 * The runtime is linked in; it opens the driver by itself when it is first asked, so that the program
 * starts where there is none, and says why. Every call's answer is looked at. */
#include "model/base/device_table.h"

#include "model/base/cuda/launch.h"

#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>

#define ARCH_LEAST 80 /* bf16 products and asynchronous copies: what the kernels stand on */

struct gpu {
    int index;
    cudaStream_t stream, lane, sender; /* copies up beside the work; of a thread of its own */
    size_t before; /* bytes that were free before this process came; 0: not known */
    size_t context; /* what coming took */
};

static struct gpu *gpu_of(const struct device *d) { return d->own; }

/* No more memory is the call's own fault; everything else that the runtime says is the device's end. */
static int said(const struct device *d, cudaError_t code, const char *what, struct err *e)
{
    if (code == cudaSuccess) return 0;
    (void)cudaGetLastError(); /* else the next launch would be blamed */
    if (code == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total = 0;
        if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) (void)cudaGetLastError();
        return err_set(
            e, ERR_RESOURCE,
            "%s: no memory (%s); %.0f of %.0f MiB are free, others may use the card; try "
            "a smaller size or --device cpu",
            d->name, what, (double)free_bytes / 1048576, (double)total / 1048576);
    }
    return err_set(e, ERR_DEVICE,
                   "%s: %s: %s (%s); what was computed is lost; try again, or "
                   "--device cpu",
                   d->name, what, cudaGetErrorString(code), cudaGetErrorName(code));
}

static int here(const struct device *d, struct err *e)
{
    return said(d, cudaSetDevice(gpu_of(d)->index), "the card cannot be used", e);
}

static int take(struct device *d, void **at, size_t bytes, struct err *e)
{
    if (here(d, e) < 0) return -1;
    char what[48];
    snprintf(what, sizeof what, "%.1f MiB are wanted", (double)bytes / 1048576);
    return said(d, cudaMalloc(at, bytes), what, e);
}

/* Closing: what fails here was said before, or concerns nobody any more. */
static void release(struct device *d, void *at)
{
    if (cudaSetDevice(gpu_of(d)->index) != cudaSuccess || cudaFree(at) != cudaSuccess)
        (void)cudaGetLastError();
}

static int take_pinned(struct device *d, void **at, size_t bytes, struct err *e)
{
    if (here(d, e) < 0) return -1;
    cudaError_t code = cudaMallocHost(at, bytes);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return err_set(e, ERR_RESOURCE, "%s: no pinned memory of the host for %.1f MiB", d->name,
                       (double)bytes / 1048576);
    }
    return said(d, code, "pinned memory", e);
}

static void release_pinned(struct device *d, void *at)
{
    if (cudaSetDevice(gpu_of(d)->index) != cudaSuccess || cudaFreeHost(at) != cudaSuccess)
        (void)cudaGetLastError();
}

static int copy(struct device *d, void *to, const void *from, size_t bytes, enum device_way way,
                struct err *e)
{
    static const enum cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyHostToDevice,
                                                cudaMemcpyDeviceToHost, cudaMemcpyDeviceToHost,
                                                cudaMemcpyDeviceToDevice};
    cudaStream_t stream = gpu_of(d)->stream;
    if (here(d, e) < 0) return -1;
    /* of pageable memory the runtime returns when it has taken a copy, which is what up promises */
    if (said(d, cudaMemcpyAsync(to, from, bytes, kinds[way], stream), "copying", e) < 0) return -1;
    return way == DEVICE_DOWN ? said(d, cudaStreamSynchronize(stream), "copying", e) : 0;
}

static int zero(struct device *d, void *at, size_t bytes, struct err *e)
{
    if (here(d, e) < 0) return -1;
    return said(d, cudaMemsetAsync(at, 0, bytes, gpu_of(d)->stream), "zeroing", e);
}

static int wait(struct device *d, struct err *e)
{
    if (here(d, e) < 0) return -1;
    if (said(d, cudaStreamSynchronize(gpu_of(d)->lane), "copying", e) < 0) return -1;
    return said(d, cudaStreamSynchronize(gpu_of(d)->stream), "computing", e);
}

/* --- marks: events --- */

static cudaEvent_t event_of(struct device_mark *m) { return (cudaEvent_t)(void *)m; }

static int mark_open(struct device *d, struct device_mark **m, struct err *e)
{
    cudaEvent_t event;
    if (here(d, e) < 0) return -1;
    if (said(d, cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "a mark", e) < 0)
        return -1;
    *m = (struct device_mark *)(void *)event;
    return 0;
}

static int mark_set(struct device *d, struct device_mark *m, struct err *e)
{
    return said(d, cudaEventRecord(event_of(m), gpu_of(d)->stream), "a mark", e);
}

static int mark_wait(struct device *d, struct device_mark *m, struct err *e)
{
    return said(d, cudaEventSynchronize(event_of(m)), "computing", e);
}

static void mark_close(struct device *d, struct device_mark *m)
{
    (void)d;
    if (cudaEventDestroy(event_of(m)) != cudaSuccess) (void)cudaGetLastError();
}

/* --- copies beside the work: a stream that waits for events of the other, and it for its. While the
 * work is captured, waiting for an event of it brings this stream into the same graph. --- */

static int pass(struct device *d, struct device_mark *m, struct err *e)
{
    if (here(d, e) < 0) return -1;
    return said(d, cudaEventRecord(event_of(m), gpu_of(d)->stream), "a mark", e);
}

static int fetch(struct device *d, void *to, const void *from, size_t bytes,
                 struct device_mark *after, struct device_mark *done, struct err *e)
{
    cudaStream_t lane = gpu_of(d)->lane;
    if (here(d, e) < 0) return -1;
    if (said(d, cudaStreamWaitEvent(lane, event_of(after), 0), "a mark", e) < 0) return -1;
    if (said(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, lane), "copying", e) < 0)
        return -1;
    return said(d, cudaEventRecord(event_of(done), lane), "a mark", e);
}

static int join(struct device *d, struct device_mark *done, struct err *e)
{
    if (here(d, e) < 0) return -1;
    return said(d, cudaStreamWaitEvent(gpu_of(d)->stream, event_of(done), 0), "a mark", e);
}

static int give(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    cudaStream_t sender = gpu_of(d)->sender;
    if (here(d, e) < 0) return -1;
    return said(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, sender), "copying", e);
}

static int sent(struct device *d, struct err *e)
{
    if (here(d, e) < 0) return -1;
    return said(d, cudaStreamSynchronize(gpu_of(d)->sender), "copying", e);
}

/* --- recorded steps: graphs --- */

static int record(struct device *d, struct err *e)
{
    if (here(d, e) < 0) return -1;
    return said(d, cudaStreamBeginCapture(gpu_of(d)->stream, cudaStreamCaptureModeThreadLocal),
                "recording a step", e);
}

static int recorded(struct device *d, void **steps, struct err *e)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (said(d, cudaStreamEndCapture(gpu_of(d)->stream, &graph), "recording a step", e) < 0)
        return -1;
    int rc = said(d, cudaGraphInstantiate(&exec, graph, 0), "making a graph of a step", e);
    if (rc == 0) rc = said(d, cudaGraphUpload(exec, gpu_of(d)->stream), "a graph", e);
    if (graph && cudaGraphDestroy(graph) != cudaSuccess) (void)cudaGetLastError();
    if (rc < 0 && exec && cudaGraphExecDestroy(exec) != cudaSuccess) (void)cudaGetLastError();
    if (rc == 0) *steps = exec;
    return rc;
}

static int replay(struct device *d, void *steps, struct err *e)
{
    if (here(d, e) < 0) return -1;
    return said(d, cudaGraphLaunch(steps, gpu_of(d)->stream), "a recorded step", e);
}

static void steps_close(struct device *d, void *steps)
{
    (void)d;
    if (cudaGraphExecDestroy(steps) != cudaSuccess) (void)cudaGetLastError();
}

/* --- what there is --- */

static void describe(struct device_info *info, int index)
{
    struct cudaDeviceProp p;
    *info = (struct device_info){.kind = DEVICE_CUDA};
    snprintf(info->name, sizeof info->name, "cuda:%d", index);
    cudaError_t code = cudaGetDeviceProperties(&p, index);
    if (code != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(info->why_not, sizeof info->why_not, "%s", cudaGetErrorString(code));
        return;
    }
    snprintf(info->what, sizeof info->what, "%.95s", p.name);
    info->arch = p.major * 10 + p.minor;
    info->memory = p.totalGlobalMem;
    if (info->arch < ARCH_LEAST)
        snprintf(info->why_not, sizeof info->why_not,
                 "%.60s is too old: compute capability %d.%d, wanted 8.0 or newer", p.name, p.major,
                 p.minor);
}

static cudaError_t count(int *n)
{
    *n = 0;
    cudaError_t code = cudaGetDeviceCount(n);
    if (code != cudaSuccess) {
        *n = 0;
        (void)cudaGetLastError();
    }
    return code;
}

bool device_cuda_at(int i, struct device_info *info)
{
    int n;
    if (count(&n) != cudaSuccess || i < 0 || i >= n) return false;
    describe(info, i);
    return true;
}

void device_cuda_no_gpu(char *why, size_t size)
{
    int n;
    cudaError_t code = count(&n);
    if (code == cudaErrorInsufficientDriver)
        snprintf(why, size, "there is no NVIDIA driver, or it is older than CUDA %d.%d wants",
                 CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    else if (code == cudaErrorNoDevice || code == cudaSuccess)
        snprintf(why, size, "there is no NVIDIA GPU here that may be used");
    else
        snprintf(why, size, "%s", cudaGetErrorString(code));
}

static void about(const struct device *d, struct device_info *info)
{
    size_t total = 0;
    describe(info, gpu_of(d)->index);
    if (cudaSetDevice(gpu_of(d)->index) != cudaSuccess ||
        cudaMemGetInfo(&info->free, &total) != cudaSuccess)
        (void)cudaGetLastError();
}

/* --- memory beside device_alloc() --- */

/* Code of the kernels of a clip, which loads when it first runs, and the graphs of its steps: on an H200 the log's
 * "beside" was 530.4 to 537.5 MiB in every phase of the embedded model and of 1.3B, streamed or not, 526 of them the
 * context. */
#define CODE_LATER ((size_t)12 << 20)
/* A context of CUDA 13 where nobody can tell. What that run had is 526 MiB. */
#define CONTEXT ((size_t)544 << 20)
#define CONTEXT_MOST ((size_t)2 << 30) /* more is somebody else, who came at the same time */

static size_t free_now(const struct device *d)
{
    size_t bytes = 0, total = 0;
    if (cudaSetDevice(gpu_of(d)->index) == cudaSuccess &&
        cudaMemGetInfo(&bytes, &total) == cudaSuccess)
        return bytes;
    (void)cudaGetLastError();
    return 0;
}

/* What coming took, if that can be told; then all that goes later is counted from before it. */
static void measure_context(struct device *d, size_t before)
{
    struct gpu *g = gpu_of(d);
    size_t now = free_now(d);
    bool told = now && before > now && before - now <= CONTEXT_MOST;
    g->context = told ? before - now : CONTEXT;
    g->before = now ? now + g->context : 0;
}

static size_t beside(const struct device *d) { return gpu_of(d)->context + CODE_LATER; }

static size_t taken(const struct device *d)
{
    size_t before = gpu_of(d)->before, now = before ? free_now(d) : 0;
    return now && now < before ? before - now : 0;
}

/* --- opening --- */

static void drop_stream(const struct gpu *g, cudaStream_t stream)
{
    if (stream &&
        (cudaSetDevice(g->index) != cudaSuccess || cudaStreamDestroy(stream) != cudaSuccess))
        (void)cudaGetLastError();
}

static void close_gpu(struct device *d)
{
    struct gpu *g = gpu_of(d);
    drop_stream(g, g->sender);
    drop_stream(g, g->lane);
    drop_stream(g, g->stream);
    free(g);
}

void *device_stream(const struct device *d)
{
    return device_kind(d) == DEVICE_CUDA ? gpu_of(d)->stream : NULL;
}

static const struct device_table table = {
    .kind = DEVICE_CUDA,
    .place = PLACE_DEVICE,
    .alloc = take,
    .release = release,
    .alloc_pinned = take_pinned,
    .release_pinned = release_pinned,
    .copy = copy,
    .zero = zero,
    .wait = wait,
    .mark_open = mark_open,
    .mark_set = mark_set,
    .mark_wait = mark_wait,
    .mark_close = mark_close,
    .pass = pass,
    .fetch = fetch,
    .join = join,
    .send = give,
    .sent = sent,
    .record = record,
    .recorded = recorded,
    .replay = replay,
    .steps_close = steps_close,
    .about = about,
    .beside = beside,
    .taken = taken,
    .close = close_gpu,
};

int device_open_cuda(struct device **out, int index, struct err *e)
{
    struct device_info info = {0};
    char why[160];
    *out = NULL;
    if (!device_cuda_at(0, &info)) {
        device_cuda_no_gpu(why, sizeof why);
        return err_set(e, ERR_DEVICE, "%s; use --device cpu", why);
    }
    if (!device_cuda_at(index, &info))
        return err_set(e, ERR_DEVICE,
                       "there is no cuda:%d; see ditgen list devices, or use "
                       "--device cpu",
                       index);
    if (info.why_not[0])
        return err_set(e, ERR_DEVICE, "%s: %s; use --device cpu", info.name, info.why_not);
    struct gpu *g = calloc(1, sizeof *g);
    struct device *d = NULL;
    if (!g) return err_set(e, ERR_RESOURCE, "no memory for device cuda:%d", index);
    g->index = index;
    if (device_make(&d, &table, g, info.name, e) < 0) {
        free(g);
        return -1;
    }
    size_t before = cuda_free_before(index);
    if (here(d, e) < 0 ||
        said(d, cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking), "a stream", e) < 0 ||
        said(d, cudaStreamCreateWithFlags(&g->lane, cudaStreamNonBlocking), "a stream", e) < 0 ||
        said(d, cudaStreamCreateWithFlags(&g->sender, cudaStreamNonBlocking), "a stream", e) < 0) {
        device_close(d);
        return -1;
    }
    measure_context(d, before);
    *out = d;
    return 0;
}
