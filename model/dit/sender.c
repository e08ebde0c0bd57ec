/* Weights that go up by a thread of their own, as the file has them, while somebody else uses the device:
 * opening finds them there. */
#include "model/dit/dit_internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct dit_sender {
    struct device *device;
    struct weights *file;
    struct dit_sent *items; /* heap, in the order in which opening asks */
    int n, next;
    pthread_t thread;
    bool runs;
    atomic_bool stop;
    struct err failed; /* the thread's until it was joined */
};

static void *work(void *arg)
{
    struct dit_sender *s = arg;
    int rc = 0;
    for (int i = 0; i < s->n && rc == 0 && !atomic_load(&s->stop); i++) {
        const struct tensor *t = &s->items[i].from;
        rc = device_send(s->device, s->items[i].to, t->data, tensor_len(t) * dtype_size(t->dtype),
                         &s->failed);
        weights_drop(s->file, t);
    }
    if (rc == 0) device_sent(s->device, &s->failed);
    return NULL;
}

int dit_sender_start(struct dit_sender **out, struct device *d, struct weights *file,
                     struct dit_sent *items, int n, struct err *e)
{
    struct dit_sender *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) {
        free(items);
        return err_set(e, ERR_RESOURCE, "no memory to send weights");
    }
    *s = (struct dit_sender){.device = d, .file = file, .items = items, .n = n};
    s->runs = pthread_create(&s->thread, NULL, work, s) == 0;
    if (!s->runs) s->n = 0; /* opening does it all */
    *out = s;
    return 0;
}

static void join(struct dit_sender *s)
{
    if (s->runs) pthread_join(s->thread, NULL);
    s->runs = false;
}

int dit_sender_join(struct dit_sender *s, struct err *e)
{
    if (!s) return 0;
    join(s);
    if (!s->failed.code) return 0;
    *e = s->failed;
    return -1;
}

bool dit_sender_has(struct dit_sender *s, const void *at)
{
    if (!s || s->next >= s->n || s->items[s->next].to != at) return false;
    s->next++;
    return true;
}

int dit_sender_count(const struct dit_sender *s) { return s ? s->next : 0; }

void dit_sender_close(struct dit_sender *s)
{
    if (!s) return;
    atomic_store(&s->stop, true);
    join(s);
    free(s->items);
    free(s);
}
