/* Opening a device's frame operations, and taking frames from arenas; see frames.h. */
#include "model/ops/frames.h"

#include "model/ops/ops.h"

int frames_open(struct frames_on *on, struct device *device, enum precision precision,
                struct err *e)
{
    const struct ops *ops = ops_of(device);
    on->device = device;
    on->away = device_place(device) != PLACE_HOST;
    on->ops = ops ? ops->frames : NULL;
    if (!on->ops)
        return err_set(e, ERR_DEVICE, "%s: this build has no VAE for it; try --device cpu",
                       device_name(device));
    return on->ops->open(on, precision, e);
}

void frames_close(struct frames_on *on)
{
    if (on->ops) on->ops->close(on);
    on->ops = NULL;
}

bool frames_read(struct frames_on *on, float *to, const struct tensor *t, size_t first, size_t n)
{
    if (dtype_to_f32(to, (const char *)t->data + first * dtype_size(t->dtype), t->dtype, n)) {
        err_set(&on->failed, ERR_INPUT, "weights of type %s; F32, BF16, F16 or F64 wanted",
                dtype_name(t->dtype));
        return false;
    }
    for (size_t i = 0; on->round && i < n; i++)
        to[i] = bf16_round(to[i]);
    return true;
}

static void take(struct frames_on *on, void **list, int n, const struct frame_size *s, bool whole,
                 struct arena *a)
{
    for (int i = 0; i < n; i++) {
        list[i] = arena_take(a, on->ops->bytes(on, s));
        if (list[i]) on->ops->clear(on, list[i], s, whole);
    }
}

void frames_take(struct frames_on *on, void **list, int n, const struct frame_size *s,
                 struct arena *a)
{
    take(on, list, n, s, false, a);
}

void frames_take_zero(struct frames_on *on, void **list, int n, const struct frame_size *s,
                      struct arena *a)
{
    take(on, list, n, s, true, a);
}
