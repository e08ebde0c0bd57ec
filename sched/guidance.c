/* Classifier-free guidance, arXiv 2207.12598: two velocities, one answer. wan.md 3.10. */
#include "model/base/dtype.h"
#include "sched/sched.h"

void guidance_apply(float *velocity, const float *negative, float scale, size_t n, bool round)
{
    if (!round) {
        for (size_t i = 0; i < n; i++)
            velocity[i] = negative[i] + scale * (velocity[i] - negative[i]);
        return;
    }
    for (size_t i = 0; i < n; i++) { /* -, * and + are three kernels there, each stores bf16 */
        float away = bf16_round(velocity[i] - negative[i]);
        velocity[i] = bf16_round(negative[i] + bf16_round(scale * away));
    }
}
